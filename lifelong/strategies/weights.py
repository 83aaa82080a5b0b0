"""The trained weights of a learner by name: to remember them, and to answer with others for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from lifelong.errors import ConfigError, RunError

if TYPE_CHECKING:
    from lifelong.learner import Learner

Weights = dict[str, torch.Tensor]


def trained(learner: Learner) -> dict[str, nn.Parameter]:
    """The parameters that are trained, a classifier's head among them, by their names in the learner.

    Raises:
        ConfigError: there is none.
    """
    found = {name: parameter for name, parameter in learner.named_parameters() if parameter.requires_grad}
    if not found:
        raise ConfigError("nothing to train: every parameter of the model is frozen")
    return found


def snapshot(learner: Learner) -> Weights:
    """Copies of the trained weights, where they are."""
    return {name: parameter.detach().clone() for name, parameter in trained(learner).items()}


@contextmanager
def swapped(learner: Learner, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The parameters that are named hold other values inside; nothing is copied but what is of another type.

    Args:
        learner: whose parameters.
        weights: by names as ``trained`` gives them, of the parameters' shapes, on their devices; of any type, while the
            parameters keep theirs.

    Raises:
        RunError: a name or a shape is none of the learner's.
    """
    parameters = dict(learner.named_parameters())
    for name, value in weights.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise RunError(f"weights of another model: there is no {name} of shape {tuple(value.shape)}")
    own = {name: parameters[name].data for name in weights}
    try:
        for name, value in weights.items():
            parameters[name].data = value.to(parameters[name].dtype)
        yield
    finally:
        for name, value in own.items():
            parameters[name].data = value


@contextmanager
def teacher(learner: Learner, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The learner as a teacher: with other weights, in evaluation mode, and without gradients."""
    modes = {module: module.training for module in learner.modules()}
    with swapped(learner, weights), torch.no_grad():
        learner.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode

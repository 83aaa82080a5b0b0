"""What an experiment is made of: a learner over its model, and a Trainer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from transformers import PreTrainedTokenizerBase

from lifelong import models
from lifelong.classification import labels_of
from lifelong.errors import ConfigError
from lifelong.learner import Learner
from lifelong.model_config import family_of_model
from lifelong.strategies.base import Strategy

if TYPE_CHECKING:
    from lifelong.experiment import Experiment


def load_learner(experiment: Experiment, strategies: Sequence[Strategy]) -> Learner:
    """A learner over the model that an experiment names, with the weights that a run begins with.

    Args:
        experiment: what is to be learned, and how.
        strategies: the run's own copies.
    """
    device_map = experiment.device_map
    if experiment.quantization is not None and device_map is None:
        # packed weights are made where they stay
        device_map = {"": make_trainer(experiment).strategy.root_device}
    model, tokenizer = models.load_model(
        experiment.model,
        experiment.adapter,
        family=experiment.family,
        dtype=experiment.dtype,
        revision=experiment.revision,
        gradient_checkpointing=experiment.gradient_checkpointing,
        trust_remote_code=experiment.trust_remote_code,
        seed=experiment.seed,
        quantization=experiment.quantization,
        device_map=device_map,
    )
    return make_learner(experiment, model, tokenizer, strategies)


def make_learner(
    experiment: Experiment,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    strategies: Sequence[Strategy],
) -> Learner:
    """A learner as an experiment wants it, of a model that has been made and strategies of its own."""
    return Learner(
        model,
        tokenizer,
        experiment.training,
        strategies,
        experiment.template,
        experiment.max_length,
        experiment.train_book,
        experiment.seed,
        # a model that turns out to be a classifier's has one head over all labels of the stream
        labels_of(experiment.tasks) if family_of_model(model) == "classifier" else None,
        experiment.classification,
        experiment.library(),
    )


def make_trainer(experiment: Experiment, **settings: Any) -> Trainer:
    """A Trainer as an experiment wants it.

    Raises:
        ConfigError: it wants what Lightning does not know, or this machine has not.
    """
    defaults: dict[str, Any] = {
        "devices": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 10,
        "logger": False,
    }
    given = dict(experiment.trainer)
    if "strategy" in given:
        given["strategy"] = copy.deepcopy(given["strategy"])  # an object of Lightning's serves one Trainer
    try:
        return Trainer(use_distributed_sampler=False, **defaults | settings | given)
    except (TypeError, ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: {error}") from error

"""The diagonal of the Fisher information matrix, from the gradients of each sample by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from lifelong.encoding import IGNORED
from lifelong.losses import row_losses
from lifelong.mixtures import further_pass
from lifelong.strategies.gradients import Forward, Outputs, mean_over_samples
from lifelong.strategies.weights import Weights, teacher

if TYPE_CHECKING:
    from lifelong.learner import Learner
    from lifelong.strategies.base import Stage

Kind = Literal["empirical", "exact", "sampled"]
KINDS = ("empirical", "exact", "sampled")


def fisher_diagonal(
    module: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    rows: Sequence[Any],
    forward: Forward,
    kind: Kind = "empirical",
    generator: torch.Generator | None = None,
    batch_size: int = 16,
) -> Weights:
    """The mean over samples of squared gradients of log p(y | x), where p(y | x) = prod_k softmax(logits_k)[y_k].

    A sample's gradient is squared before the mean: the square of a batch's mean gradient is another quantity, which
    shrinks as the batch grows.

    Args:
        module, parameters, rows, forward, batch_size: as in ``gradients.mean_over_samples``.
        kind: y is the target (``"empirical"``); one draw from the model, given what stands before it in the target
            (``"sampled"``), whose expectation is the sum of the positions' own Fisher information; or each class in
            turn, weighted with its probability (``"exact"``), with one backward pass per class.
        generator: on the CPU; decides the draws of ``"sampled"``, whatever the batch size. On several devices each
            makes all of them, since they follow from each other; of the other kinds each takes some of the rows.

    Returns:
        By name, in float32, of the parameters' shapes.
    """
    terms = {"empirical": empirical, "exact": exact, "sampled": partial(sampled, generator=generator)}[kind]
    divided = kind != "sampled"
    return mean_over_samples(module, parameters, rows, forward, terms, torch.square, batch_size, divided)


def empirical(logits: torch.Tensor, targets: torch.Tensor) -> Iterator[Outputs]:
    """The loss of each row's target."""
    losses = row_losses(logits, targets)
    yield losses, torch.ones_like(losses)


def sampled(logits: torch.Tensor, targets: torch.Tensor, generator: torch.Generator | None) -> Iterator[Outputs]:
    """The loss of what the model draws in the target's place."""
    yield from empirical(logits, drawn(logits.detach(), targets, generator))


def exact(logits: torch.Tensor, targets: torch.Tensor) -> Iterator[Outputs]:
    """The loss of each class that has a probability, with these as weights; of one position, (B, 1, classes)."""
    log_chances = logits.squeeze(1).float().log_softmax(-1)
    chances = log_chances.detach().exp()
    for number in chances.any(0).nonzero().flatten().tolist():
        yield -log_chances[:, number], chances[:, number]


def drawn(logits: torch.Tensor, targets: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Targets (B, K) drawn from the softmax of logits (B, K, V), ``IGNORED`` where they are.

    Each position takes one uniform number of the generator's, row by row.
    """
    asked = targets != IGNORED
    summed = logits[asked].double().softmax(-1).cumsum(-1)
    uniform = torch.rand(len(summed), 1, generator=generator, dtype=torch.float64).to(summed.device)
    # the first class beyond the number, which is never one without a probability
    classes = torch.searchsorted(summed, uniform * summed[:, -1:], right=True).squeeze(1)
    return targets.masked_scatter(asked, classes)


def rows_of(stage: Stage, samples: int | None, name: str) -> list[Mapping[str, Any]]:
    """Rows that a stage trains on: all, or so many of them drawn without repetition for the component ``name``."""
    if samples is None or samples >= len(stage.train):
        return stage.train.to_list()
    order = torch.randperm(len(stage.train), generator=stage.generator(name))
    return stage.train.select(order[:samples].tolist()).to_list()


@contextmanager
def differentiated(learner: Learner) -> Iterator[None]:
    """Evaluation mode with gradients, which draws nothing from the global random state; the mode comes back."""
    with teacher(learner, {}), torch.enable_grad():
        yield


def answers(learner: Learner) -> Callable[[Sequence[Mapping[str, Any]]], Outputs]:
    """From rows of ``Stage.train`` to the logits and targets of their answers, in the mode that the learner is in."""

    def forward(rows: Sequence[Mapping[str, Any]]) -> Outputs:
        batch = learner.batch_of(rows)
        with further_pass(learner.model, batch):
            outputs, targets = learner.answer_logits(batch)
        return outputs.logits, targets

    return forward


def choices(learner: Learner) -> Callable[[Sequence[Mapping[str, Any]]], Outputs]:
    """From one row to the log-likelihoods (1, 1, choices) of its choices as answers, and the place of the right one.

    Their softmax is the model's distribution over the choices.
    """
    forward = answers(learner)

    def weigh(rows: Sequence[Mapping[str, Any]]) -> Outputs:
        (row,) = rows
        # the learner knows rows by their ids
        asked = [
            {**row, "answers": [choice], "id": f"{row['id']}/choice {number}"}
            for number, choice in enumerate(row["choices"])
        ]
        likelihoods = -row_losses(*forward(asked))
        right = torch.tensor([[row["choices"].index(row["answers"][0])]], device=likelihoods.device)
        return likelihoods.view(1, 1, -1), right

    return weigh

"""Elastic weight consolidation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lifelong.errors import ConfigError, suggestion
from lifelong.strategies.anchor import Anchored
from lifelong.strategies.base import Stage
from lifelong.strategies.checks import check_count, check_number
from lifelong.strategies.fisher import KINDS, Kind, answers, choices, differentiated, fisher_diagonal, rows_of
from lifelong.strategies.traits import Traits
from lifelong.strategies.weights import trained

if TYPE_CHECKING:
    from lifelong.learner import Learner


class EWC(Anchored):
    """Pull weights to where the stage before left them, the harder the more its answers depend on them.

    Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", 2017, https://arxiv.org/abs/1612.00796,
    in the online form of Schwarz et al., "Progress & Compress", 2018, https://arxiv.org/abs/1805.06370: after each
    stage ``F = decay * F + F_new`` and ``theta* = theta``, and from then on ``strength / 2 * sum F (theta - theta*)^2``
    joins the loss. F_new is the diagonal of the Fisher information, the mean over rows of squared gradients of each row
    by itself. A row's loss is the sum over its answer tokens; the model is in evaluation mode. One merged F means that
    a step costs the same at every stage.

    Args:
        strength: of the penalty; 0 changes nothing. F is a mean over rows, so it does not grow with a task's size.
        kind: what is differentiated. ``"empirical"``: the log-likelihood of the row's own answer. ``"sampled"``: that
            of one draw from the model; of an answer of several tokens each is drawn given the row's own tokens before
            it. ``"exact"``: that of every label of a classifier, or of every choice of a row with choices under the
            softmax of their log-likelihoods, weighted with its probability. The expectation over free answers would
            take a backward pass for each word of the vocabulary at each token, and is refused.
        decay: what is left of the earlier F at each merge, in [0, 1].
        samples: rows of the stage that F_new is computed on, drawn without repetition; ``None`` for all.
        name: see ``Strategy``.

    ``strength`` depends on model and learning rate and must be searched for; its default and that of ``decay``, which
    counts all stages alike, are ours. Answers that a model is sure of have a small Fisher, so strengths are large.

    Cost: 8 bytes per trained parameter, whatever the number of stages; some passes over the trained parameters per
    step; at the end of a stage about an epoch over ``samples`` rows, times the number of labels or choices if exact, in
    the batches of training and without gradient checkpointing.
    """

    traits = Traits(
        boundary=True,
        kept="8 * P",
        several_devices=True,
        step="a few passes over the trained parameters more",
        stage="about an epoch over the rows that the Fisher information is computed on",
    )

    def __init__(
        self,
        strength: float = 1000.0,
        kind: Kind = "empirical",
        decay: float = 1.0,
        samples: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(strength, name)
        if kind not in KINDS:
            raise ConfigError(
                f"EWC: kind must be one of {', '.join(KINDS)}, got {kind!r}{suggestion(str(kind), KINDS)}"
            )
        self.kind, self.decay, self.samples = kind, decay, samples
        check_number(self, "decay", "[0, 1]")
        check_count(self, "samples", optional=True)

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        super().check(learner, stages)
        if self.kind != "exact" or learner.family.name == "classifier":
            return
        for stage in stages:
            if not all(stage.train["choices"]):
                raise ConfigError(
                    f"EWC: kind='exact' needs a classifier or rows with choices, and task {stage.task.name!r} has rows "
                    "without: the expectation over free answers would take a backward pass for each word of the "
                    "vocabulary at each token. Take kind='sampled', which has the same expectation token by token, "
                    "or 'empirical'"
                )

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        rows = rows_of(stage, self.samples, f"{self.state_key}/rows")
        draw = stage.generator(f"{self.state_key}/labels")
        forward, size = answers(learner), learner.settings.batch_size
        if self.kind == "exact" and learner.family.name != "classifier":
            forward, size = choices(learner), 1  # the choices of one row are a batch
        with differentiated(learner):
            new = fisher_diagonal(learner, trained(learner), rows, forward, self.kind, draw, size)
        self.keep(learner, new, self.decay)

"""Memory aware synapses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from lifelong.encoding import IGNORED
from lifelong.strategies.anchor import Anchored
from lifelong.strategies.base import Stage
from lifelong.strategies.checks import check_count, check_number
from lifelong.strategies.fisher import answers, differentiated, rows_of
from lifelong.strategies.gradients import mean_over_samples
from lifelong.strategies.traits import Traits
from lifelong.strategies.weights import trained

if TYPE_CHECKING:
    from lifelong.learner import Learner


def sensitivity(logits: torch.Tensor, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each row's ``||logits||^2``, over its answer positions and the labels that compete; with weights of 1.

    Args:
        logits: (B, K, V); the least float where a label does not compete.
        targets: (B, K), ``IGNORED`` where nothing is asked for.
    """
    counts = (targets != IGNORED).unsqueeze(-1) & (logits > torch.finfo(logits.dtype).min)
    values = logits.float().masked_fill(~counts, 0).square().sum((1, 2))
    yield values, torch.ones_like(values)


class MAS(Anchored):
    """Pull weights to where the stage before left them, the harder the more the model's logits depend on them.

    Aljundi et al., "Memory Aware Synapses: Learning what (not) to forget", 2018, https://arxiv.org/abs/1711.09601:
    after each stage ``Omega = decay * Omega + mean over rows of |d ||logits||^2 / d theta|``, from each row's gradient
    by itself, and from then on ``strength * sum Omega (theta - theta*)^2`` joins the loss. Of a language model the
    logits are those at the answer's positions, given the row's own tokens before, and the squared norm is summed over
    them; of a classifier those of the labels that compete. No loss is differentiated, and the model is in evaluation
    mode.

    Args:
        strength: of the penalty; 0 changes nothing.
        decay: what is left of the earlier importance at each merge, in [0, 1].
        samples: rows of the stage that the importance is computed on, drawn without repetition; ``None`` for all.
        name: see ``Strategy``.

    The defaults are ours. Logits of a language model are many and large, so useful strengths are far smaller than a
    classifier's; search for them.

    Cost: 8 bytes per trained parameter, whatever the number of stages; some passes over the trained parameters per
    step; at the end of a stage about an epoch over ``samples`` rows, in the batches of training and without gradient
    checkpointing.
    """

    traits = Traits(
        boundary=True,
        kept="8 * P",
        several_devices=True,
        step="a few passes over the trained parameters more",
        stage="about an epoch over the rows that the importance is computed on",
    )
    factor = 1.0

    def __init__(
        self, strength: float = 0.01, decay: float = 1.0, samples: int | None = None, name: str | None = None
    ) -> None:
        super().__init__(strength, name)
        self.decay, self.samples = decay, samples
        check_number(self, "decay", "[0, 1]")
        check_count(self, "samples", optional=True)

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        rows = rows_of(stage, self.samples, f"{self.state_key}/rows")
        with differentiated(learner):
            new = mean_over_samples(
                learner, trained(learner), rows, answers(learner), sensitivity, torch.abs, learner.settings.batch_size
            )
        self.keep(learner, new, self.decay)

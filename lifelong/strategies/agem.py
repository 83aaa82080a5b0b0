"""Averaged gradient episodic memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lifelong.strategies.episodes import Gradients, Projection, summed
from lifelong.strategies.traits import Traits

if TYPE_CHECKING:
    from lifelong.learner import Learner


class AGEM(Projection):
    """Never step against the mean gradient of earlier tasks (Chaudhry et al., "Efficient lifelong learning with A-GEM",
    ICLR 2019, https://arxiv.org/abs/1812.00420).

    Each step draws rows of all earlier tasks together, computes the gradient g_ref of their loss, and replaces the
    step's own gradient g where g . g_ref < 0 by the nearest with which that loss does not rise (equation 11):

        g - (g . g_ref / g_ref . g_ref) g_ref

    What an optimiser with moments makes of that gradient may still point elsewhere, in the paper as here.

    Args:
        rows_per_task: rows kept of each task, a uniform sample.
        batch_size: rows drawn for the reference gradient.
        name: see ``Strategy``.

    The defaults are ours; the paper's depend on the benchmark.

    The reference gradient is taken without dropout and in full precision, and auxiliary losses of mixtures have no part
    in it. Cost: the kept rows; a step takes longer by a forward and backward pass on ``batch_size`` rows, whatever the
    number of tasks, and in it at most 3 P floats of memory for P trainable parameters.
    """

    traits = Traits(
        boundary=True,
        stores_data="a sample of the rows of each task",
        kept="24 * R + 6500 * S",
        grows=True,
        several_devices=True,
        step="a further forward and backward pass on batch_size rows",
    )
    conflicts = {
        "Joint": "a joint run has no earlier tasks to remember",
        "GEM": "both project the gradient, and the second undoes what the first has made sure of",
        "AGEM": "the second projection undoes what the first has made sure of",
    }

    def __init__(self, rows_per_task: int = 32, batch_size: int = 16, name: str | None = None) -> None:
        super().__init__(rows_per_task, batch_size, name)

    def references(self, learner: Learner) -> list[Gradients]:
        return [self.drawn_gradient(learner, self.episodes.rows)]

    def weights(self, gradient: Gradients, references: Sequence[Gradients]) -> list[float] | None:
        weight = agem_weight(gradient, *references)
        return None if weight is None else [weight]


def agem_weight(gradient: Gradients, reference: Gradients) -> float | None:
    """v, for which ``g + v g_ref`` is the vector nearest to g that has no negative inner product with g_ref.

    Args:
        gradient: g, in parts of any shapes on any devices.
        reference: g_ref, in the same parts.

    Returns:
        ``None`` where the inner product is not negative, or not everything is finite.
    """
    flat = ((one.flatten(), other.flatten()) for one, other in zip(gradient, reference, strict=True))
    product, square = summed(torch.stack([one @ other, other @ other]) for one, other in flat).tolist()
    # not a number is neither
    return -product / square if -math.inf < product < 0 < square < math.inf else None

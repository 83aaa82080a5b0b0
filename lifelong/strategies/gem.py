"""Gradient episodic memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import nnls

from lifelong.strategies.checks import check_number
from lifelong.strategies.episodes import Gradients, Projection, summed
from lifelong.strategies.traits import Traits

if TYPE_CHECKING:
    from lifelong.learner import Learner


class GEM(Projection):
    """Never step against the gradient of any earlier task (Lopez-Paz and Ranzato, "Gradient episodic memory for
    continual learning", NeurIPS 2017, https://arxiv.org/abs/1706.08840).

    Each step computes the gradient of the loss on the memory of every earlier task. Where the step's own gradient g has
    a negative inner product with any of them, the rows of G, it becomes the nearest that has none (equations 8 to 12):

        G^T v + g,  v = argmin_{v >= margin} 1/2 v^T G G^T v + g^T G^T v

    What an optimiser with moments makes of that gradient may still point elsewhere, in the paper as here.

    Args:
        rows_per_task: rows kept of each task, a uniform sample.
        batch_size: rows of each task drawn at a step; ``None`` (as in the paper) takes all that are kept.
        margin: at least 0; more favours earlier tasks beyond what the constraints ask. A bound of v as in the authors'
            code, where the paper adds it to the solution.
        name: see ``Strategy``.

    The margin is the authors' usual "memory strength" of .5; the number of rows is ours.

    The gradients of the memory are taken without dropout and in full precision, and auxiliary losses of mixtures have
    no part in them. Cost: the kept rows; with T earlier tasks a step takes T forward and backward passes more, and
    T x P floats of memory for P trainable parameters, both of which grow with the stream: A-GEM does without.
    """

    traits = Traits(
        boundary=True,
        stores_data="a sample of the rows of each task",
        kept="24 * R + 6500 * S",
        grows=True,
        several_devices=True,
        step="a further forward and backward pass on the memory of each earlier task",
    )
    conflicts = {
        "Joint": "a joint run has no earlier tasks to remember",
        "AGEM": "both project the gradient, and the second undoes what the first has made sure of",
        "GEM": "the second projection undoes what the first has made sure of",
    }

    def __init__(
        self,
        rows_per_task: int = 32,
        batch_size: int | None = None,
        margin: float = 0.5,
        name: str | None = None,
    ) -> None:
        super().__init__(rows_per_task, batch_size, name)
        self.margin = margin
        check_number(self, "margin")

    def references(self, learner: Learner) -> list[Gradients]:
        return [self.drawn_gradient(learner, rows) for rows in self.episodes.tasks]

    def weights(self, gradient: Gradients, references: Sequence[Gradients]) -> list[float] | None:
        return gem_weights(gradient, references, self.margin)


def gem_weights(gradient: Gradients, references: Sequence[Gradients], margin: float = 0.0) -> list[float] | None:
    """v, for which ``G^T v + g`` is the vector nearest to g that has no negative inner product with any row of G.

    With a margin it is not the nearest, but moved along the references: v of at least that.

    Args:
        gradient: g, in parts of any shapes on any devices.
        references: the T rows of G, each in the same parts.
        margin: lower bound of v, at least 0.

    Returns:
        T numbers; ``None`` where no inner product is negative, or not everything is finite.
    """
    gram = summed(_grams([gradient, *references])).numpy()
    products = gram[0, 1:]
    if not (products < 0).any() or not np.isfinite(gram).all():
        return None
    return _dual(gram[1:, 1:], products, margin).tolist()


def _grams(vectors: Sequence[Gradients]) -> Iterator[torch.Tensor]:
    """All inner products (N, N) of N vectors, of a piece at a time, in float64: float32 cannot tell much alike ones."""
    for parts in zip(*vectors, strict=True):
        for pieces in zip(*(part.flatten().split(2**20) for part in parts), strict=True):
            rows = torch.stack([piece.double() for piece in pieces])
            yield rows @ rows.T


def _dual(gram: np.ndarray, products: np.ndarray, margin: float) -> np.ndarray:
    """argmin_{v >= margin} 1/2 v^T Q v + c^T v for a positive semidefinite Q (T, T) and a c (T,) in its range.

    With v = margin + u / n, n the lengths of the references, it is a problem of non-negative least squares in u: for
    Q = R^T R and c = R^T d, the R u that is nearest to -d.
    """
    lengths = np.sqrt(np.diag(gram))
    lengths[lengths == 0] = 1.0  # a reference of no length asks for nothing
    values, vectors = np.linalg.eigh(gram / np.outer(lengths, lengths))
    seen = values > len(values) * np.finfo(float).eps * values[-1]
    roots, vectors = np.sqrt(values[seen]), vectors[:, seen]
    linear = (products + margin * gram.sum(1)) / lengths
    scale = np.linalg.norm(linear) or 1.0
    solution, _ = nnls(roots[:, None] * vectors.T, -(vectors.T @ (linear / scale)) / roots)
    return margin + scale * solution / lengths

"""Which of several things are beaten by none of the others in every respect."""

from __future__ import annotations

from typing import Any

import numpy as np


def pareto_front(costs: Any, scores: Any) -> np.ndarray:
    """The points that no other point beats: is at least as good as in everything, and better in something.

    Args:
        costs: (N, costs), lower is better.
        scores: (N,), higher is better.

    Returns:
        (N,), bool; of points that are the same all or none are on the front, and one with a NaN never is.

    Raises:
        ValueError: the shapes do not fit.
    """
    costs, scores = np.asarray(costs, dtype=float), np.asarray(scores, dtype=float)
    if costs.ndim != 2 or scores.shape != costs.shape[:1]:
        raise ValueError(f"costs must be (N, costs) and scores (N,), got {costs.shape} and {scores.shape}")
    worth = np.column_stack([-costs, scores])
    front = ~np.isnan(worth).any(axis=1)
    for number in np.flatnonzero(front):
        other = worth[~np.isnan(worth).any(axis=1)]
        front[number] = not ((other >= worth[number]).all(axis=1) & (other > worth[number]).any(axis=1)).any()
    return front

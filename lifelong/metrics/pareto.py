"""Which runs are worth what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np


def pareto_front(costs: Any, scores: Any) -> np.ndarray:
    """Return which points no other one beats: that is no dearer in any cost, no worse in score, and better in one.

    Points that are equal in everything do not beat each other. A point with a NaN is not on the front, and beats none.

    Args:
        costs: (n,) or (n, kinds of cost), lower is better.
        scores: (n,), higher is better.

    Returns:
        bool, (n,).

    Raises:
        ValueError: the shapes do not fit.

    >>> pareto_front([1.0, 2.0, 2.0, 5.0], [0.3, 0.7, 0.6, 0.7]).tolist()
    [True, True, False, False]
    """
    costs, scores = np.asarray(costs, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or costs.ndim not in (1, 2) or len(costs) != len(scores):
        raise ValueError(
            f"costs must have the shape (n,) or (n, kinds) and scores (n,), got {costs.shape} and {scores.shape}"
        )
    points = np.column_stack([costs, -scores])
    # comparisons with NaN are false, so that it neither beats nor is beaten
    beaten = [((points <= point).all(axis=1) & (points < point).any(axis=1)).any() for point in points]
    return ~np.array(beaten, dtype=bool) & ~np.isnan(points).any(axis=1)

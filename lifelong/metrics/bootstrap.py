"""Resampling of means."""

from __future__ import annotations

import math

import numpy as np

_BLOCK = 2**20  # values that are drawn at a time


def studentised(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw as many values with replacement again and again, and return how far each mean is off in standard errors.

    Args:
        values: (n,), two or more.
        resamples: drawn with ``seed``.
        seed: of the draws.

    Returns:
        (resamples,): (mean* - mean) sqrt(n) / s*, where s* is the resample's standard deviation. Infinite for one that
        holds the same value n times, and 0 if that is the mean.
    """
    draw, count, parts = np.random.default_rng(seed), len(values), []
    centred = values - values.mean()
    block = max(1, _BLOCK // count)
    for begin in range(0, resamples, block):
        drawn = centred[draw.integers(count, size=(min(block, resamples - begin), count))]
        spreads = drawn.std(axis=1, ddof=1)
        spreads[drawn.max(axis=1) == drawn.min(axis=1)] = 0.0  # not what rounding leaves
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append(drawn.mean(axis=1) * math.sqrt(count) / spreads)
    return np.nan_to_num(np.concatenate(parts), nan=0.0, posinf=math.inf, neginf=-math.inf)

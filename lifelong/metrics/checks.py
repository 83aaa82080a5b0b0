"""What scores must look like before anything is computed from them: a matrix of one run, a table of many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lifelong.errors import ConfigError


def as_matrix(R: Any, name: str = "R") -> Tensor:
    """Return R as a float64 tensor on the CPU, or raise ``ValueError`` if it is no matrix of scores."""
    matrix = _as_float64(R, name)
    if matrix.ndim != 2 or matrix.shape[0] < 2 or matrix.shape[1] < 1:
        raise ValueError(
            f"{name} must have the shape (stages + 1, tasks) with a row for the untrained model, at least one stage "
            f"and at least one task, got {tuple(matrix.shape)}"
        )
    return matrix


def as_joint(joint: Any, R: Tensor) -> Tensor:
    """Return the joint run's accuracies as a float64 tensor, one per column of R, or raise ``ValueError``."""
    vector = _as_float64(joint, "joint")
    if vector.shape != R.shape[1:]:
        raise ValueError(f"joint must have the shape ({R.shape[1]},), one score per task, got {tuple(vector.shape)}")
    return vector


def as_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a table of float64 with a column per method, by names, and a row per pair of seed and order.

    Raises:
        ConfigError: two methods have the same name.
        ValueError: a score is no number, or infinite.
    """
    names = [str(name) for name in scores.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"scores: two methods are called {twice[0]!r}")
    try:
        table = scores.astype(np.float64).set_axis(names, axis=1)
    except (TypeError, ValueError) as error:
        raise ValueError(f"scores must be numbers, NaN where a run is missing: {error}") from None
    for name in names:
        if np.isinf(table[name]).any():
            raise ValueError(f"scores of {name!r} hold an infinite one")
    return table


def check_level(level: float) -> None:
    """Raise ``ValueError`` if a level of confidence is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")


def _as_float64(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        tensor = values.detach().cpu()
        if tensor.dtype == torch.bool or tensor.is_complex():
            raise ValueError(f"{name} must hold real numbers, got {tensor.dtype}")
        tensor = tensor.to(torch.float64)
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"the rows of {name} must be of equal length: {error}") from error
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{name} must hold real numbers, NaN where nothing was measured, got {array.dtype}")
        tensor = torch.from_numpy(array.astype(np.float64))
    if tensor.isinf().any():
        raise ValueError(f"{name} holds an infinite score at {tuple(tensor.isinf().nonzero()[0].tolist())}")
    return tensor

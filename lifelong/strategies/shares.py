"""A share of each batch, as strategies that add rows are given it."""

from __future__ import annotations

from lifelong.errors import ConfigError


def checked_share(strategy: str, share: float) -> float:
    """The share itself.

    Raises:
        ConfigError: it is not between 0 and 1.
    """
    if not isinstance(share, int | float) or not 0 < share < 1:
        raise ConfigError(f"{strategy}: share must lie between 0 and 1, got {share!r}")
    return share


def rows_beside(rows: int, share: float) -> int:
    """How many rows beside so many others make up this share of all; at least one."""
    return max(1, round(rows * share / (1 - share)))

"""One seed decides everything: every component that draws gets a generator derived from the seed and its name."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the component called ``names``; independent of platform, process and global random state."""
    digest = hashlib.sha256("/".join(str(part) for part in (seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def derived_generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator with the derived seed."""
    return torch.Generator().manual_seed(derived_seed(seed, *names))

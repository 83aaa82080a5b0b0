"""Random tokens that come back: copying in its barest form."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random


def copy_row(rng: Random, tokens: Sequence[int], length: int = 40) -> tuple[list[int], list[bool]]:
    """Random tokens that come back: a repeated stretch, or keys asked again for their values.

    Returns:
        the ids, and for each whether it can be predicted from what stands before it (the loss is there).
    """
    if rng.random() < 0.5:
        size = rng.randint(4, length // 2)
        stretch = [rng.choice(tokens) for _ in range(size)]
        return [stretch[i % size] for i in range(length)], [i > size for i in range(length)]
    key, value = rng.choice((1, 1, 2)), rng.choice((1, 1, 2))
    pairs = max(2, length // (2 * (key + value)))
    table = [
        ([rng.choice(tokens) for _ in range(key)], [rng.choice(tokens) for _ in range(value)]) for _ in range(pairs)
    ]
    ids = [token for k, v in table for token in k + v]
    known = [False] * len(ids)
    for k, v in rng.sample(table, pairs):
        ids += k + v
        known += [False] * key + [True] * value
    return ids, known

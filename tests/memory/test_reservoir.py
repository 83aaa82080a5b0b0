"""Every row of a stream is kept with the same probability, whatever else draws random numbers."""

from collections import Counter

import pytest
import torch
from scipy.stats import chi2

from lifelong.memory import Buffer, ReservoirBuffer

STREAMS, ROWS, CAPACITY = 20_000, 20, 5


class OffByOne(Buffer):
    """The known mistake: the draw is from as many places as rows came before, not from one more."""

    def slot(self, row) -> int | None:
        if len(self) < self.capacity:
            return len(self)
        place = int(torch.randint(self.seen, (), generator=self.generator))
        return place if place < self.capacity else None


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def row(number: int) -> dict:
    return {"id": str(number), "question": f"q{number}", "answers": [f"a{number}"], "task": "t"}


def times_kept(kind: type[Buffer]) -> list[int]:
    """For each position of a stream, in how many of 20,000 streams its row was kept."""
    draw, kept = generator(), Counter()
    for _ in range(STREAMS):
        buffer = kind(CAPACITY, draw)
        buffer.extend({"id": number} for number in range(ROWS))
        kept.update(entry["id"] for entry in buffer.rows)
    return [kept[number] for number in range(ROWS)]


def p_value(counts: list[int]) -> float:
    """Of the hypothesis that every position is kept with probability p = capacity / rows.

    A stream keeps exactly five rows, so the counts of n streams have the covariance n p (1 - p) R / (R - 1) (I - 1/R)
    over R positions, and the sum of squared deviations over that factor is chi-square with R - 1 degrees of freedom.
    """
    probability = CAPACITY / ROWS
    factor = STREAMS * probability * (1 - probability) * ROWS / (ROWS - 1)
    deviations = sum((count - STREAMS * probability) ** 2 for count in counts)
    return float(chi2.sf(deviations / factor, ROWS - 1))


def test_every_position_is_kept_with_the_same_probability():
    counts = times_kept(ReservoirBuffer)
    assert sum(counts) == STREAMS * CAPACITY
    assert p_value(counts) > 1e-3


def test_the_same_test_rejects_the_known_off_by_one():
    counts = times_kept(OffByOne)
    assert p_value(counts) < 1e-12
    # FACTS.md: .212 for the first five, .263 for the rest
    shares = [count / STREAMS for count in counts]
    assert sum(shares[:CAPACITY]) / CAPACITY == pytest.approx(0.212, abs=0.003)
    assert sum(shares[CAPACITY:]) / (ROWS - CAPACITY) == pytest.approx(0.263, abs=0.003)


def test_until_it_is_full_a_buffer_keeps_everything_and_draws_nothing():
    buffer = ReservoirBuffer(5, generator())
    before = buffer.generator.get_state()
    buffer.extend(map(row, range(5)))
    assert buffer.rows == [row(number) for number in range(5)]
    assert torch.equal(buffer.generator.get_state(), before)
    assert (len(buffer), buffer.seen) == (5, 5)

"""Every row of a stream is kept with the same probability, whatever else draws random numbers."""

import io
import random
from collections import Counter

import pytest
import torch
from scipy.stats import chi2

from lifelong.memory import Buffer, ReservoirBuffer

STREAMS, ROWS, CAPACITY = 20_000, 20, 5


class OffByOne(Buffer):
    """The known mistake: the draw is from as many places as rows came before, not from one more."""

    def slot(self) -> int | None:
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


def test_a_full_buffer_holds_so_many_different_rows_of_the_stream():
    buffer = ReservoirBuffer(5, generator())
    buffer.extend(map(row, range(300)))
    kept = {entry["id"] for entry in buffer.rows}
    assert len(buffer) == len(kept) == 5
    assert kept <= {str(number) for number in range(300)}
    assert buffer.seen == 300


def test_what_is_kept_is_decided_by_its_own_generator_and_not_by_the_global_state():
    def kept(own: int, everywhere: int) -> list[dict]:
        torch.manual_seed(everywhere)
        random.seed(everywhere)
        buffer = ReservoirBuffer(5, generator(own))
        buffer.extend(map(row, range(100)))
        return buffer.rows

    torch.manual_seed(9)
    before = torch.get_rng_state()
    ReservoirBuffer(1, generator()).extend(map(row, range(9)))
    assert torch.equal(torch.get_rng_state(), before)
    assert kept(0, 1) == kept(0, 2)
    assert kept(0, 1) != kept(1, 1)


def test_a_buffer_that_was_saved_and_loaded_goes_on_as_if_nothing_had_happened():
    whole = ReservoirBuffer(5, generator())
    whole.extend(map(row, range(60)))
    interrupted = ReservoirBuffer(5, generator())
    interrupted.extend(map(row, range(30)))
    file = io.BytesIO()
    torch.save(interrupted.state_dict(), file)
    file.seek(0)
    resumed = ReservoirBuffer(5, generator(99))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert (resumed.rows, resumed.seen) == (interrupted.rows, 30)
    resumed.extend(map(row, range(30, 60)))
    assert resumed.rows == whole.rows
    assert torch.equal(resumed.generator.get_state(), whole.generator.get_state())


def test_a_state_does_not_change_when_its_buffer_goes_on():
    buffer = ReservoirBuffer(2, generator())
    buffer.extend(map(row, range(2)))
    state = buffer.state_dict()
    buffer.extend(map(row, range(2, 50)))
    assert state["rows"] == [row(0), row(1)]
    assert state["seen"] == 2
    again = ReservoirBuffer(2, generator())
    again.load_state_dict(state)
    again.extend(map(row, range(2, 50)))
    assert again.rows == buffer.rows
    assert state["rows"] == [row(0), row(1)]


@pytest.mark.parametrize("capacity", [0, -3])
def test_a_buffer_for_nothing_is_refused(capacity):
    with pytest.raises(ValueError, match=f"at least 1, got {capacity}"):
        ReservoirBuffer(capacity, generator())

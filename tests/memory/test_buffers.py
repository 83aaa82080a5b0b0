"""What holds for every buffer: its capacity, its own random choices, and a state that can be taken in mid-stream."""

import io
import random

import pytest
import torch

from lifelong.errors import ConfigError, RunError
from lifelong.memory import BalancedBuffer, Buffer, ReservoirBuffer, RingBuffer

KINDS = {
    "reservoir": ReservoirBuffer,
    "balanced": BalancedBuffer,
    "balanced by answer": lambda capacity, draw: BalancedBuffer(capacity, draw, by="answer"),
    "ring": RingBuffer,
    "ring by task": lambda capacity, draw: RingBuffer(capacity, draw, by="task"),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def row(number: int) -> dict:
    """Of four tasks that come one after the other, with labels that alternate."""
    answers = [f"a{number % 3}"]
    return {"id": str(number), "question": f"q{number}", "answers": answers, "task": f"t{number // 25}"}


def through_a_file(buffer: Buffer) -> dict:
    file = io.BytesIO()
    torch.save(buffer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@every_kind
def test_a_buffer_never_holds_more_than_its_capacity_and_no_row_twice(kind):
    buffer = kind(7, generator())
    for number in range(100):
        buffer.add(row(number))
        kept = [entry["id"] for entry in buffer.rows]
        assert len(buffer) == len(kept) == len(set(kept)) == min(7, number + 1)
        assert set(kept) <= {str(earlier) for earlier in range(number + 1)}
    assert buffer.seen == 100
    assert buffer.keys == [(entry["task"], entry["id"]) for entry in buffer.rows]
    assert buffer.take([3, 0]) == buffer.peek([3, 0]) == [buffer.rows[3], buffer.rows[0]]


@every_kind
def test_what_is_kept_is_decided_by_its_own_generator_and_not_by_the_global_state(kind):
    def kept(own: int, everywhere: int) -> list[dict]:
        torch.manual_seed(everywhere)
        random.seed(everywhere)
        buffer = kind(5, generator(own))
        buffer.extend(map(row, range(100)))
        return buffer.rows

    torch.manual_seed(9)
    before = torch.get_rng_state()
    kind(1, generator()).extend(map(row, range(99)))
    assert torch.equal(torch.get_rng_state(), before)
    assert kept(0, 1) == kept(0, 2)
    if isinstance(kind(1, generator()), RingBuffer):
        assert kept(0, 1) == kept(1, 1)  # there is nothing to choose
    else:
        assert kept(0, 1) != kept(1, 1)


@every_kind
@pytest.mark.parametrize("after", [0, 3, 30, 60])
def test_a_buffer_that_was_saved_and_loaded_goes_on_as_if_nothing_had_happened(kind, after):
    whole = kind(5, generator())
    whole.extend(map(row, range(100)))
    interrupted = kind(5, generator())
    interrupted.extend(map(row, range(after)))
    resumed = kind(5, generator(99))
    resumed.load_state_dict(through_a_file(interrupted))
    assert (resumed.rows, resumed.seen) == (interrupted.rows, after)
    resumed.extend(map(row, range(after, 100)))
    assert resumed.rows == whole.rows
    assert torch.equal(resumed.generator.get_state(), whole.generator.get_state())


@every_kind
def test_a_state_does_not_change_when_its_buffer_goes_on(kind):
    buffer = kind(4, generator())
    buffer.extend(map(row, range(30)))
    state, then = buffer.state_dict(), buffer.rows
    buffer.extend(map(row, range(30, 100)))
    again = kind(4, generator())
    again.load_state_dict(state)
    assert again.rows == then != buffer.rows
    again.extend(map(row, range(30, 100)))
    assert again.rows == buffer.rows
    once_more = kind(4, generator())
    once_more.load_state_dict(state)
    assert once_more.rows == then


@every_kind
@pytest.mark.parametrize("capacity", [0, -3, 2.5, True])
def test_a_buffer_for_nothing_is_refused(kind, capacity):
    with pytest.raises(ConfigError, match=f"whole number of at least 1, got {capacity}"):
        kind(capacity, generator())


@pytest.mark.parametrize(
    ("other", "message"),
    [(RingBuffer(4, generator()), "kind 'ReservoirBuffer', and"), (ReservoirBuffer(5, generator()), "capacity 4, and")],
)
def test_the_state_of_another_kind_or_size_of_buffer_is_refused(other, message):
    with pytest.raises(RunError, match=message):
        other.load_state_dict(ReservoirBuffer(4, generator()).state_dict())

"""Rows of tasks that are at hand are kept as references, and found again only in a stream that goes on from theirs."""

import io

import pytest
import torch

from lifelong.errors import RunError
from lifelong.memory import ReservoirBuffer, RingBuffer
from lifelong.strategies import Stage
from lifelong.task_stream import TaskStream
from lifelong.tasks import Task


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def rows_of(task: Task) -> list[dict]:
    return list(Stage.of(task, 1).train)


def saved(buffer) -> bytes:
    file = io.BytesIO()
    torch.save(buffer.state_dict(), file)
    return file.getvalue()


def restored(state: bytes, like) -> ReservoirBuffer:
    buffer = type(like)(like.capacity, generator())
    buffer.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    return buffer


@pytest.fixture
def filled(tiny_stream) -> ReservoirBuffer:
    """Five rows of the first two tasks."""
    buffer = ReservoirBuffer(5, generator())
    buffer.attach(tiny_stream[:2])
    for task in tiny_stream[:2]:
        buffer.extend(rows_of(task))
    return buffer


def without_tasks(stream) -> ReservoirBuffer:
    buffer = ReservoirBuffer(5, generator())
    for task in stream[:2]:
        buffer.extend(rows_of(task))
    return buffer


def test_whether_a_row_is_a_reference_or_text_changes_nothing_in_what_is_kept(filled, tiny_stream):
    as_text = without_tasks(tiny_stream)
    assert filled.rows == as_text.rows
    assert filled.keys == as_text.keys
    question = as_text.rows[0]["question"].encode()
    assert question in saved(as_text)
    assert question not in saved(filled)


def test_a_row_that_is_only_looked_at_is_read_when_more_than_its_place_is_asked(filled, tiny_stream):
    peeked = filled.peek([4, 1])
    assert peeked == [filled.rows[4], filled.rows[1]]
    assert [{**row} for row in peeked] == peeked
    (unread,) = restored(saved(filled), filled).peek([4])  # a task that is not there is not missed for its place
    assert (unread["task"], unread["id"]) == filled.keys[4]
    with pytest.raises(RunError, match="of which it holds rows"):
        unread["question"]


def test_text_becomes_a_reference_when_its_task_is_at_hand(filled, tiny_stream):
    as_text = without_tasks(tiny_stream)
    as_text.attach(tiny_stream)
    assert as_text.rows == filled.rows
    assert as_text.state_dict()["texts"] == {}


def test_a_restored_buffer_finds_its_rows_in_a_stream_that_begins_with_its_own(filled, tiny_stream, tmp_path):
    tiny_stream.save(tmp_path)
    buffer = restored(saved(filled), filled)
    buffer.attach(TaskStream.load(tmp_path))  # read anew, and one task longer
    assert buffer.rows == filled.rows


def test_a_row_that_was_changed_on_its_way_is_kept_as_it_came(tiny_stream):
    task = tiny_stream[0]
    first, second = rows_of(task)[:2]
    changed = first | {"answers": ["something else"]}
    further = {"task": task.name, "id": "no such id", "answers": ["new"]}
    buffer = ReservoirBuffer(5, generator())
    buffer.attach([task])
    buffer.extend([changed, second, further])
    assert buffer.rows == [changed, second, further]
    assert list(buffer.state_dict()["texts"]) == ["0", "2"]
    again = restored(saved(buffer), buffer)
    again.attach([task])
    assert again.rows == buffer.rows


def test_rows_are_found_by_id_whatever_their_order_and_selection():
    rows = [{"id": f"row {number}", "question": f"q{number}?", "answers": ["a"]} for number in range(50)]
    task = TaskStream("s", [Task("t", rows, rows)]).limit(train=20, seed=3)[0]
    buffer = RingBuffer(6, generator())
    buffer.attach([task])
    buffer.extend(reversed(rows_of(task)))
    assert sorted(entry["id"] for entry in buffer.rows) == sorted(entry["id"] for entry in rows_of(task)[:6])
    assert all(entry["question"] == f"q{entry['id'].split()[1]}?" for entry in buffer.rows)
    assert buffer.state_dict()["texts"] == {}


def test_ten_thousand_rows_cost_kilobytes():
    text = "a long text that a buffer should not hold a second time " * 20
    rows = [{"question": f"{number} {text}", "answers": ["yes"]} for number in range(12_000)]
    task = Task("t", rows, rows[:1])
    buffer = ReservoirBuffer(10_000, generator())
    buffer.attach([task])
    buffer.extend({**row, "id": str(number), "task": "t"} for number, row in enumerate(rows))
    size = len(saved(buffer))
    assert size < 20 * len(buffer) + 10_000  # what Replay states, and what torch.save writes for nothing


def test_a_restored_buffer_is_refused_where_a_task_of_its_rows_is_missing(filled, tiny_stream):
    buffer = restored(saved(filled), filled)
    with pytest.raises(RunError, match=r"not a continuation of its own: task '(colours|places)'.*not among the tasks"):
        buffer.attach(tiny_stream[2:])


def test_a_restored_buffer_is_refused_where_a_task_has_other_content(filled, tiny_stream):
    buffer = restored(saved(filled), filled)
    altered = Task("places", [*rows_of(tiny_stream[1])[:-1]], tiny_stream[1].test)
    with pytest.raises(RunError, match="not a continuation of its own: task 'places' has other content"):
        buffer.attach([tiny_stream[0], altered])


def test_the_rows_of_a_restored_buffer_cannot_be_read_before_there_are_tasks(filled):
    with pytest.raises(RunError, match=r"task '(colours|places)', of which it holds rows"):
        _ = restored(saved(filled), filled).rows
    assert restored(saved(filled), filled).keys == filled.keys


def test_a_buffer_can_be_saved_again_before_its_tasks_are_at_hand(filled, tiny_stream):
    again = restored(saved(restored(saved(filled), filled)), filled)
    again.attach(tiny_stream)
    assert again.rows == filled.rows

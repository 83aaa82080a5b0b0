"""A ring buffer keeps the latest rows, of all or of each group, and draws nothing."""

import pytest
import torch

from lifelong.memory import RingBuffer

ROWS = [
    {"task": task, "id": f"{task}{number}", "answers": ["even" if number % 2 == 0 else "odd"]}
    for task, rows in {"a": 9, "b": 2, "c": 20, "d": 7}.items()
    for number in range(rows)
]


def kept(capacity: int, by: str | None, rows: list[dict]) -> list[str]:
    buffer = RingBuffer(capacity, torch.Generator(), by)
    before = buffer.generator.get_state()
    buffer.extend(rows)
    assert torch.equal(buffer.generator.get_state(), before)
    return sorted(entry["id"] for entry in buffer.rows)


@pytest.mark.parametrize("capacity", [1, 4, 37, 50])
@pytest.mark.parametrize("length", [1, 5, len(ROWS)])
def test_without_groups_it_keeps_the_latest_rows(capacity, length):
    assert kept(capacity, None, ROWS[:length]) == sorted(entry["id"] for entry in ROWS[:length][-capacity:])


def test_by_task_it_keeps_the_latest_of_each():
    of_each = {task: [entry["id"] for entry in ROWS if entry["task"] == task] for task in "abcd"}
    # two of each, and "b" has no more
    assert kept(8, "task", ROWS) == sorted(name for rows in of_each.values() for name in rows[-2:])
    # three of each, but for "b", which leaves a slot; "a" gives up its own first where two have one too many
    expected = of_each["a"][-3:] + of_each["b"] + of_each["c"][-4:] + of_each["d"][-3:]
    assert kept(12, "task", ROWS) == sorted(expected)


def test_by_answer_it_keeps_the_latest_of_each_label():
    # the last task has seven rows, numbered from 0
    assert kept(6, "answer", ROWS) == ["d1", "d2", "d3", "d4", "d5", "d6"]
    assert kept(2, "answer", ROWS[:-1]) == ["d4", "d5"]
    assert kept(4, "answer", [*ROWS[:1], *ROWS[1::2]]) == ["a5", "a7", "d4", "d6"]

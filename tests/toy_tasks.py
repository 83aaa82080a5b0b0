"""Rows and tasks in a line each, and what is said where something cannot be made."""

import json

import pytest

from lifelong.errors import DataError
from lifelong.tasks import Task

ROWS = [{"question": f"q{number}", "answer": f"a{number}"} for number in range(4)]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
]
FULL = {
    "id": "i",
    "question": "q",
    "answers": ["a", "b"],
    "choices": ["a", "b", "c"],
    "passages": ["p"],
    "probes": ["r"],
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
}


def task(name="t", rows=ROWS, **settings) -> Task:
    return Task(name, rows, settings.pop("test", rows), **settings)


def held_out(name="ability", rows=ROWS, **settings) -> Task:
    """A task that is measured and never learned."""
    return Task(name, None, rows, measure_only=True, **settings)


def many(size: int) -> list[dict]:
    """Rows with lists of different lengths, some of them conversations."""
    return [
        {"messages": TALK[1:3], "probes": [f"r{number}"]}
        if number % 7 == 0
        else {
            "question": f"q{number}",
            "answers": [f"a{number}", "b"][: 1 + number % 2],
            "passages": ["ß"] * (number % 3),
        }
        for number in range(size)
    ]


def questions(rows) -> list[str]:
    return list(rows["question"])


def refusal(make, *arguments, **settings) -> str:
    with pytest.raises(DataError) as caught:
        make(*arguments, **settings)
    return str(caught.value)


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

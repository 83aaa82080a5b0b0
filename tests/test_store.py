"""Results are kept once, in a file that several processes may use."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from lifelong.store import Store, key_of


def test_what_was_put_comes_back_also_from_another_object(tmp_path: Path) -> None:
    values = {key_of("a", number): bytes([number % 256]) * 3 for number in range(1203)}
    Store(tmp_path / "new" / "some.sqlite").put(values)
    again = Store(tmp_path / "new" / "some.sqlite")
    assert again.get([*values, key_of("b")]) == values
    assert again.get([]) == {}


def test_what_is_there_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "some.sqlite")
    store.put({b"key": b"first"})
    store.put({b"key": b"second", b"other": b""})
    assert store.get([b"key", b"other", b"key"]) == {b"key": b"first", b"other": b""}


def test_keys_tell_values_and_their_kinds_apart() -> None:
    different = [("a", "b"), ("ab",), (["a", "b"],), ("a", "b", None), ("a", 1), ("a", "1"), ({"x": 1, "y": 2},)]
    assert len({key_of(*about) for about in different}) == len(different)
    assert key_of({"x": 1, "y": 2}) == key_of({"y": 2, "x": 1})


def put(path: Path, number: int) -> None:
    store = Store(path)
    for step in range(20):
        store.put({key_of(number, step): b"x"})


def test_processes_write_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "some.sqlite"
    workers = [multiprocessing.get_context("spawn").Process(target=put, args=(path, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(Store(path).get([key_of(n, step) for n in range(3) for step in range(20)])) == 60

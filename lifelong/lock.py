"""One process at a time works on a run folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from lifelong.errors import RunError

LOCK = ".lock"
BEAT = 20.0  # seconds between two signs of life
DEAD = 120.0  # seconds without one, after which a process on another host counts as gone


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from working on a folder.

    The file ``.lock`` says who does: host, process, user and since when. The system gives the lock back when a process
    ends in whatever way. Where a file system is shared and its locks are not, the owner's signs of life decide: the
    file is touched every 20 seconds, and an owner on another host that was silent for two minutes is gone.

    Args:
        folder: that exists.

    Raises:
        RunError: another process works on it, and which.
    """
    file = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refusal(folder, _owner(file)) from None
        owner = _owner(file)
        if owner and owner.get("host") != socket.gethostname() and _silent(folder / LOCK) < DEAD:
            raise _refusal(folder, owner)
        _write(file, _self())
        gone = threading.Event()
        beats = threading.Thread(target=_beat, args=(folder / LOCK, gone), daemon=True)
        beats.start()
        try:
            yield
        finally:
            gone.set()
            beats.join()
            _write(file, None)
    finally:
        file.close()


def is_locked(folder: Path) -> bool:
    """Whether a process of this host works on a folder, or one of another host seems to."""
    try:
        with (folder / LOCK).open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            owner = _owner(file)
    except OSError:
        return False
    return bool(owner) and owner.get("host") != socket.gethostname() and _silent(folder / LOCK) < DEAD


def _self() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "process": os.getpid(), "user": os.getuid(), "since": now}


def _owner(file: TextIO) -> dict[str, Any]:
    """Who has written into the lock; nothing where it was given back, or cannot be read."""
    file.seek(0)
    try:
        owner = json.load(file)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _write(file: TextIO, owner: dict[str, Any] | None) -> None:
    file.seek(0)
    file.truncate()
    file.write("" if owner is None else json.dumps(owner))
    file.flush()


def _silent(path: Path) -> float:
    """Seconds since the last sign of life, on this host's clock."""
    return time.time() - path.stat().st_mtime


def _beat(path: Path, gone: threading.Event) -> None:
    while not gone.wait(BEAT):
        try:
            os.utime(path)
        except OSError:  # the folder has been removed, or its disk is away: the run will say so
            return


def _refusal(folder: Path, owner: dict[str, Any]) -> RunError:
    process, host, since = (owner.get(name, "unknown") for name in ("process", "host", "since"))
    return RunError(
        f"{folder} is being worked on, by process {process} on {host} since {since}: wait for it, or stop it. If it is "
        f"certainly gone, remove {folder / LOCK}"
    )

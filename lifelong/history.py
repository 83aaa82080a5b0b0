"""Every attempt on a run folder, in the order in which they were made: ``history.jsonl``."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HISTORY = "history.jsonl"


def record(folder: Path, event: str, **about: Any) -> None:
    """Add a line.

    Args:
        folder: of the run.
        event: what begins, ``"run"``, ``"extend"`` or ``"rollback"``; or how it ended, ``"done"``, ``"refused"``,
            ``"interrupted"``, ``"diverged"`` or ``"failed"``.
        **about: JSON values.
    """
    line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), "event": event} | about)
    with (folder / HISTORY).open("a+b") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a process was killed in the middle of a line
                line = "\n" + line
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> list[dict[str, Any]]:
    """All lines, the oldest first; one that cannot be read is an event called ``"unreadable"``."""
    file = folder / HISTORY
    return [_event(line) for line in file.read_bytes().splitlines() if line] if file.is_file() else []


def counts(folder: Path) -> dict[str, int]:
    """How often the run was begun or gone on with, extended, how many extensions were refused, and rolled back."""
    events = [entry["event"] for entry in read(folder)]
    names = {"attempts": "run", "extensions": "extend", "refused": "refused", "rollbacks": "rollback"}
    return {name: events.count(event) for name, event in names.items()}


def _event(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) and isinstance(entry.get("event"), str) else {"event": "unreadable"}

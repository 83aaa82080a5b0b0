"""Verdicts on disk, so that none is paid for twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from lifelong.judges.base import Verdict


class VerdictCache:
    """A table of verdicts by id in one SQLite file, which several processes may use at a time.

    Args:
        folder: where the file lies; made where it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "verdicts.sqlite"
        with closing(self._open()) as table, table:
            table.execute("CREATE TABLE IF NOT EXISTS verdicts (id TEXT PRIMARY KEY, score REAL, reason TEXT)")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=60)

    def get(self, ids: Sequence[str]) -> dict[str, Verdict]:
        """The verdicts that are there."""
        with closing(self._open()) as table:
            query = "SELECT score, reason FROM verdicts WHERE id = ?"
            rows = ((id, table.execute(query, (id,)).fetchone()) for id in dict.fromkeys(ids))
            return {id: Verdict(*row) for id, row in rows if row is not None}

    def put(self, id: str, verdict: Verdict) -> None:
        """Keep a verdict."""
        with closing(self._open()) as table, table:
            table.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", (id, verdict.score, verdict.reason))

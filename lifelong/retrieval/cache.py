"""Vectors on disk, by a hash of what was encoded."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from lifelong.cache import cache_folder

AT_A_TIME = 500


class VectorCache:
    """A table from keys to vectors in one SQLite file per model, which several processes may use at a time.

    Args:
        model: names the file.
        folder: where it lies; ``None`` for ``embeddings`` in lifelong's cache.
    """

    def __init__(self, model: str, folder: str | Path | None = None) -> None:
        folder = cache_folder("embeddings") if folder is None else Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{model}.sqlite"
        with closing(self._open()) as table, table:
            table.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=60)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors that are there."""
        found = {}
        with closing(self._open()) as table:
            for start in range(0, len(keys), AT_A_TIME):
                some = keys[start : start + AT_A_TIME]
                places = ",".join("?" * len(some))
                rows = table.execute(f"SELECT key, vector FROM vectors WHERE key IN ({places})", some)
                found.update((key, np.frombuffer(vector, np.float32)) for key, vector in rows)
        return found

    def put(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Keep float32 vectors."""
        with closing(self._open()) as table, table:
            rows = ((key, vector.astype(np.float32).tobytes()) for key, vector in vectors.items())
            table.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

"""Results that are dear to compute, kept on disk by a hash of what they were computed from."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

AT_A_TIME = 500


class Store:
    """Bytes by key in one SQLite file, which several processes may use at a time.

    Args:
        path: the file; made, with its folder, where it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._open()) as table, table:
            table.execute("CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=60)

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """What is there of these keys."""
        wanted, found = list(dict.fromkeys(keys)), {}
        with closing(self._open()) as table:
            for start in range(0, len(wanted), AT_A_TIME):
                some = wanted[start : start + AT_A_TIME]
                places = ",".join("?" * len(some))
                found.update(table.execute(f"SELECT key, value FROM results WHERE key IN ({places})", some))
        return found

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values; what is there under a key stays."""
        with closing(self._open()) as table, table:
            table.executemany("INSERT OR IGNORE INTO results VALUES (?, ?)", values.items())


def key_of(*about: Any) -> bytes:
    """The key of a result that follows from these plain values."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).digest()


def weights_digest(model: nn.Module) -> str:
    """Hexadecimal digits of all weights and of the kinds of modules, whatever the model is called."""
    digest = hashlib.sha256(" ".join(type(module).__name__ for module in model.children()).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weight.detach().cpu().float().numpy()).data)
    return digest.hexdigest()[:32]

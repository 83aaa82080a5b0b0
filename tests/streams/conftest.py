"""What the tests of streams share: a way to write files, a hub that is a table in memory, and the published files.

These are read from the folder that ``LIFELONG_DATA`` names, or from ``../shared/data`` beside the repository.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

BESIDE = Path(__file__).parents[3] / "shared" / "data"
NAMED = os.environ.get("LIFELONG_DATA")


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch):
    """No test finds files by accident."""
    monkeypatch.delenv("LIFELONG_DATA", raising=False)


@pytest.fixture(scope="session")
def real():
    """A function that gives the folder of a real dataset, or skips the test."""

    def find(name: str) -> Path:
        folder = (Path(NAMED) if NAMED else BESIDE) / name
        if not folder.exists():
            pytest.skip(f"needs the published files of {name}: name the folder that holds {name}/ in LIFELONG_DATA")
        return folder

    return find


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A JSON-lines file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def lines():
    return write_lines


@pytest.fixture
def hotpot_row():
    """A question of HotpotQA with three paragraphs, two of which its answer takes."""
    return {
        "id": "5a76",
        "question": "In which country was the designer of the tower born?",
        "answer": "Norway",
        "type": "bridge",
        "level": "hard",
        "supporting_facts": {"title": ["Ann Berg", "Tower"], "sent_id": [1, 0]},
        "context": {
            "title": ["Tower", "Bridge", "Ann Berg"],
            "sentences": [
                ["Ann Berg designed it.", " It is tall."],
                ["It is long."],
                ["She drew.", " Norway is her home."],
            ],
        },
    }


@pytest.fixture
def hub(monkeypatch):
    """A hub that has what a test puts into ``hub.tables``, as ``{(path, config, split): Dataset}``.

    ``hub.calls`` lists what was asked for, with the revision; anything else that is asked for is not found.
    """
    import datasets

    class Hub:
        def __init__(self) -> None:
            self.tables: dict[tuple[str, str | None, str], datasets.Dataset] = {}
            self.calls: list[tuple[str, str | None, str, str | None]] = []

        def load_dataset(self, path, name=None, *, split=None, revision=None):
            self.calls.append((path, name, split, revision))
            if (path, name, split) not in self.tables:
                raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' doesn't exist on the Hub")
            return self.tables[path, name, split]

    hub = Hub()
    monkeypatch.setattr(datasets, "load_dataset", hub.load_dataset)
    return hub

"""The run folder: one rename commits a stage, so a stage is there whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lifelong.errors import RunError
from lifelong.inside import inside
from lifelong.trust import sign

ROW_FIELDS = ("stage", "task", "split", "pass", "metric", "score", "count", "sampled", "seconds")


class RunFolder:
    """Reads and writes one run folder; the layout is in ``lifelong.run.Run``.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._intact: set[Path] = set()  # stages whose checksums were right; large ones are read once

    @property
    def exists(self) -> bool:
        return self.config_file.is_file()

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    def create(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Begin a run, or go on with one that has the same configuration; one that measured nothing yet is begun anew.

        Raises:
            RunError: the folder holds a run with another configuration, or something that is no run.
        """
        if self.committed() >= 0:
            differences = _differences(self.config(), config)
            if self.read_json("environment.json").get("fingerprint") != environment["fingerprint"]:
                differences.append("the rows of its stream are others")
            if differences:
                raise RunError(
                    f"the run folder {self.path} exists with another configuration: {'; '.join(differences[:5])}. "
                    "Choose another folder, or remove this one"
                )
            return
        if not self.exists and self.path.is_dir() and any(self.path.iterdir()):
            raise RunError(f"{self.path} exists and is not a run folder: choose another one")
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("environment.json", environment)
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        sign(self.path, text)
        write_text(self.config_file, text)

    def config(self) -> dict[str, Any]:
        """The configuration that the run was begun with."""
        if not self.exists:
            raise RunError(f"{self.path} is not a run folder: it has no config.yaml")
        return yaml.safe_load(self.config_file.read_text(encoding="utf-8"))

    def stage(self, index: int) -> Path:
        return self.path / "stages" / str(index)

    def committed(self) -> int:
        """The last stage of the unbroken sequence from stage 0; -1 before the untrained model was measured.

        Raises:
            RunError: a committed file is missing or has been altered, or a stage is missing before a later one.
        """
        last = -1
        while (self.stage(last + 1) / "manifest.json").is_file():
            last += 1
            self._check(self.stage(last))
        later = [path.name for path in self.path.glob("stages/[0-9]*") if int(path.name) > last]
        if later:
            raise RunError(
                f"{self.stage(last + 1)} is missing or unfinished, and a later stage is there: bring it back, or "
                "remove the later ones to run them again"
            )
        return last

    @contextmanager
    def commit(self, index: int) -> Iterator[Path]:
        """A folder to write stage ``index`` into; it becomes the stage when the block ends without an error."""
        target, temporary = self.stage(index), self.path / "stages" / f".{index}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        manifest = {path.relative_to(temporary).as_posix(): _checksum(path) for path in files}
        write_text(temporary / "manifest.json", json.dumps(manifest, indent=1))
        for path in files:
            _sync(path)
        for folder in sorted({path.parent for path in files} | {temporary}, reverse=True):
            _sync(folder)
        temporary.rename(target)
        _sync(target.parent)

    def rows(self) -> list[dict[str, Any]]:
        """All measured cells, as mappings with ``ROW_FIELDS``."""
        rows = []
        for index in range(self.committed() + 1):
            with (self.stage(index) / "rows.csv").open(encoding="utf-8", newline="") as lines:
                for row in csv.DictReader(lines):
                    row |= {"stage": int(row["stage"]), "count": int(row["count"]), "sampled": row["sampled"] == "True"}
                    row |= {"score": float(row["score"]), "seconds": float(row["seconds"])}
                    rows.append(row)
        return rows

    def costs(self) -> list[dict[str, Any]]:
        """What each committed stage cost, the untrained model's evaluation first."""
        stages = range(self.committed() + 1)
        return [json.loads((self.stage(index) / "costs.json").read_text(encoding="utf-8")) for index in stages]

    def read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def write_json(self, name: str, content: Any) -> None:
        write_text(self.path / name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def _check(self, stage: Path) -> None:
        if stage in self._intact:
            return
        manifest = json.loads((stage / "manifest.json").read_text(encoding="utf-8"))
        for name, checksum in manifest.items():
            path = inside(stage, name, stage / "manifest.json")
            if not path.is_file() or _checksum(path) != checksum:
                problem = "has been altered" if path.is_file() else "is missing"
                raise RunError(f"{path} {problem}: remove the folder {stage} to run this stage again")
        self._intact.add(stage)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Cells as a CSV file with ``ROW_FIELDS``; scores keep every digit."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ROW_FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or as it was before."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    _sync(temporary)
    temporary.replace(path)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _differences(there: Any, here: Any, key: str = "") -> list[str]:
    """Where two configurations differ, in words."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        keys = [*there, *(name for name in here if name not in there)]
        return [
            text
            for name in keys
            for text in _differences(there.get(name), here.get(name), f"{key}.{name}" if key else str(name))
        ]
    if isinstance(there, list | tuple) and isinstance(here, list | tuple) and len(there) == len(here):
        pairs = enumerate(zip(there, here, strict=True))
        return [text for number, pair in pairs for text in _differences(*pair, f"{key}.{number}")]
    return [] if there == here else [f"{key} is {there!r} there and {here!r} here"]

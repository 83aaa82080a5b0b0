"""The run folder: one rename commits a stage, so a stage is there whole or not at all."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from lifelong import history
from lifelong.durable import MANIFEST, damage, whole_folder, write_manifest, write_text
from lifelong.errors import RunError
from lifelong.lock import LOCK
from lifelong.trust import sign

# files at the root that decide what a run is; with those of saved streams they are sealed before it begins
_SEALED = ("config.yaml", "environment.json", "model.json", "passages.jsonl", "stream/*", "held_out/*")
EXTENSION, EXTENSION_FILE = "extension", "extension.json"  # a folder for what a run was extended by, and a file in it
EARLIER = "earlier"  # a folder for answers that a stage brought to those before it
FREE = ("checkpoint_every", "loader_workers", "check_resources")  # settings that change no result
ROW_FIELDS = ("stage", "task", "split", "pass", "metric", "score", "count", "sampled", "seconds")


class RunFolder:
    """Reads and writes one run folder; the layout is in ``lifelong.run.Run``.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._last = -1  # stage that was seen to be committed
        self._costs: dict[int, dict[str, Any]] = {}
        self._intact: set[Path] = set()  # folders whose checksums were right; large ones are read once

    @property
    def exists(self) -> bool:
        return self.config_file.is_file()

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    def claim(self) -> None:
        """Have the folder there, and nothing in it that is not a run's.

        Raises:
            RunError: it holds something else.
        """
        if not self.exists and self.path.is_dir() and any(path.name != LOCK for path in self.path.iterdir()):
            raise RunError(f"{self.path} exists and is not a run folder: choose another one")
        self.path.mkdir(parents=True, exist_ok=True)

    def create(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Begin a run, or go on with one that has the same configuration; one that measured nothing yet is begun anew.

        Raises:
            RunError: the folder holds a run with another configuration, or something that is no run.
        """
        if self.committed() >= 0:
            differences = _differences(*map(_of_results, (self.config(), config)))
            if self.read_json("environment.json").get("fingerprint") != environment["fingerprint"]:
                differences.append("the rows of its stream are others")
            if differences:
                raise RunError(
                    f"the run folder {self.path} exists with another configuration: {'; '.join(differences[:5])}. "
                    "Choose another folder, or remove this one"
                )
            return
        self.claim()
        (self.path / MANIFEST).unlink(missing_ok=True)
        self.write_json("environment.json", environment)
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        sign(self.path, text)
        write_text(self.config_file, text)
        self.seal()
        history.record(self.path, "run")

    def config(self) -> dict[str, Any]:
        """The configuration that the run was begun with."""
        if not self.exists:
            raise RunError(f"{self.path} is not a run folder: it has no config.yaml")
        self.check_root()
        return yaml.safe_load(self.config_file.read_text(encoding="utf-8"))

    def check_root(self) -> None:
        """See that the files at the root are those that the run was begun with; of an older folder nothing is known.

        Raises:
            RunError: naming one that is missing or has been altered.
        """
        if self.path in self._intact or not (self.path / MANIFEST).is_file():
            return
        # until the untrained model was measured, the others are written anew whenever the run is begun
        begun = (self.stage(0) / MANIFEST).is_file()
        if problem := damage(self.path, None if begun else ["config.yaml"]):
            raise RunError(
                f"{problem}: it decides what the run is. Bring it back, or begin the run anew in another folder"
            )
        self._intact.add(self.path)

    def stage(self, index: int) -> Path:
        return self.path / "stages" / str(index)

    def committed(self) -> int:
        """The last stage of the unbroken sequence from stage 0; -1 before the untrained model was measured.

        Raises:
            RunError: a committed file is missing or has been altered, or a stage is missing before a later one.
        """
        last = self._last if (self.stage(self._last) / MANIFEST).is_file() else -1
        if last < 0 and (self.stage(0) / MANIFEST).is_file():
            self.check_root()
        while (self.stage(last + 1) / MANIFEST).is_file():
            last += 1
            self._check(self.stage(last))
        later = [path.name for path in self.path.glob("stages/[0-9]*") if int(path.name) > last]
        if later:
            raise RunError(
                f"{self.stage(last + 1)} is missing or unfinished, and a later stage is there: bring it back, or "
                "remove the later ones to run them again"
            )
        self._last = last
        return last

    def commit(self, index: int) -> AbstractContextManager[Path]:
        """A folder to write stage ``index`` into; it becomes the stage when the block ends without an error."""
        if index == 0:
            self.seal()
        return whole_folder(self.stage(index))

    def tidy(self) -> None:
        """Remove what processes that were killed have left half done."""
        for path in (*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def seal(self) -> None:
        """Write down what the files at the root are, so that alterations are seen."""
        write_manifest(self.path, sorted(file for pattern in _SEALED for file in self.path.glob(pattern)))

    def rows(self, stages: Iterable[int] | None = None) -> list[dict[str, Any]]:
        """Measured cells by stage, as mappings with ``ROW_FIELDS``: all, or those that were measured with some stages.

        With a stage that extended the run come cells of its task that belong to earlier stages.
        """
        rows = []
        for index in range(self.committed() + 1) if stages is None else stages:
            with (self.stage(index) / "rows.csv").open(encoding="utf-8", newline="") as lines:
                for row in csv.DictReader(lines):
                    row |= {"stage": int(row["stage"]), "count": int(row["count"]), "sampled": row["sampled"] == "True"}
                    row |= {"score": float(row["score"]), "seconds": float(row["seconds"])}
                    rows.append(row)
        return sorted(rows, key=lambda row: row["stage"])

    def costs(self, stages: Iterable[int] | None = None) -> list[dict[str, Any]]:
        """What each committed stage, or each of some, cost; stage 0 is the untrained model's evaluation."""
        stages = list(range(self.committed() + 1) if stages is None else stages)
        for index in stages:
            if index not in self._costs:
                self._costs[index] = json.loads((self.stage(index) / "costs.json").read_text(encoding="utf-8"))
        return [self._costs[index] for index in stages]

    def environment(self) -> dict[str, Any]:
        """Where the run was begun, on what, and which tasks it has by now."""
        environment = self.read_json("environment.json")
        for extension in self.extensions():
            environment |= json.loads((extension / EXTENSION_FILE).read_text(encoding="utf-8"))["environment"]
        return environment

    def extensions(self) -> list[Path]:
        """The folders of what the run was extended by, in the order of their stages."""
        folders = (self.stage(index) / EXTENSION for index in range(1, self.committed() + 1))
        return [folder for folder in folders if folder.is_dir()]

    @property
    def pending(self) -> Path | None:
        """The folder of an extension that has not been decided on; of one that has a stage only leftovers are there."""
        folder = self.path / EXTENSION
        if not folder.is_dir():
            return None
        if problem := damage(folder):
            raise RunError(f"{problem}: remove the folder {folder} to give this extension up")
        index = json.loads((folder / EXTENSION_FILE).read_text(encoding="utf-8"))["environment"]["stages"]
        return folder if index == self.committed() + 1 else None

    def check_not_extended(self) -> None:
        """See that the run is still the one that its configuration describes.

        Raises:
            RunError: it has been extended.
        """
        if self.pending or self.extensions():
            raise RunError(
                f"{self.path} has been extended, and is more than its configuration says: go on with "
                f"`lifelong resume {self.path}`"
            )

    def status(self) -> dict[str, Any]:
        """What ``write_status`` wrote; nothing where that cannot be read, since it is only said there for people."""
        try:
            return self.read_json("status.json")
        except RunError:
            return {}

    @property
    def complete(self) -> bool:
        """Whether every stage is there."""
        return self.committed() >= self.environment()["stages"]

    def totals(self) -> dict[str, dict[str, float]]:
        """What all stages took together, by kind and name: ``rows``, ``questions`` and ``seconds``."""
        totals: dict[str, dict[str, float]] = {kind: {} for kind in ("rows", "questions", "seconds")}
        for costs in self.costs():
            for kind, total in totals.items():
                for name, value in costs.get(kind, {}).items():
                    total[name] = round(total.get(name, 0) + value, 3)
        return totals

    def write_status(self, state: str, reason: str | None = None) -> None:
        """Write ``status.json``: where the run stands, and what it took so far."""
        stage, stages = max(self.committed(), 0), self.environment()["stages"]
        because = {"reason": reason} if reason else {}
        where = {"state": state, "stage": stage, "stages": stages}
        self.write_json("status.json", where | because | self.totals() | history.counts(self.path))

    def read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError as error:
            raise RunError(f"{path} has been altered: {error}") from None

    def write_json(self, name: str, content: Any) -> None:
        write_text(self.path / name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def _check(self, stage: Path) -> None:
        if stage in self._intact:
            return
        if problem := damage(stage):
            raise RunError(f"{problem}: remove the folder {stage} to run this stage again")
        self._intact.add(stage)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Cells as a CSV file with ``ROW_FIELDS``; scores keep every digit."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ROW_FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def _of_results(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in FREE}


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

"""A run that is killed at any instant, and resumed, ends as one that was never stopped: to the last bit."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lifelong.run import Run

SERVER = Path(__file__).parent / "crash_server.py"
INSTANTS = 25
TIMED = ("costs.json", "rows.csv", "manifest.json")  # which have seconds in them, or checksums of these


class Children:
    """Runs of ``crash_server.experiment``, each in a child of one process that has everything loaded."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model, self.folder = str(model), folder
        self.server = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, name: str, **command: Any) -> int:
        """Returns the exit status, negative for the signal that ended the run."""
        command |= {"folder": str(self.folder / name), "model": self.model}
        self.server.stdin.write(json.dumps(command) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def children(llama_folder, tmp_path_factory):
    made = Children(llama_folder, tmp_path_factory.mktemp("crash"))
    yield made
    made.server.communicate(timeout=30)


@pytest.fixture(scope="module")
def reference(children) -> Path:
    """A run that was never stopped."""
    assert children("reference") == 0, children.log("reference")
    return children.folder / "reference"


@pytest.fixture(scope="module")
def seconds(children, reference) -> float:
    """How long a run takes when it is not stopped."""
    started = time.perf_counter()
    assert children("timed") == 0
    return time.perf_counter() - started


def content(folder: Path) -> dict[str, bytes]:
    """Of the files of all stages, but for those with seconds in them."""
    files = (path for path in sorted(folder.glob("stages/**/*")) if path.is_file() and path.name not in TIMED)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def same(folder: Path, reference: Path) -> None:
    """Weights, strategies' states, losses and answers are the same bytes; so are all cells of the matrix."""
    assert content(folder) == content(reference)
    one, other = (Run(path).rows.drop(columns="seconds") for path in (folder, reference))
    assert one.equals(other)
    assert Run(folder).status["state"] == "done"
    left = [path.name for path in folder.rglob(".*") if path.name not in (".lock", ".made-here")]
    assert left == [] and not (folder / "steps").exists()


def test_a_run_repeats_itself_to_the_byte(children, reference, seconds):
    same(children.folder / "timed", reference)


@pytest.mark.slow
def test_killed_at_random_instants_it_ends_the_same(children, reference, seconds):
    draw = random.Random(0)
    kills = run = 0
    while kills < INSTANTS:
        run += 1
        name = f"random{run}"
        for _ in range(5):  # the same run is killed again and again, and each time gets a little further
            status = children(name, kill_after=draw.uniform(0, seconds))
            if status == 0:
                break
            assert status == -signal.SIGKILL, children.log(name)
            kills += 1
        assert children(name) == 0, children.log(name)
        same(children.folder / name, reference)


@pytest.mark.slow
def test_killed_at_each_step_of_a_commit_it_ends_the_same(children, reference):
    assert children("before", kill_at=0) == -signal.SIGKILL
    seen = []
    for number in range(100):
        name = f"commit{number}"
        shutil.copytree(children.folder / "before", children.folder / name)
        status = children(name, kill_at=number)
        if status == 0:
            break
        assert status == -signal.SIGKILL, children.log(name)
        seen.append(sorted(path.name for path in (children.folder / name / "stages").iterdir()))
        assert children(name) == 0, children.log(name)
        same(children.folder / name, reference)
        shutil.rmtree(children.folder / name)
    assert status == 0 and len(seen) > 10
    assert ["0", "1"] in seen and [".2.tmp", "0", "1"] in seen and ["0", "1", "2"] in seen


SETTINGS = {"workers": {"loader_workers": 2}, "accumulated": {"accumulate": 2}}


@pytest.mark.parametrize("kind", SETTINGS)
def test_asked_to_stop_it_finishes_the_step_saves_and_says_how_to_go_on(kind, children):
    whole, name = f"whole {kind}", f"stopped {kind}"
    assert children(whole, settings=SETTINGS[kind]) == 0, children.log(whole)
    for number, asked in enumerate((signal.SIGINT, signal.SIGTERM, signal.SIGINT), 1):
        assert children(name, settings=SETTINGS[kind], stop_at=3, signal=asked) == 3, children.log(name)
        assert Run(children.folder / name).status["state"] == "interrupted"
        assert children.log(name).count(f"`lifelong resume {children.folder / name}` goes on") == number
    assert children(name, settings=SETTINGS[kind]) == 0, children.log(name)
    same(children.folder / name, children.folder / whole)

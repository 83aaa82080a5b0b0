"""When the disk is full the run stops with the previous stage whole, says so, and goes on when there is room."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lifelong import Run
from lifelong.durable import whole_folder
from lifelong.errors import DiskFullError

# in a file system of its own, which is made larger after the run has broken off
ON_A_SMALL_DISK = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from crash_server import experiment
from lifelong.errors import DiskFullError
from lifelong.run import Run

disk, model = Path(sys.argv[2]), sys.argv[3]
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sys.argv[5]}", "tmpfs", str(disk)], check=True)
try:
    experiment(str(disk / "run"), model).run(quiet=True)
except DiskFullError as error:
    print(error)
run = Run(disk / "run")
print("stages", run.folder.committed(), [path.name for path in (disk / "run").rglob(".*.tmp")])
subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
run = experiment(str(disk / "run"), model).run(quiet=True)
print("state", run.status["state"], [entry["event"] for entry in run.history])
subprocess.run(["cp", "-r", str(disk / "run"), sys.argv[4]], check=True)
"""


def unshared(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(["unshare", "-rm", *command], capture_output=True, text=True, timeout=120)


def can_mount(folder: Path) -> bool:
    try:
        return unshared("mount", "-t", "tmpfs", "tmpfs", str(folder)).returncode == 0
    except FileNotFoundError:
        return False


def test_a_run_stops_on_a_full_disk_and_goes_on_when_there_is_room(llama_folder, tmp_path):
    from tests.crash_server import experiment

    disk = tmp_path / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("this machine lets nobody make a small disk")
    whole = experiment(str(tmp_path / "whole"), str(llama_folder)).run(quiet=True)
    pages = sum(-(-file.stat().st_size // 4096) for file in whole.path.rglob("*") if file.is_file())
    size = f"{pages * 4096 * 9 // 10}"  # which its pictures and step checkpoints share
    arguments = (str(Path(__file__).parent), str(disk), str(llama_folder), str(tmp_path / "kept"), size)
    child = unshared(sys.executable, "-c", ON_A_SMALL_DISK, *arguments)
    assert child.returncode == 0, child.stderr
    said, stages, state = child.stdout.strip().splitlines()[-3:]
    assert "the disk is full" in said and "lifelong resume" in said
    kept = int(stages.split()[1])
    assert 0 < kept < 3 and stages.endswith("[]"), "the disk was not of a size that shows anything"
    assert state.startswith("state done") and "failed" in state
    rows = [run.rows.drop(columns="seconds") for run in (whole, Run(tmp_path / "kept"))]
    assert rows[0].equals(rows[1])


def test_nothing_is_left_of_a_folder_that_could_not_be_written(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(DiskFullError, match=r"the disk is full.*target could not be written"),
        whole_folder(tmp_path / "target") as folder,
    ):
        (folder / "file").write_text("content")
    assert list(tmp_path.iterdir()) == []

"""A run is followed from another process: while it learns, when it ends, and when it is gone."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
import yaml

from lifelong import Experiment, Run
from lifelong.cli import main
from lifelong.console import Console
from lifelong.progress import PROGRESS, Reporter
from lifelong.reports.watching import drawn, drawn_study, in_words
from lifelong.watching import Moment, Progress, Watched


@pytest.fixture(scope="module")
def finished(tiny_stream, llama_folder, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("watched") / "run"
    settings = {"epochs": 1, "trainer": {"accelerator": "cpu"}, "folder": folder}
    return Experiment(tiny_stream.limit(test=2), str(llama_folder), **settings).run(quiet=True)


def shown(what) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(what)
    return console.file.getvalue()


def test_a_finished_run_is_shown_once_and_left_as_it_is(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")}
    assert PROGRESS not in {path.name for path in before}
    assert main(["watch", str(finished.path)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{finished.path}: done, stage 3 of 3"]
    assert {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")} == before


def test_the_matrix_so_far_is_drawn(finished):
    text = shown(drawn("mine", Watched(finished.path).look()))
    assert "mine: done, stage 3 of 3" in text
    row = next(line for line in text.splitlines() if "after 3: numbers" in line)
    assert all(f"{score:.3f}" in row for score in finished.matrix.scores[-1].tolist())
    average = finished.metrics["average_accuracy"]
    assert f"{average:.3f}" in shown(drawn_study("all", {"one": Watched(finished.path).look()}))


def test_what_is_being_done_is_in_the_folder_while_it_is_done(tmp_path):
    now = [1000.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lifelong.progress.time.time", lambda: now[0])
        reporter = Reporter(quiet=True)
        with reporter, reporter.followed(tmp_path):
            reporter.begin("stage 1/2 [one]: learning", 10)
            for number in range(4):
                now[0] += 0.4
                reporter.advance(loss=number)
            found = json.loads((tmp_path / PROGRESS).read_text())
    assert found == {
        "doing": "stage 1/2 [one]: learning", "done": 3, "total": 10, "since": 1000.0, "at": pytest.approx(1001.2),
        "losses": [2.0],
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_time_left_is_that_of_the_steps_that_are_left():
    assert Progress("", 3, 12, 6.0, ()).left == pytest.approx(18.0)
    assert Progress("", 0, 12, 6.0, ()).left is None
    text = shown(drawn("run", Moment("running", 1, 3, progress=Progress("learning", 3, 12, 6.0, (2.0, 1.0)))))
    assert "learning" in text and "3/12" in text and "about 0:00:18 left" in text and "loss 1.0000  █▁" in text


@pytest.mark.parametrize("content", ["", "[]", '{"doing": 3}', '{"doing": "x", "done": "y"}'])
def test_a_progress_that_cannot_be_read_is_none(content, finished, monkeypatch):
    monkeypatch.setattr("lifelong.watching.is_locked", lambda folder: True)
    (finished.path / PROGRESS).write_text(content)
    try:
        moment = Watched(finished.path).look()
    finally:
        (finished.path / PROGRESS).unlink()
    assert moment.state == "running" and moment.progress is None


def test_what_data_say_cannot_command_the_terminal():
    moment = Moment("failed", 1, 2, reason="\x1b[31mred [bold]\x1b]0;title\x07", progress=None)
    assert "\x1b" not in shown(drawn("a", moment)) and "[bold]" in shown(drawn("a", moment))
    assert "[bold]" in in_words("a", moment)


@pytest.fixture
def going_on(tiny_stream, llama_folder, tmp_path):
    """A run in another process that would take long, with the folder that it works in."""
    tiny_stream.limit(test=2).save(tmp_path / "stream")
    settings = {
        "stream": str(tmp_path / "stream"),
        "model": str(llama_folder),
        "epochs": 20_000,
        "trainer": {"accelerator": "cpu"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "lifelong", "run", str(tmp_path / "run.yaml"), "--folder", str(tmp_path / "run")]
    with subprocess.Popen([*command, "--quiet"], start_new_session=True) as process:
        yield process, tmp_path / "run"
        process.kill()


def test_a_run_is_followed_until_its_process_is_gone(going_on):
    """In a terminal: first it is waited for, then it learns, then it is killed."""
    process, folder = going_on
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "lifelong", "watch", str(folder)]
    size = os.environ | {"COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=slave, stderr=slave, env=size) as watch:
        os.close(slave)
        seen, deadline = b"", time.monotonic() + 120
        while b"loss" not in seen and time.monotonic() < deadline:
            seen += os.read(master, 65536)
        moment = Watched(folder).look()
        process.send_signal(signal.SIGKILL)
        try:
            while part := os.read(master, 65536):
                seen += part
        except OSError:  # the terminal has no other end any more
            pass
        assert watch.wait(timeout=60) == 1
    os.close(master)
    assert b"learning" in seen and "▁".encode() in seen and b"killed" in seen
    assert moment.state == "running" and moment.progress.total == 20_000
    assert 0 < moment.progress.done < 20_000


def test_ctrl_c_leaves_at_once_and_the_run_goes_on(going_on):
    process, folder = going_on
    command = [sys.executable, "-m", "lifelong", "watch", str(folder)]
    hears = {
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    }  # also where this process is deaf to it
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **hears) as watch:
        line = watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=60)
    assert watch.returncode == 0 and str(folder) in line and "Traceback" not in errors
    assert process.poll() is None

"""One process at a time works on a run folder, and one that is gone keeps nobody out."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from lifelong.errors import RunError
from lifelong.lock import BEAT, DEAD, LOCK, is_locked, locked

HOLDER = """
import sys, time
from pathlib import Path
from lifelong.lock import locked
with locked(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works on the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "mine\n"
        yield process
        process.kill()


def left_by(folder, host, age):
    """A lock that a process on some host took, and that was last touched so many seconds ago."""
    (folder / LOCK).write_text(
        json.dumps({"host": host, "process": 1, "user": 0, "since": "2026-01-01T00:00:00+00:00"})
    )
    os.utime(folder / LOCK, (time.time() - age,) * 2)


def test_the_second_process_is_refused_and_told_who_is_the_first(holder, tmp_path):
    assert is_locked(tmp_path)
    words = f"by process {holder.pid} on {socket.gethostname()} since 20.*remove .*{LOCK}"
    with pytest.raises(RunError, match=words), locked(tmp_path):
        pytest.fail("two at a time")


def test_one_that_was_killed_keeps_nobody_out(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / LOCK).read_text())["process"] == holder.pid  # it could not tidy up
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        pass


def test_it_is_given_back_also_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        assert is_locked(tmp_path)
        raise ZeroDivisionError
    assert not is_locked(tmp_path) and (tmp_path / LOCK).read_text() == ""


def test_within_one_process_it_is_taken_once_too(tmp_path):
    with locked(tmp_path), pytest.raises(RunError, match="is being worked on"), locked(tmp_path):
        pytest.fail("two at a time")


def test_another_host_counts_as_alive_while_it_gives_signs_of_life(tmp_path):
    left_by(tmp_path, "elsewhere", age=BEAT)
    assert is_locked(tmp_path)
    with pytest.raises(RunError, match="process 1 on elsewhere since 2026-01-01"), locked(tmp_path):
        pytest.fail("two at a time")
    left_by(tmp_path, "elsewhere", age=DEAD + 1)
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["host"] == socket.gethostname()


def test_a_process_of_this_host_that_is_gone_is_not_waited_for(tmp_path):
    left_by(tmp_path, socket.gethostname(), age=0)
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00\xff"])
def test_a_lock_that_says_nothing_keeps_nobody_out(text, tmp_path):
    (tmp_path / LOCK).write_text(text)
    with locked(tmp_path):
        pass


def test_the_owner_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr("lifelong.lock.BEAT", 0.01)
    with locked(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        for _ in range(500):
            if (tmp_path / LOCK).stat().st_mtime > 0:
                return
            time.sleep(0.01)
    pytest.fail("no sign of life in five seconds")

"""A process that has everything loaded, and runs each toy run in a child of its own, which may be killed.

Reads a JSON object per line: ``folder`` and ``model``; ``settings`` of the experiment; and how the run is broken off:
``kill_after`` so many seconds; ``kill_at`` the n-th step of the commit of stage 2, counted in calls that reach the
disk; or ``stop_at`` the n-th optimiser step of this process, with ``signal``. Writes the child's exit status per line,
negative for the signal that ended it. What the child prints goes to ``folder.log``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

from lifelong.experiment import Experiment
from lifelong.folder import RunFolder
from lifelong.learner import Learner
from lifelong.strategies import EWC, Replay
from lifelong.testing.runs import toy_adapter
from lifelong.testing.toys import toy_stream

STREAM = toy_stream()


def experiment(folder: str, model: str, **settings: Any) -> Experiment:
    """Two strategies that remember, dropout, and an odd number of steps in an epoch."""
    defaults: dict[str, Any] = {
        "adapter": toy_adapter("LoRA"),
        "strategies": [Replay(capacity=5), EWC(strength=10.0)],
        "epochs": 5,
        "batch_size": 3,
        "learning_rate": 3e-3,
        "checkpoint_every": 2,
        "check_resources": False,
        "evaluate": {"probes": False, "max_new_tokens": 4},
        "trainer": {"accelerator": "cpu"},
    }
    return Experiment(STREAM, model, folder=folder, **defaults | settings)


def die_at(number: int) -> None:
    """Kill this process before the n-th call that reaches the disk while stage 2 is committed."""
    left: dict[str, int | None] = {"calls": None}

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if left["calls"] is not None:
                left["calls"] -= 1
                if left["calls"] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "mkdir"), (shutil, "rmtree")):
        setattr(owner, name, counted(getattr(owner, name)))
    commit, begin = RunFolder.commit, Learner.begin_stage

    def armed(folder: RunFolder, index: int) -> Any:
        left["calls"] = number if index == 2 else None
        return commit(folder, index)

    def disarmed(learner: Learner, *arguments: Any) -> Any:
        left["calls"] = None  # of the stage before, which is behind us
        return begin(learner, *arguments)

    RunFolder.commit, Learner.begin_stage = armed, disarmed


def stop_at(number: int, kind: int) -> None:
    """Send this process a signal during its n-th optimiser step."""
    left = [number]

    def counted(*_: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), kind)

    register_optimizer_step_post_hook(counted)


def child(command: dict[str, Any]) -> int:
    log = os.open(f"{command['folder']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if "kill_at" in command:
        die_at(command["kill_at"])
    if "stop_at" in command:
        stop_at(command["stop_at"], command["signal"])
    try:
        experiment(command["folder"], command["model"], **command.get("settings", {})).run(quiet=True)
    except BaseException as error:
        traceback.print_exc()
        return 3 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        process = os.fork()
        if process == 0:
            os._exit(child(command))
        if "kill_after" in command:
            time.sleep(command["kill_after"])
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()

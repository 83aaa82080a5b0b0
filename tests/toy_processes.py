"""A program that runs small experiments, on as many devices as it is told; each process notes what it has written."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from peft import LoraConfig

from lifelong import Experiment, Task, TaskStream
from lifelong.adapters import LoraMoeConfig, MoralConfig
from lifelong.strategies import AGEM, EWC, GeneralReplay, LwF, OrthogonalLoRA, Replay, Strategy, Traits

TEXT = Task.from_pairs("general", [(f"What is {number} and one?", str(number + 1)) for number in range(9)])


def cases() -> dict[str, dict[str, Any]]:
    """Settings that differ from the others', without dropout: its masks are drawn by each process for its own rows."""
    moral = {"num_experts": 3, "top_k": 2, "r": 2, "lora_dropout": 0.0, "balance_weight": 0.1}
    loramoe = {"r": 2, "lora_dropout": 0.0, "balance_weight": 0.01}
    sgd = {"optimizer": "SGD", "learning_rate": 0.1, "epochs": 2}
    return {
        "naive": {},
        "replay": {"strategies": [Replay(0.5), GeneralReplay(TEXT)], "batch_size": 3, "accumulate": 2},
        "EWC": {"strategies": [EWC(100.0), LwF(), AGEM()]} | sgd,
        "MoRAL": {"adapter": MoralConfig(**moral)} | sgd,
        # of a micro-batch of one row the second process has none
        "idle": {"adapter": MoralConfig(**moral), "strategies": [LwF()], "batch_size": 1, "accumulate": 3} | sgd,
        "LoRAMoE": {"adapter": LoraMoeConfig(**loramoe), "batch_size": 5} | sgd,
        "O-LoRA": {
            "adapter": LoraConfig(r=2, target_modules="all-linear"),
            "strategies": [OrthogonalLoRA(lambda2=0.01)],
        }
        | sgd,
    }


def experiments(model: Path, stream: TaskStream, folder: Path, devices: int) -> dict[str, Experiment]:
    """One for each case, with the same rows in a step whatever the number of devices."""
    common = _common(devices)
    return {
        name: Experiment(stream, str(model), folder=folder / name, **common | settings)
        for name, settings in cases().items()
    }


def _common(devices: int) -> dict[str, Any]:
    return {
        "epochs": 8,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "check_resources": False,
        "evaluate": {"probes": False},
        "trainer": {"accelerator": "cpu", "devices": devices},
    }


class Failing(Strategy):
    """Fails in one process alone, in the first step of the second stage."""

    traits = Traits(several_devices=True)

    def __init__(self, process: int = 1, name: str | None = None) -> None:
        super().__init__(name)
        self.process = process

    def loss(self, learner, batch, outputs, loss):
        if learner.stage.index == 2 and learner.trainer.global_rank == self.process:
            raise ValueError("out of luck")
        return loss


def main(model: Path, stream: Path, folder: Path, devices: int) -> None:
    written: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            written.extend(str(one) for one in arguments[:2] if str(one).startswith(str(folder)))

    sys.addaudithook(note)
    made = experiments(model, TaskStream.load(stream), folder, devices)
    runs = {name: each.run(quiet=True) for name, each in made.items()}
    number = os.environ.get("LOCAL_RANK", "0")
    cells = {name: [run.status, run.rows["score"].tolist()] for name, run in runs.items()}
    (folder.parent / f"process-{number}.json").write_text(json.dumps({"written": written, "cells": cells}))
    failing = {"strategies": [Failing()], "folder": folder / "failing"}
    Experiment(TaskStream.load(stream), str(model), **_common(devices) | failing).run(quiet=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]))

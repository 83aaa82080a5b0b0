"""Two processes do what one does: the same matrix, every question once, one writer; and they end together.

How near they come: a process adds up fewer rows at a time, and the sums of two are added then, so that every loss and
every gradient is the same but for rounding in float32, some 1e-7 of its size. Plain SGD leaves weights within 1e-5
after some steps. AdamW divides a gradient by its own size: a weight whose gradient is nothing but rounding moves by up
to the learning rate either way, which is .01 here, so that its weights are compared less strictly. Scores are means
over answers, which differ only where two tokens are as likely as each other to seven digits; here none are, and all are
the same. Dropout is drawn by each process for its own rows, so that with dropout runs agree in distribution alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lifelong import Experiment, Run, Study, Task, TaskStream, distributed
from lifelong.errors import ConfigError
from lifelong.processes import said_devices
from lifelong.strategies import DarkReplay
from tests.toy_processes import cases, experiments

PROGRAM = Path(__file__).with_name("toy_processes.py")
CLUSTER = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE")


def started(*command: object, seconds: float = 150) -> subprocess.CompletedProcess[str]:
    """A program of Python's, which may start others; they choose a free port."""
    environment = {name: value for name, value in os.environ.items() if name not in CLUSTER}
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=seconds)


@pytest.fixture(scope="module")
def model(llama_folder, tmp_path_factory) -> Path:
    """The Llama-style model without dropout."""
    folder = shutil.copytree(llama_folder, tmp_path_factory.mktemp("models") / "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.0}))
    return folder


@pytest.fixture(scope="module")
def of_two(model, tiny_stream, tmp_path_factory) -> Path:
    """The folder in which two processes have run all cases, and then one in which the second fails."""
    folder = tmp_path_factory.mktemp("two")
    tiny_stream.save(folder / "stream")
    result = started(PROGRAM, model, folder / "stream", folder / "runs", 2)
    (folder / "errors.txt").write_text(result.stderr)
    assert result.returncode == 1 and (folder / "process-0.json").is_file(), result.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", cases())
def test_two_processes_end_where_one_does(case, of_two, model, tmp_path):
    stream = TaskStream.load(of_two / "stream")
    one, two = experiments(model, stream, tmp_path, 1)[case].run(quiet=True), Run(of_two / "runs" / case)
    cells = [run.rows.drop(columns="seconds") for run in (one, two)]
    assert cells[0].equals(cells[1])
    assert one.predictions.equals(two.predictions)
    tolerance = 1e-5 if one.config["optimizer"] == "SGD" else 2e-2
    for stage in range(1, len(stream) + 1):
        folders = [run.folder.stage(stage) for run in (one, two)]
        losses = [torch.tensor(json.loads((folder / "losses.json").read_text())) for folder in folders]
        torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
        for file in folders[0].rglob("*.safetensors"):
            weights = [load_file(folder / file.relative_to(folders[0])) for folder in folders]
            torch.testing.assert_close(*weights, rtol=1e-3, atol=tolerance)
        if (folders[0] / "routing.json").is_file():
            uses = [json.loads((folder / "routing.json").read_text())["uses"] for folder in folders]
            assert [use["tokens"] for use in uses[0]] == [use["tokens"] for use in uses[1]]
            gates = [torch.tensor([use["gates"] for use in some]) for some in uses]
            torch.testing.assert_close(*gates, rtol=1e-4, atol=1e-5)
    for costs in zip(one.costs, two.costs, strict=True):
        assert costs[0]["auxiliary"] == pytest.approx(costs[1]["auxiliary"], rel=1e-4)
        assert costs[0]["shortened"] == costs[1]["shortened"]
        # a process may read a row of its own for want of another, or one that the other one reads too
        assert costs[0]["train_tokens"] <= costs[1]["train_tokens"] <= 2 * costs[0]["train_tokens"]
    if case == "naive":
        assert [cost["train_tokens"] for cost in one.costs] == [cost["train_tokens"] for cost in two.costs]


@pytest.mark.slow
def test_cases_learn_something_that_could_differ(of_two):
    assert Run(of_two / "runs" / "naive").rows["score"].max() > 0.4


@pytest.mark.slow
def test_one_process_writes_and_both_know_the_result(of_two):
    first, second = (json.loads((of_two / f"process-{number}.json").read_text()) for number in (0, 1))
    assert len(first["written"]) > 100
    assert second["written"] == []
    assert first["cells"] == second["cells"]


def settings_of(model: Path, stream: TaskStream, folder: Path, **settings: object) -> Path:
    """A file for ``lifelong run`` on two devices."""
    stream.save(folder / "stream")
    common = {"stream": str(folder / "stream"), "model": str(model), "epochs": 1, "folder": str(folder / "run")}
    trainer = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(common | {"trainer": trainer} | settings))
    return file


@pytest.mark.slow
def test_the_command_line_asks_101_questions_once_each(model, tmp_path):
    rows = [{"question": f"What is number {number}?", "answers": [str(number % 7)]} for number in range(101)]
    passages = [{**row, "passages": [f"Number {number} is {number % 7}."]} for number, row in enumerate(rows)]
    stream = TaskStream("numbers", [Task("numbers", passages[:4], passages), Task("one", passages[:3], passages[:1])])
    file = settings_of(model, stream, tmp_path, evaluate={"books": ["closed", "gold"], "max_new_tokens": 2})
    result = started("-m", "lifelong", "run", file)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("after 2/2 one") == 1  # one process speaks
    run = Run(tmp_path / "run")
    asked = run.predictions.query("task == 'numbers'")
    for _, answers in asked.groupby(["stage", "pass"]):
        assert answers["question"].tolist() == [row["question"] for row in rows]
    assert len(asked) == 3 * 2 * 101
    assert set(run.rows.query("task == 'numbers'")["count"]) == {101}
    assert set(run.rows.query("task == 'one'")["count"]) == {1}
    assert run.status["state"] == "done"


@pytest.mark.slow
def test_an_error_in_the_second_process_ends_both_and_is_told_by_the_first(of_two):
    status = Run(of_two / "runs" / "failing").status
    assert (status["state"], status["stage"]) == ("failed", 1)
    assert status["reason"] == "ProcessError: process 1: ValueError: out of luck"
    assert "lifelong.errors.ProcessError: process 1: ValueError: out of luck" in (of_two / "errors.txt").read_text()


@pytest.mark.slow
def test_an_error_in_the_first_process_ends_both(model, tiny_stream, tmp_path):
    strategy = {"class_path": f"{PROGRAM}:Failing", "init_args": {"process": 0}}
    file = settings_of(model, tiny_stream, tmp_path, strategies=[strategy])
    result = started("-m", "lifelong", "run", file, "--quiet")
    assert result.returncode == 1
    assert "ValueError: out of luck" in result.stderr
    status = Run(tmp_path / "run").status
    assert (status["state"], status["stage"]) == ("failed", 1)
    assert status["reason"] == "ValueError: out of luck"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategies": [DarkReplay()], "trainer": {"devices": 2}}, "DarkReplay works on one device"),
        ({"strategies": [DarkReplay()], "trainer": {"num_nodes": 2}}, "DarkReplay works on one device"),
        ({"device_map": "auto", "trainer": {"devices": 2}}, "device_map: on several devices each holds the whole"),
        ({"trainer": {"strategy": "fsdp"}}, "trainer.strategy: .*'fsdp': a process there holds a part of each weight"),
        ({"trainer": {"strategy": "deepspeed_stage_2"}}, "trainer.strategy: .*: its engine accumulates"),
        ({"trainer": {"strategy": "ddp_spawn", "devices": 2}}, "trainer.strategy: .*'ddp_spawn': its processes end"),
        ({"trainer": {"strategy": "ddp_notebook"}}, "trainer.strategy: .*'ddp_notebook': its processes end"),
    ],
)
def test_what_cannot_run_on_several_devices_is_refused_with_the_reason(settings, message, tiny_stream, llama_folder):
    with pytest.raises(ConfigError, match=message):
        Experiment(tiny_stream, str(llama_folder), **settings)


def test_a_program_that_is_no_file_cannot_be_run_again(tiny_stream, llama_folder, tmp_path, monkeypatch):
    settings = {"trainer": {"accelerator": "cpu", "devices": 2}, "folder": tmp_path / "run"}
    experiment = Experiment(tiny_stream, str(llama_folder), **settings)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", ["-c"])
    with pytest.raises(ConfigError, match="there is no file to run"):
        experiment.run(quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_for_one_device_does_not_run_in_two_processes_at_once(tiny_stream, llama_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="runs as 2 processes, and the run is one for 1"):
        Experiment(tiny_stream, str(llama_folder), folder=tmp_path / "run").run(quiet=True)


def test_the_runs_of_a_study_take_one_device_each(tiny_stream, llama_folder, tmp_path):
    base = {"stream": tiny_stream, "model": str(llama_folder), "trainer": {"accelerator": "cpu", "devices": 2}}
    with pytest.raises(ConfigError, match="the runs of a study take one device each"):
        Study(base, {"seed": [0, 1]}, tmp_path / "study").run(quiet=True)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 1),
        ({"devices": "auto"}, 1),
        ({"devices": -1}, 1),
        ({"devices": [3]}, 1),
        ({"devices": "2"}, 2),
        ({"devices": "0,1,5"}, 3),
        ({"devices": [0, 1], "num_nodes": 3}, 6),
    ],
)
def test_devices_are_counted_as_far_as_settings_say(settings, count):
    assert said_devices(settings) == count


def as_process(monkeypatch, number: int, count: int) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: number)
    monkeypatch.setattr(distributed, "world_size", lambda: count)


@pytest.mark.parametrize(("rows", "count"), [(6, 2), (5, 3), (1, 2), (2, 4)])
def test_the_parts_of_a_batch_are_the_batch(rows, count, monkeypatch):
    batch = {
        "input_ids": torch.arange(rows * 3).view(rows, 3),
        "weight": torch.ones(rows),
        "task": [f"task {number}" for number in range(rows)],
        "source": ["stream"] * rows,
    }
    found: list[tuple[str, list[int]]] = []
    for number in range(count):
        as_process(monkeypatch, number, count)
        part = distributed.shard(batch)
        assert len(part["task"]) == len(part["weight"]) == len(part["input_ids"]) > 0
        there = [source != distributed.IDLE for source in part["source"]]
        assert part["weight"].tolist() == [float(one) for one in there]
        rows_there = zip(part["task"], part["input_ids"].tolist(), there, strict=True)
        found += [(task, ids) for task, ids, one in rows_there if one]
    assert sorted(found) == sorted(zip(batch["task"], batch["input_ids"].tolist(), strict=True))


def test_one_process_has_everything_and_adds_up_nothing():
    batch, tensor = {"task": ["a"], "weight": torch.ones(1)}, torch.ones(2, requires_grad=True)
    assert distributed.shard(batch) is batch
    assert distributed.total(tensor) is tensor
    assert distributed.share([1, 2, 3]) == distributed.gathered([1, 2, 3]) == [1, 2, 3]
    assert (distributed.world_size(), distributed.rank(), distributed.is_first()) == (1, 0, True)


REMEMBERING = {
    "adapter": {"class_path": "lifelong.adapters.MoralConfig", "init_args": {"num_experts": 3, "top_k": 2, "r": 2}},
    "strategies": [
        {"class_path": "Replay", "init_args": {"capacity": 0.5}},
        {"class_path": "EWC", "init_args": {"strength": 10.0}},
    ],
    "epochs": 6,
    "batch_size": 3,
    "checkpoint_every": 2,
    "evaluate": {"probes": False, "max_new_tokens": 2},
}


@pytest.fixture(scope="module")
def uninterrupted(llama_folder, tiny_stream, tmp_path_factory) -> Run:
    """A run of two processes with dropout, a mixture, and two strategies that remember."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    result = started("-m", "lifelong", "run", settings_of(llama_folder, tiny_stream, folder, **REMEMBERING))
    assert result.returncode == 0, result.stderr
    return Run(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_in_the_middle_of_a_stage_both_go_on_to_the_same_bits(
    how, uninterrupted, llama_folder, tiny_stream, tmp_path
):
    file = settings_of(llama_folder, tiny_stream, tmp_path, **REMEMBERING)
    command = [sys.executable, "-m", "lifelong", "run", str(file), "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(1500):
            if (tmp_path / "run" / "steps" / "2-4").exists() or process.poll() is not None:
                break
            time.sleep(0.02)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 143), said
    assert Run(tmp_path / "run").folder.committed() == 1
    if how == signal.SIGTERM:
        assert said.count("goes on") == 1 and "saved after step" in said
    else:
        time.sleep(3)  # in which the second process notices that it is alone
    result = started("-m", "lifelong", "resume", tmp_path / "run", "--quiet")
    assert result.returncode == 0, result.stderr
    run = Run(tmp_path / "run")
    assert run.rows.drop(columns="seconds").equals(uninterrupted.rows.drop(columns="seconds"))
    assert run.predictions.equals(uninterrupted.predictions)
    for stage in (2, 3):
        weights = [
            load_file(each.folder.stage(stage) / "adapter" / "adapter_model.safetensors")
            for each in (run, uninterrupted)
        ]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0] | weights[1])

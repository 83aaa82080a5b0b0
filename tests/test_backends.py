"""The same study gives the same numbers wherever its runs are worked on."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import ray
import yaml

from lifelong import Experiment, Run, Study
from lifelong.backends import Ray
from lifelong.strategies import Replay, Strategy


class KilledOnce(Strategy):
    """Takes its worker along, in the second stage of the first attempt."""

    def before_stage(self, learner, stage):
        mark = Path(os.environ["LIFELONG_TEST_MARK"])
        if stage.index == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def study(stream, model: Path, folder: Path) -> Study:
    settings = {"epochs": 1, "batch_size": 4, "trainer": {"accelerator": "cpu"}, "evaluate": {"max_new_tokens": 3}}
    vary = {"strategies": {"replay": [Replay(0.5)], "killed": [KilledOnce()]}, "seed": [0, 1]}
    return Study(Experiment(stream, str(model), **settings), vary, folder)


@pytest.mark.slow
def test_on_a_ray_cluster_a_lost_worker_is_replaced_and_its_run_goes_on(
    tiny_stream, llama_folder, tmp_path, monkeypatch
):
    mark = tmp_path / "killed"
    monkeypatch.setenv("LIFELONG_TEST_MARK", str(mark))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        spread = study(tiny_stream, llama_folder, tmp_path / "spread").run(quiet=True, backend=Ray(retries=1))
    finally:
        ray.shutdown()
    assert mark.exists()
    together = study(tiny_stream, llama_folder, tmp_path / "together").run(quiet=True)
    for name, run in together.runs.items():
        assert spread.runs[name].rows.drop(columns="seconds").equals(run.rows.drop(columns="seconds"))
        assert spread.runs[name].status["state"] == "done"
    attempts = [sum(event["event"] == "run" for event in run.history) for run in spread.runs.values()]
    assert sorted(attempts) == [1, 1, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("stopped_by", [signal.SIGTERM, signal.SIGINT])
def test_a_study_that_is_stopped_saves_all_its_runs_and_leaves_no_process(stopped_by, tmp_path):
    settings = {
        "stream": "streams.world_facts",
        "adapter": {"class_path": "peft.LoraConfig", "init_args": {"r": 2, "target_modules": "all-linear"}},
        "epochs": 1000,
        "evaluate": {"tasks": "seen", "probes": False},
        "vary": {"seed": [0, 1, 2]},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(settings))
    words = ["run", str(tmp_path / "study.yaml"), "--folder", str(tmp_path / "study"), "--jobs", "2"]
    # a process that was started in the background of a script is deaf to SIGINT, and so would be its children
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = psutil.Popen([sys.executable, "-m", "lifelong", *words], preexec_fn=hears)
    begun = [tmp_path / "study" / f"seed={seed}" / "stages" / "0" for seed in (0, 1)]
    while not all(stage.is_dir() for stage in begun):
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1.0)
    children = process.children(recursive=True)
    process.send_signal(stopped_by)  # to the parent alone, as a scheduler does
    assert process.wait(timeout=60) == 128 + stopped_by
    psutil.wait_procs(children, timeout=60)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    states = [Run(stage.parents[1]).status["state"] for stage in begun]
    assert states == ["interrupted", "interrupted"]
    assert all(list((stage.parents[1] / "steps").iterdir()) for stage in begun)
    assert not (tmp_path / "study" / "seed=2").exists()

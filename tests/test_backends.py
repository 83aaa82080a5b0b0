"""The same study gives the same numbers wherever its runs are worked on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import ray

from lifelong import Experiment, Study
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

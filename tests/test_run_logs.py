"""Loggers hold what the run's own files hold, each step once, also after the run was stopped and resumed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from lifelong import Experiment, Run, run_logs
from lifelong.config import make_experiment, read_config
from lifelong.errors import ConfigError
from lifelong.strategies import Strategy


class StopsOnce(Strategy):
    """Stops the run after some steps of stage 2; of these the last one was not saved."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark

    def on_train_batch_end(self, trainer, learner, *batch):
        if learner.stage.index == 2 and len(learner.losses) == 3 and not Path(self.mark).exists():
            Path(self.mark).touch()
            raise KeyboardInterrupt


@pytest.fixture
def make(tiny_stream, llama_folder, tmp_path, monkeypatch):
    """A function that makes an experiment of 3 stages of 4 steps, which logs every step."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    # TensorBoard reads files by name; of those begun in one second the tenth of a process would come before the ninth
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(1000))

    def make(*loggers, **settings) -> Experiment:
        return Experiment(
            tiny_stream.limit(test=3),
            str(llama_folder),
            folder=tmp_path / "run",
            epochs=2,
            batch_size=4,
            loggers=loggers,
            checkpoint_every=2,
            trainer={"accelerator": "cpu", "log_every_n_steps": 1},
            **settings,
        )

    return make


def losses_of(run: Run) -> dict[str, list[tuple[int, float]]]:
    """The losses of all stages under the names that they have in logs, with their steps in the run."""
    found, step = {}, 0
    for stage, task in enumerate(run.tasks, start=1):
        losses = json.loads((run.folder.stage(stage) / "losses.json").read_text())
        found[f"train/{stage}-{task}/loss"] = [(step + n, loss) for n, loss in enumerate(losses, start=1)]
        step += len(losses)
    return found


def cells_of(run: Run) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in run.rows.to_dict("records"):
        name = f"{row['split']}/{row['pass']}/{row['task']}/{row['metric']}"
        found.setdefault(name, []).append((4 * row["stage"], row["score"]))
    return found


def in_csv(run: Run) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    with (run.path / "logs" / "csv" / "metrics.csv").open() as lines:
        for row in csv.DictReader(lines):
            for name, value in row.items():
                if value and name != "step":
                    found.setdefault(name, []).append((int(row["step"]), float(value)))
    return found


def in_tensorboard(run: Run) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.path / "logs" / "tensorboard")).Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def close(found, expected):
    assert expected.keys() <= found.keys()
    for name, points in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], abs=2e-6), name


@pytest.mark.parametrize("stopped", [False, True], ids=["at once", "stopped and resumed"])
def test_csv_and_tensorboard_hold_every_loss_and_cell_once(make, stopped, tmp_path):
    experiment = make("csv", "tensorboard", strategies=[StopsOnce(str(tmp_path / "mark"))])
    if stopped:
        with pytest.raises(KeyboardInterrupt):
            experiment.run(quiet=True)
        assert not (tmp_path / "run" / "stages" / "2").exists()
    else:
        (tmp_path / "mark").touch()
    run = make("csv", "tensorboard", strategies=[StopsOnce(str(tmp_path / "mark"))]).run(quiet=True)
    expected = losses_of(run) | cells_of(run)
    assert [len(points) for points in losses_of(run).values()] == [4, 4, 4]
    for found in (in_csv(run), in_tensorboard(run)):
        close(found, expected)
        in_the_end = {name.removeprefix("figures/"): points[-1] for name, points in found.items() if "figures/" in name}
        for name in ("average_accuracy", "forgetting", "backward_transfer"):
            assert in_the_end[name] == (12, pytest.approx(run.metrics[name]))
        assert [step for step, _ in found["costs/train_seconds"]] == [0, 4, 8, 12]
        # after two stages the stream of the first two tasks is over
        scores = run.matrix.scores[2, :2].tolist()
        assert found["figures/average_accuracy"][1] == (8, pytest.approx(sum(scores) / 2))


def test_the_settings_are_logged_and_saved_by_name(make, tmp_path):
    run = make("csv").run(quiet=True)
    assert yaml.safe_load((run.path / "logs" / "csv" / "hparams.yaml").read_text())["epochs"] == 2
    assert run.config["loggers"] == ["csv"]
    again = make_experiment(read_config(run.path / "config.yaml"))
    assert list(again.loggers) == ["csv"]


def test_a_logger_of_ones_own_is_one_for_all_stages(make, tmp_path):
    run = make(CSVLogger(tmp_path / "own", "mine")).run(quiet=True)
    (folder,) = (tmp_path / "own" / "mine").iterdir()
    with (folder / "metrics.csv").open() as lines:
        steps = [int(row["step"]) for row in csv.DictReader(lines)]
    assert sorted(set(steps)) == list(range(13))
    assert losses_of(run).keys() <= set((folder / "metrics.csv").read_text().splitlines()[0].split(","))


def test_weights_and_biases(make, tmp_path):
    import wandb

    run = make("wandb").run(quiet=True)
    assert wandb.run.id == (run.path / "logs" / "wandb.id").read_text()
    summary = dict(wandb.run.summary)
    wandb.finish()
    for name, points in (losses_of(run) | cells_of(run)).items():
        assert summary[name] == pytest.approx(points[-1][1], abs=2e-6)
    assert list((run.path / "logs" / "wandb").glob("offline-run-*"))


def test_mlflow_goes_on_with_its_run(make, tmp_path):
    from mlflow import MlflowClient

    with pytest.raises(KeyboardInterrupt):
        make("mlflow", strategies=[StopsOnce(str(tmp_path / "mark"))]).run(quiet=True)
    run = make("mlflow", strategies=[StopsOnce(str(tmp_path / "mark"))]).run(quiet=True)
    client = MlflowClient(f"sqlite:///{run.path / 'logs' / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'lifelong'")
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.info.status == "FINISHED" and kept.data.params["epochs"] == "2"
    for name, points in cells_of(run).items():
        history = client.get_metric_history(kept.info.run_id, name)
        assert [(one.step, one.value) for one in history] == points


def test_what_is_no_logger_is_refused_before_anything_runs(make, monkeypatch):
    with pytest.raises(ConfigError, match=r"loggers.1: there is no 'tensorbord'. Did you mean 'tensorboard'"):
        make("csv", "tensorbord")
    with pytest.raises(ConfigError, match=r"loggers.0: expected one of Lightning's, or a name, got 3"):
        make(3)
    monkeypatch.setattr(run_logs, "find_spec", lambda name: None)
    make("csv")
    with pytest.raises(ConfigError, match=r"loggers.0: 'mlflow' needs the extra loggers: pip install"):
        make("mlflow")


@pytest.mark.parametrize(("name", "goes"), [("csv", True), ("tensorboard", True), ("wandb", False), ("mlflow", False)])
def test_a_stranger_logs_into_the_folder_only(name, goes):
    settings = {"stream": "streams.world_facts", "loggers": [name]}
    if goes:
        assert make_experiment(settings, trust=False).loggers == [name]
    else:
        with pytest.raises(ConfigError, match=r"loggers: .* use --trust"):
            make_experiment(settings, trust=False)

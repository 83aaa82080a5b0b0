"""The whole loop for encoder-decoders and classifiers: repeatable to the bit, resumable, learning in every stage."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from peft import LoraConfig
from safetensors.torch import load_file

from lifelong import Experiment, Run, Task, TaskStream
from lifelong.classification import labels_of
from lifelong.cli import main
from lifelong.errors import ConfigError, DataError, DivergedError, ModelError
from lifelong.evaluation import Evaluation
from lifelong.learner import Learner
from lifelong.libraries import quiet_libraries
from lifelong.models import load_model
from lifelong.strategies import Cumulative, Joint, Replay, Strategy
from lifelong.strategies.base import Stage
from lifelong.training import Training

KINDS = ("t5 full", "t5 lora", "bert full", "bert lora")
STEPS = 2 * 2  # of a stage: two epochs over eight rows in batches of four


@pytest.fixture(scope="module")
def setting(tiny_stream, labelled_stream, t5_folder, bert_folder):
    """A function that makes an experiment of one kind: ``setting("bert lora", folder, **arguments of Experiment)``."""
    streams = {"t5": tiny_stream, "bert": labelled_stream}
    models = {"t5": t5_folder, "bert": bert_folder}

    def make(kind: str, folder, stages: int = 3, **settings) -> Experiment:
        style, _, weights = kind.partition(" ")
        defaults = {
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "trainer": {"accelerator": "cpu"},
            "adapter": LoraConfig(r=4, lora_dropout=0.2, target_modules="all-linear") if weights == "lora" else None,
            "evaluate": Evaluation(probes=False),
        }
        defaults["stream"] = streams[style][:stages]
        return Experiment(folder=folder, **defaults | {"model": str(models[style])} | settings)

    return make


def EVERYTHING() -> dict:
    """Two replays, and both books: with dropout all that draws."""
    evaluation = Evaluation(books=("closed", "gold"), probes=False)
    return {"strategies": [Replay(0.5), Replay(3, share=0.25)], "evaluate": evaluation}


def weights(run: Run, stage: int) -> dict[str, torch.Tensor]:
    folder = run.folder.stage(stage)
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{file.relative_to(folder)}/{name}": kept for file in files for name, kept in load_file(file).items()}


def assert_same(first: Run, second: Run, stages: int = 3) -> None:
    """Equal to the last bit: every cell, every answer, every weight."""
    cells = [run.rows.drop(columns="seconds") for run in (first, second)]
    assert cells[0].equals(cells[1])
    assert first.predictions.equals(second.predictions)
    for stage in range(1, stages + 1):
        kept = [weights(run, stage) for run in (first, second)]
        assert kept[0].keys() == kept[1].keys()
        assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(kind, setting, tmp_path_factory) -> Run:
    """A run of one kind from beginning to end."""
    return setting(kind, tmp_path_factory.mktemp("runs") / "whole", **EVERYTHING()).run(quiet=True)


# ---------------------------------------------------------------- repeated and resumed


def test_every_stage_is_measured_on_every_task_in_every_pass(whole):
    assert whole.rows.groupby(["split", "pass"]).size().to_dict() == {("test", "closed"): 12, ("test", "gold"): 12}
    assert set(whole.rows["count"]) == {8}
    assert [whole.status[name] for name in ("state", "stage", "stages")] == ["done", 3, 3]


def test_a_stage_keeps_the_weights_that_it_trains(whole, kind):
    names = {name.rpartition("/")[0] for name in weights(whole, 2)}
    kept = "adapter/adapter_model.safetensors" if "lora" in kind else "model/model.safetensors"
    assert names == {kept} | ({"head.safetensors"} if "bert" in kind else set())
    if "bert" in kind:
        head = {name.rpartition("/")[2] for name in weights(whole, 2) if name.startswith("head")}
        labels = ("small", "large", "cold", "hot")
        assert head == {f"{label}.{part}" for label in labels for part in ("weight", "bias")}


def test_the_same_seed_gives_the_same_run_to_the_bit(whole, kind, setting, tmp_path):
    torch.manual_seed(12345)  # the global state is none of the run's business
    assert_same(whole, setting(kind, tmp_path / "again", **EVERYTHING()).run(quiet=True))


def test_a_run_interrupted_in_its_third_stage_goes_on_to_the_same_bits(whole, kind, setting, tmp_path, monkeypatch):
    fit, taken = torch.optim.AdamW.step, []

    def step(self, *args, **kwargs):
        taken.append(1)
        if len(taken) > 2 * STEPS + 1:  # one step into the third stage
            raise KeyboardInterrupt
        return fit(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(KeyboardInterrupt):
            setting(kind, tmp_path / "run", **EVERYTHING()).run(quiet=True)
    stopped = Run(tmp_path / "run")
    assert stopped.status["state"] == "interrupted"
    assert stopped.status["stage"] == stopped.folder.committed() == 2
    resumed = setting(kind, tmp_path / "run", **EVERYTHING()).run(quiet=True)
    assert resumed.status["state"] == "done"
    assert_same(whole, resumed)


def test_weights_move_in_every_stage(whole, kind):
    stages = [weights(whole, stage) for stage in (1, 2, 3)]
    for before, after in ((stages[0], stages[1]), (stages[1], stages[2])):
        still = {name for name in before if torch.equal(before[name], after[name])}
        # in the second stage no label of the third is new, and "large" is met but never right in it: all move
        assert not still


def test_what_is_drawn_depends_on_the_seed(whole, kind, setting, tmp_path):
    other = setting(kind, tmp_path / "other", stages=1, seed=1, evaluate=Evaluation(probes=False)).run(quiet=True)
    assert not any(torch.equal(kept, weights(whole, 1)[name]) for name, kept in weights(other, 1).items())


def test_a_configuration_says_how_a_classifier_meets_its_labels(whole):
    kept = {"scenario": "class", "train_labels": "met", "test_labels": "met", "pooling": "auto", "dropout": 0.1}
    assert whole.config["classification"] == kept
    assert whole.config["family"] == "auto"
    assert whole.config["template"] is None


class Stop(Exception):
    """What interrupts a run in a test."""


class StopBefore(Strategy):
    """Ends a run when it is about to meet the stage that a test puts here."""

    stage = 0

    def before_stage(self, learner, stage):
        if stage.index == StopBefore.stage:
            raise Stop


def test_a_decoder_under_a_head_resumes_to_the_same_bits(setting, llama_folder, tmp_path, monkeypatch):
    decoder = {"model": str(llama_folder), "family": "classifier", "strategies": [Replay(0.5), StopBefore()]}
    expected = setting("bert", tmp_path / "whole", stages=2, **decoder).run(quiet=True)
    parts = setting("bert", tmp_path / "parts", stages=2, **decoder)
    monkeypatch.setattr(StopBefore, "stage", 2)
    with pytest.raises(Stop):
        parts.run(quiet=True)
    monkeypatch.setattr(StopBefore, "stage", 0)
    assert_same(expected, parts.run(quiet=True), stages=2)


# ---------------------------------------------------------------- learning


def losses(run: Run, stage: int) -> list[float]:
    return json.loads((run.folder.stage(stage) / "losses.json").read_text())


def test_a_toy_encoder_decoder_learns_every_stage(setting, tiny_stream, tmp_path):
    long = {"stream": tiny_stream[:2].limit(train=4, test=4), "epochs": 100}
    run = setting("t5 full", tmp_path / "run", **long).run(quiet=True)
    assert run.matrix.matrix[0].max() < 0.3
    assert torch.diagonal(run.matrix.matrix[1:]).min() > 0.9
    assert all(losses(run, stage)[-1] < 0.1 * losses(run, stage)[0] for stage in (1, 2))


def test_a_toy_classifier_learns_every_stage(setting, tmp_path):
    long = {"stages": 2, "batch_size": 8, "epochs": 100, "learning_rate": 2e-3}
    run = setting("bert full", tmp_path / "run", **long).run(quiet=True)
    assert run.matrix.matrix[0].max() == 0
    assert torch.diagonal(run.matrix.matrix[1:]).min() > 0.9
    assert all(losses(run, stage)[-1] < 0.2 * losses(run, stage)[0] for stage in (1, 2))


@pytest.mark.parametrize("kind", ["t5 lora", "bert lora"])
def test_with_an_adapter_the_loss_falls(kind, setting, tmp_path):
    run = setting(kind, tmp_path / "run", stages=1, batch_size=8, epochs=40).run(quiet=True)
    assert losses(run, 1)[-1] < 0.75 * losses(run, 1)[0]


def test_what_competes_decides_what_is_said_at_every_stage(setting, labelled_stream, tmp_path):
    own = labels_of(labelled_stream)
    everything = {"small", "large", "cold", "hot"}
    met = [{""}, {"small", "large"}, everything]
    for scenario in ("class", "domain", "task"):
        settings = {"stages": 2, "epochs": 1, "classification": {"scenario": scenario}}
        run = setting("bert full", tmp_path / scenario, **settings).run(quiet=True)
        for (stage, task), rows in run.predictions.groupby(["stage", "task"]):
            allowed = {"class": met[stage], "domain": everything, "task": set(own[task])}[scenario]
            assert set(rows["prediction"]) <= allowed, (scenario, stage, task)


# ---------------------------------------------------------------- modes


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_on_while_training_and_off_while_evaluating_in_every_stage(kind, setting, tmp_path, monkeypatch):
    modes: dict[int, set[bool]] = {}

    class Watch(Callback):
        def on_train_batch_end(self, trainer, learner, *_):
            modes.setdefault(learner.stage.index, set()).update(module.training for module in dropouts(learner))

    monkeypatch.setattr(WatchAnswering, "modes", [])
    watched = {"callbacks": [Watch()], "strategies": [WatchAnswering()], "epochs": 1}
    # all labels compete, so that the untrained classifier is asked too
    # in which even labels that are yet to come are asked for
    scenario = {"classification": {"scenario": "domain"}} if "bert" in kind else {}
    setting(kind, tmp_path / "run", **scenario, **watched).run(quiet=True)
    assert modes == {1: {True}, 2: {True}, 3: {True}}
    assert len(WatchAnswering.modes) == 4 * 3  # stages and tasks
    assert not any(WatchAnswering.modes)


def dropouts(learner) -> list[torch.nn.Dropout]:
    found = [module for module in learner.modules() if isinstance(module, torch.nn.Dropout) and module.p > 0]
    assert found
    return found


class WatchAnswering(Strategy):
    """Notes whether dropout is on whenever the model is asked."""

    modes: ClassVar[list[bool]] = []

    @contextmanager
    def answering(self, learner, examples):
        seen: list[bool] = []
        handles = [
            dropout.register_forward_hook(lambda module, *_: seen.append(module.training))
            for dropout in dropouts(learner)
        ]
        yield
        for handle in handles:
            handle.remove()
        assert seen
        WatchAnswering.modes.append(any(seen))


# ---------------------------------------------------------------- stages


@pytest.mark.parametrize("kind", ["t5 lora", "bert full"])
def test_joint_learns_everything_in_one_stage(kind, setting, tmp_path):
    run = setting(kind, tmp_path / "run", strategies=[Joint()], epochs=1).run(quiet=True)
    assert run.matrix.matrix.shape == (2, 3)
    assert [cost["train_rows"] for cost in run.costs] == [0, 24]
    assert run.metrics["average_accuracy"] is not None
    assert run.metrics["forgetting"] is None
    if "bert" in kind:  # every label has been met
        assert set(run.predictions.query("stage == 0")["prediction"]) == {""}
        assert set(run.predictions.query("stage == 1")["prediction"]) <= {"small", "large", "cold", "hot"}


@pytest.mark.parametrize("kind", ["t5 full", "bert lora"])
def test_cumulative_trains_longer_stage_by_stage(kind, setting, tmp_path):
    run = setting(kind, tmp_path / "run", strategies=[Cumulative()], epochs=1).run(quiet=True)
    assert [cost["train_rows"] for cost in run.costs] == [0, 8, 16, 24]


@pytest.mark.parametrize("kind", ["t5 full", "bert full"])
def test_a_task_may_be_trained_longer_and_harder_than_others(kind, setting, tmp_path):
    second = {"t5": "places", "bert": "heat"}[kind.partition(" ")[0]]
    per_task = {second: {"epochs": 3, "learning_rate": 1e-30}}
    run = setting(kind, tmp_path / "run", stages=2, epochs=1, per_task=per_task).run(quiet=True)
    assert [cost["steps"] for cost in run.costs] == [0, 2, 6]
    first, then = weights(run, 1), weights(run, 2)
    assert all(torch.allclose(first[name], then[name], atol=1e-12) for name in first)


@pytest.mark.parametrize("kind", ["t5 lora", "bert full"])
def test_a_diverged_run_says_so_and_keeps_its_good_stages(kind, setting, tmp_path):
    class Explode(Strategy):
        def loss(self, learner, batch, outputs, loss):
            return loss * float("nan") if learner.stage.index == 2 else loss

    with pytest.raises(DivergedError):
        setting(kind, tmp_path / "run", strategies=[Explode()], epochs=1).run(quiet=True)
    run = Run(tmp_path / "run")
    assert (run.status["state"], run.status["stage"]) == ("diverged", 1)
    assert "stage 2" in run.status["reason"]
    assert run.rows["stage"].max() == 1


# ---------------------------------------------------------------- one step, however it is split


class Gradients(Callback):
    """Keeps the gradient of the first optimiser step."""

    def __init__(self) -> None:
        self.first: dict[str, torch.Tensor] = {}

    def on_before_optimizer_step(self, trainer, learner, optimizer) -> None:
        if not self.first:
            self.first = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def gradient(folder, tasks, batch_size: int, accumulate: int) -> dict[str, torch.Tensor]:
    model, tokenizer = load_model(str(folder))
    labels = labels_of(tasks) if "bert" in str(folder) else None
    learner = Learner(model, tokenizer, Training(1, batch_size, accumulate, gradient_clip=None), labels=labels)
    for module in learner.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    loader, keeper = learner.begin_stage(Stage.of(tasks[0], 1)), Gradients()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    learner.train()
    with quiet_libraries():
        Trainer(max_epochs=1, accelerator="cpu", callbacks=[keeper], **quiet).fit(learner, loader)
    return keeper.first


@pytest.mark.parametrize(("stream", "folder"), [("tiny_stream", "t5_folder"), ("labelled_stream", "bert_folder")])
def test_the_gradient_does_not_depend_on_how_the_step_was_split(stream, folder, request):
    tasks, folder = request.getfixturevalue(stream), request.getfixturevalue(folder)
    expected = gradient(folder, tasks, 8, 1)
    assert all(one.abs().sum() > 0 for one in expected.values())
    for batch_size, accumulate in ((4, 2), (2, 4), (3, 3)):
        found = gradient(folder, tasks, batch_size, accumulate)
        assert found.keys() == expected.keys()
        for name, one in expected.items():
            torch.testing.assert_close(found[name], one, rtol=1e-4, atol=1e-6, msg=name)


# ---------------------------------------------------------------- what cannot be


def refused(experiment: Experiment, error: type[Exception], message: str) -> None:
    """Nothing is trained, and not even the untrained model is asked."""
    with pytest.raises(error, match=message):
        experiment.run(quiet=True)
    assert not list(experiment.folder.glob("stages/*"))


def test_a_classifier_is_not_asked_for_free_answers(setting, tiny_stream, tmp_path):
    experiment = setting("bert", tmp_path / "run", stream=tiny_stream)
    refused(experiment, DataError, "task 'colours', train row 1: has no choices, and a classifier cannot write")


def test_labels_outside_of_what_is_learned_are_refused(setting, labelled_stream, tmp_path):
    rows = [{"question": "The moon is what?", "answer": "round", "choices": ["round", "small"]}]
    stream = TaskStream("more", [*labelled_stream, Task("shape", rows, rows, measure_only=True)])
    experiment = setting("bert", tmp_path / "run", stream=stream)
    refused(experiment, DataError, "task 'shape': its label 'round' is outside of the union")


@pytest.mark.parametrize(
    ("kind", "settings", "error", "message"),
    [
        ("t5", {"adapter": LoraConfig(task_type="CAUSAL_LM")}, ModelError, "for task_type CAUSAL_LM, .* 'seq2seq'"),
        ("bert", {"adapter": LoraConfig(task_type="CAUSAL_LM")}, ModelError, "CAUSAL_LM, .* 'classifier'"),
        ("t5", {"family": "seq2sek"}, ModelError, r"family: unknown 'seq2sek'. Did you mean 'seq2seq'\?"),
        ("t5", {"family": "classifier"}, ModelError, "family: 'classifier' does not fit"),
        ("bert", {"family": "causal"}, ModelError, "family: 'causal' does not fit"),
        ("bert", {"max_length": 1000}, ConfigError, "max_length: 1000 tokens are more than the model's context of 128"),
    ],
)
def test_what_does_not_fit_the_family_is_refused_before_anything_is_asked(
    kind, settings, error, message, setting, tmp_path
):
    refused(setting(kind, tmp_path / "run", **settings), error, message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classification": {"scenario": "clas"}}, r"classification\.scenario: .*clas"),
        ({"classification": {"pool": "mean"}}, "classification.pool: there is no such setting. Did you mean 'pooling'"),
        ({"classification": "class"}, "classification: expected Classification, got 'class'"),
    ],
)
def test_impossible_settings_are_refused_before_anything_runs(settings, message, setting, tmp_path):
    with pytest.raises(ConfigError, match=message):
        setting("bert", tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- reports


def test_the_report_says_the_family_and_which_labels_compete(setting, tmp_path, capsys):
    run = setting("bert full", tmp_path / "run", stages=1, classification={"scenario": "domain"}, epochs=1)
    expected = "classifier over 2 labels; domain-incremental: all labels compete"
    assert run.run(quiet=True).family == expected
    assert main(["show", str(tmp_path / "run")]) == 0
    assert expected in " ".join(capsys.readouterr().out.split())

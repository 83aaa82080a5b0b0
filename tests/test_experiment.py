"""The whole loop: repeatable to the bit, resumable, and the same for every kind of toy model."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import Callback
from peft import LoraConfig
from safetensors.torch import load_file

from lifelong import Experiment, Run, Task, TaskStream
from lifelong.config import make_experiment, read_config
from lifelong.errors import ConfigError, DivergedError, RunError
from lifelong.evaluation import Evaluation
from lifelong.strategies import Cumulative, Joint, Naive, Replay, Strategy


def experiment(stream, folder, model, **settings) -> Experiment:
    defaults = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "trainer": {"accelerator": "cpu"}}
    return Experiment(stream, str(model), folder=folder, **defaults | settings)


def weights(run: Run, stage: int) -> dict[str, torch.Tensor]:
    (file,) = [*run.folder.stage(stage).glob("*/*.safetensors")]
    return load_file(file)


def assert_same(first: Run, second: Run, stages: int = 3) -> None:
    """Equal to the last bit: every cell, every answer, every weight."""
    cells = [run.rows.drop(columns="seconds") for run in (first, second)]
    assert cells[0].equals(cells[1])
    assert first.predictions.equals(second.predictions)
    for stage in range(1, stages + 1):
        kept = [weights(run, stage) for run in (first, second)]
        assert kept[0].keys() == kept[1].keys()
        assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


class Stop(Exception):
    """What interrupts a run in a test."""


class StopBefore(Strategy):
    """Ends a run when it is about to meet the stage that a test puts here."""

    stage = 0

    def before_stage(self, learner, stage):
        if stage.index == StopBefore.stage:
            raise Stop


@pytest.fixture(scope="module")
def adapted(tiny_stream, llama_folder, tmp_path_factory) -> Run:
    """LoRA with dropout and two replays: everything that draws."""
    return experiment(tiny_stream, tmp_path_factory.mktemp("runs") / "adapted", llama_folder, **ADAPTED()).run(
        quiet=True
    )


def ADAPTED() -> dict:
    return {
        "adapter": LoraConfig(r=4, lora_dropout=0.2, target_modules="all-linear"),
        "strategies": [Replay(0.5), Replay(3, share=0.25)],
        "evaluate": Evaluation(books=("closed", "gold")),
    }


def test_every_stage_is_measured_on_every_task_and_probe_in_every_pass(adapted, tiny_stream):
    counts = adapted.rows.groupby(["split", "pass"]).size().to_dict()
    assert counts == {(split, book): 4 * 3 for split in ("test", "probe") for book in ("closed", "gold")}
    assert set(adapted.rows.query("split == 'test'")["count"]) == {len(tiny_stream[0].test)}
    assert adapted.matrix.matrix.shape == (4, 3)
    status = adapted.status
    assert (status["state"], status["stage"], status["stages"]) == ("done", 3, 3)
    assert status["rows"] == {"read": sum(len(task.train) for task in tiny_stream), "dropped": 0, "truncated": 0}
    predictions = adapted.predictions
    empty, cut = (predictions["prediction"] == "").sum(), predictions["cut"].sum()
    assert status["questions"] == {"answered": adapted.rows["count"].sum(), "empty": empty, "cut": cut}
    assert set(status["seconds"]) == {"training", "strategy", "input", "evaluation"}
    assert all(value >= 0 for value in status["seconds"].values())
    assert {name: status[name] for name in ("attempts", "extensions", "refused", "rollbacks")} == {
        "attempts": 1,
        "extensions": 0,
        "refused": 0,
        "rollbacks": 0,
    }


def test_the_same_seed_gives_the_same_run_to_the_bit(adapted, tiny_stream, llama_folder, tmp_path):
    torch.manual_seed(12345)  # the global state is none of the run's business
    again = experiment(tiny_stream, tmp_path / "again", llama_folder, **ADAPTED())
    assert_same(adapted, again.run(quiet=True))


def test_another_seed_gives_another_run(adapted, tiny_stream, llama_folder, tmp_path):
    other = experiment(tiny_stream, tmp_path / "other", llama_folder, seed=1, **ADAPTED()).run(quiet=True)
    assert not all(torch.equal(value, weights(other, 3)[name]) for name, value in weights(adapted, 3).items())


def test_a_run_interrupted_after_stage_two_goes_on_to_the_same_bits(adapted, tiny_stream, llama_folder, tmp_path):
    settings = ADAPTED()
    broken = experiment(tiny_stream, tmp_path / "run", llama_folder, **settings)
    fit, broken_at = torch.optim.AdamW.step, {"steps": 0}

    def step(self, *args, **kwargs):
        broken_at["steps"] += 1
        if broken_at["steps"] > 2 * 2 * 2 + 1:  # one step into the third stage
            raise KeyboardInterrupt
        return fit(self, *args, **kwargs)

    torch.optim.AdamW.step = step
    try:
        with pytest.raises(KeyboardInterrupt):
            broken.run(quiet=True)
    finally:
        torch.optim.AdamW.step = fit
    stopped = Run(tmp_path / "run")
    assert stopped.status["state"] == "interrupted"
    assert stopped.status["stage"] == stopped.folder.committed() == 2
    resumed = experiment(tiny_stream, tmp_path / "run", llama_folder, **ADAPTED()).run(quiet=True)
    assert resumed.status["state"] == "done"
    assert_same(adapted, resumed)


def test_full_fine_tuning_resumes_to_the_same_bits(tiny_stream, gpt2_folder, tmp_path, monkeypatch):
    strategies = [Replay(0.5), StopBefore()]
    whole = experiment(tiny_stream, tmp_path / "whole", gpt2_folder, strategies=strategies).run(quiet=True)
    parts = experiment(tiny_stream, tmp_path / "parts", gpt2_folder, strategies=strategies)
    for stage in (1, 3):
        monkeypatch.setattr(StopBefore, "stage", stage)
        with pytest.raises(Stop):
            parts.run(quiet=True)
    monkeypatch.setattr(StopBefore, "stage", 0)
    assert_same(whole, parts.run(quiet=True))


def test_an_experiment_can_be_run_twice(tiny_stream, llama_folder, tmp_path):
    once = experiment(tiny_stream[:2], tmp_path / "one", llama_folder, strategies=[Replay(1.0)])
    first = once.run(quiet=True)
    once.folder = tmp_path / "two"
    assert_same(first, once.run(quiet=True), stages=2)


def test_a_finished_run_is_not_run_again(adapted, tiny_stream, llama_folder):
    before = {path: path.stat().st_mtime_ns for path in adapted.path.glob("stages/**/*")}
    experiment(tiny_stream, adapted.path, llama_folder, **ADAPTED()).run(quiet=True)
    assert before == {path: path.stat().st_mtime_ns for path in adapted.path.glob("stages/**/*")}


@pytest.mark.parametrize("folder", ["llama_folder", "gpt2_folder"])
def test_toy_models_of_both_styles_learn_and_forget(folder, request, tiny_stream, tmp_path):
    model = request.getfixturevalue(folder)
    run = experiment(tiny_stream, tmp_path / "run", model, epochs=60, learning_rate=1e-2, strategies=[Naive()])
    matrix = run.run(quiet=True).matrix.matrix
    assert matrix[0].max() < 0.3
    assert torch.diagonal(matrix[1:]).min() > 0.9
    assert run_losses_fall(Run(tmp_path / "run"))


def run_losses_fall(run: Run) -> bool:
    losses = [json.loads((run.folder.stage(stage) / "losses.json").read_text()) for stage in (1, 2, 3)]
    return all(curve[-1] < 0.2 * curve[0] for curve in losses)


def test_dropout_is_on_while_training_and_off_while_evaluating_in_every_stage(
    tiny_stream, gpt2_folder, tmp_path, monkeypatch
):
    modes: dict[int, set[bool]] = {}

    class Watch(Callback):
        def on_train_batch_end(self, trainer, learner, *_):
            dropouts = [module for module in learner.modules() if isinstance(module, torch.nn.Dropout) and module.p > 0]
            assert dropouts
            modes.setdefault(learner.stage.index, set()).update(module.training for module in dropouts)

    monkeypatch.setattr(WatchAnswering, "modes", [])
    watched = {"callbacks": [Watch()], "strategies": [WatchAnswering()]}
    experiment(tiny_stream, tmp_path / "run", gpt2_folder, **watched).run(quiet=True)
    assert modes == {1: {True}, 2: {True}, 3: {True}}
    assert len(WatchAnswering.modes) == 4 * 3 * 2  # stages, tasks, test and probes
    assert not any(WatchAnswering.modes)


class WatchAnswering(Strategy):
    """Notes whether dropout is on whenever the model is asked."""

    modes: ClassVar[list[bool]] = []

    @contextmanager
    def answering(self, learner, examples):
        seen: list[bool] = []
        dropouts = [module for module in learner.modules() if isinstance(module, torch.nn.Dropout) and module.p > 0]
        handles = [
            dropout.register_forward_hook(lambda module, *_: seen.append(module.training)) for dropout in dropouts
        ]
        yield
        for handle in handles:
            handle.remove()
        assert seen
        WatchAnswering.modes.append(any(seen))


def test_joint_has_one_stage_and_says_why_figures_are_undefined(tiny_stream, llama_folder, tmp_path):
    run = experiment(tiny_stream, tmp_path / "run", llama_folder, strategies=[Joint()]).run(quiet=True)
    assert run.matrix.matrix.shape == (2, 3)
    assert run.metrics["average_accuracy"] is not None
    assert run.metrics["forgetting"] is None
    (forgetting,) = [f for f in run.figures() if f["name"] == "forgetting" and f["split"] == "test"]
    assert "one stage per task" in forgetting["reason"]


def test_cumulative_trains_longer_stage_by_stage(tiny_stream, llama_folder, tmp_path):
    run = experiment(tiny_stream, tmp_path / "run", llama_folder, strategies=[Cumulative()], epochs=1).run(quiet=True)
    size = len(tiny_stream[0].train)
    assert [cost["train_rows"] for cost in run.costs] == [0, size, 2 * size, 3 * size]


class WatchRows(Strategy):
    """Notes which tasks the rows of training batches belong to, before and after other strategies add theirs."""

    tasks: ClassVar[set[str]] = set()

    def extend_batch(self, learner, batch):
        WatchRows.tasks.update(batch["task"])
        return batch

    def loss(self, learner, batch, outputs, loss):
        WatchRows.tasks.update(batch["task"])
        return loss


@pytest.fixture
def general(tiny_stream) -> TaskStream:
    """One task to hold out, which is not marked as such."""
    return TaskStream("general", [tiny_stream["numbers"]])


def test_held_out_tasks_are_measured_at_every_stage_and_never_trained_on(
    tiny_stream, general, llama_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(WatchRows, "tasks", set())
    settings = ADAPTED() | {"strategies": [WatchRows("first"), *ADAPTED()["strategies"], WatchRows("last")]}
    without = experiment(tiny_stream[:2], tmp_path / "without", llama_folder, **settings).run(quiet=True)
    run = experiment(tiny_stream[:2], tmp_path / "with", llama_folder, held_out=general, **settings).run(quiet=True)
    assert WatchRows.tasks == {"colours", "places"}
    asked = run.rows.query("task == 'numbers'")
    assert asked.groupby(["split", "pass"])["stage"].apply(list).tolist() == [[0, 1, 2]] * 4
    assert set(asked["count"]) == {8, 16} and not asked["sampled"].any()
    # asking leaves no trace: weights and answers are those of a run that holds nothing out
    for stage in (1, 2):
        kept = [weights(each, stage) for each in (without, run)]
        assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    shared = run.rows.query("task != 'numbers'").drop(columns="seconds").reset_index(drop=True)
    assert shared.equals(without.rows.drop(columns="seconds"))
    assert (run.tasks, run.held_out) == (["colours", "places"], ["numbers"])
    assert (without.tasks, without.held_out) == (["colours", "places"], [])
    assert [task["held_out"] for task in run.environment["tasks"]] == [False, False, True]
    assert run.environment["stages"] == 2


def test_a_task_of_the_stream_that_is_marked_is_held_out_behind_the_others(
    tiny_stream, general, llama_folder, tmp_path
):
    marked = TaskStream("tiny", [replace(tiny_stream[0], measure_only=True), *tiny_stream[1:]])
    for order, learned in ((None, ["places", "numbers"]), (["numbers"], ["numbers"]), (["numbers", "places"], None)):
        made = experiment(marked, tmp_path, llama_folder, order=order)
        assert list(made.tasks.names) == [*(learned or order), "colours"]
        assert [stage.task.name for stage in made.stages()] == (learned or order)
    both = experiment(marked[:2], tmp_path, llama_folder, held_out=general)
    assert both.tasks.names == ("places", "colours", "numbers")
    assert [task.measure_only for task in both.tasks] == [False, True, True]
    assert not general[0].measure_only  # what was given stays as it is


def test_a_seed_orders_the_learned_tasks_as_if_nothing_were_held_out(tiny_stream, llama_folder, tmp_path):
    further = TaskStream("further", [Task.from_pairs("more", [("one?", "1"), ("two?", "2")])])
    for seed in range(4):
        made = experiment(tiny_stream, tmp_path, llama_folder, order=seed, held_out=further)
        assert made.tasks.names == (*tiny_stream.shuffle(seed).names, "more")


def test_earlier_tasks_are_learned_ones_and_joint_and_cumulative_leave_held_out_rows_alone(
    tiny_stream, general, llama_folder, tmp_path
):
    learned = tiny_stream[:2]
    for strategy, names in ((Joint(), [{"colours", "places"}]), (Cumulative(), [{"colours"}, {"colours", "places"}])):
        stages = experiment(learned, tmp_path, llama_folder, held_out=general, strategies=[strategy]).stages()
        assert [set(stage.train["task"]) for stage in stages] == names
        assert [task.name for task in stages[-1].earlier] == ([] if len(stages) == 1 else ["colours"])


def test_a_joint_run_measures_held_out_tasks_before_and_after(tiny_stream, general, llama_folder, tmp_path):
    settings = {"held_out": general, "strategies": [Joint()]}
    run = experiment(tiny_stream[:2], tmp_path / "run", llama_folder, **settings).run(quiet=True)
    assert run.matrix.matrix.shape == (2, 2)
    before, after = run.matrix.held_out_matrix[:, 0].tolist()
    assert run.metrics["general_ability_delta"] == pytest.approx(after - before)


@pytest.mark.parametrize(
    ("policy", "counts"),
    [
        ({}, [8, 8, 8]),
        ({"tasks": "seen"}, [8, 8, 8]),
        ({"tasks": "seen", "sample": 3}, [8, 3, 8]),
        ({"every": 5}, [8, 0, 8]),
    ],
)
def test_between_the_first_and_the_last_stage_the_policy_decides_about_held_out_tasks(
    policy, counts, tiny_stream, general, llama_folder, tmp_path
):
    settings = {"held_out": general, "epochs": 1, "evaluate": Evaluation(probes=False, max_new_tokens=1, **policy)}
    matrix = experiment(tiny_stream[:2], tmp_path / "run", llama_folder, **settings).run(quiet=True).matrix
    assert matrix.counts[:, matrix.columns.index("numbers")].tolist() == counts
    assert matrix.sampled[:, 2].tolist() == [count == 3 for count in counts]


def test_a_run_with_held_out_tasks_in_memory_goes_on_to_the_same_bits(
    tiny_stream, general, llama_folder, tmp_path, monkeypatch
):
    settings = {"held_out": general, "strategies": [Replay(0.5), StopBefore()]}
    whole = experiment(tiny_stream[:2], tmp_path / "whole", llama_folder, **settings).run(quiet=True)
    monkeypatch.setattr(StopBefore, "stage", 2)
    with pytest.raises(Stop):
        experiment(tiny_stream[:2], tmp_path / "parts", llama_folder, **settings).run(quiet=True)
    monkeypatch.setattr(StopBefore, "stage", 0)
    config = read_config(tmp_path / "parts" / "config.yaml") | {"folder": str(tmp_path / "parts")}
    assert config["held_out"]["init_args"] == {"folder": str(tmp_path / "parts" / "held_out")}
    config["strategies"] = [Replay(0.5), StopBefore()]  # a test's class cannot be named in a file
    assert_same(whole, make_experiment(config).run(quiet=True), stages=2)
    other = TaskStream("general", [Task.from_pairs("numbers", [("one?", "1"), ("two?", "2")])])
    with pytest.raises(RunError, match="rows of its stream are others"):
        experiment(tiny_stream[:2], tmp_path / "parts", llama_folder, **settings | {"held_out": other}).run(quiet=True)


def test_choices_raw_text_and_a_callable_metric_go_through_one_run(llama_folder, tmp_path):
    (tmp_path / "text.txt").write_text("the sky is blue\n\nthe grass is green\n")
    rows = [{"question": f"what is {n}?", "answer": "yes", "choices": ["yes", "no"]} for n in range(4)]
    stream = TaskStream(
        "mixed",
        [
            Task("choices", rows, rows, kind="downstream"),
            Task.from_text("text", tmp_path / "text.txt", tmp_path / "text.txt", characters=20),
            Task("custom", rows, rows, metric=starts_with_y),
        ],
    )
    run = experiment(stream, tmp_path / "run", llama_folder, epochs=10).run(quiet=True)
    perplexity = run.matrix_of(metric="perplexity")
    assert perplexity.tasks == ("text",)
    assert perplexity.matrix[2, 0] < perplexity.matrix[1, 0] / 2  # its own stage is the second
    assert run.matrix.tasks == ("choices", "custom")
    assert run.matrix.matrix[-1, 1] == 1.0


def starts_with_y(prediction, example):
    return float(prediction.startswith("y"))


def test_a_diverged_run_says_so_and_keeps_its_good_stages(tiny_stream, llama_folder, tmp_path):
    class Explode(Strategy):
        def loss(self, learner, batch, outputs, loss):
            return loss * float("inf") if learner.stage.index == 2 else loss

    with pytest.raises(DivergedError):
        experiment(tiny_stream, tmp_path / "run", llama_folder, strategies=[Explode()]).run(quiet=True)
    run = Run(tmp_path / "run")
    assert run.status["state"] == "diverged"
    assert run.status["stage"] == 1
    assert "stage 2" in run.status["reason"]
    assert run.rows["stage"].max() == 1


def test_a_folder_with_another_configuration_is_refused_and_left_alone(adapted, tiny_stream, llama_folder):
    with pytest.raises(RunError, match=r"another configuration: .*epochs is 2 there and 3 here"):
        experiment(tiny_stream, adapted.path, llama_folder, **ADAPTED() | {"epochs": 3}).run(quiet=True)
    assert adapted.status["state"] == "done"


def test_a_folder_with_other_rows_is_refused(adapted, tiny_stream, llama_folder):
    with pytest.raises(RunError, match="rows of its stream are others"):
        experiment(tiny_stream.limit(train=4), adapted.path, llama_folder, **ADAPTED()).run(quiet=True)


BOOKLESS = TaskStream("bookless", [Task.from_pairs("a", [("one?", "1"), ("two?", "2")])])
MARKED = TaskStream("marked", [replace(BOOKLESS[0], measure_only=True), Task.from_pairs("b", [("three?", "3")])])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainer": {"max_epochs": 3}}, "trainer.max_epochs: .*'epochs'"),
        ({"trainer": {"devices": 2}, "device_map": "auto"}, "device_map: on several devices"),
        ({"evaluate": {"book": ["closed"]}}, "evaluate.book: .*Did you mean 'books'"),
        ({"order": ["nowhere"]}, "no task 'nowhere'"),
        ({"stream": MARKED, "order": ["b", "a"]}, "order: 'a' is held out, and has no stage"),
        ({"per_task": {"nowhere": {"epochs": 1}}}, "no task 'nowhere'"),
        ({"stream": MARKED, "per_task": {"a": {"epochs": 1}}}, "per_task: 'a' is held out, and never trained on"),
        ({"stream": MARKED, "held_out": BOOKLESS}, "held_out: another task is named 'a' too"),
        ({"held_out": TaskStream("x", [Task.from_pairs("Colours", [("?", "1")])])}, "is named 'Colours' too"),
        ({"stream": MARKED[:1]}, "stream: 'marked' has nothing to learn"),
        ({"held_out": "streams.world_fact"}, "held_out: .*Did you mean 'streams.world_facts'"),
        ({"stream": "streams.world_fact"}, "Did you mean 'streams.world_facts'"),
        ({"strategies": ["Replay"]}, "strategies: expected objects such as"),
        ({"strategies": Replay(0.5)}, "strategies: expected a list"),
        ({"template": "Q: {question}"}, "template: expected PromptTemplate"),
        ({"stream": BOOKLESS, "train_book": "gold"}, "'gold' shows a row's passages, and no row has any"),
        ({"stream": BOOKLESS, "evaluate": {"books": ["gold"]}}, "'gold' shows a row's passages, and no row has any"),
    ],
)
def test_impossible_settings_are_refused_before_anything_runs(settings, message, tiny_stream, llama_folder, tmp_path):
    with pytest.raises((ConfigError, ValueError), match=message):
        experiment(**{"stream": tiny_stream, "folder": tmp_path / "run", "model": llama_folder} | settings)
    assert not (tmp_path / "run").exists()


def test_the_order_of_tasks_can_be_named_or_drawn(tiny_stream, llama_folder, tmp_path):
    names = list(reversed(tiny_stream.names))
    assert list(experiment(tiny_stream, tmp_path, llama_folder, order=names).tasks.names) == names
    drawn = experiment(tiny_stream, tmp_path, llama_folder, order=3).tasks.names
    assert drawn == tiny_stream.shuffle(3).names


def test_the_python_interface_never_leaves_the_interpreter_on_interrupt(tiny_stream, llama_folder, tmp_path):
    class Interrupt(Callback):
        def on_train_batch_start(self, *_):
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        experiment(tiny_stream, tmp_path / "run", llama_folder, callbacks=[Interrupt()]).run(quiet=True)
    assert signal.getsignal(signal.SIGINT) is before
    assert Run(tmp_path / "run").status["state"] == "interrupted"


def test_two_streams_in_memory_get_folders_of_their_own(tiny_stream, llama_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [
        experiment(tiny_stream[:1].limit(train=size), None, llama_folder, epochs=1).run(quiet=True) for size in (4, 8)
    ]
    assert runs[0].path != runs[1].path


def test_a_run_that_failed_before_it_measured_anything_can_be_begun_anew(tiny_stream, llama_folder, tmp_path):
    with pytest.raises(ValueError, match="no model folder"):
        experiment(tiny_stream, tmp_path / "run", "./nowhere").run(quiet=True)
    assert Run(tmp_path / "run").status["state"] == "failed"
    mended = experiment(tiny_stream[:2], tmp_path / "run", llama_folder).run(quiet=True)
    assert mended.status["state"] == "done"
    assert TaskStream.load(tmp_path / "run" / "stream").fingerprint() == tiny_stream[:2].fingerprint()


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tiny_stream, llama_folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="is not a run folder"):
        experiment(tiny_stream, tmp_path, llama_folder).run(quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_setting_that_the_trainer_does_not_know_is_refused_in_a_sentence(tiny_stream, llama_folder, tmp_path):
    with pytest.raises(ConfigError, match=r"trainer: .*foo"):
        experiment(tiny_stream, tmp_path / "run", llama_folder, trainer={"foo": 3}).run(quiet=True)

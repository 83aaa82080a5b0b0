"""A run that is extended equals one that had the task from the beginning; one that costs too much is taken back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lifelong import Experiment, Run, Task, TaskStream
from lifelong.cli import main
from lifelong.errors import ConfigError, DataError, DivergedError, Interrupted, RunError
from lifelong.extension import Limits
from lifelong.interruption import StopSign
from lifelong.strategies import EWC, AdapterPerTask, IncrementalLoRA, Joint, Naive, Replay
from lifelong.testing.runs import toy_adapter

KEYS = ["stage", "task", "split", "pass"]
HISTORY = ("history.jsonl", "status.json", ".lock")  # of which the second counts what the first lists


@pytest.fixture(scope="module")
def stream(labelled_stream):
    """Three tasks with choices, which a model that knows nothing gets right now and then, and validation questions."""
    return TaskStream("labelled", [replace(task, validation=task.test) for task in labelled_stream])


@pytest.fixture(scope="module")
def begin(stream, llama_folder):
    """A function that runs the first tasks, or all, in a folder."""

    def run(folder, tasks=2, strategies=(), model=llama_folder, **settings) -> Run:
        defaults = {
            "adapter": toy_adapter("LoRA"),
            "epochs": 2,
            "batch_size": 3,
            "learning_rate": 3e-3,
            "check_resources": False,
            "trainer": {"accelerator": "cpu"},
        }
        strategies = list(strategies)
        return Experiment(stream[:tasks], str(model), strategies=strategies, folder=folder, **defaults | settings).run(
            quiet=True
        )

    return run


@pytest.fixture(scope="module")
def two(begin, tmp_path_factory):
    """A finished run of two tasks under two strategies that remember."""
    return begin(tmp_path_factory.mktemp("runs") / "two", strategies=[Replay(0.5), EWC(10.0)])


@pytest.fixture
def copy(two, tmp_path):
    return Run(shutil.copytree(two.path, tmp_path / "copy"))


def cells(run):
    return run.rows.drop(columns="seconds").sort_values(KEYS).reset_index(drop=True)


def where(run):
    return tuple(run.status[name] for name in ("state", "stage", "stages"))


def content(folder, without=()):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in without)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def states(run, stage):
    folder = run.folder.stage(stage)
    return content(folder / "adapter") | content(folder / "strategies")


# ---------------------------------------------------------------- equal to one from the beginning


@pytest.mark.parametrize(
    "strategies",
    [lambda: [Replay(0.5), EWC(10.0)], lambda: [IncrementalLoRA()], lambda: [AdapterPerTask()]],
    ids=["Replay, EWC", "IncrementalLoRA", "AdapterPerTask"],
)
def test_it_equals_a_run_that_had_the_task_from_the_beginning_to_the_last_digit(strategies, begin, stream, tmp_path):
    whole = begin(tmp_path / "whole", tasks=3, strategies=strategies())
    run = begin(tmp_path / "run", strategies=strategies())
    attempt = run.extend(stream[2], quiet=True)
    assert attempt.accepted and attempt.stage == 3 and attempt.before == {}
    assert run.tasks == whole.tasks == list(stream.names)
    assert cells(run).equals(cells(whole))
    assert run.metrics == whole.metrics and any(0 < value < 1 for value in run.metrics.values() if value is not None)
    assert states(run, 3) == states(whole, 3)
    order = [*KEYS, "id", "question"]
    answers = (each.predictions.sort_values(order).reset_index(drop=True) for each in (run, whole))
    assert next(answers).equals(next(answers))


def test_weights_without_an_adapter_are_restored_for_the_earlier_cells(begin, stream, tmp_path):
    settings = {"adapter": None, "learning_rate": 1e-3}
    whole, run = begin(tmp_path / "whole", 3, **settings), begin(tmp_path / "run", **settings)
    run.extend(stream[2], quiet=True)
    assert cells(run).equals(cells(whole))
    one, other = (load_file(each.folder.stage(3) / "model" / "model.safetensors") for each in (run, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_only_cells_that_the_evaluation_asks_for_are_filled_in(begin, stream, tmp_path):
    run = begin(tmp_path / "run", evaluate={"tasks": "seen"})
    run.extend(stream[2], quiet=True)
    filled = run.rows[(run.rows.task == stream[2].name) & (run.rows.split == "test")]
    assert list(filled.stage) == [0, 2, 3]  # untrained, and before and after its own stage
    assert all(figure["value"] is not None for figure in run.figures() if figure["name"] == "forward_transfer")


def test_what_is_written_again_and_again_stays_as_it_was(copy, stream):
    before = content(copy.path / "stages")
    root = {name: (copy.path / name).read_bytes() for name in ("config.yaml", "environment.json", "manifest.json")}
    copy.extend(stream[2], quiet=True)
    after = content(copy.path / "stages")
    assert {name: after[name] for name in before} == before
    assert {name: (copy.path / name).read_bytes() for name in root} == root


def test_it_can_be_extended_again_and_the_rows_come_along(copy, stream):
    copy.extend(stream[2], quiet=True)
    copy.extend(replace(stream[0], name="again"), quiet=True)
    assert copy.tasks == [*stream.names, "again"] and where(copy) == ("done", 4, 4)
    assert not copy.matrix.matrix.isnan().any()
    kept = TaskStream.load(copy.folder.stage(4) / "extension" / "stream")
    assert kept[0].fingerprint() == replace(stream[0], name="again").fingerprint()


def test_a_classifier_s_head_grows_and_that_is_said(begin, stream, bert_folder, tmp_path, capsys):
    run = begin(tmp_path / "run", model=bert_folder)
    known = {label for task in stream[:2] for row in task.test for label in row["choices"]}
    new = {label for row in stream[2].test for label in row["choices"]} - known
    other = replace(
        stream[2],
        name="other",
        **{
            split: [{**row, "choices": [*row["choices"], "new one"]} for row in getattr(stream[2], split)]
            for split in ("train", "test", "validation")
        },
    )
    attempt = run.extend(other, quiet=True)
    assert attempt.accepted and attempt.new_labels == len(new) + 1
    head = load_file(run.folder.stage(3) / "head.safetensors")
    assert {name.rpartition(".")[0] for name in head} == known | new | {"new one"}
    assert run.history[-1]["new_labels"] == attempt.new_labels


def test_passages_of_the_new_task_are_found_and_named(tiny_stream, llama_folder, tmp_path):
    run = Experiment(
        tiny_stream[:2],
        str(llama_folder),
        adapter=toy_adapter("LoRA"),
        epochs=1,
        evaluate={"books": ["retrieved"], "probes": False, "max_new_tokens": 2},
        check_resources=False,
        folder=tmp_path / "run",
        trainer={"accelerator": "cpu"},
    ).run(quiet=True)
    run.extend(tiny_stream[2], quiet=True)
    texts = {text for row in tiny_stream[2].test for text in row["passages"]}
    assert texts <= set(run.passages.values())
    asked = run.predictions[run.predictions.task == tiny_stream[2].name]
    found = {
        stage: sum(bool(texts & {run.passages[p["id"]] for p in some}) for some in rows)
        for stage, rows in asked.groupby("stage")["passages"]
    }
    assert found[3] == 8 and found[2] == 0  # in the index with their own stage, and not before


# ---------------------------------------------------------------- limits


def test_a_stage_that_breaks_a_limit_leaves_everything_as_it_was(copy, stream):
    before = content(copy.path, HISTORY)
    attempt = copy.extend(stream[2], min_gain=1.0, max_forgetting=0.5, quiet=True)
    assert not attempt.accepted
    assert content(copy.path, HISTORY) == before
    assert copy.status["state"] == "done" and copy.tasks == list(stream.names[:2])
    last = copy.history[-1]
    assert last["event"] == "refused" and last["task"] == stream[2].name and "asked 1" in last["why"]
    assert last["gain"] == attempt.gain == attempt.after[stream[2].name] - attempt.before[stream[2].name]


def test_what_is_measured_are_the_validation_questions_before_and_after(copy, two, stream):
    """They are the test questions here, so that the matrix of a run without limits says what they must be."""
    attempt = copy.extend(stream[2], max_forgetting=1.0, quiet=True)
    matrix = copy.matrix.matrix
    assert list(attempt.before.values()) == pytest.approx(matrix[2].tolist())
    assert list(attempt.after.values()) == pytest.approx(matrix[3].tolist())
    assert attempt.forgetting == pytest.approx(float((matrix[2, :2] - matrix[3, :2]).mean()))
    assert attempt.gain == pytest.approx(float(matrix[3, 2] - matrix[2, 2]))


def test_the_limit_itself_is_allowed_and_anything_beyond_it_is_not(copy, stream):
    tried = copy.extend(stream[2], max_forgetting=-1.0, quiet=True)
    assert not tried.accepted
    assert not copy.extend(stream[2], max_forgetting=tried.forgetting - 0.01, quiet=True).accepted
    assert copy.extend(stream[2], max_forgetting=tried.forgetting, quiet=True).accepted


def test_a_limit_needs_validation_questions(copy, stream):
    without = replace(stream[2], validation=None)
    with pytest.raises(DataError, match=f"validation questions.*{stream[2].name}"):
        copy.extend(without, min_gain=0.0, quiet=True)
    assert copy.extend(without, max_forgetting=1.0, quiet=True).gain is None


@pytest.mark.parametrize("limits", [{"max_forgetting": 2.0}, {"min_gain": "much"}, {"max_forgetting": float("nan")}])
def test_a_limit_is_a_difference_of_scores(limits):
    with pytest.raises(ConfigError, match=f"{next(iter(limits))}: is a difference of scores"):
        Limits(**limits)


# ---------------------------------------------------------------- broken off


def test_an_extension_that_is_broken_off_is_gone_on_with(copy, begin, stream, tmp_path, monkeypatch, capsys):
    whole = Run(shutil.copytree(copy.path, tmp_path / "whole"))
    whole.extend(stream[2], max_forgetting=1.0, quiet=True)
    check, questions = StopSign.check, []

    def interrupted(sign, what):
        questions.append(what)
        if len(questions) == 12:
            raise Interrupted(what, 2)
        check(sign, what)

    monkeypatch.setattr(StopSign, "check", interrupted)
    with pytest.raises(Interrupted):
        copy.extend(stream[2], max_forgetting=1.0, quiet=True)
    monkeypatch.undo()
    assert copy.status["state"] == "interrupted" and copy.tasks == list(stream.names[:2])
    with pytest.raises(RunError, match=r"is being extended by .*resume.*rollback"):
        copy.extend(stream[1], quiet=True)
    assert main(["resume", str(copy.path), "--quiet"]) == 0
    run = Run(copy.path)
    assert cells(run).equals(cells(whole)) and states(run, 3) == states(whole, 3)
    assert not (copy.path / "extension").exists() and run.status["state"] == "done"


def test_one_whose_process_was_killed_right_after_its_commit_is_over(copy, stream):
    copy.extend(stream[2], quiet=True)
    shutil.copytree(copy.folder.stage(3) / "extension", copy.path / "extension")  # which is removed last
    assert main(["resume", str(copy.path), "--quiet"]) == 0
    assert copy.extend(replace(stream[0], name="again"), quiet=True).accepted
    assert copy.tasks == [*stream.names, "again"] and not (copy.path / "extension").exists()


def test_an_extension_can_be_given_up(copy, stream, monkeypatch):
    before = content(copy.path, HISTORY)
    monkeypatch.setattr("lifelong.loop.Loop.learn", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        copy.extend(stream[2], quiet=True)
    assert (copy.path / "extension").is_dir()
    copy.rollback(2)
    assert content(copy.path, HISTORY) == before and copy.status["state"] == "done"


def test_one_that_diverges_is_taken_back(begin, stream, tmp_path):
    run = begin(tmp_path / "run", gradient_clip=None, learning_rate=1e-3)
    before = content(run.path, HISTORY)
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    (run.path / "config.yaml").write_text(yaml.safe_dump(config | {"learning_rate": 1e30}, sort_keys=False))
    run.folder.seal()
    with pytest.raises(DivergedError):
        Run(run.path).extend(stream[2], quiet=True)
    assert set(content(run.path, HISTORY)) == set(before)
    assert Run(run.path).history[-1]["event"] == "diverged"


# ---------------------------------------------------------------- refused


def test_what_cannot_be_extended_is_refused_and_stays_as_it_is(begin, stream, tmp_path):
    joint = begin(tmp_path / "joint", strategies=[Joint()])
    before = content(joint.path, HISTORY)
    with pytest.raises(ConfigError, match="has one stage for all tasks"):
        joint.extend(stream[2], quiet=True)
    assert content(joint.path, HISTORY) == before


def test_names_are_taken_once(copy, stream):
    with pytest.raises(DataError, match=stream[1].name):
        copy.extend(stream[1], quiet=True)
    assert not (copy.path / "extension").exists()


def test_a_metric_that_is_a_function_cannot_be_kept(copy, stream):
    with pytest.raises(DataError, match="metric that is a function"):
        copy.extend(replace(stream[2], metric=lambda prediction, row: 1.0), quiet=True)
    assert not (copy.path / "extension").exists()


def test_an_unfinished_run_is_finished_first(copy, stream):
    shutil.rmtree(copy.folder.stage(2))
    with pytest.raises(RunError, match="finish it with `lifelong resume"):
        Run(copy.path).extend(stream[2], quiet=True)


def test_the_experiment_that_began_it_is_no_longer_the_whole_run(begin, stream, tmp_path):
    run = begin(tmp_path / "run", strategies=[Naive()])
    run.rollback(1)
    run.extend(stream[2], quiet=True)
    with pytest.raises(RunError, match="has been extended"):
        begin(tmp_path / "run", strategies=[Naive()])


# ---------------------------------------------------------------- going back


def test_after_a_rollback_resume_learns_the_same_again(two, copy):
    copy.rollback(1)
    assert where(copy) == ("rolled back", 1, 2)
    assert list(copy.rows.stage.unique()) == [0, 1]
    assert main(["resume", str(copy.path), "--quiet"]) == 0
    assert cells(Run(copy.path)).equals(cells(two)) and states(Run(copy.path), 2) == states(two, 2)


def test_after_a_rollback_another_task_takes_the_place(copy, stream, begin, tmp_path):
    copy.rollback(1)
    copy.extend(stream[2], quiet=True)
    assert copy.tasks == [stream[0].name, stream[2].name] and copy.status["state"] == "done"
    assert not copy.matrix.matrix.isnan().any()
    assert main(["resume", str(copy.path), "--quiet"]) == 0  # there is nothing to do
    assert Run(copy.path).tasks == copy.tasks


def test_an_extension_is_rolled_back_without_a_trace(copy, stream):
    before = content(copy.path, HISTORY)
    copy.extend(stream[2], quiet=True)
    copy.rollback(2)
    assert content(copy.path, HISTORY) == before


@pytest.mark.parametrize("to", [-1, 3])
def test_there_is_no_going_back_to_a_stage_that_is_not_there(to, copy):
    with pytest.raises(ConfigError, match="stages 0 to 2"):
        copy.rollback(to)


# ---------------------------------------------------------------- on the command line


def test_rows_in_a_file_extend_a_run(copy, tmp_path, capsys):
    rows = [{"question": f"What is {n} and one?", "answers": [str(n + 1)]} for n in range(4)]
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["extend", str(copy.path), "--task", str(file)]) == 0
    assert "stage 3, sums: kept" in capsys.readouterr().out
    assert Run(copy.path).tasks[-1] == "sums"
    limited = ["--validation", str(file), "--name", "more sums", "--min-gain", "1", "--quiet"]
    assert main(["extend", str(copy.path), "--task", str(file), *limited]) == 3
    assert main(["rollback", str(copy.path), "--to", "2"]) == 0
    assert "is at stage 2; 1 stages were removed" in capsys.readouterr().out
    assert main(["history", str(copy.path)]) == 0
    shown = capsys.readouterr().out
    for words in ("extend", "refused", "more sums", "gain", "rollback"):
        assert words in shown


def test_each_task_of_a_stream_becomes_a_stage(copy, tmp_path, capsys):
    pairs = {name: [(f"{name} one?", "a"), (f"{name} two?", "b")] for name in "xy"}
    TaskStream("pairs", [Task.from_pairs(*pair) for pair in pairs.items()]).save(tmp_path / "stream")
    assert main(["extend", str(copy.path), "--task", str(tmp_path / "stream"), "--quiet"]) == 0
    assert Run(copy.path).tasks[2:] == ["x", "y"]
    assert main(["extend", str(copy.path), "--task", str(tmp_path / "stream"), "--name", "z"]) == 2
    assert "--name: belongs to a file of rows" in capsys.readouterr().err


def test_a_folder_of_documents_extends_a_run(copy, tmp_path):
    folder = tmp_path / "news" / "march"
    folder.mkdir(parents=True)
    (folder / "bridge.md").write_text(
        "# The bridge\n\nThe new bridge was opened by Mary Miller in March 2024. It is 300 metres long.\n"
    )
    assert main(["extend", str(copy.path), "--task", str(tmp_path / "news"), "--quiet"]) == 0
    assert Run(copy.path).tasks[-1] == "march"

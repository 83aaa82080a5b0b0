"""A run's matrix and figures are what its predictions say, and holes stay holes."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from lifelong import Experiment, Run, Task, TaskStream
from lifelong.errors import ConfigError, RunError
from lifelong.evaluation import Evaluation
from lifelong.strategies import Joint


def run_of(stream, model, folder, **settings) -> Run:
    defaults = {"epochs": 1, "batch_size": 4, "trainer": {"accelerator": "cpu"}}
    return Experiment(stream, str(model), folder=folder, **defaults | settings).run(quiet=True)


@pytest.fixture(scope="module")
def whole(tiny_stream, llama_folder, tmp_path_factory) -> Run:
    return run_of(tiny_stream, llama_folder, tmp_path_factory.mktemp("runs") / "whole", epochs=30, learning_rate=1e-2)


@pytest.fixture(scope="module")
def sampled(tiny_stream, llama_folder, tmp_path_factory) -> Run:
    settings = Evaluation(sample=3, probes=False)
    return run_of(tiny_stream, llama_folder, tmp_path_factory.mktemp("runs") / "sampled", evaluate=settings)


@pytest.fixture(scope="module")
def seen(tiny_stream, llama_folder, tmp_path_factory) -> Run:
    settings = Evaluation(tasks="seen", every=5, probes=False)
    return run_of(tiny_stream, llama_folder, tmp_path_factory.mktemp("runs") / "seen", evaluate=settings)


@pytest.mark.parametrize("split", ["test", "probe"])
def test_a_cell_is_the_mean_of_its_predictions(whole, split):
    matrix = whole.matrix_of(split).to_frame()
    cells = whole.predictions.query("split == @split").groupby(["stage", "task"])["score"].mean()
    for (stage, task), score in cells.items():
        assert matrix[task].iloc[stage] == pytest.approx(score)
    assert matrix.iloc[1, 0] > 0.5 or split == "probe"


def test_every_question_is_answered_once_in_every_stage(whole, tiny_stream):
    asked = whole.predictions.query("split == 'test'").groupby(["stage", "task"])["question"].apply(list)
    for (_, task), questions in asked.items():
        assert questions == tiny_stream[task].test["question"][:]


def test_sampled_cells_say_so_and_necessary_ones_are_never_sampled(sampled):
    counts = sampled.matrix.counts.tolist()
    # rows: untrained, after 1, 2, 3; full where a task's own stage is near, at the start and at the end
    assert counts == [[8, 8, 8], [8, 8, 3], [3, 8, 8], [8, 8, 8]]
    assert sampled.matrix.sampled.tolist() == [[count == 3 for count in row] for row in counts]


def test_cells_that_were_not_measured_stay_holes_and_the_figures_say_so(seen):
    holes = [[math.isnan(cell) for cell in row] for row in seen.matrix.matrix.tolist()]
    assert holes == [[False] * 3, [False, False, True], [True, False, False], [False] * 3]
    figures = {figure["name"]: figure for figure in seen.figures()}
    assert figures["backward_transfer"]["value"] is not None
    assert figures["forward_transfer"]["value"] is not None
    for name in ("forgetting", "average_incremental_accuracy"):
        assert figures[name]["value"] is None
        assert "was not measured" in figures[name]["reason"]
    assert figures["forgetting over measured tasks, 1 of 2"]["value"] is not None


def test_intransigence_is_measured_against_a_joint_run(whole, tiny_stream, llama_folder, tmp_path):
    joint = run_of(tiny_stream, llama_folder, tmp_path / "joint", strategies=[Joint()], epochs=2)
    (figure,) = [f for f in whole.figures(joint) if f["name"] == "intransigence" and f["split"] == "test"]
    own = [whole.matrix.matrix[stage, stage - 1] for stage in (1, 2, 3)]
    by_hand = sum(float(reference - score) for reference, score in zip(joint.matrix.matrix[1], own, strict=True)) / 3
    assert figure["value"] == pytest.approx(by_hand)


def test_views_can_be_rebuilt_from_the_stages(whole):
    views = ["matrix.csv", "metrics.json", "matrix.png"]
    before = {name: (whole.path / name).read_bytes() for name in views[:2]}
    for name in views:
        (whole.path / name).unlink()
    whole.write_views()
    assert before == {name: (whole.path / name).read_bytes() for name in views[:2]}
    assert (whole.path / "matrix.png").read_bytes().startswith(b"\x89PNG")
    for figure in json.loads((whole.path / "metrics.json").read_text()):
        assert (figure["value"] is None) == bool(figure["reason"])
        assert figure["definition"]


def test_a_stage_that_was_tampered_with_is_named(sampled, tmp_path):
    copy = shutil.copytree(sampled.path, tmp_path / "copy")
    rows = copy / "stages" / "2" / "rows.csv"
    rows.write_text(rows.read_text().replace("0.0", "1.0"))
    with pytest.raises(RunError, match=r"stages/2/rows.csv has been altered"):
        Run(copy).folder.rows()


def test_what_was_not_measured_is_refused_with_what_was(sampled):
    with pytest.raises(ConfigError, match=r"no probe/closed.*test/closed"):
        sampled.matrix_of("probe")
    with pytest.raises(RunError, match="is not a run folder"):
        Run(sampled.path / "stages")


def test_only_kinds_of_score_select_a_matrix(whole):
    with pytest.raises(ConfigError, match="is 'score' or 'perplexity'"):
        whole.matrix_of(metric="f1")


def test_intransigence_takes_no_run_that_is_not_joint(whole):
    with pytest.raises(ConfigError, match="is not a joint run"):
        whole.figures(joint=whole)


# ---------------------------------------------------------------- held-out tasks


def text_task(name: str) -> Task:
    rows = [{"question": "", "answer": text} for text in ("the sky is blue", "the sea is green")]
    return Task(name, rows, rows, metric="perplexity")


@pytest.fixture(scope="module")
def held_out(tiny_stream, llama_folder, tmp_path_factory) -> Run:
    """Two recall tasks are learned; a third one, one without probes and a text are held out."""
    plain = Task.from_pairs("plain", [("What colour is the sky?", "blue"), ("How many months are there?", "twelve")])
    further = TaskStream("general", [tiny_stream["numbers"], plain, text_task("text")])
    folder = tmp_path_factory.mktemp("runs") / "held_out"
    return run_of(tiny_stream[:2], llama_folder, folder, held_out=further, epochs=20, learning_rate=1e-2)


def test_held_out_tasks_are_columns_of_their_own_kind_of_score(held_out):
    assert held_out.matrix.tasks == ("colours", "places") and held_out.matrix.held_out == ("numbers", "plain")
    assert held_out.matrix.matrix.shape == (3, 2) and held_out.matrix.held_out_matrix.shape == (3, 2)
    perplexity = held_out.matrix_of(metric="perplexity")
    assert perplexity.tasks == () and perplexity.held_out == ("text",)
    cells = held_out.predictions.query("split == 'test' and task != 'text'").groupby(["stage", "task"])["score"].mean()
    frame = held_out.matrix.to_frame()
    for (stage, task), score in cells.items():
        assert frame[task].iloc[stage] == pytest.approx(score)


def test_a_split_that_a_held_out_task_lacks_has_no_column_for_it(held_out):
    assert held_out.matrix_of("probe").held_out == ("numbers",)
    names = {figure["name"] for figure in held_out.figures() if figure["split"] == "probe"}
    assert "general_ability_delta" in names and not [name for name in names if "over measured" in name]


def test_general_ability_is_the_change_between_the_first_and_the_last_answers(held_out):
    tested = held_out.predictions.query("split == 'test'")
    means = tested.query("task in ['numbers', 'plain']").groupby(["task", "stage"])["score"].mean().unstack()
    assert held_out.metrics["general_ability"] == pytest.approx(means[2].mean())
    assert held_out.metrics["general_ability_delta"] == pytest.approx((means[2] - means[0]).mean())
    text = {row["stage"]: row["score"] for row in held_out.folder.rows() if row["task"] == "text"}
    assert held_out.metrics["general_perplexity_increase"] == pytest.approx(text[2] - text[0])
    assert held_out.metrics["average_accuracy"] == pytest.approx(float(held_out.matrix.matrix[-1].mean()))
    written = {figure["name"]: figure for figure in json.loads((held_out.path / "metrics.json").read_text())}
    assert written["general_perplexity"]["value"] == pytest.approx(text[2])
    assert written["average_perplexity"]["reason"] == "every task with this score is held out"


def test_learned_text_beside_held_out_questions_is_what_the_run_is_summarised_by(tiny_stream, llama_folder, tmp_path):
    stream, further = TaskStream("texts", [text_task("text")]), TaskStream("general", [tiny_stream["numbers"]])
    run = run_of(stream, llama_folder, tmp_path / "run", held_out=further)
    assert run.matrix.name == "perplexity" and run.matrix.columns == ("text",)
    assert run.matrix_of(metric="score").held_out == ("numbers",)
    assert run.metrics["average_perplexity"] == pytest.approx(float(run.matrix.matrix[-1, 0]))
    assert run.metrics["general_ability_delta"] is not None
    assert run.metrics["average_accuracy"] is None


def test_intransigence_needs_the_learned_tasks_alone(held_out, tiny_stream, llama_folder, tmp_path):
    joint = run_of(tiny_stream[:2], llama_folder, tmp_path / "joint", strategies=[Joint()])
    wanted = {"name": "intransigence", "split": "test", "metric": "exact_match"}
    (figure,) = [figure for figure in held_out.figures(joint) if wanted.items() <= figure.items()]
    own = [held_out.matrix.matrix[stage, stage - 1] for stage in (1, 2)]
    by_hand = sum(float(final - score) for final, score in zip(joint.matrix.matrix[1], own, strict=True)) / 2
    assert figure["value"] == pytest.approx(by_hand)


def test_a_folder_that_says_nothing_about_held_out_tasks_has_none(whole, tmp_path):
    copy = shutil.copytree(whole.path, tmp_path / "copy")
    environment = json.loads((copy / "environment.json").read_text())
    for task in environment["tasks"]:
        del task["held_out"]
    (copy / "environment.json").write_text(json.dumps(environment))
    (copy / "manifest.json").unlink()  # as in folders of that time
    assert Run(copy).tasks == whole.tasks and Run(copy).held_out == []
    assert Run(copy).metrics == whole.metrics

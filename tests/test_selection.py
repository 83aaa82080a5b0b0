"""Hyper-parameters are chosen on validation questions of the first tasks, by as many trials for every method."""

from __future__ import annotations

import json

import pytest

from lifelong import Run, Study, Task, TaskStream
from lifelong.errors import ConfigError, RunError
from lifelong.grid import points
from lifelong.selection import Selection, trials


def pairs(name: str, split: str) -> list[tuple[str, str]]:
    return [(f"{split} {name} {number}?", f"{name}{number}") for number in range(4)]


def task(name: str, validation: bool = True) -> Task:
    """Every split asks other questions."""
    parts = {split: Task.from_pairs(name, pairs(name, split)).train for split in ("train", "test", "validation")}
    return Task(name, parts["train"], parts["test"], parts["validation"] if validation else None)


STREAM = TaskStream("three", [task("ab"), task("cd"), task("ef")])
METHODS = {"fast": {"batch_size": 4}, "slow": {"batch_size": 2}}


def base(model, **settings) -> dict:
    about = {"stream": STREAM, "model": str(model), "epochs": 2, "batch_size": 4, "trainer": {"accelerator": "cpu"}}
    return about | {"evaluate": {"probes": False, "max_new_tokens": 3}} | settings


@pytest.fixture(scope="module")
def study(llama_folder, tmp_path_factory) -> Study:
    select = {
        "common": {"learning_rate": [1e-5, 3e-2]},
        "grids": {"slow": {"epochs": [1, 3]}, "fast": {"epochs": [1, 2, 3]}},
        "budget": 3,
        "tasks": 2,
        "figure": "learning_accuracy",
    }
    vary = {"method": METHODS, "seed": [0, 1], "order": {"forward": None, "back": ["ef", "cd", "ab"]}}
    return Study(base(llama_folder), vary, tmp_path_factory.mktemp("study"), select=select).run(quiet=True)


def test_every_method_has_as_many_trials_of_different_settings(study):
    frame = study.selection
    assert frame.groupby("method").size().to_dict() == {"fast": 3, "slow": 3}
    assert all(len({json.dumps(value) for value in group.settings}) == 3 for _, group in frame.groupby("method"))
    assert set(frame.state) == {"done"} and (frame.seconds > 0).all()


def test_the_best_of_its_method_is_chosen_the_first_of_equals(study):
    for _, group in study.selection.groupby("method"):
        values = group.value.tolist()
        assert group.chosen.tolist() == [number == values.index(max(values)) for number in range(3)]


def test_trials_ask_validation_questions_of_the_first_tasks_alone(study):
    for folder in study.selection.folder:
        asked = set(Run(study.folder / folder).predictions.question)
        assert asked == {question for name in ("ab", "cd") for question, _ in pairs(name, "validation")}


def test_all_runs_of_a_method_have_what_was_chosen_for_it(study):
    frame = study.selection
    for point in study.points:
        config = study.runs[point.folder.name].config
        (chosen,) = frame[frame.chosen & frame.method.eq(point.method)].settings
        assert {key: config[key] for key in chosen} == chosen
        assert config["batch_size"] == METHODS[point.method]["batch_size"]
        assert {question for name in ("ab", "cd", "ef") for question, _ in pairs(name, "test")} == set(
            study.runs[point.folder.name].predictions.question
        )


def test_a_study_is_loaded_with_its_selection_and_goes_on(study):
    loaded = Study.load(study.folder)
    assert loaded.select == study.select
    assert loaded.selection.equals(study.selection)
    before = {path: path.stat().st_mtime_ns for path in study.folder.glob("*/**/rows.csv")}
    loaded.run(quiet=True)
    assert {path: path.stat().st_mtime_ns for path in study.folder.glob("*/**/rows.csv")} == before


def test_another_selection_in_its_folder_is_shown_as_a_difference(study, llama_folder):
    other = Study(study.base, study.vary, study.folder, select={"common": {"epochs": [1]}, "tasks": 2})
    with pytest.raises(RunError, match=r"select\.tasks|select\.common\.epochs: nothing there, \[1\] here"):
        other.run(quiet=True)


def test_another_stream_lends_its_test_questions(llama_folder, tmp_path):
    lent = TaskStream("lent", [task("gh", validation=False), task("ij", validation=False)])
    select = Selection(common={"epochs": [1, 2]}, tasks=1, stream=lent)
    found = list(points(base(llama_folder), {"seed": [3, 4]}, tmp_path))
    made = trials(select, found, tmp_path, trust=True)
    assert [(trial.method, dict(trial.settings)) for trial in made] == [("all", {"epochs": 1}), ("all", {"epochs": 2})]
    (learned,) = made[0].point.experiment(True).tasks
    assert learned.test["question"][:] == [question for question, _ in pairs("gh", "test")]
    assert {trial.point.config["seed"] for trial in made} == {0}


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"grids": {"fats": {"epochs": [1]}}}, "no method of the study is labelled 'fats'. Did you mean 'fast'"),
        ({"grids": {"fast": {"epoch": [1]}}}, r"select\.grids\.fast\.epoch: there is no such setting"),
        ({"common": {"epochs": 3}}, r"select\.common\.epochs: expected a list of values"),
        ({"common": {"seed": [1, 2]}}, r"select\.common\.seed: is no hyper-parameter"),
        ({"grids": {"fast": {"epochs": [1, 2]}}}, r"the grids have 2 \(fast\), 1 \(slow\) combinations"),
        ({"common": {"epochs": [1]}, "budget": 2}, "'fast' has 1 combinations to try, and the budget is 2"),
        ({"figure": "forgetting"}, r"select\.figure: unknown 'forgetting'"),
        ({"tasks": 0}, r"select\.tasks: must be a whole number of at least 1"),
        ({"tests": 2}, "tests"),
    ],
)
def test_a_selection_that_cannot_be_is_refused_before_anything_runs(select, message, llama_folder, tmp_path):
    with pytest.raises(ConfigError, match=message):
        Study(base(llama_folder), {"method": METHODS}, tmp_path / "study", select=select).run(quiet=True)
    assert not (tmp_path / "study").exists()


def test_without_validation_questions_another_stream_is_asked_for(llama_folder, tmp_path):
    bare = TaskStream("bare", [task("ab", validation=False)])
    study = Study(base(llama_folder, stream=bare), {"seed": [0]}, tmp_path / "s", select={"common": {"epochs": [1]}})
    with pytest.raises(ConfigError, match=r"ab of the stream has no validation questions.*select\.stream"):
        study.run(quiet=True)


def test_a_method_whose_trials_all_fail_has_no_runs_and_the_others_do(llama_folder, tmp_path, capsys):
    select = {"grids": {"fast": {"learning_rate": [1e30]}, "slow": {"learning_rate": [1e-3]}}, "tasks": 1}
    study = Study(base(llama_folder), {"method": METHODS}, tmp_path / "study", select=select).run()
    assert study.table().set_index("method").state.to_dict() == {"fast": "not begun", "slow": "done"}
    assert study.selection.set_index("method").state.to_dict() == {"fast": "diverged", "slow": "done"}
    assert "fast: no trial came to an end, so it has no runs" in capsys.readouterr().out

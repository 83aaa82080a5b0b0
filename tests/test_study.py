"""A grid runs once, keeps its failures, and goes on where it stopped."""

from __future__ import annotations

import shutil

import pytest

from lifelong import Experiment, Study, TaskStream
from lifelong.errors import ConfigError
from lifelong.strategies import Naive, Replay, Strategy


def base(stream, model, **settings) -> Experiment:
    defaults = {"epochs": 1, "batch_size": 4, "trainer": {"accelerator": "cpu"}}
    return Experiment(stream, str(model), **defaults | settings)


class Fail(Strategy):
    """Breaks in the second stage."""

    def before_stage(self, learner, stage):
        if stage.index == 2:
            raise RuntimeError("as planned")


@pytest.fixture(scope="module")
def study(tiny_stream, llama_folder, tmp_path_factory) -> Study:
    vary = {"strategies": {"naive": [Naive()], "replay": [Replay(0.5)], "broken": [Fail()]}, "seed": [0, 1]}
    return Study(base(tiny_stream, llama_folder), vary, tmp_path_factory.mktemp("study")).run(quiet=True)


def test_every_point_of_the_grid_has_a_folder_of_its_own(study):
    assert len(study.runs) == 3 * 2
    assert "strategies=naive,seed=0" in study.runs
    assert study.runs["strategies=replay,seed=1"].config["seed"] == 1


def test_failures_are_kept_and_shown_and_do_not_stop_the_others(study):
    table = study.table().set_index(["strategies", "seed"])
    assert table["state"].to_dict() == {
        ("naive", "0"): "done",
        ("naive", "1"): "done",
        ("replay", "0"): "done",
        ("replay", "1"): "done",
        ("broken", "0"): "failed",
        ("broken", "1"): "failed",
    }
    assert "as planned" in table.loc[("broken", "0"), "reason"]
    assert study.runs["strategies=broken,seed=0"].folder.committed() == 1


def test_the_table_shows_each_runs_own_figures(study):
    table = study.table().set_index(["strategies", "seed"])
    for (strategy, seed), row in table.query("state == 'done'").iterrows():
        run = study.runs[f"strategies={strategy},seed={seed}"]
        assert row["average_accuracy"] == pytest.approx(float(run.matrix.matrix[-1].mean()))
        assert row["trainable_parameters"] == run.costs[-1]["trainable_parameters"]


def test_finished_runs_never_run_again(study):
    done = [run for run in study.runs.values() if run.status["state"] == "done"]
    before = [file.stat().st_mtime_ns for run in done for file in sorted(run.path.glob("stages/**/*"))]
    study.run(quiet=True)
    assert before == [file.stat().st_mtime_ns for run in done for file in sorted(run.path.glob("stages/**/*"))]


def test_a_study_is_loaded_as_it_was_from_its_folder(study):
    loaded = Study.load(study.folder)
    assert loaded.table().equals(study.table())


def test_all_matrices_are_drawn_side_by_side(study):
    titles = [ax.get_title() for ax in study.plot("matrix").get_figure().axes]
    assert [title for title in titles if title] == list(study.runs)


def test_processes_give_the_same_table_as_one_after_the_other(study, tiny_stream, llama_folder, tmp_path):
    vary = {"strategies": {"naive": [Naive()], "replay": [Replay(0.5)]}}
    apart = Study(base(tiny_stream, llama_folder), vary, tmp_path).run(jobs=2, quiet=True).table()
    together = study.table().query("seed == '0' and state == 'done'").reset_index()
    for name in ("strategies", "state"):
        assert apart[name].tolist() == together[name].tolist()
    for name in ("average_accuracy", "forgetting", "probe_accuracy"):
        assert apart[name].tolist() == pytest.approx(together[name].tolist())


def test_a_dotted_key_varies_a_setting_inside_another(tiny_stream, llama_folder, tmp_path):
    settings = {
        "stream": tiny_stream,
        "model": str(llama_folder),
        "adapter": {"class_path": "peft.LoraConfig", "init_args": {"target_modules": "all-linear"}},
    }
    study = Study(settings, {"adapter.init_args.r": [2, 4]}, tmp_path)
    assert [point.config["adapter"]["init_args"]["r"] for point in study.points] == [2, 4]
    assert [point.folder.name for point in study.points] == ["r=2", "r=4"]


def test_a_class_that_other_processes_cannot_find_is_refused_in_words(tiny_stream, llama_folder, tmp_path):
    class Local(Strategy):
        """Exists in this function only."""

    study = Study(base(tiny_stream, llama_folder), {"strategies": {"local": [Local()]}}, tmp_path)
    with pytest.raises(ConfigError, match="put them into a file"):
        study.run(jobs=2, quiet=True)


def test_two_names_for_one_order_are_not_two_pairs(tiny_stream, llama_folder, tmp_path):
    seeds = [seed for seed in range(20) if tiny_stream.shuffle(seed).names == tiny_stream.names]
    study = Study(base(tiny_stream, llama_folder), {"order": {"given": None, "drawn": seeds[0]}}, tmp_path / "study")
    with pytest.raises(ConfigError, match=r"order=given and order=drawn are the same run, of seed 0 in the order"):
        study.run(quiet=True)
    assert not study.folder.exists()


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "names no field"),
        ({"strategy": [[Naive()]]}, "Did you mean 'strategies'"),
        ({"seed": [0, 0]}, "values that differ"),
        ({"seed": "01"}, "expected a list"),
        ({"epochs": [1, 0]}, "epochs: must be"),
    ],
)
def test_a_grid_that_cannot_run_is_refused_before_its_first_run(vary, message, tiny_stream, llama_folder, tmp_path):
    with pytest.raises(ConfigError, match=message):
        Study(base(tiny_stream, llama_folder), vary, tmp_path / "study").run(quiet=True)
    assert not (tmp_path / "study").exists()


def test_general_ability_has_a_column_where_tasks_are_held_out(study, tiny_stream, llama_folder, tmp_path):
    assert not [name for name in study.table() if name.startswith("general")]
    settings = {"held_out": tiny_stream[2:], "evaluate": {"probes": False, "max_new_tokens": 2}}
    held_out = Study(base(tiny_stream[:1], llama_folder, **settings), {"seed": [0, 1]}, tmp_path).run(quiet=True)
    table = held_out.table().set_index("seed")
    for seed, row in table.iterrows():
        before, after = held_out.runs[f"seed={seed}"].matrix.held_out_matrix[:, 0].tolist()
        assert row["general_ability"] == pytest.approx(after)
        assert row["general_ability_delta"] == pytest.approx(after - before)
    # a folder of its own holds the rows, and the study goes on from there
    assert TaskStream.load(tmp_path / "held_out").names == ("numbers",)
    loaded = Study.load(tmp_path)
    assert loaded.base["held_out"]["init_args"] == {"folder": str(tmp_path / "held_out")}
    shutil.rmtree(tmp_path / "seed=1" / "stages" / "1")
    assert loaded.run(quiet=True).table().set_index("seed")["general_ability"].equals(table["general_ability"])

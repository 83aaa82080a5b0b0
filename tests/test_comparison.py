"""Methods side by side: pairs are matched by seed and order, and runs of other streams are refused."""

from __future__ import annotations

import math

import pytest

from lifelong import Experiment, Run, Study, Task, TaskStream
from lifelong.cli import main
from lifelong.comparison import Comparison, Entry, check_same_stream
from lifelong.errors import ConfigError, RunError
from lifelong.metrics.statistics import compare_paired, mean_interval
from lifelong.strategies import Joint, Naive, Replay, Strategy


class FailOnce(Strategy):
    """Breaks for one seed."""

    def before_stage(self, learner, stage):
        if learner.seed == 1:
            raise RuntimeError("as planned")


@pytest.fixture(scope="module")
def study(tiny_stream, llama_folder, tmp_path_factory) -> Study:
    settings = {"epochs": 1, "batch_size": 4, "trainer": {"accelerator": "cpu"}, "evaluate": {"max_new_tokens": 3}}
    methods = {"naive": [Naive()], "joint": [Joint()], "replay": [Replay(0.5)], "broken": [FailOnce()]}
    vary = {"strategies": methods, "seed": [0, 1], "order": {"forward": None, "back": 1}}
    base = Experiment(tiny_stream, str(llama_folder), **settings)
    return Study(base, vary, tmp_path_factory.mktemp("study")).run(quiet=True)


def test_scores_have_a_row_for_each_pair_and_a_column_for_each_method(study):
    scores = study.comparison().scores("learning_accuracy")
    assert scores.index.tolist() == [
        "seed 0, order forward",
        "seed 0, order back",
        "seed 1, order forward",
        "seed 1, order back",
    ]
    assert scores.columns.tolist() == ["naive", "joint", "replay", "broken"]
    assert scores.joint.isna().all()  # one stage, so nothing is right after its own
    assert scores.broken.isna().tolist() == [False, False, True, True]
    run = study.runs["strategies=replay,seed=1,order=back"]
    assert scores.replay["seed 1, order back"] == run.metrics["learning_accuracy"]


def test_the_joint_run_counts_for_every_order_and_measures_the_others(study):
    table = study.table().set_index(["strategies", "seed", "order"]).sort_index()
    assert len([name for name in study.runs if "joint" in name]) == 2
    joint = study.runs["strategies=joint,seed=0"]
    for order in ("forward", "back"):
        assert table.loc[("joint", "0", order), "average_accuracy"] == joint.metrics["average_accuracy"]
        run = study.runs[f"strategies=naive,seed=0,order={order}"]
        (expected,) = [f["value"] for f in run.figures(joint) if (f["name"], f["split"]) == ("intransigence", "test")]
        assert table.loc[("naive", "0", order), "intransigence"] == expected
    assert table.loc["joint", "intransigence"].isna().all()


def test_summary_and_tests_are_those_of_the_scores(study):
    comparison = study.comparison()
    scores = comparison.scores("average_accuracy")
    assert comparison.summary()["replay"] == mean_interval(scores.replay)
    assert comparison.against("naive") == compare_paired(scores, "naive")
    assert comparison.ranking().pairs == 2  # in which the broken method has runs


def test_of_a_cost_less_is_better():
    seconds = {"slow": [5.0, 6.0, 7.0], "quick": [1.0, 2.0, 3.0]}
    entries = [
        Entry(method, {"seed": str(number)}, {"seconds": value})
        for method, values in seconds.items()
        for number, value in enumerate(values)
    ]
    comparison = Comparison(entries)
    (quick,) = comparison.against("slow", "seconds")
    assert (quick.wins, quick.losses) == (3, 0)
    assert comparison.ranking("seconds").ranks == {"quick": 1.0, "slow": 2.0}


def test_what_is_not_there_is_named(study):
    comparison = study.comparison()
    with pytest.raises(ConfigError, match=r"no run has a figure 'acuracy'\. Did you mean"):
        comparison.scores("acuracy")
    with pytest.raises(ConfigError, match=r"no method 'nave'\. Did you mean 'naive'"):
        comparison.against("nave")
    with pytest.raises(ConfigError, match="two runs of 'a' have the same seed 0"):
        Comparison([Entry("a", {"seed": "0"}, {}), Entry("a", {"seed": "0"}, {})])


def test_a_missing_value_is_nan_and_never_zero():
    entries = [Entry("a", {"seed": "0"}, {"x": None}), Entry("a", {"seed": "1"}, {"x": 0.0})]
    values = Comparison(entries).scores("x").a.tolist()
    assert math.isnan(values[0]) and values[1] == 0.0


def test_runs_of_different_streams_are_not_compared(study, llama_folder, tmp_path):
    names = list(study.runs)
    check_same_stream({name: study.runs[name] for name in names})  # in whatever order their tasks are
    row = {"epochs": 1, "evaluate": {"max_new_tokens": 2}, "trainer": {"accelerator": "cpu"}}
    other = TaskStream("other", [Task.from_pairs("elsewhere", [("a?", "b")])])
    Experiment(other, str(llama_folder), folder=tmp_path / "other", **row).run(quiet=True)
    with pytest.raises(RunError, match=f"{names[0]} and other have not both .*: only runs of the same stream"):
        check_same_stream({names[0]: study.runs[names[0]], "other": Run(tmp_path / "other")})


def test_methods_that_learned_different_streams_are_not_compared(tiny_stream, llama_folder, tmp_path):
    settings = {"epochs": 1, "trainer": {"accelerator": "cpu"}, "evaluate": {"max_new_tokens": 2}}
    base = Experiment(tiny_stream[:1], str(llama_folder), **settings)
    study = Study(base, {"stream": {"first": tiny_stream[:1], "second": tiny_stream[1:2]}}, tmp_path).run(quiet=True)
    with pytest.raises(RunError, match="stream=first and stream=second have not both 'colours'"):
        study.comparison()


def test_the_command_prints_means_tests_and_ranks_of_a_folder(study, capsys):
    assert main(["compare", str(study.folder), "--reference", "naive", "--figure", "learning_accuracy"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "means over 4 pairs of seed and order, too few for intervals" in said
    assert "learning accuracy, compared with naive:" in said
    assert all(difference.sentence in said for difference in study.comparison().against("naive", "learning_accuracy"))
    assert "No test was made: with 4 pairs" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--figure", "acuracy"], "no run has a figure 'acuracy'"),
        (["--reference", "nave"], "no method 'nave'"),
    ],
)
def test_the_command_names_what_is_not_there(words, message, study, capsys):
    assert main(["compare", str(study.folder), *words]) == 2
    assert message in capsys.readouterr().err


def test_the_command_needs_something_that_varies(tmp_path, capsys):
    (tmp_path / "one.yaml").write_text("stream: streams.world_facts\n")
    assert main(["compare", str(tmp_path / "one.yaml")]) == 2
    assert "has no `vary` section" in capsys.readouterr().err
    (tmp_path / "study").mkdir()
    assert main(["compare", str(tmp_path / "study")]) == 2


def test_another_grid_in_the_folder_is_shown_as_a_difference(study):
    vary = {**study.vary, "strategies": {"naive": [Replay(0.9)], "joint": [Joint()]}}
    with pytest.raises(RunError) as error:
        Study(study.base, vary, study.folder).run(quiet=True)
    assert "vary.strategies.naive.0.class_path: 'lifelong.strategies.Naive' there, " in str(error.value)
    assert "vary.strategies.replay: " in str(error.value) and "there, nothing here" in str(error.value)


def test_more_values_may_join_a_study_that_is_there(tiny_stream, llama_folder, tmp_path):
    settings = {"epochs": 1, "trainer": {"accelerator": "cpu"}, "evaluate": {"max_new_tokens": 2}}
    base = Experiment(tiny_stream, str(llama_folder), **settings)
    Study(base, {"seed": [0]}, tmp_path).run(quiet=True)
    assert set(Study(base, {"seed": [0, 1]}, tmp_path).run(quiet=True).table().state) == {"done"}

"""Figures with their definitions, their reasons, and the other names of those over fewer tasks."""

import dataclasses

import pytest

from lifelong.metrics import Figure
from lifelong.metrics.figures import derive_figures, figure_values

NAN = float("nan")
TASKS = ["elements", "capitals", "rivers", "planets"]
KNOWN = [
    [0.10, 0.09, 0.11, 0.10],
    [0.80, 0.10, 0.05, 0.08],
    [0.90, 0.95, 0.12, 0.10],
    [0.85, 0.70, 0.90, 0.20],
    [0.60, 0.75, 0.92, 0.88],
]
JOINT = [0.90, 0.92, 0.94, 0.90]


def by_name(*args, **kwargs):
    found = derive_figures(*args, **kwargs)
    assert len({figure.name for figure in found}) == len(found)
    return {figure.name: figure for figure in found}


def without(*cells):
    R = [list(row) for row in KNOWN]
    for stage, task in cells:
        R[stage][task] = NAN
    return R


def test_a_full_matrix_defines_every_figure_and_no_partial_one():
    found = by_name(KNOWN, TASKS, JOINT)
    values = {name: round(figure.value, 4) for name, figure in found.items()}
    assert values == {
        "average_accuracy": 0.7875,
        "average_incremental_accuracy": 0.8323,
        "learning_accuracy": 0.8825,
        "backward_transfer": -0.1267,
        "forward_transfer": 0.04,
        "forgetting": 0.16,
        "forgetting_first": 0.1267,
        "intransigence": 0.0325,
        "area_under_accuracy_curve": 0.4703,
        "min_accuracy": 0.74,
        "worst_case_accuracy": 0.775,
        "worst_dip": 0.3,
        "plasticity": 0.7525,
        "stability": -0.0489,
    }
    assert all(figure.reason is None and figure.definition and figure.source for figure in found.values())


def test_a_figure_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Figure("average_accuracy", 0.5, "", "").value = 1.0


def test_without_a_joint_run_intransigence_is_undefined_and_says_so():
    found = by_name(KNOWN, TASKS)
    assert found["intransigence"].value is None
    assert found["intransigence"].reason == "needs the final accuracies of a joint run"
    assert figure_values(KNOWN)["intransigence"].isnan()


# The cell that is missing, and by hand the mean over the tasks that have all they need.
PARTIAL = [
    ("average_accuracy", (4, 1), "3 of 4", (0.60 + 0.92 + 0.88) / 3),
    ("learning_accuracy", (2, 1), "3 of 4", (0.80 + 0.90 + 0.88) / 3),
    ("backward_transfer", (2, 1), "2 of 3", (-0.20 + 0.02) / 2),
    ("forward_transfer", (0, 3), "2 of 3", (0.01 + 0.01) / 2),
    ("forgetting", (3, 0), "2 of 3", (0.20 - 0.02) / 2),
    ("forgetting_first", (4, 0), "2 of 3", (0.20 - 0.02) / 2),
    ("intransigence", (1, 0), "3 of 4", (-0.03 + 0.04 + 0.02) / 3),
    # Of the first: .10 / 2 + .80 + .90 + .85 + .60 / 2, over four stages.
    ("area_under_accuracy_curve", (1, 3), "3 of 4", (2.9 + 2.17 + 1.585) / 12),
    ("min_accuracy", (3, 0), "2 of 3", (0.70 + 0.92) / 2),
    ("worst_case_accuracy", (4, 0), "3 of 4", (0.70 + 0.92 + 0.88) / 3),
    ("worst_dip", (2, 0), "2 of 3", 0.95 - 0.70),
    ("plasticity", (0, 0), "3 of 4", (0.85 + 0.78 + 0.68) / 3),
    ("stability", (2, 1), "2 of 3", (-0.20 / 3 + 0.02) / 2),
    # Without the first task stage 1 has nothing to average; then .95, (.70 + .90) / 2 and (.75 + .92 + .88) / 3.
    ("average_incremental_accuracy", (3, 0), "3 of 4", (0.95 + 0.80 + 0.85) / 3),
]


@pytest.mark.parametrize(("name", "cell", "share", "expected"), PARTIAL)
def test_a_figure_over_fewer_tasks_has_another_name(name, cell, share, expected):
    found = by_name(without(cell), TASKS, JOINT)
    assert found[name].value is None and "was not measured" in found[name].reason
    partial = found[f"{name} over measured tasks, {share}"]
    assert partial.value == pytest.approx(expected)
    assert partial.reason is None and "were all measured" in partial.definition


def test_a_figure_without_any_measured_task_has_no_partial_one():
    R = without(*[(4, task) for task in range(4)])
    names = list(by_name(R, TASKS))
    assert not [name for name in names if name.startswith(("average_accuracy over", "forgetting over"))]
    # Learning accuracy needs (4, 3) of that row and nothing else.
    assert "learning_accuracy over measured tasks, 3 of 4" in names


def test_a_hole_in_the_joint_run_leaves_intransigence_over_the_other_tasks():
    found = by_name(KNOWN, TASKS, [0.90, NAN, 0.94, 0.90])
    assert found["intransigence"].reason == "the joint run's score on task 'capitals' was not measured"
    assert found["intransigence over measured tasks, 3 of 4"].value == pytest.approx((0.10 + 0.04 + 0.02) / 3)


def test_no_partial_figure_stands_in_for_one_that_the_shape_leaves_undefined():
    found = by_name([[0.1] * 5, [0.8, NAN, 0.8, 0.8, 0.7]], list("abcde"), [0.9] * 5)
    assert [name for name in found if "measured" in name] == [
        "average_accuracy over measured tasks, 4 of 5",
        "area_under_accuracy_curve over measured tasks, 4 of 5",
    ]
    assert found["learning_accuracy"].reason == "needs one stage per task: this run has 1 stage and 5 tasks (joint)"


def test_a_perplexity_has_no_figures_of_accuracy_but_two_of_its_own():
    R = [[90.0, 80.0], [10.0, 60.0], [14.0, 8.0]]
    found = by_name(R, ["a", "b"], score="perplexity", higher_is_better=False)
    assert found["average_perplexity"].value == pytest.approx(11.0)
    assert found["perplexity_increase"].value == pytest.approx(4.0)
    refused = [figure for name, figure in found.items() if "perplexity" not in name]
    assert len(refused) == 14
    assert {figure.reason for figure in refused} == {"the score is a perplexity: lower is better"}
    assert all(figure.value is None for figure in refused)


def test_a_perplexity_that_was_not_measured_gives_a_reason_and_a_partial_figure():
    found = by_name([[90.0, 80.0], [10.0, 60.0], [14.0, NAN]], ["a", "b"], score="perplexity", higher_is_better=False)
    assert found["average_perplexity"].reason == "the cell after stage 2 on task 'b' was not measured"
    assert found["average_perplexity over measured tasks, 1 of 2"].value == pytest.approx(14.0)
    assert found["perplexity_increase"].value == pytest.approx(4.0)


# ---------------------------------------------------------------- held-out tasks

HELD_OUT = [[0.50, 0.40], [0.48, 0.42], [0.45, 0.39], [0.46, 0.35], [0.44, 0.38]]
GENERAL = ["general_ability", "general_ability_delta"]


def test_held_out_tasks_have_figures_of_their_own_and_change_no_other():
    alone, found = by_name(KNOWN, TASKS, JOINT), by_name(KNOWN, TASKS, JOINT, H=HELD_OUT, held_out=["books", "maths"])
    assert list(found) == [*alone, *GENERAL]
    assert {name: found[name] for name in alone} == alone
    assert found["general_ability"].value == pytest.approx(0.41)
    assert found["general_ability_delta"].value == pytest.approx(-0.04)
    for name in GENERAL:
        assert (found[name].reason, found[name].source) == (None, "lifelong")
        assert "held-out tasks" in found[name].definition


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_without_held_out_tasks_there_is_no_figure_of_general_ability(higher_is_better):
    found = by_name(KNOWN, TASKS, higher_is_better=higher_is_better)
    assert not [name for name in found if name.startswith("general")]
    assert set(figure_values(KNOWN, higher_is_better=higher_is_better)) == set(found)


def test_a_held_out_task_that_lacks_a_cell_leaves_the_figure_over_the_others():
    H = [list(row) for row in HELD_OUT]
    H[0][1] = NAN
    found = by_name(KNOWN, TASKS, H=H, held_out=["books", "maths"])
    assert found["general_ability"].value == pytest.approx(0.41)
    assert found["general_ability_delta"].value is None
    assert found["general_ability_delta"].reason == "the cell of the untrained model on task 'maths' was not measured"
    assert found["general_ability_delta over measured tasks, 1 of 2"].value == pytest.approx(-0.06)


def test_general_perplexity_rises_where_general_ability_falls():
    R, H = [[90.0, 80.0], [10.0, 60.0], [14.0, 8.0]], [[20.0, 30.0], [NAN, NAN], [26.0, 34.0]]
    found = by_name(R, ["a", "b"], score="perplexity", higher_is_better=False, H=H, held_out=["c", "d"])
    assert found["general_perplexity"].value == pytest.approx(30.0)
    assert found["general_perplexity_increase"].value == pytest.approx((6.0 + 4.0) / 2)
    assert found["average_perplexity"].value == pytest.approx(11.0)
    assert not set(GENERAL) & set(found)
    assert "lower is better" in found["general_perplexity_increase"].definition


@pytest.mark.parametrize("score", ["exact_match", "perplexity"])
def test_where_every_task_is_held_out_the_figures_of_learning_are_undefined_with_a_reason(score):
    higher = score != "perplexity"
    found = by_name(None, [], [], score, higher, H=HELD_OUT, held_out=["books", "maths"])
    defined = {name for name, figure in found.items() if figure.value is not None}
    assert defined == (set(GENERAL) if higher else {"general_perplexity", "general_perplexity_increase"})
    reasons = {figure.reason for name, figure in found.items() if name not in defined}
    assert reasons == {"every task with this score is held out"}
    assert found["average_accuracy" if higher else "average_perplexity"].value is None
    values = figure_values(None, None, score, higher, HELD_OUT)
    assert {name for name, value in values.items() if not value.isnan()} == defined
    assert set(values) == set(found)


def test_matrices_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="R and H must have the same rows, got 5 and 4"):
        derive_figures(KNOWN, TASKS, H=HELD_OUT[:4], held_out=["books", "maths"])
    with pytest.raises(ValueError, match="2 columns, but 1 task names"):
        derive_figures(KNOWN, TASKS, H=HELD_OUT, held_out=["books"])
    with pytest.raises(ValueError, match="cannot both be None"):
        derive_figures(None, [])

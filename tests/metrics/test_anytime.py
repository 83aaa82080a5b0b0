"""Figures of any time against their definitions written as plain loops, and against what plain cases must give."""

import math

import numpy as np
import pytest

from lifelong.metrics import anytime
from lifelong.metrics.cells import needed_cells, undefined_reason
from lifelong.metrics.functional import average_accuracy, backward_transfer, learning_accuracy, per_task

KNOWN = [
    [0.10, 0.09, 0.11, 0.10],
    [0.80, 0.10, 0.05, 0.08],
    [0.90, 0.95, 0.12, 0.10],
    [0.85, 0.70, 0.90, 0.20],
    [0.60, 0.75, 0.92, 0.88],
]
# by hand
KNOWN_VALUES = {
    # (.10 / 2 + .2575 + .5175 + .6625 + .7875 / 2) / 4
    "area_under_accuracy_curve": 0.4703125,
    # (.60 + .70 + .92) / 3
    "min_accuracy": 0.74,
    # .88 / 4 + .75 * .74
    "worst_case_accuracy": 0.775,
    # .90 to .60, where .95 to .70 is less
    "worst_dip": 0.30,
    # (.70 + .85 + .78 + .68) / 4
    "plasticity": 0.7525,
    # (-.20 / 3 - .20 / 2 + .02) / 3
    "stability": -0.14666666666666667 / 3,
}
FIGURES = list(KNOWN_VALUES)


def by_plain_loops(name, R):
    """Return (value, needed cells), with stages and tasks counted from 1."""
    tasks = len(R[0])
    needed = set()

    def score(stage, task):
        needed.add((stage, task - 1))
        return float(R[stage][task - 1])

    def lowest(task):
        low = math.inf
        for stage in range(task + 1, tasks + 1):
            low = min(low, score(stage, task))
        return low

    if name == "area_under_accuracy_curve":
        curve = [sum(score(i, j) for j in range(1, tasks + 1)) / tasks for i in range(len(R))]
        value = np.trapezoid(curve, np.linspace(0, 1, len(R)))
    elif name == "min_accuracy":
        value = sum(lowest(j) for j in range(1, tasks)) / (tasks - 1)
    elif name == "worst_case_accuracy":
        value = score(tasks, tasks) / tasks
        if tasks > 1:
            value += (1 - 1 / tasks) * sum(lowest(j) for j in range(1, tasks)) / (tasks - 1)
    elif name == "worst_dip":
        value = -math.inf
        for j in range(1, tasks):
            for before in range(j, tasks):
                for after in range(before + 1, tasks + 1):
                    value = max(value, score(before, j) - score(after, j))
    elif name == "plasticity":
        value = sum(score(j, j) - score(j - 1, j) for j in range(1, tasks + 1)) / tasks
    else:
        value = 0.0
        for j in range(1, tasks):
            steps = [float(R[i][j - 1]) - float(R[i - 1][j - 1]) for i in range(j + 1, tasks + 1)]
            value += sum(steps) / len(steps) / (tasks - 1)
            score(j, j), score(tasks, j)  # the steps between add up to these
    return value, needed


def figure(name, R):
    return getattr(anytime, name)(R)


@pytest.mark.parametrize("name", FIGURES)
def test_the_known_matrix_gives_the_values_that_were_worked_out_by_hand(name):
    assert float(figure(name, KNOWN)) == pytest.approx(KNOWN_VALUES[name], abs=1e-12)


@pytest.mark.parametrize("tasks", [2, 3, 5, 8])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_equal_their_definitions_written_as_loops(name, tasks):
    generator = np.random.default_rng(tasks)
    for _ in range(20):
        R = generator.random((tasks + 1, tasks))
        assert float(figure(name, R)) == pytest.approx(by_plain_loops(name, R)[0], abs=1e-12)


@pytest.mark.parametrize("name", FIGURES)
def test_each_needed_cell_that_is_missing_undoes_the_figure_and_no_other_cell_does(name):
    value, needed = by_plain_loops(name, KNOWN)
    cells = needed_cells(name, KNOWN)
    assert {cell for some in cells.values() for cell in some} == needed
    assert all(column == task for task, some in cells.items() for _, column in some)
    for stage in range(5):
        for task in range(4):
            R = [list(row) for row in KNOWN]
            R[stage][task] = float("nan")
            reason = undefined_reason(name, R, list("abcd"))
            if (stage, task) in needed:
                place = f"after stage {stage}" if stage else "of the untrained model"
                assert figure(name, R).isnan()
                assert reason == f"the cell {place} on task {'abcd'[task]!r} was not measured"
            else:
                assert float(figure(name, R)) == pytest.approx(value, abs=1e-12)
                assert reason is None


@pytest.mark.parametrize("name", FIGURES)
def test_a_single_task_has_the_figures_that_need_no_other(name):
    value, reason = figure(name, [[0.1], [0.8]]), undefined_reason(name, [[0.1], [0.8]])
    expected = {"area_under_accuracy_curve": 0.45, "worst_case_accuracy": 0.8, "plasticity": 0.7}
    if name in expected:
        assert float(value) == pytest.approx(expected[name]) and reason is None
    else:
        assert value.isnan() and reason == "needs at least two tasks"


@pytest.mark.parametrize("name", FIGURES)
def test_a_joint_run_has_an_area_and_no_figure_of_the_diagonal(name):
    R = [[0.1] * 5, [0.8] * 5]
    if name == "area_under_accuracy_curve":
        assert float(figure(name, R)) == pytest.approx(0.45)
    else:
        assert figure(name, R).isnan()
        assert undefined_reason(name, R) == "needs one stage per task: this run has 1 stage and 5 tasks (joint)"


def test_a_model_that_learns_nothing_is_perfectly_stable_and_not_plastic():
    R = np.tile([0.2, 0.5, 0.1], (4, 1))
    assert float(anytime.plasticity(R)) == float(anytime.stability(R)) == float(anytime.worst_dip(R)) == 0.0
    assert float(anytime.area_under_accuracy_curve(R)) == pytest.approx(float(average_accuracy(R)))


def test_a_model_that_forgets_nothing_has_its_learning_accuracy_in_the_worst_case():
    R = np.where(np.arange(5)[:, None] > np.arange(4), 0.9, 0.1)
    assert float(anytime.worst_case_accuracy(R)) == pytest.approx(float(learning_accuracy(R)))
    assert float(anytime.stability(R)) == float(anytime.worst_dip(R)) == 0.0


def test_a_dip_that_is_made_good_is_seen_here_and_not_by_backward_transfer():
    R = [[0.0] * 3, [0.9, 0.0, 0.0], [0.2, 0.9, 0.0], [0.9, 0.9, 0.9]]
    assert float(backward_transfer(R)) == 0.0
    assert float(anytime.worst_dip(R)) == pytest.approx(0.7)
    # the first at its lowest, the second as it is at the end
    assert float(anytime.min_accuracy(R)) == pytest.approx((0.2 + 0.9) / 2)


def test_the_worst_dip_is_of_one_task_and_its_terms_are_of_each():
    terms = per_task("worst_dip", KNOWN)
    assert terms[:3].tolist() == pytest.approx([0.30, 0.25, -0.02]) and terms[3].isnan()


def test_the_worst_dip_is_negative_where_all_old_tasks_only_improve():
    assert float(anytime.worst_dip([[0.1, 0.1], [0.5, 0.1], [0.7, 0.9]])) == pytest.approx(-0.2)

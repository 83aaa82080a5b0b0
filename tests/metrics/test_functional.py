"""The figures against FACTS.md's known matrix and against their definitions written as plain loops."""

import math
import re

import numpy as np
import pytest
import torch

from lifelong.metrics import cells, functional

KNOWN = [
    [0.10, 0.09, 0.11, 0.10],
    [0.80, 0.10, 0.05, 0.08],
    [0.90, 0.95, 0.12, 0.10],
    [0.85, 0.70, 0.90, 0.20],
    [0.60, 0.75, 0.92, 0.88],
]
JOINT = [0.90, 0.92, 0.94, 0.90]
KNOWN_VALUES = {
    "average_accuracy": 0.7875,
    "average_incremental_accuracy": 0.8323,
    "learning_accuracy": 0.8825,
    "backward_transfer": -0.1267,
    "forward_transfer": 0.0400,
    "forgetting": 0.1600,
    "forgetting_first": 0.1267,
    # .10 + -.03 + .04 + .02 over four tasks, by hand.
    "intransigence": 0.0325,
}
# What other libraries make of the same matrix.
KNOWN_MISTAKES = {
    "forgetting": [0.1667],
    "forward_transfer": [0.7867],
    "backward_transfer": [-0.0950],
}
FIGURES = list(KNOWN_VALUES)


def figure(name, R, joint=None):
    if name == "intransigence":
        return functional.intransigence(R, joint)
    if name == "forgetting_first":
        return functional.forgetting(R, reference="first")
    return getattr(functional, name)(R)


def by_plain_loops(name, R, joint):
    """Return (value, needed cells) of a square run, with stages and tasks counted from 1 as in the papers."""
    tasks = len(R[0])
    needed = set()

    def score(stage, task):
        needed.add((stage, task - 1))
        return float(R[stage][task - 1])

    terms = []
    if name == "average_accuracy":
        for j in range(1, tasks + 1):
            terms.append(score(tasks, j))
    elif name == "average_incremental_accuracy":
        for i in range(1, tasks + 1):
            total = 0.0
            for j in range(1, i + 1):
                total += score(i, j)
            terms.append(total / i)
    elif name == "learning_accuracy":
        for j in range(1, tasks + 1):
            terms.append(score(j, j))
    elif name == "backward_transfer":
        for j in range(1, tasks):
            terms.append(score(tasks, j) - score(j, j))
    elif name == "forward_transfer":
        for j in range(2, tasks + 1):
            terms.append(score(j - 1, j) - score(0, j))
    elif name == "forgetting":
        for j in range(1, tasks):
            best = -math.inf
            for stage in range(j, tasks):
                best = max(best, score(stage, j))
            terms.append(best - score(tasks, j))
    elif name == "forgetting_first":
        for j in range(1, tasks):
            terms.append(score(j, j) - score(tasks, j))
    else:
        for j in range(1, tasks + 1):
            terms.append(float(joint[j - 1]) - score(j, j))
    return sum(terms) / len(terms), needed


@pytest.mark.parametrize("name", FIGURES)
def test_the_known_matrix_gives_the_known_values_and_none_of_the_known_mistakes(name):
    value = float(figure(name, KNOWN, JOINT))
    assert value == pytest.approx(KNOWN_VALUES[name], abs=1e-4)
    for mistake in KNOWN_MISTAKES.get(name, []):
        assert value != pytest.approx(mistake, abs=1e-3)


@pytest.mark.parametrize("tasks", [2, 3, 5, 8])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_equal_their_definitions_written_as_loops(name, tasks):
    generator = np.random.default_rng(tasks)
    for _ in range(20):
        R, joint = generator.random((tasks + 1, tasks)), generator.random(tasks)
        assert float(figure(name, R, joint)) == pytest.approx(by_plain_loops(name, R, joint)[0], abs=1e-12)


@pytest.mark.parametrize("name", FIGURES)
def test_each_needed_cell_that_is_missing_undoes_the_figure_and_no_other_cell_does(name):
    names = ["elements", "capitals", "rivers", "planets"]
    value, needed = by_plain_loops(name, KNOWN, JOINT)
    for stage in range(5):
        for task in range(4):
            R = [list(row) for row in KNOWN]
            R[stage][task] = float("nan")
            reason = cells.undefined_reason(name, R, names, JOINT)
            if (stage, task) in needed:
                place = f"after stage {stage}" if stage else "of the untrained model"
                assert figure(name, R, JOINT).isnan()
                assert reason == f"the cell {place} on task {names[task]!r} was not measured"
            else:
                assert float(figure(name, R, JOINT)) == pytest.approx(value, abs=1e-12)
                assert reason is None


def test_forgetting_is_negative_where_the_last_stage_improves_on_everything_before():
    assert float(functional.forgetting([[0.1, 0.1], [0.5, 0.1], [0.7, 0.9]])) == pytest.approx(-0.2)


def test_forgetting_leaves_out_stages_before_the_task_was_learned():
    # Before its own stage the second task scored 1.0, which it never "knew".
    R = [[0.0, 0.0, 0.0], [0.9, 1.0, 0.0], [0.9, 0.6, 0.0], [0.9, 0.5, 0.8]]
    assert float(functional.forgetting(R)) == pytest.approx((0.0 + 0.1) / 2)


def test_forward_transfer_takes_the_untrained_model_as_its_baseline():
    R = [[0.0, 0.2, 0.3], [0.9, 0.4, 0.5], [0.9, 0.9, 0.9], [0.9, 0.9, 0.9]]
    assert float(functional.forward_transfer(R)) == pytest.approx(((0.4 - 0.2) + (0.9 - 0.3)) / 2)


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor, lambda R: torch.tensor(R).double().numpy()])
def test_lists_arrays_and_tensors_give_the_same_float64_number(convert):
    value = functional.forgetting(convert(KNOWN))
    assert value.shape == () and value.dtype == torch.float64
    assert float(value) == pytest.approx(0.16, abs=1e-6)


def test_integer_scores_are_averaged_and_not_truncated():
    assert float(functional.average_accuracy([[0, 0], [1, 0], [1, 0]])) == 0.5


def test_the_matrix_that_was_given_is_left_as_it_was():
    R = torch.tensor(KNOWN, dtype=torch.float64)
    for name in FIGURES:
        figure(name, R, JOINT)
        cells.undefined_reason(name, R, joint=JOINT)
    assert torch.equal(R, torch.tensor(KNOWN, dtype=torch.float64))


def test_a_joint_run_has_an_average_accuracy_and_no_figure_of_the_diagonal():
    R = [[0.1] * 5, [0.8] * 5]
    assert float(functional.average_accuracy(R)) == pytest.approx(0.8)
    for name in FIGURES:
        if name != "average_accuracy":
            assert figure(name, R, [0.9] * 5).isnan()
            reason = cells.undefined_reason(name, R, joint=[0.9] * 5)
            assert reason == "needs one stage per task: this run has 1 stage and 5 tasks (joint)"


def test_a_run_of_too_few_stages_is_not_called_joint():
    reason = cells.undefined_reason("learning_accuracy", [[0.1] * 5] * 4)
    assert reason == "needs one stage per task: this run has 3 stages and 5 tasks"


@pytest.mark.parametrize("name", ["backward_transfer", "forward_transfer", "forgetting", "forgetting_first"])
def test_transfer_and_forgetting_need_two_tasks(name):
    assert figure(name, [[0.1], [0.8]]).isnan()
    assert cells.undefined_reason(name, [[0.1], [0.8]]) == "needs at least two tasks"


def test_a_single_task_has_the_figures_that_need_no_other():
    R = [[0.1], [0.8]]
    for name in ("average_accuracy", "average_incremental_accuracy", "learning_accuracy"):
        assert float(figure(name, R)) == pytest.approx(0.8)
    assert float(functional.intransigence(R, [0.9])) == pytest.approx(0.1)


def test_intransigence_needs_every_score_of_the_joint_run():
    joint = [0.9, 0.9, float("nan"), 0.9]
    assert functional.intransigence(KNOWN, joint).isnan()
    reason = cells.undefined_reason("intransigence", KNOWN, list("abcd"), joint)
    assert reason == "the joint run's score on task 'c' was not measured"
    reason = cells.undefined_reason("intransigence", KNOWN, list("abcd"))
    assert reason == "needs the final accuracies of a joint run"


def test_the_reason_names_the_first_missing_cell_and_counts_the_others():
    R = [list(row) for row in KNOWN]
    R[4] = [float("nan")] * 4
    reason = cells.undefined_reason("average_accuracy", R)
    assert reason == "the cell after stage 4 on task 1 was not measured (nor were 3 more)"


@pytest.mark.parametrize("name", FIGURES)
def test_the_cells_said_to_be_needed_are_those_that_the_definition_reads(name):
    needed = cells.needed_cells(name, KNOWN)
    assert {cell for some in needed.values() for cell in some} == by_plain_loops(name, KNOWN, JOINT)[1]
    assert all(column == task for task, some in needed.items() for _, column in some)


def test_per_task_forgetting_has_a_term_for_every_task_but_the_last():
    terms = functional.per_task("forgetting", KNOWN)
    assert terms[:3].tolist() == pytest.approx([0.30, 0.20, -0.02])
    assert terms[3].isnan()


def test_per_task_forward_transfer_has_a_term_for_every_task_but_the_first():
    terms = functional.per_task("forward_transfer", KNOWN)
    assert terms[0].isnan()
    assert terms[1:].tolist() == pytest.approx([0.01, 0.01, 0.10])


def test_per_task_marks_only_the_task_whose_cell_is_missing():
    R = [list(row) for row in KNOWN]
    R[2][1] = float("nan")
    assert functional.per_task("learning_accuracy", R).isnan().tolist() == [False, True, False, False]


def test_average_incremental_accuracy_has_no_terms_per_task():
    with pytest.raises(ValueError, match="averages over stages"):
        functional.per_task("average_incremental_accuracy", KNOWN)


@pytest.mark.parametrize("name", FIGURES)
def test_a_joint_vector_or_matrix_of_the_wrong_shape_is_refused(name):
    with pytest.raises(ValueError, match=re.escape("got (4,)")):
        figure(name, KNOWN[0], JOINT)
    if name == "intransigence":
        with pytest.raises(ValueError, match=re.escape("joint must have the shape (4,)")):
            functional.intransigence(KNOWN, JOINT[:3])


def test_a_misspelt_figure_or_reference_is_refused_with_what_is_known():
    with pytest.raises(ValueError, match="did you mean 'forgetting'"):
        cells.undefined_reason("forgeting", KNOWN)
    with pytest.raises(ValueError, match="'max' or 'first', got 'last'"):
        functional.forgetting(KNOWN, reference="last")
    with pytest.raises(ValueError, match="4 columns, but 2 task names"):
        cells.undefined_reason("forgetting", KNOWN, ["a", "b"])


# ---------------------------------------------------------------- held-out tasks

HELD_OUT = [[0.50, 0.40], [0.48, 0.42], [0.45, 0.39], [0.46, 0.35], [0.44, 0.38]]
GENERAL = {
    # (.44 + .38) / 2 and (-.06 - .02) / 2, by hand.
    "general_ability": 0.41,
    "general_ability_delta": -0.04,
}


@pytest.mark.parametrize("name", GENERAL)
def test_general_ability_on_a_matrix_worked_out_by_hand(name):
    assert float(getattr(functional, name)(HELD_OUT)) == pytest.approx(GENERAL[name], abs=1e-12)


@pytest.mark.parametrize(("stages", "tasks"), [(1, 1), (1, 4), (5, 1), (3, 2), (2, 3)])
def test_general_ability_needs_no_stage_per_task(stages, tasks):
    H = np.random.default_rng(stages).random((stages + 1, tasks))
    level = change = 0.0
    for task in range(tasks):
        level += H[stages][task] / tasks
        change += (H[stages][task] - H[0][task]) / tasks
    assert float(functional.general_ability(H)) == pytest.approx(level, abs=1e-12)
    assert float(functional.general_ability_delta(H)) == pytest.approx(change, abs=1e-12)


@pytest.mark.parametrize(("name", "rows"), [("general_ability", {4}), ("general_ability_delta", {0, 4})])
def test_general_ability_rests_on_the_first_and_the_last_row_alone(name, rows):
    for stage in range(5):
        for task in range(2):
            H = [list(row) for row in HELD_OUT]
            H[stage][task] = float("nan")
            value, reason = getattr(functional, name)(H), cells.undefined_reason(name, H, ["books", "maths"])
            if stage in rows:
                place = f"after stage {stage}" if stage else "of the untrained model"
                assert value.isnan()
                assert reason == f"the cell {place} on task {['books', 'maths'][task]!r} was not measured"
            else:
                assert float(value) == pytest.approx(GENERAL[name], abs=1e-12)
                assert reason is None
    needed = cells.needed_cells(name, HELD_OUT)
    assert {task: {stage for stage, _ in some} for task, some in needed.items()} == {0: rows, 1: rows}
    assert all(column == task for task, some in needed.items() for _, column in some)


def test_per_task_general_ability_has_a_term_for_every_held_out_task():
    assert functional.per_task("general_ability_delta", HELD_OUT).tolist() == pytest.approx([-0.06, -0.02])
    assert functional.per_task("general_ability", HELD_OUT).tolist() == [0.44, 0.38]


@pytest.mark.parametrize("name", GENERAL)
def test_a_matrix_of_held_out_tasks_of_the_wrong_shape_is_refused_by_its_name(name):
    with pytest.raises(ValueError, match=re.escape("H must have the shape (stages + 1, tasks)")):
        getattr(functional, name)(HELD_OUT[0])

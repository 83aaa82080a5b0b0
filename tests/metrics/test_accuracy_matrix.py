"""The matrix as a torchmetrics metric: cells, reduction over processes, saved states, views."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from lifelong.metrics import AccuracyMatrix

TASKS = ["elements", "capitals", "rivers", "planets"]
KNOWN = [
    [0.10, 0.09, 0.11, 0.10],
    [0.80, 0.10, 0.05, 0.08],
    [0.90, 0.95, 0.12, 0.10],
    [0.85, 0.70, 0.90, 0.20],
    [0.60, 0.75, 0.92, 0.88],
]


def filled(R=KNOWN, tasks=TASKS, stages=None, **kwargs):
    cells = [(stage, task, score, 40, False) for stage, row in enumerate(R) for task, score in enumerate(row)]
    return AccuracyMatrix.from_cells(tasks, stages, cells, **kwargs)


def test_a_cell_that_was_not_measured_is_nan_and_never_zero():
    accuracy = AccuracyMatrix(TASKS)
    accuracy.update(1, "elements", 0.0, 40)
    assert accuracy.matrix.dtype == torch.float64 and accuracy.matrix.shape == (5, 4)
    assert accuracy.matrix[1, 0] == 0.0
    assert accuracy.matrix.isnan().sum() == 19
    assert accuracy.counts[1, 0] == 40 and accuracy.counts.sum() == 40


def test_a_cell_updated_twice_holds_the_mean_weighted_by_the_counts():
    accuracy = AccuracyMatrix(TASKS)
    accuracy.update(2, "capitals", 1.0, 10)
    accuracy.update(2, 1, 0.5, 30)
    assert float(accuracy.matrix[2, 1]) == pytest.approx((10 * 1.0 + 30 * 0.5) / 40)
    assert accuracy.counts[2, 1] == 40


def test_compute_gives_the_known_values():
    values = {name: round(float(value), 4) for name, value in filled().compute().items()}
    intransigence = values.pop("intransigence")
    assert np.isnan(intransigence)
    assert values == {
        "average_accuracy": 0.7875,
        "average_incremental_accuracy": 0.8323,
        "learning_accuracy": 0.8825,
        "backward_transfer": -0.1267,
        "forward_transfer": 0.04,
        "forgetting": 0.16,
        "forgetting_first": 0.1267,
        "area_under_accuracy_curve": 0.4703,
        "min_accuracy": 0.74,
        "worst_case_accuracy": 0.775,
        "worst_dip": 0.3,
        "plasticity": 0.7525,
        "stability": -0.0489,
    }


def test_compute_and_figures_speak_of_the_same_figures():
    for accuracy in (filled(), filled(name="perplexity"), AccuracyMatrix(TASKS)):
        accuracy.update(0, 0, 0.1, 40)
        values = accuracy.compute()
        exact = {each.name: each for each in accuracy.figures() if "over measured" not in each.name}
        assert list(values) and set(values) == set(exact)
        for name, value in values.items():
            assert bool(value.isnan()) == (exact[name].value is None) == (exact[name].reason is not None)


def test_a_joint_run_has_one_stage_and_its_last_row_gives_intransigence():
    joint = filled([[0.1] * 4, [0.90, 0.92, 0.94, 0.90]], stages=1)
    assert float(joint.compute()["average_accuracy"]) == pytest.approx(0.915)
    assert joint.compute()["backward_transfer"].isnan()
    figures = {figure.name: figure for figure in filled().figures(joint.matrix[-1])}
    assert figures["intransigence"].value == pytest.approx(0.0325)


def test_a_cell_remembers_that_it_rests_on_a_sample():
    accuracy = AccuracyMatrix(TASKS)
    accuracy.update(1, 0, 0.5, 10)
    accuracy.update(1, 1, 0.5, 10, sampled=True)
    assert accuracy.sampled.nonzero().tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ((5, 0, 0.5, 1), "stage must be an integer from 0 .untrained. to 4, got 5"),
        ((-1, 0, 0.5, 1), "stage must be an integer"),
        ((1.5, 0, 0.5, 1), "stage must be an integer"),
        ((True, 0, 0.5, 1), "stage must be an integer"),
        (("1", 0, 0.5, 1), "stage must be an integer"),
        ((1, 4, 0.5, 1), "task must be a name or an integer from 0 to 3, got 4"),
        ((1, -1, 0.5, 1), "task must be a name"),
        ((1, "capitols", 0.5, 1), "unknown task 'capitols': did you mean 'capitals'"),
        ((1, "zzz", 0.5, 1), "known are 'elements', 'capitals', 'rivers', 'planets'"),
        ((1, 0, float("nan"), 1), "score after stage 1 on task 'elements' is not finite: nan"),
        ((1, 0, float("inf"), 1), "not finite"),
        ((1, 0, 0.5, 0), "count must be a positive integer, got 0"),
        ((1, 0, 0.5, -3), "count must be"),
        ((1, 0, 0.5, 2.5), "count must be"),
    ],
)
def test_a_wrong_cell_is_refused_and_leaves_no_trace(cell, message):
    accuracy = AccuracyMatrix(TASKS)
    with pytest.raises(ValueError, match=message):
        accuracy.update(*cell)
    assert accuracy.counts.sum() == 0


def test_numbers_as_tables_and_arrays_hold_them_are_taken():
    accuracy = AccuracyMatrix(TASKS)
    accuracy.update(np.int64(1), torch.tensor(0), np.float32(0.5), 40.0)
    accuracy.update(1, np.int32(1), torch.tensor(0.25), np.float64(8.0), np.bool_(True))
    assert accuracy.matrix[1, :2].tolist() == [0.5, 0.25]
    assert accuracy.counts[1, :2].tolist() == [40, 8]
    assert accuracy.sampled[1, :2].tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": []}, "at least one name"),
        ({"tasks": "elements"}, "tasks must be a sequence of names, got 'elements'"),
        ({"tasks": [1, 2]}, "tasks must be a sequence of names"),
        ({"tasks": ["a", "a"]}, "same name"),
        ({"tasks": ["a"], "stages": 0}, "stages must be a positive integer, got 0"),
        ({"tasks": ["a"], "stages": 1.0}, "stages must be a positive integer"),
        ({"tasks": ["a"], "held_out": "b"}, "held_out must be a sequence of names, got 'b'"),
        ({"tasks": ["a"], "held_out": ["a"]}, "two tasks have the same name"),
        ({"tasks": [], "held_out": ["a"]}, "stages must be given where every task is held out"),
    ],
)
def test_a_matrix_without_tasks_or_stages_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AccuracyMatrix(**arguments)


def halves():
    first, second, whole = AccuracyMatrix(TASKS), AccuracyMatrix(TASKS), AccuracyMatrix(TASKS)
    generator = np.random.default_rng(0)
    for stage, task in np.ndindex(5, 4):
        for half in (first, second):
            score, count = generator.random(), int(generator.integers(1, 50))
            half.update(stage, task, score, count, sampled=half is second)
            whole.update(stage, task, score, count, sampled=half is second)
    first.update(1, 3, 0.5, 7)
    whole.update(1, 3, 0.5, 7)
    return first, second, whole


def test_states_of_two_processes_reduce_to_those_of_one_that_saw_everything():
    first, second, whole = halves()
    others = iter([getattr(second, state) for state in second.metric_state])
    first.dist_sync_fn = lambda own, group: [own, next(others)]
    first.distributed_available_fn = lambda: True
    reduced = first.compute()
    for name, value in whole.compute().items():
        assert torch.allclose(reduced[name], value, equal_nan=True)
    # After computing, a process has only its own cells again.
    assert first.counts.sum() < whole.counts.sum()


def test_merged_matrices_equal_one_that_saw_everything():
    first, second, whole = halves()
    first.merge_state(second)
    assert torch.allclose(first.matrix, whole.matrix)
    assert torch.equal(first.counts, whole.counts) and torch.equal(first.sampled, whole.sampled)


def test_forward_returns_the_figures_of_the_cell_and_keeps_it():
    accuracy = filled()
    assert accuracy(4, "planets", 0.88, 40)["average_accuracy"].isnan()
    assert float(accuracy.compute()["average_accuracy"]) == pytest.approx(0.7875)
    assert accuracy.counts[4, 3] == 80


def test_a_saved_state_comes_back_without_a_warning_or_an_old_result(tmp_path):
    accuracy, restored = filled(), AccuracyMatrix(TASKS)
    restored.update(1, 0, 0.2, 3)
    restored.compute()
    torch.save(accuracy.state_dict(), tmp_path / "matrix.pt")
    restored.load_state_dict(torch.load(tmp_path / "matrix.pt", weights_only=True))
    assert torch.equal(restored.matrix, accuracy.matrix)
    fresh = AccuracyMatrix(TASKS)
    fresh.load_state_dict(accuracy.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in (restored, fresh):
            assert float(each.compute()["forgetting"]) == pytest.approx(0.16)


def test_the_state_of_another_stream_is_refused():
    with pytest.raises(ValueError, match=r"score_sums to load has the shape \(5, 4\), this one \(3, 2\)"):
        AccuracyMatrix(["a", "b"]).load_state_dict(filled().state_dict())


def test_reset_forgets_every_cell():
    accuracy = filled()
    accuracy.reset()
    assert accuracy.matrix.isnan().all() and accuracy.counts.sum() == 0


def test_copies_and_pickles_are_independent():
    accuracy = filled()
    for other in (copy.deepcopy(accuracy), accuracy.clone(), pickle.loads(pickle.dumps(accuracy))):
        other.update(4, 0, 0.0, 1000)
        assert float(accuracy.matrix[4, 0]) == pytest.approx(0.60)
        assert other.tasks == accuracy.tasks and other.higher_is_better


def test_the_orientation_follows_the_score_and_may_be_said():
    assert AccuracyMatrix(TASKS).higher_is_better
    assert not AccuracyMatrix(TASKS, name="perplexity").higher_is_better
    assert not AccuracyMatrix(TASKS, name="loss", higher_is_better=False).higher_is_better


def test_perplexities_are_averaged_and_their_increase_measured():
    perplexity = filled([[90.0, 80.0], [10.0, 60.0], [14.0, 8.0]], ["a", "b"], name="perplexity")
    values = perplexity.compute()
    assert float(values["average_perplexity"]) == pytest.approx(11.0)
    assert float(values["perplexity_increase"]) == pytest.approx(4.0)
    assert values["average_accuracy"].isnan()


def test_it_lives_in_a_collection_of_metrics():
    collection = MetricCollection(
        {"closed": AccuracyMatrix(TASKS), "gold": AccuracyMatrix(TASKS)}, compute_groups=False
    )
    collection["closed"].update(4, 0, 0.5, 40)
    collection["gold"].update(4, 0, 0.7, 40)
    assert float(collection["closed"].matrix[4, 0]) == 0.5
    assert len(collection.state_dict()) == 6


def test_the_table_names_stages_and_tasks_and_keeps_holes():
    accuracy = AccuracyMatrix(["elements", "capitals"])
    accuracy.update(1, "elements", 0.8, 40)
    frame = accuracy.to_frame()
    assert list(frame.index) == ["untrained", "after 1: elements", "after 2: capitals"]
    assert list(frame.columns) == ["elements", "capitals"]
    assert frame.loc["after 1: elements", "elements"] == 0.8
    assert frame.isna().sum().sum() == 5


def test_the_rows_of_a_joint_run_name_no_task():
    assert list(AccuracyMatrix(TASKS, stages=1).to_frame().index) == ["untrained", "after 1"]


def test_plot_draws_the_cells_of_this_matrix():
    figure, axes = filled().plot()
    assert axes.figure is figure
    assert [text.get_text() for text in axes.texts][:4] == ["0.10", "0.09", "0.11", "0.10"]


# ---------------------------------------------------------------- held-out tasks

HELD_OUT = [[0.50, 0.40], [0.48, 0.42], [0.45, 0.39], [0.46, 0.35], [0.44, 0.38]]


def with_held_out(**kwargs):
    R = [[*row, *further] for row, further in zip(KNOWN, HELD_OUT, strict=True)]
    return filled(R, held_out=["books", "maths"], **kwargs)


def test_held_out_tasks_are_columns_behind_the_matrix_that_the_figures_are_defined_on():
    accuracy = with_held_out()
    assert accuracy.stages == 4
    assert accuracy.matrix.numpy() == pytest.approx(np.array(KNOWN))
    assert accuracy.held_out_matrix.numpy() == pytest.approx(np.array(HELD_OUT))
    assert accuracy.columns == (*TASKS, "books", "maths")
    assert accuracy.counts.tolist() == [[40] * 6] * 5


def test_held_out_tasks_are_updated_by_name_or_by_the_next_columns():
    accuracy = AccuracyMatrix(TASKS, held_out=["books", "maths"])
    accuracy.update(2, "maths", 0.25, 8, sampled=True)
    accuracy.update(3, 4, 0.5, 40)
    assert accuracy.held_out_matrix.nan_to_num(-1).tolist() == [[-1, -1], [-1, -1], [-1, 0.25], [0.5, -1], [-1, -1]]
    assert accuracy.sampled.nonzero().tolist() == [[2, 5]]
    assert accuracy.matrix.isnan().all()
    with pytest.raises(ValueError, match="integer from 0 to 5, got 6"):
        accuracy.update(1, 6, 0.5, 1)
    with pytest.raises(ValueError, match="unknown task 'math': did you mean 'maths'"):
        accuracy.update(1, "math", 0.5, 1)
    with pytest.raises(ValueError, match="on task 'books' is not finite"):
        accuracy.update(1, "books", float("nan"), 1)


def test_held_out_tasks_add_general_ability_to_the_known_values():
    alone, values = filled().compute(), with_held_out().compute()
    assert list(values) == [*alone, "general_ability", "general_ability_delta"]
    for name in alone:
        assert torch.equal(values[name].nan_to_num(-9), alone[name].nan_to_num(-9))
    assert float(values["general_ability"]) == pytest.approx(0.41)
    assert float(values["general_ability_delta"]) == pytest.approx(-0.04)
    figures = {figure.name: figure.value for figure in with_held_out().figures([0.90, 0.92, 0.94, 0.90])}
    assert figures["intransigence"] == pytest.approx(0.0325)
    assert figures["general_ability_delta"] == pytest.approx(-0.04)


def test_a_joint_run_has_a_general_ability_too():
    joint = filled([[0.1, 0.2, 0.5], [0.9, 0.8, 0.3]], ["a", "b"], stages=1, held_out=["c"])
    assert float(joint.compute()["general_ability_delta"]) == pytest.approx(-0.2)
    assert float(joint.compute()["average_accuracy"]) == pytest.approx(0.85)


def test_a_matrix_may_hold_nothing_but_held_out_tasks():
    perplexity = filled([[20.0], [22.0], [26.0]], [], stages=2, held_out=["text"], name="perplexity")
    assert perplexity.matrix.shape == (3, 0) and perplexity.held_out_matrix.tolist() == [[20.0], [22.0], [26.0]]
    assert float(perplexity.compute()["general_perplexity_increase"]) == pytest.approx(6.0)
    assert {figure.name for figure in perplexity.figures() if figure.value is not None} == {
        "general_perplexity",
        "general_perplexity_increase",
    }
    assert list(perplexity.to_frame().index) == ["untrained", "after 1", "after 2"]
    _, axes = perplexity.plot()
    assert axes.get_xlabel() == "held-out task"


def test_held_out_cells_are_reduced_copied_and_saved_with_the_others():
    first, second = AccuracyMatrix(["a"], held_out=["b"]), AccuracyMatrix(["a"], held_out=["b"])
    for stage, (one, other) in enumerate([(0.5, 0.7), (0.2, 0.6)]):
        first.update(stage, "b", one, 10)
        second.update(stage, "b", other, 30)
    others = iter([getattr(second, state) for state in second.metric_state])
    first.dist_sync_fn = lambda own, group: [own, next(others)]
    first.distributed_available_fn = lambda: True
    # (5 + 21) / 40 before and (2 + 18) / 40 after.
    assert float(first.compute()["general_ability_delta"]) == pytest.approx(0.50 - 0.65)

    accuracy = with_held_out()
    restored = AccuracyMatrix(TASKS, held_out=["books", "maths"])
    restored.load_state_dict(accuracy.state_dict())
    for other in (restored, accuracy.clone(), pickle.loads(pickle.dumps(accuracy))):
        assert other.held_out == ("books", "maths")
        assert torch.equal(other.scores, accuracy.scores)
    with pytest.raises(ValueError, match=r"has the shape \(5, 6\), this one \(5, 4\)"):
        AccuracyMatrix(TASKS).load_state_dict(accuracy.state_dict())


def test_the_table_and_the_picture_show_held_out_tasks_last():
    accuracy = with_held_out()
    frame = accuracy.to_frame()
    assert list(frame.columns) == [*TASKS, "books", "maths"]
    assert frame.loc["after 4: planets", "maths"] == 0.38
    _, axes = accuracy.plot()
    assert [label.get_text() for label in axes.get_xticklabels()] == list(frame.columns)
    assert "held out" in [text.get_text() for text in axes.texts]

"""The front against its definition, point by point."""

import numpy as np
import pytest

from lifelong.metrics.pareto import pareto_front

NAN = float("nan")


def by_definition(costs, scores):
    front = []
    for own_costs, own_score in zip(costs, scores, strict=True):
        if own_score != own_score or any(cost != cost for cost in own_costs):
            front.append(False)
            continue
        beaten = False
        for other_costs, other_score in zip(costs, scores, strict=True):
            if other_score != other_score or any(cost != cost for cost in other_costs):
                continue
            no_worse = other_score >= own_score and all(o <= c for o, c in zip(other_costs, own_costs, strict=True))
            better = other_score > own_score or any(o < c for o, c in zip(other_costs, own_costs, strict=True))
            beaten |= no_worse and better
        front.append(not beaten)
    return front


@pytest.mark.parametrize("kinds", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_the_front_is_that_of_its_definition(kinds, size):
    generator = np.random.default_rng(size)
    for _ in range(20):
        # few values, so that there are ties of every sort
        costs = generator.integers(0, 5, size=(size, kinds)).astype(float)
        scores = generator.integers(0, 5, size=size).astype(float)
        costs[generator.random(costs.shape) < 0.05] = NAN
        scores[generator.random(size) < 0.05] = NAN
        assert pareto_front(costs, scores).tolist() == by_definition(costs.tolist(), scores.tolist())
        if kinds == 1:
            assert pareto_front(costs[:, 0], scores).tolist() == pareto_front(costs, scores).tolist()


def test_equal_points_are_on_the_front_together_and_a_dearer_one_is_not():
    assert pareto_front([3, 3, 4], [0.5, 0.5, 0.5]).tolist() == [True, True, False]


def test_a_point_with_nan_beats_none_and_is_not_on_the_front():
    assert pareto_front([[1, NAN], [2, 2]], [0.9, 0.5]).tolist() == [False, True]
    assert pareto_front([1, 2], [NAN, 0.5]).tolist() == [False, True]


def test_infinite_costs_are_costs_and_no_points_are_no_front():
    assert pareto_front([1, float("inf")], [0.5, 0.6]).tolist() == [True, True]
    front = pareto_front([], [])
    assert front.shape == (0,) and front.dtype == bool


@pytest.mark.parametrize(("costs", "scores"), [([1, 2], [0.5]), ([[[1]]], [0.5]), ([1], [[0.5]])])
def test_shapes_that_do_not_fit_are_refused(costs, scores):
    with pytest.raises(ValueError, match="costs must have the shape"):
        pareto_front(costs, scores)

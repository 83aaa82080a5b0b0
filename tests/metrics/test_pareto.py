"""The front, beside its definition written out."""

from __future__ import annotations

import numpy as np
import pytest

from lifelong.metrics.pareto import pareto_front


def by_definition(costs: np.ndarray, scores: np.ndarray) -> list[bool]:
    def beats(one: int, other: int) -> bool:
        as_good = all(costs[one] <= costs[other]) and scores[one] >= scores[other]
        return as_good and (any(costs[one] < costs[other]) or scores[one] > scores[other])

    return [not any(beats(one, other) for one in range(len(scores))) for other in range(len(scores))]


@pytest.mark.parametrize("kinds", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_no_other_beats(kinds, seed):
    generator = np.random.default_rng(seed)
    costs, scores = generator.integers(5, size=(30, kinds)).astype(float), generator.integers(5, size=30).astype(float)
    assert pareto_front(costs, scores).tolist() == by_definition(costs, scores)


def test_equals_are_both_on_it_and_the_unknown_never():
    front = pareto_front([[1.0], [1.0], [np.nan], [0.5], [2.0]], [0.9, 0.9, 1.0, np.nan, 0.8])
    assert front.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(("costs", "scores"), [([1.0, 2.0], [1.0, 2.0]), ([[1.0], [2.0]], [1.0])])
def test_shapes_that_do_not_fit_are_refused(costs, scores):
    with pytest.raises(ValueError, match=r"costs must be \(N, costs\)"):
        pareto_front(costs, scores)

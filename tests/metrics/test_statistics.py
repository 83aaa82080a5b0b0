"""Statistics beside scipy, worked examples, enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lifelong.errors import ConfigError
from lifelong.metrics.statistics import (
    average_ranks,
    compare_paired,
    critical_difference,
    hedges_g,
    holm,
    mean_interval,
    paired_p,
    pairs_needed,
    smallest_p,
)

# scores of four learners on 14 data sets, with ties
SCORES = pd.DataFrame(
    {
        "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.0, 0.940, 0.619, 0.972, 0.957],
        "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.0, 0.962, 0.666, 0.981, 0.978],
        "C4.5+cf": [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.0, 0.965, 0.614, 0.975, 0.946],
        "C4.5+m+cf": [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.0, 0.962, 0.669, 0.975, 0.970],
    }
)


def enumerated(differences: list[float]) -> float:
    """Of all ways to give each difference a sign, the share whose mean is at least as far from zero."""
    observed = abs(sum(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(differences))]  # fmt: skip
    return sum(value >= observed - 1e-12 for value in sums) / len(sums)


@pytest.mark.parametrize("seed", range(5))
def test_the_permutation_test_of_five_pairs_is_exact(seed):
    differences = np.random.default_rng(seed).normal(0.5, 1, 5).round(1).tolist()
    assert paired_p(differences) == (pytest.approx(enumerated(differences)), "exact permutation test")


def test_the_smallest_p_is_that_of_pairs_that_all_agree():
    assert smallest_p(5) == 0.0625 and smallest_p(8) == 1 / 128
    for pairs in (2, 5, 8, 12):
        assert paired_p([0.1] * pairs)[0] == pytest.approx(smallest_p(pairs))
    assert pairs_needed() == 6 and pairs_needed(comparisons=12) == 9
    assert smallest_p(8) * 12 > 0.05 > smallest_p(9) * 12


def test_with_more_than_twelve_pairs_it_is_wilcoxons_test():
    first, second = SCORES["C4.5"], SCORES["C4.5+m"]
    p, name = paired_p(second - first)
    assert name == "Wilcoxon's signed-rank test"
    assert p == pytest.approx(stats.wilcoxon(second, first, zero_method="pratt").pvalue)


@pytest.mark.parametrize("count", [3, 20])
def test_no_difference_at_all_is_no_evidence(count):
    assert paired_p([0.0] * count)[0] == 1.0


def test_holm_is_as_in_a_worked_example():
    # p.adjust(c(.01, .04, .03, .005), "holm") in R
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    corrected = holm([0.01, math.nan, 0.02])
    assert corrected[[0, 2]] == pytest.approx([0.02, 0.02]) and math.isnan(corrected[1])


def test_hedges_g_is_cohens_dz_with_the_correction_for_few():
    values = [0.1, 0.4, 0.2, 0.5, 0.3]
    t = stats.ttest_1samp(values, 0).statistic
    assert hedges_g(values) == pytest.approx(t / math.sqrt(5) * (1 - 3 / 15))
    assert hedges_g([0.2, 0.2, 0.2]) is None and hedges_g([0.1, 0.2]) is None


@pytest.mark.parametrize("count", [5, 8, 20])
@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_intervals_cover_at_their_nominal_rate(draw, count):
    generator = np.random.default_rng(count)
    centre = {"normal": 0.0, "exponential": 1.0}[draw]
    trials, hits = 400, 0
    for _ in range(trials):
        interval = mean_interval(getattr(generator, draw)(size=count), 0.9, resamples=499)
        hits += interval.low <= centre <= interval.high
    # within three standard errors of .9, and for skewed values at most .03 under it
    error = 3 * math.sqrt(0.9 * 0.1 / trials)
    assert 0.9 - error - (0.03 if draw == "exponential" else 0) <= hits / trials <= 0.9 + error


def test_an_interval_is_as_wide_as_students_for_normal_values():
    values = np.random.default_rng(0).normal(size=200)
    own = mean_interval(values)
    student = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert (own.low, own.high) == pytest.approx(student, abs=0.02)
    assert mean_interval(values) == own  # the same seed


@pytest.mark.parametrize("values", [[0.1, 0.3], [0.1, 0.3, 0.2], [0.375] * 7 + [0.333]])
def test_where_resamples_do_not_vary_it_is_students_interval(values):
    own = mean_interval(values)
    student = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (own.low, own.high) == pytest.approx(student)


def test_of_one_value_or_of_equal_ones_no_more_is_said_than_is_known():
    assert mean_interval([0.3]).low is None and mean_interval([0.3]).mean == 0.3
    assert math.isnan(mean_interval([]).mean) and mean_interval([]).count == 0
    equal = mean_interval([0.3, 0.3, 0.3])
    assert (equal.low, equal.high) == (equal.mean, equal.mean)


class TestComparePaired:
    def scores(self, pairs: int, **methods: float) -> pd.DataFrame:
        noise = np.random.default_rng(0).normal(size=pairs)
        own = {name: noise + shift + 0.01 * np.random.default_rng(1).normal(size=pairs) * bool(shift)
               for name, shift in methods.items()}  # fmt: skip
        return pd.DataFrame(own)

    def test_each_method_is_compared_within_the_pairs_that_both_have(self):
        scores = self.scores(9, naive=0.0, replay=0.5, ewc=-0.2)
        scores.loc[0, "ewc"] = math.nan
        replay, ewc = compare_paired(scores, "naive")
        assert (replay.pairs, replay.wins, replay.losses) == (9, 9, 0)
        assert (ewc.pairs, ewc.wins, ewc.losses) == (8, 0, 8)
        assert replay.difference.mean == pytest.approx((scores.replay - scores.naive).mean())
        assert [replay.p, ewc.p] == pytest.approx([2 / 2**9, 2 / 2**8])
        assert [replay.p_holm, ewc.p_holm] == pytest.approx(holm([2 / 2**9, 2 / 2**8]))
        assert replay.sentence.endswith(": better.") and ewc.sentence.endswith(": worse.")

    def test_less_can_be_better(self):
        (replay,) = compare_paired(self.scores(8, naive=0.0, replay=-0.5), "naive", higher_is_better=False)
        assert (replay.wins, replay.losses) == (8, 0) and replay.sentence.endswith(": better.")
        assert replay.difference.mean == pytest.approx(-0.5, abs=0.02)

    def test_five_pairs_are_too_few_for_a_test_and_it_says_so(self):
        (replay,) = compare_paired(self.scores(5, naive=0.0, replay=0.5), "naive")
        assert (replay.p, replay.p_holm, replay.test) == (None, None, None)
        assert "5 are too few for any claim" in replay.sentence and ".0625" in replay.sentence
        assert "6 would do" in replay.sentence

    def test_too_many_methods_for_the_pairs_are_said_too(self):
        scores = self.scores(8, naive=0.0, **{f"m{number}": 0.5 for number in range(12)})
        first = compare_paired(scores, "naive")[0]
        assert first.p == pytest.approx(2 / 2**8) and first.p_holm == pytest.approx(24 / 2**8)
        assert "none is possible with so few pairs and so many methods; 9 pairs could" in first.sentence

    def test_what_does_not_differ_is_not_shown_to(self):
        scores = pd.DataFrame({"naive": [0.0] * 8, "other": [1, -1, 2, -2, 3, -3, 4, -4]})
        (other,) = compare_paired(scores, "naive")
        assert other.p == pytest.approx(1.0) and other.sentence.endswith(": no difference is shown.")

    def test_methods_without_a_common_pair_are_not_compared(self):
        scores = pd.DataFrame({"a": [1.0, math.nan], "b": [math.nan, 1.0]})
        (other,) = compare_paired(scores, "a")
        assert other.pairs == 0 and other.p is None and "no pair" in other.sentence

    def test_a_reference_that_is_not_there_is_named(self):
        with pytest.raises(ConfigError, match=r"no method 'nave'\. Did you mean 'naive'"):
            compare_paired(self.scores(3, naive=0.0, replay=0.5), "nave")


class TestRanks:
    def test_ranks_are_those_of_scipy_averaged(self):
        ranking = average_ranks(SCORES)
        ranks = stats.rankdata(-SCORES.to_numpy(), axis=1).mean(axis=0)
        assert ranking.ranks == pytest.approx(dict(zip(SCORES.columns, ranks, strict=True)))
        assert list(ranking.ranks) == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
        assert ranking.p == pytest.approx(stats.friedmanchisquare(*SCORES.to_numpy().T).pvalue)

    def test_groups_are_neighbours_nearer_than_the_critical_difference(self):
        # the average ranks are 27, 28, 41 and 44 fourteenths; Demsar 2006 has these differences for 4 methods, 14 pairs
        usual, lenient = average_ranks(SCORES), average_ranks(SCORES, level=0.9)
        assert usual.critical_difference == pytest.approx(1.25, abs=0.005)
        assert usual.groups == [("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")]
        assert lenient.critical_difference == pytest.approx(1.12, abs=0.005)
        assert lenient.groups == [("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5")]

    @pytest.mark.parametrize(
        ("methods", "q"),
        [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
    )
    def test_critical_values_are_those_of_demsars_table(self, methods, q):
        assert critical_difference(methods, 10) == pytest.approx(q * math.sqrt(methods * (methods + 1) / 60), rel=3e-4)

    def test_incomplete_pairs_are_left_out_and_counted(self):
        scores = SCORES.copy()
        scores.iloc[0, 0] = math.nan
        ranking = average_ranks(scores)
        assert ranking.pairs == 13 and "1 pairs without all methods left out" in ranking.sentence
        assert ranking.ranks == average_ranks(SCORES.iloc[1:]).ranks

    def test_less_can_be_better(self):
        assert list(average_ranks(-SCORES, higher_is_better=False).ranks.values()) == list(
            average_ranks(SCORES).ranks.values()
        )

    def test_one_pair_or_one_method_ranks_nothing(self):
        assert average_ranks(SCORES.iloc[:1]).critical_difference is None
        assert average_ranks(SCORES[["C4.5"]]).p is None

    def test_ties_everywhere_are_no_difference(self):
        ranking = average_ranks(pd.DataFrame({"a": [1.0] * 4, "b": [1.0] * 4, "c": [1.0] * 4}))
        assert ranking.p == 1.0 and ranking.groups == [("a", "b", "c")]

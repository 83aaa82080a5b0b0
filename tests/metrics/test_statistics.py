"""Statistics against enumeration, closed forms, the closure principle, and worked examples of their papers."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lifelong.errors import ConfigError
from lifelong.metrics.statistics import (
    Interval,
    average_ranks,
    compare_paired,
    effect_size,
    holm,
    mean_interval,
    paired_p,
    smallest_p,
)

NAN = float("nan")

# ---------------------------------------------------------------- intervals


def covered(draw, mean, count, runs=1500):
    """How often the interval of ``count`` values holds the true mean."""
    generator = np.random.default_rng(count)
    hits = 0
    for _ in range(runs):
        found = mean_interval(draw(generator, count), resamples=599)
        hits += found.low <= mean <= found.high
    return hits / runs


# 1,500 runs: the standard error of a share of .95 is .006, and with so few resamples some .005 are lost
@pytest.mark.parametrize("count", [5, 8, 20])
def test_intervals_of_normal_values_cover_at_their_level(count):
    assert covered(lambda generator, n: generator.normal(size=n), 0.0, count) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("count", [8, 20])
def test_intervals_of_skewed_values_cover_nearly_at_their_level_where_the_percentile_bootstrap_does_not(count):
    share = covered(lambda generator, n: generator.exponential(size=n), 1.0, count)
    assert share == pytest.approx(0.94, abs=0.025)
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        values = generator.exponential(size=count)
        means = generator.choice(values, size=(599, count)).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        hits += low <= 1.0 <= high
    assert hits / 500 < share - 0.02


def test_an_interval_of_many_values_is_student_s():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=2000)
    low, high = stats.t.interval(0.9, len(values) - 1, values.mean(), stats.sem(values))
    found = mean_interval(values, level=0.9)
    assert (found.mean, found.count, found.level) == (pytest.approx(values.mean()), 2000, 0.9)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.005), pytest.approx(high, abs=0.005))


def test_an_interval_equals_the_bootstrap_t_over_all_resamples():
    values = np.array([0.1, 0.4, 0.35, 0.8, 0.55])
    mean, drawn = values.mean(), []
    for chosen in itertools.product(values, repeat=5):
        chosen = np.array(chosen)
        spread = 0.0 if len(set(chosen)) == 1 else chosen.std(ddof=1)
        shift = chosen.mean() - mean
        drawn.append(shift * math.sqrt(5) / spread if spread else math.copysign(math.inf, shift))
    low, high = np.quantile(drawn, [0.1, 0.9], method="inverted_cdf")
    error = values.std(ddof=1) / math.sqrt(5)
    found = mean_interval(values, level=0.8, resamples=200_000)
    assert found.low == pytest.approx(mean - high * error, rel=0.03)
    assert found.high == pytest.approx(mean - low * error, rel=0.03)


def test_an_interval_is_decided_by_values_and_seed_and_moves_with_the_values():
    values = np.array([0.2, 0.5, 0.3, 0.9, 0.4, 0.6])
    assert mean_interval(values) == mean_interval(list(values))
    assert mean_interval(values) != mean_interval(values, seed=1)
    here, there = mean_interval(values), mean_interval(10 * values + 3)
    assert (there.low, there.high) == (pytest.approx(10 * here.low + 3), pytest.approx(10 * here.high + 3))


@pytest.mark.parametrize(
    ("count", "level", "some"), [(4, 0.95, False), (5, 0.95, True), (5, 0.99, False), (6, 0.99, True)]
)
def test_too_few_values_have_no_interval(count, level, some):
    found = mean_interval(np.arange(count) ** 2, level)
    assert (found.low is not None, found.high is not None) == (some, some)
    assert found.mean == pytest.approx(np.mean(np.arange(count) ** 2))


def test_degenerate_values():
    none = mean_interval([])
    assert math.isnan(none.mean) and (none.low, none.count) == (None, 0)
    assert mean_interval([0.7]) == Interval(0.7, None, None, 1, 0.95)
    assert mean_interval([0.5] * 8) == Interval(0.5, 0.5, 0.5, 8, 0.95)
    assert mean_interval([0.5, NAN, 0.5, 0.5, 0.5, NAN, 0.5]) == Interval(0.5, 0.5, 0.5, 5, 0.95)
    with pytest.raises(ValueError, match="infinite"):
        mean_interval([0.5, math.inf])
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        mean_interval([0.5], level=95)


def test_where_many_values_are_equal_the_interval_is_student_s():
    values = [0.0] * 7 + [1.0]  # a third of the resamples are without the one
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 7, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


# ---------------------------------------------------------------- one test


def by_enumeration(differences):
    """The share of all signs whose sum is as far from zero, in whole numbers."""
    sums = [
        sum(sign * abs(each) for sign, each in zip(signs, differences, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(abs(each) >= abs(sum(differences)) for each in sums) / len(sums)


@pytest.mark.parametrize(
    "differences",
    [[1, 2, 3, 4, 5], [1, -2, 3, 4, 5], [3, -1, 2, -2, 1], [1, 1, 1, 1, -1], [0, 0, 2, 5, 1], [1, -1, 2, -2, 0]],
)
def test_the_permutation_test_of_five_pairs_is_exact(differences):
    expected = by_enumeration(differences)
    # thirds and sevenths are not exact in floating point, and ties must be ties all the same
    for scale in (1, 1 / 3, 1 / 7, 1e-9):
        assert paired_p(np.array(differences) * scale) == (pytest.approx(expected, abs=1e-12), "exact permutation")


def test_twelve_pairs_are_enumerated_and_thirteen_are_ranked():
    differences = np.random.default_rng(0).integers(-3, 8, size=12)
    assert paired_p(differences) == (pytest.approx(by_enumeration(differences.tolist())), "exact permutation")
    assert paired_p([*differences, 2])[1] == "Wilcoxon signed-rank"


def test_fisher_s_example_of_darwin_s_maize():
    # Fisher, The Design of Experiments (1935), section 21: 863 of 32,768 as far on one side, 1,726 on both
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert by_enumeration(differences) == 1726 / 32768
    # Wilcoxon's (1945), on the same plants: ranks 1..15, 96 against 24 of the two negative ones
    ranks = stats.rankdata(np.abs(differences))
    assert ranks[np.array(differences) < 0].sum() == 24
    p, test = paired_p(differences)
    sums = np.array([0])
    for rank in range(1, 16):
        sums = np.concatenate([sums, sums + rank])
    assert test == "Wilcoxon signed-rank" and p == pytest.approx(2 * (sums <= 24).mean())


def test_the_smallest_p_is_reached_where_all_pairs_agree():
    for pairs in range(1, 13):
        assert paired_p(np.arange(1, pairs + 1))[0] == pytest.approx(smallest_p(pairs))
    assert [smallest_p(pairs) for pairs in (0, 1, 5, 8)] == [1.0, 1.0, 0.0625, 0.0078125]


def test_differences_of_zero_change_nothing_and_alone_they_give_one():
    assert paired_p([1, 2, 3, 0, 0, 0])[0] == pytest.approx(smallest_p(3))
    assert paired_p([0.0] * 6) == (1.0, "exact permutation")
    assert paired_p([0.0] * 20) == (1.0, "Wilcoxon signed-rank")
    assert paired_p([0.4]) == (1.0, "exact permutation")


@pytest.mark.parametrize("differences", [[], [0.1, NAN], [0.1, math.inf]])
def test_differences_that_are_no_numbers_are_refused(differences):
    with pytest.raises(ValueError, match="one or more finite numbers"):
        paired_p(differences)


def test_both_tests_keep_their_level_where_nothing_differs():
    generator = np.random.default_rng(0)
    for pairs in (8, 16):
        p_values = np.array([paired_p(generator.standard_t(3, size=pairs))[0] for _ in range(400)])
        assert (p_values < 0.05).mean() == pytest.approx(0.04, abs=0.03)


# ---------------------------------------------------------------- many tests


def by_closure(p_values):
    """A hypothesis falls if each set that it is in falls by Bonferroni: the largest p of such sets, at most 1."""
    places = range(len(p_values))
    sets = [some for size in places for some in itertools.combinations(places, size + 1)]
    of_sets = {some: min(1.0, len(some) * min(p_values[place] for place in some)) for some in sets}
    return [max(p for some, p in of_sets.items() if place in some) for place in places]


@pytest.mark.parametrize("count", [1, 2, 3, 6, 9])
def test_holm_is_the_closure_of_bonferroni(count):
    generator = np.random.default_rng(count)
    for _ in range(20):
        p_values = generator.random(count) ** 3
        p_values[generator.integers(count)] = p_values[0]
        assert holm(p_values).tolist() == pytest.approx(by_closure(p_values.tolist()))


def test_holm_leaves_out_what_was_not_tested():
    adjusted = holm([0.01, NAN, 0.04, 0.03, NAN])
    assert np.isnan(adjusted).tolist() == [False, True, False, False, True]
    assert adjusted[[0, 2, 3]].tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert len(holm([])) == 0 and np.isnan(holm([NAN])).all()
    with pytest.raises(ValueError, match="must be in"):
        holm([0.5, 1.5])


def test_the_effect_size_is_unbiased_for_normal_differences():
    generator = np.random.default_rng(0)
    found = [effect_size(generator.normal(0.8, 1.0, size=6)) for _ in range(20_000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.02)
    raw = [each.mean() / each.std(ddof=1) for each in generator.normal(0.8, 1.0, size=(20_000, 6))]
    assert np.mean(raw) > 0.9  # what it corrects


def test_the_effect_size_is_undefined_where_nothing_varies():
    assert effect_size([0.1, 0.2]) is None
    assert effect_size([0.1] * 5) is None and effect_size([0.0] * 5) is None
    assert effect_size(np.array([1.1, 2.1, 3.1]) - np.array([1.0, 2.0, 3.0])) is None  # equal but for rounding


# ---------------------------------------------------------------- comparisons


def table(pairs, **means):
    """Scores without noise but for a little that is common to all, and as much again that is not."""
    generator = np.random.default_rng(pairs)
    common = generator.normal(0, 0.1, size=pairs)
    return pd.DataFrame({name: mean + common + generator.normal(0, 0.01, pairs) for name, mean in means.items()})


def test_a_comparison_is_made_of_its_parts():
    scores = table(8, naive=0.3, replay=0.6)
    scores["ewc"] = scores["naive"] + [0.01, -0.02, 0.03, -0.02, 0.01, 0.02, -0.01, 0.01]
    replay, ewc = compare_paired(scores, "naive")
    differences = (scores["replay"] - scores["naive"]).to_numpy()
    assert (replay.method, replay.reference, replay.pairs) == ("replay", "naive", 8)
    assert replay.difference == mean_interval(differences)
    assert (replay.wins, replay.ties, replay.losses) == (8, 0, 0)
    assert replay.effect == effect_size(differences)
    assert (replay.p, replay.test) == (pytest.approx(2 / 256), "exact permutation")
    assert replay.p_holm == pytest.approx(4 / 256)
    assert ewc.p == pytest.approx(paired_p(scores["ewc"] - scores["naive"])[0]) and ewc.p_holm == pytest.approx(ewc.p)
    assert "better is more than chance explains (p = 0.00781, 0.0156 with Holm's correction for 2" in replay.sentence
    assert "may be chance" in ewc.sentence and "no sign that they are equal" in ewc.sentence


def test_lower_can_be_better():
    (replay,) = compare_paired(table(8, naive=0.3, replay=0.6), "naive", higher_is_better=False)
    assert (replay.wins, replay.losses) == (0, 8) and replay.difference.mean > 0
    assert (
        "higher than naive on average over 8 pairs" in replay.sentence
        and "That it is worse is more than chance" in replay.sentence
    )


def test_five_pairs_are_not_tested_and_the_sentence_says_what_it_takes():
    (alone,) = compare_paired(table(5, naive=0.1, replay=0.9), "naive")
    assert (alone.test, alone.p, alone.p_holm, alone.wins) == (None, None, None, 5)
    assert alone.effect is not None and alone.difference.low > 0
    assert "with 5 pairs the smallest p is 0.0625, even if all agree; below 0.05 takes at least 6" in alone.sentence
    many = compare_paired(table(5, naive=0.1, **{f"m{n}": 0.9 for n in range(12)}), "naive")
    assert all("at least 6 pairs, and 9 with Holm's correction for 12 comparisons" in each.sentence for each in many)


def test_eight_pairs_are_too_few_for_twelve_comparisons_and_nine_are_enough():
    twelve = {f"m{n}": 0.9 for n in range(12)}
    for each in compare_paired(table(8, naive=0.1, **twelve), "naive"):
        assert (each.p, each.p_holm) == (pytest.approx(2 / 256), pytest.approx(12 * 2 / 256))
        assert "8 pairs cannot get below 0.05, even if all agree (0.0938); it takes at least 9." in each.sentence
    for each in compare_paired(table(9, naive=0.1, **twelve), "naive"):
        assert each.p_holm == pytest.approx(12 * 2 / 512) and "more than chance explains" in each.sentence


def test_a_missing_run_costs_its_pair_in_one_comparison_alone():
    scores = table(8, naive=0.3, replay=0.6, ewc=0.3, lwf=0.5, mas=0.5)
    scores.loc[2, "replay"] = NAN
    scores.loc[[0, 1, 2], "ewc"] = NAN
    scores["lwf"] = NAN
    found = {each.method: each for each in compare_paired(scores, "naive")}
    assert {name: each.pairs for name, each in found.items()} == {"replay": 7, "ewc": 5, "lwf": 0, "mas": 8}
    assert [name for name, each in found.items() if each.test] == ["replay", "mas"]
    assert found["mas"].p_holm == pytest.approx(2 * 2 / 256)  # of two tests
    assert math.isnan(found["lwf"].difference.mean) and "no pair of seed and order in common" in found["lwf"].sentence


def test_equal_scores_are_no_difference():
    scores = pd.DataFrame({"naive": [0.5] * 8, "replay": [0.5] * 8})
    (found,) = compare_paired(scores, "naive")
    assert (found.ties, found.p, found.effect, found.difference.mean) == (8, 1.0, None, 0.0)
    assert "scores the same as naive on average" in found.sentence


def test_what_cannot_be_compared_is_refused():
    scores = table(8, naive=0.3, replay=0.6)
    with pytest.raises(ConfigError, match=r"there is no method 'niave'\. Did you mean 'naive'\?"):
        compare_paired(scores, "niave")
    with pytest.raises(ConfigError, match="two methods are called 'naive'"):
        compare_paired(pd.concat([scores, scores[["naive"]]], axis=1), "replay")
    with pytest.raises(ValueError, match="scores must be numbers"):
        average_ranks(scores.assign(ewc="good"))
    with pytest.raises(ValueError, match="scores of 'ewc' hold an infinite one"):
        compare_paired(scores.assign(ewc=math.inf), "naive")
    with pytest.raises(ValueError, match="two or more methods"):
        average_ranks(scores[["naive"]])
    with pytest.raises(ValueError, match="level must be"):
        average_ranks(scores, level=1.0)


# ---------------------------------------------------------------- ranks

# Demsar (2006), table 6. The ranks beside it tell .975 from .975 on "voting": they were made before rounding.
DEMSAR = pd.DataFrame(
    {
        "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1, 0.940, 0.619, 0.972, 0.957],
        "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1, 0.962, 0.666, 0.981, 0.978],
        "C4.5+cf": [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1, 0.965, 0.614, 0.9751, 0.946],
        "C4.5+m+cf": [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1, 0.962, 0.669, 0.975, 0.970],
    }
)


def test_demsar_s_example():
    found = average_ranks(DEMSAR)
    assert list(found.ranks) == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    assert list(found.ranks.values()) == pytest.approx([1.964, 2.000, 2.893, 3.143], abs=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert found.pairs == 14 and found.p == stats.friedmanchisquare(*DEMSAR.to_numpy().T).pvalue
    # "the difference between the best and the worst is smaller": Nemenyi's finds none, at .10 it finds two
    assert found.groups == [("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")]
    assert average_ranks(DEMSAR, level=0.9).critical_difference == pytest.approx(1.12, abs=0.005)
    assert average_ranks(DEMSAR, level=0.9).groups == [("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5")]


# Demsar (2006), table 5a: q for the two-tailed Nemenyi test
@pytest.mark.parametrize(
    ("level", "values"),
    [
        (0.95, [2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.90, [2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_critical_differences_are_those_of_demsar_s_table(level, values):
    for methods, q in enumerate(values, start=3):
        scores = pd.DataFrame(np.random.default_rng(0).random((10, methods)))
        expected = q * math.sqrt(methods * (methods + 1) / 60)
        assert average_ranks(scores, level=level).critical_difference == pytest.approx(expected, abs=0.001)


def test_the_friedman_statistic_without_ties_is_its_closed_form():
    scores = pd.DataFrame(np.random.default_rng(1).random((9, 5)), columns=list("abcde"))
    found = average_ranks(scores)
    squares = sum(rank**2 for rank in found.ranks.values())
    statistic = 12 * 9 / (5 * 6) * (squares - 5 * 36 / 4)
    assert found.p == pytest.approx(stats.chi2.sf(statistic, 4))


def test_ranks_follow_what_is_better_and_equal_scores_share_theirs():
    scores = pd.DataFrame({"a": [0.9, 0.8], "b": [0.5, 0.8], "c": [0.1, 0.3]})
    assert average_ranks(scores).ranks == {"a": 1.25, "b": 1.75, "c": 3.0}
    assert average_ranks(scores, higher_is_better=False).ranks == {"c": 1.0, "b": 2.25, "a": 2.75}


def test_groups_are_all_sets_within_a_critical_difference_that_cannot_grow():
    generator = np.random.default_rng(0)
    for methods in (3, 5, 8):
        for spread in (0.5, 1.0, 3.0):
            scores = pd.DataFrame(generator.normal(size=(12, methods)) + spread * np.arange(methods))
            found = average_ranks(scores)
            if found.p >= 0.05:
                assert found.groups == [tuple(found.ranks)]
                continue
            names = list(found.ranks)
            within = [
                set(some)
                for size in range(2, methods + 1)
                for some in itertools.combinations(names, size)
                if found.ranks[some[-1]] - found.ranks[some[0]] <= found.critical_difference
            ]
            largest = [some for some in within if not any(some < other for other in within)]
            assert sorted(map(sorted, found.groups)) == sorted(map(sorted, largest))


def test_methods_that_always_agree_in_their_order_and_differ_enough_have_no_groups():
    scores = table(20, a=0.9, b=0.5, c=0.1)
    found = average_ranks(scores)
    assert found.groups == [] and found.p < 1e-6 and "each differs from each other" in found.sentence


def test_where_friedman_finds_nothing_all_are_one_group():
    found = average_ranks(pd.DataFrame(np.random.default_rng(2).random((8, 4)), columns=list("abcd")))
    assert found.p > 0.05 and found.groups == [tuple(found.ranks)] and "no sign that there is none" in found.sentence
    alike = average_ranks(pd.DataFrame(np.full((8, 3), 0.5)))
    assert alike.p == 1.0 and set(alike.ranks.values()) == {2.0} and alike.groups == [("0", "1", "2")]


def test_pairs_without_every_score_are_left_out():
    scores = table(8, a=0.9, b=0.5, c=0.1)
    scores.loc[[1, 4], "b"] = NAN
    assert average_ranks(scores).pairs == 6
    none = average_ranks(scores.assign(c=NAN))
    assert (none.pairs, none.p, none.critical_difference, none.groups) == (0, None, None, [])
    assert all(map(math.isnan, none.ranks.values())) and "c has none at all" in none.sentence


def test_too_few_pairs_or_methods_have_ranks_and_no_test():
    few = average_ranks(table(2, a=0.9, b=0.5, c=0.1))
    assert few.ranks == {"a": 1.0, "b": 2.0, "c": 3.0} and few.p is None
    assert "too little for Friedman's test" in few.sentence
    two = average_ranks(table(8, a=0.9, b=0.5))
    assert two.p is None and "compared by a paired test" in two.sentence

"""What repeated runs allow to be said: intervals, paired tests, corrections for many of them, average ranks.

A pair is one seed with one order of the tasks: two methods that were run on the same pair are compared on it, and what
seed and order do to both of them drops out. Nothing here knows runs; scores are plain numbers and tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from lifelong.errors import ConfigError, suggestion
from lifelong.metrics.bootstrap import studentised
from lifelong.metrics.checks import as_scores, check_level
from lifelong.metrics.sentences import compared, ranked, unranked

EXACT_PAIRS = 12  # so many are tested by enumeration of all signs


@dataclass(frozen=True)
class Interval:
    """A mean, and where the mean of all that could have been drawn may lie.

    Args:
        mean: of the values; NaN where there are none.
        low, high: the interval's ends; None where the values are too few for one.
        count: values.
        level: share of such intervals that hold the true mean.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    level: float


@dataclass(frozen=True)
class PairedComparison:
    """One method against the reference, over the pairs that both have.

    Args:
        method, reference: their names.
        pairs: how many both have.
        difference: method minus reference, whichever is better.
        wins, ties, losses: pairs in which the method is better, equal, worse.
        effect: Hedges' g of the differences, see :func:`effect_size`; None where undefined.
        test: its name; None where no test was made, since it could not have told anything.
        p: two-sided; None without a test.
        p_holm: adjusted for all tests that were made against this reference; None without a test.
        sentence: the comparison in words.
    """

    method: str
    reference: str
    pairs: int
    difference: Interval
    wins: int
    ties: int
    losses: int
    effect: float | None
    test: str | None
    p: float | None
    p_holm: float | None
    sentence: str


@dataclass(frozen=True)
class Ranking:
    """Average ranks, for a critical-difference diagram.

    Args:
        ranks: of each method, the best first; 1 is the best rank, equal scores share theirs. NaN without pairs.
        pairs: those in which every method has a score; others are left out.
        p: of Friedman's test that all methods are alike; None where it cannot tell, or there are but two methods.
        critical_difference: Nemenyi's: average ranks that are further apart differ; None where ``p`` is.
        groups: methods that cannot be told apart, the best first, as large as can be, of two and more; all of them
            where Friedman's test finds no difference. Empty where ``p`` is None.
        level: 1 minus the significance level.
        sentence: the result in words.
    """

    ranks: dict[str, float]
    pairs: int
    p: float | None
    critical_difference: float | None
    groups: list[tuple[str, ...]]
    level: float
    sentence: str


def mean_interval(values: Any, level: float = 0.95, resamples: int = 9999, seed: int = 0) -> Interval:
    """Return the mean with a studentised bootstrap interval (bootstrap-t; Efron & Tibshirani 1993, section 12.5).

    With s the standard deviation, the ends are mean - t_high s / sqrt(n) and mean - t_low s / sqrt(n), where t_low and
    t_high are quantiles of (mean* - mean) sqrt(n) / s* over resamples. It is wider than other bootstrap intervals where
    there are few values, and unlike these (Hesterberg 2015, section 5) covers at about its level from five values on,
    also where they are skewed. An end may lie outside of the range that a score has.

    Resamples of one value over and over have s* = 0. Where these may be more than a tenth of 1 - level (fewer than five
    values, at .95) there is no interval. Where many values are equal they can still leave a quantile unbounded: the
    interval is Student's then. Where all are equal it is that value.

    Args:
        values: (n,); NaN is left out.
        level: in (0, 1).
        resamples: drawn with ``seed``.
        seed: of the draws; nothing else decides them.

    Raises:
        ValueError: a value is infinite, or ``level`` is no share.

    >>> mean_interval([.61, .64, .58, .66, .60, .63, .59, .65]).mean
    0.62
    >>> mean_interval([.61, .64, .58]).low is None
    True
    """
    check_level(level)
    given = np.asarray(values, dtype=np.float64).ravel()
    given = given[~np.isnan(given)]
    if np.isinf(given).any():
        raise ValueError("values hold an infinite score")
    count = len(given)
    if count == 0:
        return Interval(math.nan, None, None, 0, level)
    mean = float(given.mean())
    if float(count) ** (1 - count) > (1 - level) / 10:
        return Interval(mean, None, None, count, level)
    if _all_equal(given):
        return Interval(mean, mean, mean, count, level)
    error = given.std(ddof=1) / math.sqrt(count)
    tail = (1 - level) / 2
    drawn = studentised(given, resamples, seed)
    # not interpolated: between a number and infinity there is nothing
    t_low, t_high = np.quantile(drawn, [tail, 1 - tail], method="inverted_cdf")
    if not np.isfinite([t_low, t_high]).all():
        t_low, t_high = stats.t.ppf([tail, 1 - tail], count - 1)
    return Interval(mean, float(mean - t_high * error), float(mean - t_low * error), count, level)


def smallest_p(pairs: int) -> float:
    """Return the smallest p that so many pairs can reach, two-sided, even if all agree: 2 / 2^pairs.

    >>> smallest_p(5), smallest_p(8)
    (0.0625, 0.0078125)
    """
    return min(1.0, 2.0 / 2**pairs)


def paired_p(differences: Any) -> tuple[float, str]:
    """Return a two-sided p that differences of pairs are symmetric around zero, and the name of the test.

    Up to twelve pairs the exact permutation test of Fisher (1935): the share of all 2^n ways to set the signs whose sum
    is at least as far from zero. Sums that are equal but for rounding count as equal; a difference of zero keeps its
    place and changes no sum, so that it is as if it were not there. Beyond twelve Wilcoxon's signed-rank test (1945),
    as scipy does it: equal differences share their rank, and zeros take part in ranking and then drop out (Pratt 1959).

    Args:
        differences: (pairs,), numbers.

    Returns:
        p, 1 where all differences are zero; and ``"exact permutation"`` or ``"Wilcoxon signed-rank"``.

    Raises:
        ValueError: there are none, or one is NaN or infinite.

    >>> paired_p([.1, .2, .3, .1, .2])
    (0.0625, 'exact permutation')
    """
    given = np.asarray(differences, dtype=np.float64).ravel()
    if not len(given) or not np.isfinite(given).all():
        raise ValueError(f"differences must be one or more finite numbers, got {given.tolist()}")
    exact = len(given) <= EXACT_PAIRS
    test = "exact permutation" if exact else "Wilcoxon signed-rank"
    if not given.any():
        return 1.0, test
    given = np.round(given / np.abs(given).max(), 12)
    if not exact:
        return float(stats.wilcoxon(given, zero_method="pratt").pvalue), test
    if len(given) == 1:
        return 1.0, test

    def total(signed: np.ndarray, axis: int) -> np.ndarray:
        return np.round(signed.sum(axis=axis), 9)

    found = stats.permutation_test(
        (given,), total, permutation_type="samples", n_resamples=np.inf, vectorized=True, alternative="two-sided"
    )
    return float(found.pvalue), test


def holm(p_values: Any) -> np.ndarray:
    """Return p values adjusted for their number by Holm's step-down procedure (1979), in the order given.

    The i-th smallest of m becomes the largest of (m - k + 1) p_k over k <= i, at most 1. NaN stays NaN and does not
    count among the m.

    Args:
        p_values: (n,), in [0, 1] or NaN.

    Returns:
        float64, (n,).

    Raises:
        ValueError: one is outside of [0, 1].

    >>> holm([.01, .04, .03, .005]).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    given = np.array(p_values, dtype=np.float64).ravel()
    if ((given < 0) | (given > 1)).any():
        raise ValueError(f"p values must be in [0, 1], got {given.tolist()}")
    tested = np.flatnonzero(~np.isnan(given))
    order = tested[np.argsort(given[tested], kind="stable")]
    given[order] = np.minimum(np.maximum.accumulate(given[order] * np.arange(len(order), 0, -1)), 1.0)
    return given


def effect_size(differences: Any) -> float | None:
    """Return Hedges' g of paired differences: their mean over their standard deviation, without its bias.

    That ratio is Cohen's d_z (1988, section 2.3.5). Its bias with n pairs is taken away by the factor
    Gamma(m / 2) / (sqrt(m / 2) Gamma((m - 1) / 2)), m = n - 1 (Hedges 1981, equation 6e).

    Args:
        differences: (pairs,), finite numbers.

    Returns:
        None for fewer than three pairs, and where all differences are equal.

    >>> round(effect_size([.1, .2, .3, .1, .2]), 3)
    1.717
    """
    given = np.asarray(differences, dtype=np.float64).ravel()
    if len(given) < 3 or _all_equal(given):
        return None
    half = (len(given) - 1) / 2
    factor = math.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / math.sqrt(half)
    return float(factor * given.mean() / given.std(ddof=1))


def compare_paired(
    scores: pd.DataFrame, reference: str, higher_is_better: bool = True, level: float = 0.95
) -> list[PairedComparison]:
    """Compare every method with one of them, over the pairs that both have.

    There is a test only where ``smallest_p`` of a method's pairs is below 1 - level: from six pairs on, at .95.

    Args:
        scores: a row per pair, a column per method; NaN where a run is missing.
        reference: one of the columns.
        higher_is_better: whether a larger score is a better one.
        level: of intervals; a difference is called one where ``p_holm`` is below 1 - level.

    Returns:
        In the order of the columns, without the reference.

    Raises:
        ConfigError: there is no such column, or two have the same name.
        ValueError: a score is no number or infinite, or ``level`` is no share.
    """
    check_level(level)
    table = as_scores(scores)
    if reference not in table.columns:
        raise ConfigError(f"reference: there is no method {reference!r}{suggestion(str(reference), table.columns)}")
    methods = [name for name in table.columns if name != reference]
    differences = {}
    for method in methods:
        both = table[[method, reference]].dropna()
        differences[method] = (both[method] - both[reference]).to_numpy()
    tests = {name: paired_p(some) for name, some in differences.items() if smallest_p(len(some)) < 1 - level}
    p_values = np.array([tests[name][0] if name in tests else math.nan for name in methods])
    found = []
    for place, (method, adjusted) in enumerate(zip(methods, holm(p_values), strict=True)):
        some = differences[method]
        p, test = tests.get(method, (None, None))
        better = (some > 0) if higher_is_better else (some < 0)
        wins, ties = int(better.sum()), int((some == 0).sum())
        comparison = PairedComparison(
            method=method,
            reference=reference,
            pairs=len(some),
            difference=mean_interval(some, level),
            wins=wins,
            ties=ties,
            losses=len(some) - wins - ties,
            effect=effect_size(some),
            test=test,
            p=p,
            p_holm=None if test is None else float(adjusted),
            sentence="",
        )
        # what these pairs could have come to beside the other tests, had all of them agreed
        possible = p_values.copy()
        possible[place] = smallest_p(len(some))
        beside = len(methods) if test is None else len(tests)
        sentence = compared(comparison, higher_is_better, beside, float(holm(possible)[place]))
        found.append(replace(comparison, sentence=sentence))
    return found


def average_ranks(scores: pd.DataFrame, higher_is_better: bool = True, level: float = 0.95) -> Ranking:
    """Rank the methods on every pair, and find those whose average ranks differ (Demsar 2006, section 3.2).

    Friedman's test (1937, corrected for ties) asks whether any differ; if so, Nemenyi's (1963) finds which: two of k
    methods over N pairs whose average ranks are further apart than q sqrt(k (k + 1) / (6 N)), q being the studentised
    range's quantile for k means and infinite degrees of freedom, divided by sqrt(2).

    Args:
        scores: a row per pair, a column per method; pairs that lack a score (NaN) are left out for all.
        higher_is_better: whether a larger score is a better one.
        level: 1 minus the significance level of both tests.

    Raises:
        ConfigError: two columns have the same name.
        ValueError: a score is no number or infinite, there are fewer than two methods, or ``level`` is no share.

    >>> scores = {"naive": [.2, .3, .1, .2], "replay": [.5, .6, .5, .7], "joint": [.9, .8, .9, .9]}
    >>> average_ranks(pd.DataFrame(scores)).ranks
    {'joint': 1.0, 'replay': 2.0, 'naive': 3.0}
    """
    check_level(level)
    table = as_scores(scores)
    methods = table.shape[1]
    if methods < 2:
        raise ValueError("scores must have a column for each of two or more methods")
    whole = table.dropna().to_numpy()
    pairs = len(whole)
    if pairs:
        places = stats.rankdata(-whole if higher_is_better else whole, axis=1)
        means = pd.Series(places.mean(axis=0), table.columns).sort_values(kind="stable")
    else:
        means = pd.Series(math.nan, table.columns)
    ranks = {str(name): float(rank) for name, rank in means.items()}
    # Friedman's statistic where all pairs agree, and its p: no test if not even that would be small
    if not pairs or methods < 3 or stats.chi2.sf(pairs * (methods - 1), methods - 1) >= 1 - level:
        return Ranking(ranks, pairs, None, None, [], level, unranked(table, pairs, level))
    alike = (whole == whole[:, :1]).all()  # of which scipy makes NaN
    p = 1.0 if alike else float(stats.friedmanchisquare(*whole.T).pvalue)
    quantile = stats.studentized_range.ppf(level, methods, math.inf) / math.sqrt(2)
    critical = float(quantile * math.sqrt(methods * (methods + 1) / (6 * pairs)))
    groups = _alike(ranks, critical) if p < 1 - level else [tuple(ranks)]
    return Ranking(ranks, pairs, p, critical, groups, level, ranked(ranks, pairs, p, critical, groups, level))


def _alike(ranks: dict[str, float], critical: float) -> list[tuple[str, ...]]:
    """The largest runs of neighbours, of two and more, within a critical difference."""
    names, values = list(ranks), list(ranks.values())
    runs, reached = [], 0
    for first, rank in enumerate(values):
        end = sum(value <= rank + critical for value in values)
        if end - first > 1 and end > reached:
            runs.append(tuple(names[first:end]))
        reached = max(reached, end)
    return runs


def _all_equal(values: np.ndarray) -> bool:
    """Whether they are, but for rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())

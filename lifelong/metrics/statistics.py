"""What figures of repeated runs support: intervals, paired tests, ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from lifelong.errors import ConfigError, suggestion

EXACT = 12  # pairs up to which all exchanges of the two methods are counted


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval.

    Args:
        mean: of the values; NaN without any.
        low, high: of the interval; ``None`` for a single value, of which nothing is known, or none.
        count: of the values.
        level: how often such intervals hold the true mean.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    level: float


def mean_interval(values: Sequence[float], level: float = 0.95, resamples: int = 9999, seed: int = 0) -> Interval:
    """The mean of some values with a studentised bootstrap interval (Efron & Tibshirani 1993, section 12.5).

    Each resample's distance from the mean is measured in its own standard error, which is what keeps the nominal level
    with few values, where the percentile and BCa intervals are too narrow. Where more than a hundredth of the resamples
    have no standard error, since values are very few or nearly all the same, it is Student's interval.

    Args:
        values: one per run, finite.
        level: of the interval.
        resamples: drawn with replacement.
        seed: of what is drawn.
    """
    sample = np.asarray(values, dtype=float)
    count = len(sample)
    if count == 0:
        return Interval(math.nan, None, None, 0, level)
    mean = float(sample.mean())
    if count == 1:
        return Interval(mean, None, None, 1, level)
    error = sample.std(ddof=1) / math.sqrt(count)
    if error <= 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, mean, mean, count, level)
    drawn = sample[np.random.default_rng(seed).integers(count, size=(resamples, count))]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(count)
    varied = errors > 1e-12 * max(1.0, abs(mean))
    if varied.mean() < 0.99:
        low, high = stats.t.interval(level, count - 1, mean, error)
        return Interval(mean, float(low), float(high), count, level)
    ratios = (drawn.mean(axis=1)[varied] - mean) / errors[varied]
    low, high = np.quantile(ratios, [(1 + level) / 2, (1 - level) / 2])
    return Interval(mean, float(mean - low * error), float(mean - high * error), count, level)


def smallest_p(pairs: int) -> float:
    """The least p value that a two-sided exact test of so many pairs can have: all of them agree."""
    return min(1.0, 2.0 / 2**pairs)


def pairs_needed(level: float = 0.95, comparisons: int = 1) -> int:
    """How many pairs could show a difference at all, with Holm's correction for so many comparisons."""
    return next(pairs for pairs in range(1, 1000) if smallest_p(pairs) * comparisons < 1 - level)


def paired_p(differences: Sequence[float]) -> tuple[float, str]:
    """A two-sided test of whether paired differences are centred at zero.

    Args:
        differences: one per pair, finite.

    Returns:
        The p value, and the test's name: the exact permutation test of the mean, over all 2^n exchanges of the two
        methods within pairs, up to 12 pairs; beyond them Wilcoxon's signed-rank test, ranking zeros as well (Pratt).
    """
    sample = np.asarray(differences, dtype=float)
    if len(sample) <= EXACT:
        name = "exact permutation test"
        if not sample.any() or len(sample) < 2:
            return 1.0, name
        found = stats.permutation_test((sample,), _mean, permutation_type="samples", n_resamples=np.inf)
        return float(found.pvalue), name
    name = "Wilcoxon's signed-rank test"
    return (1.0, name) if not sample.any() else (float(stats.wilcoxon(sample, zero_method="pratt").pvalue), name)


def _mean(sample: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean(sample, axis=axis)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p values corrected for their number (Holm 1979), in the order given; NaN is no comparison, and stays.

    The family-wise error is kept whatever the dependence between the tests.
    """
    values = np.asarray(p_values, dtype=float)
    result = np.full(len(values), np.nan)
    order = [number for number in np.argsort(values, kind="stable") if not np.isnan(values[number])]
    largest = 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, float(values[number]) * (len(order) - rank)))
        result[number] = largest
    return result


def hedges_g(differences: Sequence[float]) -> float | None:
    """The mean difference in standard deviations of the differences, corrected for few pairs.

    Cohen's d_z times Hedges' factor 1 - 3 / (4 (n - 1) - 1) (Lakens 2013, doi:10.3389/fpsyg.2013.00863); ``None`` where
    the differences do not vary, or there are fewer than three.
    """
    sample = np.asarray(differences, dtype=float)
    if len(sample) < 3 or sample.std(ddof=1) <= 1e-12 * max(1.0, abs(sample.mean())):
        return None
    return float(sample.mean() / sample.std(ddof=1) * (1 - 3 / (4 * (len(sample) - 1) - 1)))


@dataclass(frozen=True)
class PairedComparison:
    """One method against the reference, over the pairs that both have.

    Args:
        method, reference: what is compared.
        pairs: of seed and order.
        difference: of the method's value minus the reference's.
        wins, ties, losses: pairs in which the method is better, as good, worse.
        effect: Hedges' g of the differences, see ``hedges_g``.
        test, p: by which and how probable such a difference would be without any; ``None`` for too few pairs.
        p_holm: corrected for the number of comparisons.
        sentence: all of this in words, and what it supports.
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


def compare_paired(
    scores: pd.DataFrame, reference: str, higher_is_better: bool = True, level: float = 0.95
) -> list[PairedComparison]:
    """Every method against the reference, in the order of the columns.

    Args:
        scores: one row per pair of seed and order, one column per method, NaN where a run is missing.
        reference: a column.
        higher_is_better: of the scores.
        level: a difference counts as shown where the corrected p value is below one minus this.

    Raises:
        ConfigError: there is no such column.
    """
    names = [str(name) for name in scores.columns]
    if reference not in names:
        raise ConfigError(f"reference: there is no method {reference!r}{suggestion(reference, names)}")
    others = [name for name in names if name != reference]
    found = {name: (scores[name] - scores[reference]).dropna().to_numpy(float) for name in others}
    tests = {name: _tested(values, level) for name, values in found.items()}
    corrected = holm([math.nan if test is None else test[0] for test in tests.values()])
    comparisons = sum(test is not None for test in tests.values())
    result = []
    for name, p_holm in zip(others, corrected, strict=True):
        values, test = found[name], tests[name]
        better = values if higher_is_better else -values
        result.append(
            PairedComparison(
                method=name,
                reference=reference,
                pairs=len(values),
                difference=mean_interval(values, level),
                wins=int((better > 0).sum()),
                ties=int((better == 0).sum()),
                losses=int((better < 0).sum()),
                effect=hedges_g(values),
                test=None if test is None else test[1],
                p=None if test is None else test[0],
                p_holm=None if test is None else float(p_holm),
                sentence=_sentence(name, reference, values, test, float(p_holm), comparisons, higher_is_better, level),
            )
        )
    return result


def _tested(values: np.ndarray, level: float) -> tuple[float, str] | None:
    return paired_p(values) if smallest_p(len(values)) < 1 - level else None


def _sentence(
    name: str,
    reference: str,
    values: np.ndarray,
    test: tuple[float, str] | None,
    p_holm: float,
    comparisons: int,
    higher_is_better: bool,
    level: float,
) -> str:
    if len(values) == 0:
        return f"{name} and {reference} have no pair of seed and order in common."
    interval = mean_interval(values, level)
    better = values if higher_is_better else -values
    known = "" if interval.low is None else f" [{interval.low:+.3f}, {interval.high:+.3f}]"
    counts = f"better in {int((better > 0).sum())} of {len(values)} pair{'s' if len(values) > 1 else ''}"
    begin = f"{name}: {interval.mean:+.3f}{known} against {reference}, {counts}"
    if test is None:
        return (
            f"{begin}; {len(values)} are too few for any claim, since the smallest p value possible is "
            f"{_short(smallest_p(len(values)))}: {pairs_needed(level)} would do for one comparison."
        )
    p, how = test
    corrected = f", {_short(p_holm)} after Holm's correction for {comparisons} comparisons" if comparisons > 1 else ""
    begin = f"{begin}; p = {_short(p)} by the {how}{corrected}"
    if p_holm < 1 - level:
        return f"{begin}: {'better' if better.mean() > 0 else 'worse'}."
    if smallest_p(len(values)) * comparisons >= 1 - level:
        needed = pairs_needed(level, comparisons)
        return f"{begin}: no claim, and none is possible with so few pairs and so many methods; {needed} pairs could."
    return f"{begin}: no difference is shown."


def _short(p: float) -> str:
    return "less than .001" if p < 0.001 else f"{p:.3g}".replace("0.", ".", 1)


@dataclass(frozen=True)
class Ranking:
    """Average ranks of methods, for a critical-difference diagram (Demsar 2006, JMLR 7, sections 3.2.2 and 3.2.3).

    Args:
        ranks: by method, the best first; 1 would be best in every pair.
        pairs: in which all methods have a run.
        p: of Friedman's test that all ranks are the same; ``None`` for fewer than three methods or two pairs.
        critical_difference: of average ranks, by Nemenyi's test; ``None`` for fewer than two pairs.
        groups: methods, neighbours in rank, none of which differs from another by as much; without those of one.
        level: of both tests.
        sentence: what it supports, in words.
    """

    ranks: dict[str, float]
    pairs: int
    p: float | None
    critical_difference: float | None
    groups: list[tuple[str, ...]]
    level: float
    sentence: str


def average_ranks(scores: pd.DataFrame, higher_is_better: bool = True, level: float = 0.95) -> Ranking:
    """Rank the methods within each pair, and average.

    Args:
        scores: as for ``compare_paired``; pairs in which a run is missing are left out.
        higher_is_better: of the scores.
        level: of the tests.
    """
    whole = scores.dropna()
    pairs, methods = whole.shape
    ranks = whole.rank(axis=1, ascending=not higher_is_better).mean().sort_values(kind="stable")
    named = {str(name): float(rank) for name, rank in ranks.items()}
    if pairs < 2 or methods < 2:
        return Ranking(named, pairs, None, None, [], level, "Too few pairs, or methods, to compare average ranks.")
    p = None
    if methods > 2:
        tied = whole.nunique(axis=1).max() == 1  # in every pair, of which Friedman's statistic is undefined
        p = 1.0 if tied else float(stats.friedmanchisquare(*whole.to_numpy().T).pvalue)
    difference = critical_difference(methods, pairs, level)
    groups = _groups(named, difference)
    left_out = len(scores) - pairs
    about = f" ({left_out} pairs without all methods left out)" if left_out else ""
    first = "" if p is None else f"Friedman's test: p = {_short(p)}, "
    verdict = "the average ranks differ" if p is not None and p < 1 - level else "no difference of ranks is shown"
    if p is None:
        verdict = "two methods are compared by their pairs rather than by ranks"
    return Ranking(
        named,
        pairs,
        p,
        difference,
        groups,
        level,
        f"{first}{verdict}; ranks over {pairs} pairs{about} differ from {difference:.2f} on.",
    )


def critical_difference(methods: int, pairs: int, level: float = 0.95) -> float:
    """By how much two average ranks of so many methods over so many pairs differ (Nemenyi; Demsar 2006)."""
    q = stats.studentized_range.ppf(level, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * pairs)))


def _groups(ranks: dict[str, float], difference: float) -> list[tuple[str, ...]]:
    """The largest runs of neighbours that span less than the difference."""
    names, values = list(ranks), list(ranks.values())
    spans = []
    for start in range(len(names)):
        end = max(number for number in range(start, len(names)) if values[number] - values[start] < difference)
        if end > start and (not spans or end > spans[-1][1]):
            spans.append((start, end))
    return [tuple(names[start : end + 1]) for start, end in spans]

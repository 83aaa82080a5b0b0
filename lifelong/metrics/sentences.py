"""What a comparison of methods shows, and what it does not, in words for a reader of its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from lifelong.metrics.statistics import PairedComparison

_PAIRS = "of seed and order"


def compared(found: PairedComparison, higher_is_better: bool, tests: int, least: float) -> str:
    """A paired comparison in words.

    Args:
        found: all but its sentence.
        higher_is_better: whether a larger score is a better one.
        tests: against the same reference, this one included; without a test those that there would be.
        least: the adjusted p that so many pairs could have come to, had all of them agreed.
    """
    method, reference, pairs, alpha = found.method, found.reference, found.pairs, 1 - found.difference.level
    if not pairs:
        return f"{method} and {reference} have no pair {_PAIRS} in common: nothing can be said."
    mean = found.difference.mean
    how = "the same as" if mean == 0 else f"{abs(mean):.3g} {'higher' if mean > 0 else 'lower'} than"
    text = (
        f"{method} scores {how} {reference} on average over {_counted(pairs)} {_PAIRS}: "
        f"better in {found.wins}, equal in {found.ties}, worse in {found.losses}."
    )
    if found.test is None:
        alone, corrected = pairs_needed(alpha), pairs_needed(alpha, tests)
        further = f", and {corrected} with Holm's correction for {tests} comparisons" if corrected > alone else ""
        return (
            f"{text} No test was made: with {_counted(pairs)} the smallest p is {2 / 2**pairs:.3g}, even if all agree; "
            f"below {alpha:.3g} takes at least {alone} pairs{further}."
        )
    value = f"p = {found.p:.3g}"
    if tests > 1:
        value += f", {found.p_holm:.3g} with Holm's correction for {tests} comparisons"
    if found.p_holm < alpha:
        better = (mean > 0) == higher_is_better
        return (
            f"{text} That it is {'better' if better else 'worse'} is more than chance explains ({value}; {found.test})."
        )
    if least >= alpha:
        return (
            f"{text} Nothing is shown ({value}; {found.test}): beside so many comparisons {_counted(pairs)} cannot get "
            f"below {alpha:.3g}, even if all agree ({least:.3g}); it takes at least {pairs_needed(alpha, tests)}."
        )
    return f"{text} It may be chance ({value}; {found.test}); that is no sign that they are equal."


def ranked(
    ranks: Mapping[str, float], pairs: int, p: float, critical: float, groups: Sequence[Sequence[str]], level: float
) -> str:
    """Average ranks in words; arguments as the fields of ``Ranking``."""
    text = f"Average ranks over {_counted(pairs)} {_PAIRS}: {_listed(ranks)}."
    if p >= 1 - level:
        return (
            f"{text} Friedman's test finds no difference among them (p = {p:.3g}), which is no sign that there is none."
        )
    text += f" They are not all alike (Friedman's test, p = {p:.3g}). Nemenyi's critical difference is {critical:.3g}"
    if not groups:
        return f"{text}: each differs from each other."
    if critical >= len(ranks) - 1:
        return f"{text}, more than any ranks can be apart: it takes more pairs to say which differ."
    alike = "; ".join(" and ".join([", ".join(group[:-1]), group[-1]]) for group in groups)
    return f"{text}; it does not tell apart {alike}."


def unranked(table: pd.DataFrame, pairs: int, level: float) -> str:
    """Why ranks are not compared, in words.

    Args:
        table: scores, a column per method.
        pairs: that have all scores.
        level: of confidence.
    """
    if not pairs:
        without = [name for name in table.columns if table[name].isna().all()]
        because = f": {', '.join(without)} has none at all" if without else ""
        return f"No pair {_PAIRS} has a score of every method{because}, so that there are no ranks."
    if table.shape[1] < 3:
        return f"Ranks over {_counted(pairs)} {_PAIRS}; two methods are compared by a paired test instead."
    return (
        f"Ranks over {_counted(pairs)} {_PAIRS}, which is too little for Friedman's test: even if all agreed, its p "
        f"would not be below {1 - level:.3g}."
    )


def pairs_needed(alpha: float, tests: int = 1) -> int:
    """The fewest pairs of which a two-sided test by signs can get below ``alpha``, as the least of so many tests.

    >>> pairs_needed(.05), pairs_needed(.05, 12)
    (6, 9)
    """
    return next(pairs for pairs in range(1, 200) if 2 * tests / 2**pairs < alpha)


def _counted(pairs: int) -> str:
    return f"{pairs} pair" if pairs == 1 else f"{pairs} pairs"


def _listed(ranks: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rank:.3g}" for name, rank in ranks.items())

"""Several judges beside each other: how far they agree, and whether they like long answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import pointbiserialr
from sklearn.metrics import cohen_kappa_score

from lifelong.judges.base import Case, Verdict

Verdicts = Mapping[str, Sequence[Verdict]]


def agreement(verdicts: Verdicts) -> dict[str, Any]:
    """How far judges agree on yes and no, on the cases that all of them decided.

    Args:
        verdicts: of at least two judges, by name, on the same cases.

    Returns:
        ``cases``: how many all decided; ``undecided``: how many verdicts of each judge have no score; ``observed``:
        share of these cases on which all agree; ``cohen``: Cohen's kappa (1960) of each pair, ``"a / b"``; ``fleiss``:
        Fleiss' kappa (1971) of all. A kappa is NaN where every verdict is the same, since chance alone would give that.

    Raises:
        ValueError: fewer than two judges, or of different numbers of cases.
    """
    table = _decisions(verdicts)
    decided = table.dropna().astype(bool)
    pairs = {f"{one} / {other}": _cohen(decided[one], decided[other]) for one, other in combinations(table.columns, 2)}
    same = decided.nunique(axis=1) == 1
    return {
        "cases": len(decided),
        "undecided": table.isna().sum().to_dict(),
        "observed": float(same.mean()) if len(decided) else float("nan"),
        "cohen": pairs,
        "fleiss": _fleiss(decided),
    }


def disagreements(verdicts: Verdicts, cases: Sequence[Case]) -> pd.DataFrame:
    """The cases that some judges say yes to and others no: aspect, question, answer, and each judge's score."""
    table = _decisions(verdicts)
    rows = [
        {"aspect": case.aspect, "question": case.question, "answer": case.answer}
        | {name: some[number].score for name, some in verdicts.items()}
        for number, case in enumerate(cases)
        if table.iloc[number].dropna().nunique() > 1
    ]
    return pd.DataFrame(rows, columns=["aspect", "question", "answer", *verdicts])


def length_bias(verdicts: Verdicts, cases: Sequence[Case], reference: str | None = None) -> dict[str, float]:
    """Correlation of saying yes with the length of the answer in words, per judge (point-biserial).

    Args:
        verdicts: of judges, by name.
        cases: what they judged.
        reference: a judge that is blind for length, such as matching: the correlation is then within the cases that it
            says yes to and within those that it says no to, averaged by their number, so that right answers that happen
            to be long are no bias.

    Returns:
        By judge, between -1 and 1; NaN where a judge always says the same.
    """
    lengths = np.array([len(case.answer.split()) for case in cases], float)
    groups = [np.ones(len(cases), bool)]
    if reference is not None:
        said = _yes(verdicts[reference])
        groups = [said == 1, said == 0]
    result = {}
    for name, some in verdicts.items():
        if name == reference:
            continue
        yes, parts = _yes(some), []
        for group in groups:
            chosen = group & ~np.isnan(yes)
            one, other = yes[chosen], lengths[chosen]
            if len(np.unique(one)) > 1 and len(np.unique(other)) > 1:
                parts.append((chosen.sum(), float(pointbiserialr(one, other).statistic)))
        total = sum(count for count, _ in parts)
        result[name] = sum(count * value for count, value in parts) / total if parts else float("nan")
    return result


def _yes(verdicts: Sequence[Verdict]) -> np.ndarray:
    """1 for yes, 0 for no, NaN for neither."""
    return np.array([verdict.yes for verdict in verdicts], float)


def _decisions(verdicts: Verdicts) -> pd.DataFrame:
    if len(verdicts) < 2 or len({len(some) for some in verdicts.values()}) > 1:
        raise ValueError("agreement needs at least two judges, and verdicts of all of them on the same cases")
    return pd.DataFrame({name: pd.array([v.yes for v in some], dtype="boolean") for name, some in verdicts.items()})


def _cohen(one: pd.Series, other: pd.Series) -> float:
    if not len(one) or (one.nunique() == 1 and other.nunique() == 1):
        return float("nan")
    return float(cohen_kappa_score(one, other))


def _fleiss(decided: pd.DataFrame) -> float:
    from torchmetrics.functional.nominal import fleiss_kappa

    if not len(decided) or decided.stack().nunique() == 1:
        return float("nan")
    import torch

    yes = torch.tensor(decided.sum(axis=1).to_numpy())
    counts = torch.stack([decided.shape[1] - yes, yes], 1)
    return float(fleiss_kappa(counts, mode="counts"))

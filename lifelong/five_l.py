"""The six figures of 5L-bench of a run, from its predictions and a judge, and several judges beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lifelong.errors import ConfigError
from lifelong.judges.agreement import agreement, disagreements, length_bias
from lifelong.judges.base import Case, Judge
from lifelong.judges.match import MatchJudge
from lifelong.metrics import five_l

COLUMNS = ("RA", "RA_probe", "gap", "Faith", "Filter", "RR", "QR", "FL")


def five_l_table(predictions: pd.DataFrame, passages: Mapping[str, str], judge: Judge) -> pd.DataFrame:
    """A row for each stage, task and pass.

    Args:
        predictions: of a run, see ``Run.predictions``.
        passages: texts by id, see ``Run.passages``.
        judge: of whether answers are right, claims supported, answers relevant and fluent; what it cannot judge is NaN.

    Returns:
        ``stage, task, pass``, and the figures of ``lifelong.metrics.five_l``: ``RA`` on the test questions,
        ``RA_probe`` on other wordings of them and ``gap``, what is lost there: learned words, not understood; ``Faith``
        of passes that show passages; ``Filter`` in the row of ``distracted``, where there is a ``gold`` pass too, and
        ``RR`` in that of ``absent``. Raw text, which asks nothing, has no row.
    """
    rows = []
    questions = predictions[predictions["question"] != ""] if len(predictions) else predictions
    if not len(questions):
        return pd.DataFrame(rows, columns=["stage", "task", "pass", *COLUMNS])
    places = dict(iter(questions.groupby(["stage", "task", "pass", "split"], sort=False)))
    judged = {place: _right(asked, judge) for place, asked in places.items()}
    for (stage, task, book, split), asked in places.items():
        if split != "test":
            continue
        right = judged[stage, task, book, split]
        answers = asked["prediction"].tolist()
        row = {"stage": stage, "task": task, "pass": book, "RA": five_l.recall_accuracy(right)}
        probes = judged.get((stage, task, book, "probe"))
        row["RA_probe"] = five_l.recall_accuracy(probes or [])
        row["gap"] = row["RA"] - row["RA_probe"]
        row["Faith"] = _faithful(asked, passages, judge) if book != "closed" else float("nan")
        alone = judged.get((stage, task, "gold", "test"))
        filtered = book == "distracted" and alone is not None and len(alone) == len(right)
        row["Filter"] = five_l.filtering(alone, right) if filtered else float("nan")
        row["RR"] = five_l.refusal_rate(answers) if book == "absent" else float("nan")
        row["QR"] = five_l.query_relevance(_scores(asked, "relevant", judge))
        row["FL"] = five_l.fluency(_scores(asked, "fluent", judge))
        rows.append(row)
    return pd.DataFrame(rows, columns=["stage", "task", "pass", *COLUMNS])


@dataclass(frozen=True)
class JudgeComparison:
    """Several judges on the same answers, of whether they are right.

    Args:
        agreement: observed agreement and the kappas, see `lifelong.judges.agreement`.
        disagreements: the answers that some call right and others wrong, see `lifelong.judges.disagreements`.
        length_bias: whether a judge calls longer answers right more often, see `lifelong.judges.length_bias`; among
            answers that matching calls right and those that it does not, where a ``MatchJudge`` is one of them.
    """

    agreement: dict[str, Any]
    disagreements: pd.DataFrame
    length_bias: dict[str, float]


def compare_judges(predictions: pd.DataFrame, judges: Sequence[Judge]) -> JudgeComparison:
    """How far judges can be trusted: where they agree on the answers of a run, where not, and what they like.

    Args:
        predictions: of a run, or a part of them, see ``Run.predictions``.
        judges: at least two, of different names, that can judge whether an answer is right.

    Raises:
        ConfigError: fewer than two, two of one name, or one cannot judge that.
    """
    names = [judge.name for judge in judges]
    if len(judges) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"at least two judges of different names are compared, got {', '.join(names) or 'none'}")
    cases = _cases(predictions[predictions["question"] != ""])
    verdicts = {judge.name: judge.judge(cases) for judge in judges}
    reference = next((judge.name for judge in judges if isinstance(judge, MatchJudge)), None)
    return JudgeComparison(agreement(verdicts), disagreements(verdicts, cases), length_bias(verdicts, cases, reference))


def _cases(asked: pd.DataFrame) -> list[Case]:
    return [
        Case("correct", row["prediction"], row["question"], tuple(row["answers"])) for row in asked.to_dict("records")
    ]


def _right(asked: pd.DataFrame, judge: Judge) -> list[float | None]:
    if "correct" not in judge.aspects:
        return [None] * len(asked)
    return [None if verdict.yes is None else float(verdict.yes) for verdict in judge.judge(_cases(asked))]


def _faithful(asked: pd.DataFrame, passages: Mapping[str, str], judge: Judge) -> float:
    if "supported" not in judge.aspects:
        return float("nan")
    cases, sizes = [], []
    for row in asked.to_dict("records"):
        shown = tuple(passages[passage["id"]] for passage in row["passages"])
        some = five_l.claims(row["prediction"]) if shown else []
        cases += [Case("supported", claim, row["question"], passages=shown) for claim in some]
        sizes.append(len(some))
    scores = iter(verdict.score for verdict in judge.judge(cases))
    return five_l.faithfulness([[next(scores) for _ in range(size)] for size in sizes])


def _scores(asked: pd.DataFrame, aspect: str, judge: Judge) -> list[float | None]:
    if aspect not in judge.aspects:
        return []
    cases = [Case(aspect, row["prediction"], row["question"]) for row in asked.to_dict("records")]
    return [verdict.score for verdict in judge.judge(cases)]

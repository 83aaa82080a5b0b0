"""The six figures of 5L-bench (MoRAL, arXiv 2402.11260), as pure functions.

The paper's own wording could not be verified; these definitions are ours:

- **RA**, recall accuracy: share of questions whose answer is right, by a judge or by matching the gold answers.
- **Faith**, faithfulness: share of an answer's claims that the passages shown with it support, averaged over answers.
- **Filter**: with distracting passages beside the gold one, share of the answers that are right without them and stay
  right.
- **RR**, refusal rate: with no passage that holds the answer, share of answers that decline.
- **QR**, query relevance: how far the answer addresses the question, averaged over answers.
- **FL**, fluency: how well-formed the answer's language is, averaged over answers.

Every figure is in [0, 1], more is better, and NaN where there is nothing to average. ``None`` among the scores is a
verdict that a judge did not give; it counts neither as a yes nor as a no.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lifelong.metrics.answers import normalize_answer

DEFINITIONS = {
    "RA": "share of questions whose answer is right",
    "Faith": "share of an answer's claims that the passages shown support, averaged over answers",
    "Filter": "of the answers that are right with the gold passage alone, share that stay right among distractors",
    "RR": "with no passage that holds the answer, share of answers that decline",
    "QR": "how far the answer addresses the question, averaged over answers",
    "FL": "how well-formed the answer's language is, averaged over answers",
}
# after normalisation; the embedded model was taught the first one
_REFUSALS = (
    "unknown",
    "i dont know",
    "i do not know",
    "not known",
    "no answer",
    "none of passages",
    "cannot be answered",
    "cannot answer",
    "not enough information",
    "passage does not say",
    "passages do not say",
    "not mentioned",
    "not stated",
    "unanswerable",
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\s*;\s+|\n+")


def recall_accuracy(right: Sequence[float | None]) -> float:
    """RA: the mean of whether answers are right.

    Args:
        right: per question, 0 or 1, or a share between.
    """
    return _mean(right)


def faithfulness(supported: Sequence[Sequence[float | None]]) -> float:
    """Faith: per answer the share of its claims that are supported, then the mean over answers that claim something.

    Args:
        supported: per answer, per claim, 0 or 1, or a probability; an answer without claims (it declines) counts not.
    """
    return _mean([_mean(claims) for claims in supported if any(one is not None for one in claims)])


def filtering(alone: Sequence[float | None], among: Sequence[float | None]) -> float:
    """Filter: the mean of whether answers are right among distractors, over those right with the gold passage alone.

    Args:
        alone: per question, whether the answer is right with the gold passage alone; right from .5 on.
        among: the same questions with distracting passages, in the same order.

    Raises:
        ValueError: the two differ in length.
    """
    if len(alone) != len(among):
        raise ValueError(f"{len(alone)} answers with the gold passage alone, {len(among)} among distractors")
    pairs = zip(alone, among, strict=True)
    return _mean([float(other >= 0.5) for one, other in pairs if one is not None and other is not None and one >= 0.5])


def refusal_rate(answers: Sequence[str]) -> float:
    """RR: the share of answers that decline, see `declines`.

    Args:
        answers: what was said where no passage held the answer.
    """
    return _mean([float(declines(answer)) for answer in answers])


def query_relevance(scores: Sequence[float | None]) -> float:
    """QR: the mean of a judge's scores of ``relevant``."""
    return _mean(scores)


def fluency(scores: Sequence[float | None]) -> float:
    """FL: the mean of a judge's scores of ``fluent``."""
    return _mean(scores)


def declines(answer: str) -> bool:
    """Whether an answer says that it cannot be given: "unknown", "I don't know", "cannot be answered", ...

    >>> declines("Unknown."), declines("The passages do not say when."), declines("an unknown artist of Siena")
    (True, True, False)
    """
    text = normalize_answer(answer)
    return text == _REFUSALS[0] or any(f" {phrase} " in f" {text} " for phrase in _REFUSALS[1:])


def claims(answer: str) -> list[str]:
    """The claims of an answer: its sentences, and parts that a semicolon divides; none of one that declines.

    >>> claims("It was built in 1889. It is tall; it is made of iron.")
    ['It was built in 1889.', 'It is tall', 'it is made of iron.']
    """
    if declines(answer):
        return []
    return [part.strip() for part in _SENTENCE.split(answer) if part.strip()]


def _mean(values: Sequence[float | None]) -> float:
    given = [value for value in values if value is not None]
    return sum(given) / len(given) if given else float("nan")

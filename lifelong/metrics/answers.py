"""Scores of one free answer against its gold answers, any of which is right.

Every score is a function ``(prediction, answers) -> float`` in [0, 1], the best over the gold answers. This module
imports nothing heavy; only :func:`rouge_l` loads torchmetrics, and it needs neither ``nltk`` nor ``rouge-score``.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import get_close_matches

AnswerMetric = Callable[[str, Sequence[str]], float]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower-case a text and drop ASCII punctuation, English articles and superfluous white space, in this order.

    It is the normalisation of SQuAD's official script (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250).
    Punctuation is removed, not replaced by a space, so ``"3.5"`` becomes ``"35"`` and ``"-5"`` becomes ``"5"``: where
    such answers must be told apart, give the task a metric of its own.

    >>> normalize_answer("The  Eiffel Tower!")
    'eiffel tower'
    """
    return _squeeze(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)))


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction equals a gold answer after :func:`normalize_answer`, otherwise 0.0.

    A gold answer that normalises to nothing (``"+"``, ``"The"``) is compared as written, apart from case and white
    space; SQuAD's script would take ``"-"`` for ``"+"``.

    Args:
        prediction: what the model answered.
        answers: the gold answers, at least one.

    Raises:
        ValueError: ``answers`` is empty.
        TypeError: the prediction or an answer is not a string, or ``answers`` is a bare string.

    >>> exact_match("the Eiffel Tower.", ["La tour Eiffel", "Eiffel Tower"])
    1.0
    >>> exact_match("-", ["+"])
    0.0
    """
    return _best(_exact_match_of_one, prediction, answers)


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall over the words (a multiset), as in SQuAD's script.

    Arguments, errors and the treatment of answers that normalise to nothing are those of :func:`exact_match`.

    >>> round(token_f1("a tower in Paris", ["the Eiffel tower in Paris"]), 4)
    0.8571
    """
    return _best(_token_f1_of_one, prediction, answers)


def contains(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the words of a gold answer stand in the prediction, next to each other and in order.

    Whole words count: ``"cat"`` is not in ``"concatenate"``. Arguments and errors are those of :func:`exact_match`; a
    gold answer that normalises to nothing must stand in the prediction as a word of its own, as written.

    >>> contains("It was built in Paris, in 1889.", ["Paris"])
    1.0
    """
    return _best(_contains_one, prediction, answers)


def rouge_l(prediction: str, answers: Sequence[str]) -> float:
    """Return ROUGE-L's F-measure (Lin 2004, https://aclanthology.org/W04-1013), computed by torchmetrics.

    The longest common subsequence of words, without stemming. The usual implementation keeps only a-z and 0-9, which
    tears ``"Zürich"`` apart and scores an answer in Greek 0; here every Unicode letter and digit is kept, which changes
    nothing for ASCII. Arguments, errors and answers without any letter or digit: as in :func:`exact_match`.

    >>> round(rouge_l("the cat sat on a mat", ["the cat lay on the mat"]), 4)
    0.6667
    """
    return _best(_rouge_l_of_one, prediction, answers)


ANSWER_METRICS: dict[str, AnswerMetric] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "contains": contains,
    "rouge_l": rouge_l,
}


def resolve_metric(metric: str | AnswerMetric) -> AnswerMetric:
    """Return the metric of that name from ``ANSWER_METRICS``, or a callable as it is.

    Raises:
        ValueError: no metric has that name; the message offers the nearest.
        TypeError: ``metric`` is neither a name nor a callable.

    >>> resolve_metric("token_f1").__name__
    'token_f1'
    """
    if callable(metric):
        return metric
    if not isinstance(metric, str):
        raise TypeError(f"a metric is a name or a callable (prediction, answers) -> float, not {metric!r}")
    if metric not in ANSWER_METRICS:
        near = get_close_matches(metric, ANSWER_METRICS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown answer metric {metric!r}: {hint}known are {', '.join(ANSWER_METRICS)}")
    return ANSWER_METRICS[metric]


def _best(score: Callable[[str, str], float], prediction: str, answers: Sequence[str]) -> float:
    # A bare string is a sequence of strings too, and would be scored letter by letter.
    if isinstance(answers, str) or not all(isinstance(answer, str) for answer in answers):
        raise TypeError(f"answers must be a sequence of strings, not {answers!r}")
    if not isinstance(prediction, str):
        raise TypeError(f"the prediction must be a string, not {prediction!r}")
    if len(answers) == 0:
        raise ValueError("there is no gold answer to score against: answers is empty")
    return max(score(prediction, answer) for answer in answers)


def _exact_match_of_one(prediction: str, answer: str) -> float:
    gold = normalize_answer(answer)
    return float(normalize_answer(prediction) == gold) if gold else _same_as_written(prediction, answer)


def _token_f1_of_one(prediction: str, answer: str) -> float:
    gold, given = normalize_answer(answer).split(), normalize_answer(prediction).split()
    if not gold:
        return _same_as_written(prediction, answer)
    shared = sum((Counter(gold) & Counter(given)).values())
    return 2 * shared / (len(gold) + len(given))


def _contains_one(prediction: str, answer: str) -> float:
    gold, given = normalize_answer(answer), normalize_answer(prediction)
    if not gold:
        gold, given = _squeeze(answer.lower()), _squeeze(prediction.lower())
    return float(f" {gold} " in f" {given} ")


def _rouge_l_of_one(prediction: str, answer: str) -> float:
    if not _letters_and_digits(answer):
        return _same_as_written(prediction, answer)
    from torchmetrics.functional.text.rouge import rouge_score

    scores = rouge_score([prediction], [[answer]], rouge_keys="rougeL", normalizer=_letters_and_digits)
    return float(scores["rougeL_fmeasure"])


def _same_as_written(prediction: str, answer: str) -> float:
    return float(_squeeze(prediction.lower()) == _squeeze(answer.lower()))


def _letters_and_digits(text: str) -> str:
    return _squeeze(re.sub(r"[\W_]+", " ", text.lower()))


def _squeeze(text: str) -> str:
    return " ".join(text.split())

"""Ask the model in batches, and score what it says."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from lifelong.asking import answers_by_route
from lifelong.data import collate
from lifelong.distributed import from_all, gathered, share
from lifelong.encoding import IGNORED
from lifelong.errors import ConfigError, DataError, suggestion
from lifelong.generation import answer_text, by_length, choice_log_likelihoods, generate_tokens
from lifelong.learner import Learner
from lifelong.library import BOOKS, Shown, passage_id
from lifelong.losses import row_losses
from lifelong.metrics.answers import resolve_metric
from lifelong.mixtures import padding_known
from lifelong.randomness import derived_generator
from lifelong.strategies.base import labelled
from lifelong.tasks import Task

SPARE_TOKENS = 4  # beyond the longest gold answer, so that an answer that runs on is seen to be wrong


@dataclass(frozen=True)
class Evaluation:
    """What is asked after each stage.

    The task of a stage before and after it, and every task before the first and after the last stage, are asked
    whatever the other settings, on all test questions: the figures of continual learning are defined on these cells.
    A held-out task has no stage: after those in between it is asked as the other tasks are, and it is never unseen.

    Args:
        books: passes to make: ``"closed"`` shows the question alone, ``"gold"`` its passages too, ``"retrieved"`` those
            that are found for it, ``"distracted"`` its own among others, ``"absent"`` others alone. The first is the
            one that the run is summarised by.
        tasks: ``"all"`` tasks after every stage, or those ``"seen"`` so far.
        every: ask about other tasks only after every so many stages.
        sample: ask only so many questions of the other tasks, the same ones each time; their cells are marked.
        probes: ask the probes (other wordings of the test questions) too; their scores are reported apart.
        batch_size: prompts asked at a time.
        max_new_tokens: longest free answer; ``None`` allows four tokens more than the task's longest gold answer.
        normalize_length: rank choices by the log-likelihood per token rather than by its sum.

    Raises:
        ConfigError: naming the setting.
    """

    books: Sequence[str] = ("closed",)
    tasks: Literal["all", "seen"] = "all"
    every: int = 1
    sample: int | None = None
    probes: bool = True
    batch_size: int = 64
    max_new_tokens: int | None = None
    normalize_length: bool = True

    def __post_init__(self) -> None:
        for book in self.books:
            if book not in BOOKS:
                raise ConfigError(f"evaluate.books: unknown {book!r}{suggestion(book, BOOKS)}")
        if not self.books or len(set(self.books)) < len(self.books):
            raise ConfigError(f"evaluate.books: needs at least one book and none twice, got {list(self.books)}")
        if self.tasks not in ("all", "seen"):
            raise ConfigError(f"evaluate.tasks: unknown {self.tasks!r}{suggestion(self.tasks, ('all', 'seen'))}")
        for name in ("every", "sample", "batch_size", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"evaluate.{name}: must be at least 1, got {value!r}")

    def asks(self, task: int | None, stage: int, stages: int) -> Literal["all", "sample", "none"]:
        """Which questions of task number ``task`` (from 1; None: held out) are asked after ``stage`` (0: untrained)."""
        if stage in (0, stages) or task in (stage, stage + 1):
            return "all"
        unseen = task is not None and task > stage
        if (self.tasks == "seen" and unseen) or stage % self.every:
            return "none"
        return "all" if self.sample is None else "sample"


@dataclass(frozen=True)
class Answers:
    """What one task scored in one split and pass.

    Args:
        task, split, book: what was asked; ``split`` is ``"test"``, ``"probe"`` or ``"validation"``.
        metric: the name of the score.
        score: mean over questions, or the perplexity of all texts together.
        count: questions asked.
        sampled: whether these are a sample of all.
        seconds: wall-clock time.
        predictions: one mapping per question: ``id, question, answers, prediction, score``, ``cut`` where the answer
            was as long as is allowed and had no end, and with an open book
            the ``passages`` that were shown, the most relevant first, with the ``score`` of those that were retrieved,
            and those that are ``gold``.
    """

    task: str
    split: str
    book: str
    metric: str
    score: float
    count: int
    sampled: bool
    seconds: float
    predictions: list[dict[str, Any]]


@dataclass(frozen=True)
class _Question:
    """One prompt: a row and the wording in which it is asked."""

    row: Mapping[str, Any]
    text: str
    shown: Shown = field(default_factory=Shown)


@dataclass(frozen=True)
class _Answered:
    """What was shown beside a question, and what the model has said: a text, or the loss of one and its tokens."""

    shown: Shown
    said: str | tuple[float, int]
    route: str | None


def evaluate_task(
    learner: Learner,
    task: Task,
    settings: Evaluation | None = None,
    split: str = "test",
    book: str = "closed",
    sampled: bool = False,
    advance: Callable[[int], None] = lambda asked: None,
) -> Answers | None:
    """Ask all, or a sample, of the test questions of a task, on several devices each a part of them.

    Args:
        learner: whose model is asked; it is put into evaluation mode for the time being and asked where it is.
        task: the task.
        settings: batch size, sample size and ways of asking.
        split: ``"test"``, ``"probe"``, or ``"validation"`` of a task that has such questions.
        book: the pass, one of ``lifelong.library.BOOKS``.
        sampled: ask ``settings.sample`` rows only.
        advance: called with the number of questions asked since the last call.

    Returns:
        Score and predictions; ``None`` where the task has no probes to ask.
    """
    started = time.perf_counter()
    settings = settings or Evaluation()
    rows = labelled(task, task.validation if split == "validation" else task.test)
    sampled = sampled and settings.sample is not None and settings.sample < len(rows)
    if sampled:
        draw = derived_generator(learner.seed, "sample", task.name)
        rows = rows.select(sorted(torch.randperm(len(rows), generator=draw)[: settings.sample].tolist()))
    if split == "probe":
        questions = [_Question(row, probe) for row in rows for probe in row["probes"]]
    else:
        questions = [_Question(row, row["question"]) for row in rows]
    if not questions:
        return None
    counts = learner.encoder.counts.copy()
    answered = gathered(_answered(learner, task, share(questions), settings, book, advance))
    _count_of_all(learner.encoder.counts, counts)
    questions = [replace(question, shown=one.shown) for question, one in zip(questions, answered, strict=True)]
    score, predictions = (_perplexity if task.is_text else _score)(task, questions, [one.said for one in answered])
    for question, one, entry in zip(questions, answered, predictions, strict=True):
        entry |= {} if book == "closed" else _recorded(question)
        entry |= {} if one.route is None else {"route": one.route}
    seconds = time.perf_counter() - started
    return Answers(
        task.name, split, book, task.metric_name, score, len(questions), sampled, round(seconds, 3), predictions
    )


def _answered(
    learner: Learner,
    task: Task,
    questions: Sequence[_Question],
    settings: Evaluation,
    book: str,
    advance: Callable[[int], None],
) -> list[_Answered]:
    """Ask questions, with what is shown beside each."""
    if not questions:  # of fewer than there are processes
        return []
    if settings.max_new_tokens is None and not task.is_text and not all(q.row["choices"] for q in questions):
        settings = replace(settings, max_new_tokens=_longest_answer(learner, task) + SPARE_TOKENS)
    shown = learner.encoder.shown([q.row for q in questions], book, [q.text for q in questions])
    questions = [replace(question, shown=one) for question, one in zip(questions, shown, strict=True)]
    examples = [{**question.row, "question": question.text} for question in questions]
    said, routes = answers_by_route(
        learner,
        examples,
        lambda numbers: (
            _losses(learner, [questions[number] for number in numbers], settings, book, advance)
            if task.is_text
            else _texts(learner, [questions[number] for number in numbers], settings, advance)
        ),
    )
    return [_Answered(*one) for one in zip(shown, said, routes or [None] * len(questions), strict=True)]


def _count_of_all(counts: Counter[str], before: Counter[str]) -> None:
    """What was shortened, by all processes, since there were the counts ``before``."""
    found = from_all(counts - before)
    counts.clear()
    counts.update(sum(found, before))


def ask(
    learner: Learner,
    questions: Sequence[str],
    passages: Sequence[Sequence[str]] = (),
    max_new_tokens: int = 32,
    shown: Sequence[Shown] | None = None,
    task: str | None = None,
) -> list[str]:
    """Answers to questions from outside of any task: free ones, and of a classifier one of its labels.

    Args:
        learner: whose model is asked.
        questions: N texts.
        passages: for each question the passages to show, or nothing for a closed book.
        max_new_tokens: length of the longest free answer.
        shown: what a pass shows beside each question, as ``PromptEncoder.shown`` gives it, in place of ``passages``.
        task: of the stream that the questions are said to be of, for classifiers and strategies that are told.

    Returns:
        N answers.

    Raises:
        ConfigError: a classifier has met no label yet.
    """
    passages = passages or [[]] * len(questions)
    same = {"answers": [], "choices": list(learner.family.open_choices(task)), "probes": []}
    same |= {} if task is None else {"task": task}
    rows = [
        {"id": str(number), "question": text, "passages": list(some), **same}
        for number, (text, some) in enumerate(zip(questions, passages, strict=True))
    ]
    if shown is None:
        shown = [learner.encoder.shown([row], "gold" if row["passages"] else "closed")[0] for row in rows]
    asked = [_Question(row, row["question"], one) for row, one in zip(rows, shown, strict=True)]
    settings = Evaluation(max_new_tokens=max_new_tokens)
    answers, _ = answers_by_route(
        learner, rows, lambda numbers: _texts(learner, [asked[number] for number in numbers], settings)
    )
    return [text for text, _ in answers]


def _texts(
    learner: Learner,
    questions: Sequence[_Question],
    settings: Evaluation,
    advance: Callable[[int], None] = lambda asked: None,
) -> list[tuple[str, bool]]:
    """Answers to questions, free ones, whose length the settings limit, and ranked choices; and which were cut."""
    said = [("", False)] * len(questions)
    free = [number for number, question in enumerate(questions) if not question.row["choices"]]
    competing = {
        number: learner.family.candidates(question.row)
        for number, question in enumerate(questions)
        if question.row["choices"]
    }
    ranked = [number for number, candidates in competing.items() if candidates]  # none: there is nothing it could say
    advance(len(questions) - len(free) - len(ranked))
    if free:
        limit = settings.max_new_tokens
        prompts = learner.encoder.encode_prompts(
            [questions[number].row for number in free],
            questions=[questions[number].text for number in free],
            reserves=[learner.encoder.reserve(limit)] * len(free),
            shown=[questions[number].shown for number in free],
        )
        written = generate_tokens(learner, prompts, limit, settings.batch_size, advance)
        ends = set(learner.encoder.ends)
        for number, tokens in zip(free, written, strict=True):
            frame, text = learner.encoder.frame_of(questions[number].row), answer_text(learner, tokens)
            cut = not ends.intersection(tokens) and not (frame.after and frame.after in text)
            said[number] = frame.bare(text), cut
    if ranked:
        rows, texts_asked = [questions[n].row for n in ranked], [questions[n].text for n in ranked]
        tokens = learner.encoder.continuations(
            [
                (row, text, choice)
                for n, row, text in zip(ranked, rows, texts_asked, strict=True)
                for choice in competing[n]
            ]
        )
        rest = iter(tokens)
        choices = [[next(rest) for _ in competing[n]] for n in ranked]
        reserves = [learner.encoder.reserve(max(map(len, some))) for some in choices]
        prompts = learner.encoder.encode_prompts(
            rows, questions=texts_asked, reserves=reserves, shown=[questions[n].shown for n in ranked]
        )
        likelihoods = choice_log_likelihoods(learner, prompts, choices, settings.batch_size, advance)
        for number, scores, some in zip(ranked, likelihoods, choices, strict=True):
            if settings.normalize_length:
                scores = [score / len(choice) for score, choice in zip(scores, some, strict=True)]
            said[number] = competing[number][scores.index(max(scores))], False
    return said


def _score(
    task: Task, questions: Sequence[_Question], said: Sequence[tuple[str, bool]]
) -> tuple[float, list[dict[str, Any]]]:
    """The mean score of the answers, and a prediction for each."""
    predictions = []
    for question, (text, cut) in zip(questions, said, strict=True):
        if callable(task.metric):
            value = float(task.metric(text, question.row))
        elif question.row["choices"] and task.metric == "exact_match":
            # one of the choices as it is written: "-5" and "5" are two of them, and one free answer
            value = float(text in question.row["answers"])
        else:
            value = resolve_metric(task.metric)(text, question.row["answers"])
        if not math.isfinite(value):
            raise DataError(f"task {task.name!r}, row {question.row['id']!r}: the metric gave {value}")
        predictions.append(_prediction(question, text, value) | ({"cut": True} if cut else {}))
    return sum(entry["score"] for entry in predictions) / len(predictions), predictions


def _losses(
    learner: Learner,
    questions: Sequence[_Question],
    settings: Evaluation,
    book: str,
    advance: Callable[[int], None],
) -> list[tuple[float, int]]:
    """The summed loss of each text, in nats, and its tokens."""
    rows = learner.encoder.encode_rows([question.row for question in questions], book)
    losses = torch.zeros(len(rows), dtype=torch.float64)  # a perplexity leaves float32's range at 89 nats a token
    tokens = [sum(label != IGNORED for label in row.labels) for row in rows]
    for numbers in by_length([len(row.input_ids) for row in rows], settings.batch_size):
        batch = collate([rows[number] for number in numbers], learner.pad_id)
        batch = learner.transfer_batch_to_device(batch, learner.device, 0)
        with padding_known(learner.model, batch["attention_mask"], batch["labels"] != IGNORED):
            outputs, targets = learner.answer_logits(batch)
        losses[numbers] = row_losses(outputs.logits, targets).double().cpu()
        advance(len(numbers))
    return list(zip(losses.tolist(), tokens, strict=True))


def _perplexity(
    task: Task, questions: Sequence[_Question], losses: Sequence[tuple[float, int]]
) -> tuple[float, list[dict[str, Any]]]:
    """The perplexity of all texts together, and a prediction for each."""
    sums, tokens = (torch.tensor(column, dtype=torch.float64) for column in zip(*losses, strict=True))
    perplexities = (sums / tokens).exp().tolist()
    predictions = [_prediction(question, "", value) for question, value in zip(questions, perplexities, strict=True)]
    return float((sums.sum() / tokens.sum()).exp()), predictions


def _prediction(question: _Question, text: str, score: float) -> dict[str, Any]:
    row = question.row
    return {
        "id": row["id"],
        "question": question.text,
        "answers": list(row["answers"]),
        "prediction": text,
        "score": round(score, 6),
    }


def _recorded(question: _Question) -> dict[str, Any]:
    """The passages that were to be shown, the most relevant first, and the row's own.

    Those that the context had no room for are counted by the encoder, and are the last ones.
    """
    shown = question.shown
    scores = [round(hit.score, 6) for hit in shown.hits] or [None] * len(shown.passages)
    # a piece of a passage that was split counts as that passage
    ids = [hit.document for hit in shown.hits] or [passage_id(text) for text in shown.passages]
    passages = [{"id": id, "score": score} for id, score in zip(ids, scores, strict=True)]
    return {"passages": passages, "gold": [passage_id(text) for text in question.row["passages"]]}


def _longest_answer(learner: Learner, task: Task) -> int:
    """Of all free questions of a task, so that a question in a sample is answered as it is among all of them."""
    answers = [
        (row, row["question"], answer + learner.encoder.frame_of(row).after)
        for row in task.test
        if not row["choices"]
        for answer in row["answers"]
    ]
    return max(map(len, learner.encoder.continuations(answers)))

"""The passages of a run: how they are found, and what each pass shows of them beside a question."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lifelong.errors import ConfigError, suggestion
from lifelong.metrics.answers import normalize_answer
from lifelong.randomness import derived_generator, derived_seed

if TYPE_CHECKING:
    from lifelong.retrieval import Hit, Retriever
    from lifelong.tasks import Task

BOOKS = ("closed", "gold", "retrieved", "distracted", "absent")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Retrieval:
    """How passages are found and shown.

    Args:
        encoder: ``"lexical"`` compares words and needs no model; anything else is a model of sentence-transformers, by
            name or folder.
        k: passages that a question is shown in the ``retrieved`` pass.
        index: exact search, or another kind, see `lifelong.retrieval.PassageIndex`.
        search: parameters of searching, likewise.
        hybrid: search by BM25 too, and merge the rankings.
        reranker: a cross-encoder of sentence-transformers that orders what was found again, by name or folder.
        min_score: what fits less is not shown. The score of a hybrid is a sum of reciprocal ranks, of at most 2/61.
        scope: what is in the index: the passages of tasks ``"seen"`` so far and of held-out ones, or of ``"all"``.
        tokens: of all passages together, at most; the least relevant are left out. ``None``: what fits into the
            context.
        order: the ``"best_first"``, or the ``"best_last"``, right before the question.
        distractors: other passages of the same task, drawn at random, that the ``distracted`` and ``absent`` passes
            show.

    Raises:
        ConfigError: naming the setting.
    """

    encoder: str = "lexical"
    k: int = 3
    index: str = "exact"
    search: Mapping[str, float] = field(default_factory=dict)
    hybrid: bool = False
    reranker: str | None = None
    min_score: float | None = None
    scope: Literal["seen", "all"] = "seen"
    tokens: int | None = None
    order: Literal["best_first", "best_last"] = "best_first"
    distractors: int = 3

    def __post_init__(self) -> None:
        for name, choices in (("scope", ("seen", "all")), ("order", ("best_first", "best_last"))):
            if getattr(self, name) not in choices:
                value = getattr(self, name)
                raise ConfigError(f"retrieval.{name}: unknown {value!r}{suggestion(value, choices)}")
        for name in ("k", "distractors", "tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"retrieval.{name}: must be at least 1, got {value!r}")

    def make(self) -> Retriever:
        """An empty retriever with these settings.

        Raises:
            ConfigError, ModelError: the index or a model cannot be made.
        """
        from lifelong.retrieval import Reranker, Retriever, make_encoder

        reranker = None if self.reranker is None else Reranker(Path(self.reranker).expanduser())
        return Retriever(make_encoder(self.encoder), self.index, dict(self.search), self.hybrid, reranker)


@dataclass(frozen=True)
class Shown:
    """What stands beside a question.

    Args:
        passages: the most relevant first, which is the last to go where they do not fit.
        places: in which order they are shown, as numbers of ``passages``; as they are where empty.
        hits: of a retriever, with scores; nothing in the other passes.
    """

    passages: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    hits: tuple[Hit, ...] = ()


class Library:
    """The passages of a stream, which a retriever finds as soon as their task has come.

    Args:
        settings: how they are found and shown.
        tasks: of the stream, the held-out ones too.
        seed: decides which distractors are drawn.
    """

    def __init__(self, settings: Retrieval, tasks: Iterable[Task], seed: int = 0) -> None:
        self.settings, self.seed = settings, seed
        self._tasks = {task.name: task for task in tasks}
        self._pools: dict[str, list[str]] = {}
        everything = settings.scope == "all"
        # of these tasks the passages have come, in this order
        self._seen = {name: None for name, task in self._tasks.items() if everything or task.measure_only}
        self._inside: set[str] = set()
        self._retriever: Retriever | None = None

    @property
    def retriever(self) -> Retriever:
        """Over the passages that have come so far; made, and grown, when it is needed."""
        if self._retriever is None:
            self._retriever = self.settings.make()
        for name in self._seen:
            if name not in self._inside:
                self._inside.add(name)
                self._retriever.add(self.pool(name))
        return self._retriever

    @property
    def tasks(self) -> list[str]:
        """The names of all tasks, the held-out ones too."""
        return list(self._tasks)

    @property
    def has_passages(self) -> bool:
        """Whether any task has one, come or not."""
        return any(map(self.pool, self._tasks))

    @property
    def split(self) -> int:
        """Passages in the index that were longer than the encoder's window, and are found by parts."""
        return 0 if self._retriever is None else self._retriever.split

    def follow(self, seen: Iterable[str]) -> None:
        """The passages of these tasks have come; those that are in the index stay as they are."""
        self._seen |= {name: None for name in seen if name in self._tasks}

    def pool(self, task: str) -> list[str]:
        """All different passages of a task: its own, then its rows'; none of a task of another stream."""
        if task not in self._tasks:
            return []
        if task not in self._pools:
            known = self._tasks[task]
            rows = [text for rows in (known.train, known.test) for some in rows["passages"] for text in some]
            self._pools[task] = list(dict.fromkeys([*known.passages, *rows]))
        return self._pools[task]

    def shown(self, rows: Sequence[Row], questions: Sequence[str], book: str) -> list[Shown]:
        """What each row is shown in a pass.

        Args:
            rows: examples with their ``task``.
            questions: the wording in which each is asked.
            book: ``"retrieved"``, ``"distracted"`` or ``"absent"``.
        """
        if book == "retrieved":
            return self._found(questions)
        return [self._among_others(row, gold=book == "distracted") for row in rows]

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digits that differ where something else may be shown."""
        retriever = self.retriever
        about = [asdict(self.settings), retriever.encoder.fingerprint, sorted(retriever.index.ids), self.seed]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def _found(self, questions: Sequence[str]) -> list[Shown]:
        settings, retriever = self.settings, self.retriever
        if not len(retriever):
            return [Shown() for _ in questions]
        found = retriever.retrieve(questions, min(settings.k, len(retriever)), settings.min_score)
        last = settings.order == "best_last"
        return [
            Shown(tuple(hit.text for hit in hits), tuple(reversed(range(len(hits)))) if last else (), tuple(hits))
            for hits in found
        ]

    def _among_others(self, row: Row, gold: bool) -> Shown:
        """A row's own passages among others of its task, or the others alone, none of which holds the answer."""
        own, answers = list(row["passages"]), [normalize_answer(answer) for answer in row["answers"]]
        others = [text for text in self.pool(row["task"]) if text not in own]
        if not gold:
            others = [
                text for text in others if not any(a and f" {a} " in f" {normalize_answer(text)} " for a in answers)
            ]
        draw = derived_generator(self.seed, "distractors", row["task"], row["id"])
        picked = torch.randperm(len(others), generator=draw)[: self.settings.distractors].tolist()
        passages = [*(own if gold else ()), *(others[number] for number in picked)]
        return Shown(tuple(passages), tuple(torch.randperm(len(passages), generator=draw).tolist()))


def shown_beside(
    rows: Sequence[Row], questions: Sequence[str], book: str, seed: int, library: Library | None, counts: Counter[str]
) -> list[Shown]:
    """What each row is shown in a pass, or in training.

    Args:
        rows: examples with their ``task``.
        questions: the wording in which each is asked; beside an empty one (raw text) stands nothing.
        book: one of ``BOOKS``, or a mixture.
        seed: decides for each row which book of a mixture it is.
        library: finds passages, for the books other than ``"closed"`` and ``"gold"``.
        counts: says afterwards how often there was nothing to show: ``without gold passage``, ``nothing retrieved``.

    Raises:
        ConfigError: there is no such book, or it needs a library and there is none.
    """
    mixed = len(book_shares(book)) > 1
    books = [book_of(row, book, seed) if mixed else book for row in rows]
    shown = [Shown()] * len(rows)
    for one in dict.fromkeys(books):
        if one == "closed":
            continue
        numbers = [number for number, name in enumerate(books) if name == one and questions[number]]
        some = [rows[number] for number in numbers]
        if one == "gold":
            found = [Shown(tuple(row["passages"])) for row in some]
        elif library is None:
            raise ConfigError(f"book {one!r}: passages come from a library, and this encoder has none")
        else:
            found = library.shown(some, [questions[number] for number in numbers], one)
        if empty := sum(not each.passages for each in found):
            counts["nothing retrieved" if one == "retrieved" else "without gold passage"] += empty
        for number, each in zip(numbers, found, strict=True):
            shown[number] = each
    return shown


def passage_id(text: str) -> str:
    """The id under which a passage is found, and which predictions name it by."""
    from lifelong.retrieval.passages import content_id

    return content_id(text)


def book_shares(book: str | Mapping[str, float]) -> dict[str, float]:
    """The shares of a mixture of books, ``"closed 0.5, retrieved 0.5"`` or a mapping; of a single one, 1.

    Raises:
        ConfigError: there is no such book, or the shares do not add up to 1.
    """
    if isinstance(book, str):
        parts = [part.split() for part in book.split(",")]
        try:
            shares = {name: float(share) for name, share in parts} if len(parts) > 1 else {book: 1.0}
        except ValueError:
            hint = "a mixture looks like 'closed 0.5, gold 0.5'"
            raise ConfigError(f"train_book: {book!r} is no book, and {hint}") from None
    else:
        shares = {name: float(share) for name, share in book.items()}
    for name, share in shares.items():
        if name not in BOOKS:
            raise ConfigError(f"train_book: unknown {name!r}{suggestion(name, BOOKS)}")
        if not 0 <= share <= 1:
            raise ConfigError(f"train_book: the share of {name!r} must be in 0..1, got {share}")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(f"train_book: shares add up to {sum(shares.values()):g} instead of 1")
    return shares


def book_name(shares: Mapping[str, float]) -> str:
    """A mixture as one text, such as ``"closed 0.5, gold 0.5"``."""
    several = {name: share for name, share in shares.items() if share}
    return next(iter(several)) if len(several) == 1 else ", ".join(f"{n} {share:g}" for n, share in several.items())


def book_of(row: Row, book: str, seed: int) -> str:
    """The book in which a row of a mixture is learned: always the same one, drawn from its task and id."""
    shares = book_shares(book)
    if len(shares) == 1:
        return book
    draw = derived_seed(seed, "book", row["task"], row["id"]) / 2**63
    ends = accumulate(shares.values())
    return next((name for name, end in zip(shares, ends, strict=True) if draw < end), list(shares)[-1])

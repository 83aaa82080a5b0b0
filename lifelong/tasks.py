"""Tasks: what a model is taught, and what it is asked."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError

from lifelong import examples
from lifelong.content_hash import content_hash
from lifelong.errors import DataError, suggestion
from lifelong.examples import Located, Row
from lifelong.metrics.answers import resolve_metric

Metric = str | Callable[[str, Mapping[str, Any]], float]
Rows = Dataset | Iterable[Row]
KINDS = ("knowledge", "downstream")
LONGEST_NAME = 200  # bytes; with what is put behind it, it names a file, which may have 255
SAVED_SETTINGS = ("name", "kind", "metric", "passages", "measure_only", "source", "licence")


@dataclass(frozen=True, eq=False)
class Task:
    """One thing to learn: rows to train on and rows to be asked about.

    A *recall* task asks in the test what was taught in training: give the same rows as ``train`` and ``test``, and
    put other wordings of each question in its ``probes``, which are never trained on and always reported beside.

    A row may also be a *conversation*: instead of question and answers it has ``messages``, a list of mappings with
    ``role`` (``system``, which can only stand first, ``user`` or ``assistant``) and ``content``, in plain text. All
    turns of the assistant are learned. The test asks for the last turn, which must be the assistant's, after all that
    was said before: the last user turn becomes the row's ``question``, and the last turn its first answer. ``answers``
    may add others that are right, and ``probes`` other wordings of the last user turn. The form of ShareGPT, with
    ``from`` (``system``, ``human``, ``gpt``) and ``value``, is read too.

    Args:
        name: letters, digits, spaces, ``_``, ``-`` and ``.``; it names columns and files.
        train: training rows: a ``datasets.Dataset`` or an iterable of mappings with the fields ``question``,
            ``answers`` (or ``answer``), or ``messages``, and optionally ``id``, ``choices``, ``passages``, ``probes``.
            ``None`` for a held-out task, whose ``train`` then is a dataset of no rows.
        test: test rows, in the same form.
        validation: rows for decisions during training; never part of the reported matrix.
        passages: further texts that belong to the task, for retrieval.
        kind: ``"knowledge"`` (facts to remember) or ``"downstream"`` (a skill).
        metric: name of an answer metric (``exact_match``, ``token_f1``, ``contains``, ``rouge_l``), ``"perplexity"``
            for raw text, or a callable ``(prediction, example) -> float``. Questions with choices are answered by
            ranking the choices, and scored with the same metric; an exact match is then one to the letter.
        measure_only: held out: never trained on, and measured at every stage, to see what learning the others does to
            a general ability.
        source: where the rows come from, in words or as an address.
        licence: of the rows, as their source states it.

    Raises:
        DataError: naming task, row and field, when a row cannot be used or a split is empty.
    """

    name: str
    train: Rows | None
    test: Rows
    validation: Rows | None = None
    passages: Sequence[str] | None = None
    kind: Literal["knowledge", "downstream"] = "knowledge"
    metric: Metric = "exact_match"
    measure_only: bool = False
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        check_name("task", self.name)
        if self.kind not in KINDS:
            raise DataError(f"task {self.name!r}: unknown kind {self.kind!r}{suggestion(self.kind, KINDS)}")
        if isinstance(self.metric, str) and not self.is_text:
            try:
                resolve_metric(self.metric)
            except ValueError as error:
                raise DataError(f"task {self.name!r}: {error}") from None
        for split in ("train", "test", "validation"):
            rows = getattr(self, split)
            if rows is None and split == "validation":
                continue
            object.__setattr__(self, split, self._checked(split, rows))
        object.__setattr__(self, "passages", tuple(self.passages or ()))

    def _checked(self, split: str, rows: Rows | None) -> Dataset:
        may_be_empty = split == "train" and self.measure_only
        if rows is None and may_be_empty:
            rows = ()
        if rows is None:
            unless = ", unless the task is measure_only" if split == "train" else ""
            raise DataError(f"task {self.name!r}: a {split} split is needed{unless}")
        if not (isinstance(rows, Dataset) and rows.features == examples.FEATURES):
            where = f"task {self.name!r}, {split} row"
            located = (
                examples.read_dataset(rows, where) if isinstance(rows, Dataset) else examples.read_rows(rows, where)
            )
            rows = examples.build(located, raw_text=self.is_text)
        if len(rows) == 0 and not may_be_empty:
            raise DataError(f"task {self.name!r}: the {split} split is empty")
        return rows

    @property
    def is_text(self) -> bool:
        """Whether this is raw text, measured in perplexity."""
        return self.metric == "perplexity"

    @property
    def metric_name(self) -> str:
        return self.metric if isinstance(self.metric, str) else getattr(self.metric, "__name__", "custom")

    def __repr__(self) -> str:
        held_out = ", measure_only=True" if self.measure_only else ""
        return (
            f"Task({self.name!r}, train={len(self.train)}, test={len(self.test)}, "
            f"metric={self.metric_name!r}{held_out})"
        )

    def fingerprint(self) -> str:
        """SHA-256 of everything that decides what is learned and asked; not of where it comes from."""
        splits = (self.train, self.validation, self.test)
        rows = [None if split is None else content_hash(split, examples.FIELDS) for split in splits]
        content = [self.name, self.kind, self.metric_name, self.measure_only, self.passages, rows]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @classmethod
    def read(
        cls,
        name: str,
        reader: Callable[[Any], Iterator[Located]],
        splits: Mapping[str, Any],
        columns: Mapping[str, str] | None,
        choices: Sequence[str],
        **settings: Any,
    ) -> Task:
        """Build every split that is given with one reader; all constructors below end here."""
        raw_text = settings.get("metric") == "perplexity"
        built = {
            split: None if source is None else examples.build(reader(source), columns, choices, raw_text)
            for split, source in splits.items()
        }
        return cls(name, **built, **settings)

    @classmethod
    def from_jsonl(
        cls,
        name: str,
        train: str | Path | None,
        test: str | Path,
        validation: str | Path | None = None,
        columns: Mapping[str, str] | None = None,
        choices: Sequence[str] = (),
        **settings: Any,
    ) -> Task:
        """Read JSON-lines files.

        Args:
            name, train, test, validation: the task's name and one file per split; ``train=None`` with
                ``measure_only=True``.
            columns: ``{field: column}`` for fields whose column has another name.
            choices: choices shared by all rows (class names, for example).
            **settings: ``passages``, ``kind``, ``metric`` and what follows it in ``Task``.
        """
        splits = {"train": train, "test": test, "validation": validation}
        return cls.read(name, examples.read_jsonl, splits, columns, choices, **settings)

    @classmethod
    def from_csv(
        cls,
        name: str,
        train: str | Path | None,
        test: str | Path,
        validation: str | Path | None = None,
        columns: Mapping[str, str] | None = None,
        choices: Sequence[str] = (),
        delimiter: str = ",",
        **settings: Any,
    ) -> Task:
        """Read CSV files with a header line; arguments as for ``from_jsonl``."""
        splits = {"train": train, "test": test, "validation": validation}
        return cls.read(name, lambda path: examples.read_csv(path, delimiter), splits, columns, choices, **settings)

    @classmethod
    def from_parquet(
        cls,
        name: str,
        train: str | Path | None,
        test: str | Path,
        validation: str | Path | None = None,
        columns: Mapping[str, str] | None = None,
        choices: Sequence[str] = (),
        **settings: Any,
    ) -> Task:
        """Read Parquet files; arguments as for ``from_jsonl``."""
        splits = {"train": train, "test": test, "validation": validation}
        return cls.read(name, examples.read_parquet, splits, columns, choices, **settings)

    @classmethod
    def from_dataset(
        cls,
        name: str,
        train: Dataset | DatasetDict | None,
        test: Dataset | None = None,
        validation: Dataset | None = None,
        columns: Mapping[str, str] | None = None,
        choices: Sequence[str] = (),
        **settings: Any,
    ) -> Task:
        """Use ``datasets.Dataset`` objects, or one ``DatasetDict`` with the splits train, test and maybe validation.

        A ``ClassLabel`` column becomes its names, which are also the choices when it holds the answers. With
        ``measure_only=True`` there need be no training rows.
        """
        if isinstance(train, DatasetDict):
            found = train
            missing = ({"test"} if settings.get("measure_only") else {"train", "test"}) - set(found)
            if missing:
                raise DataError(
                    f"task {name!r}: the DatasetDict has no split {sorted(missing)[0]!r}, only {list(found)}"
                )
            train, test, validation = found.get("train"), found["test"], found.get("validation")
        if test is None:
            raise DataError(f"task {name!r}: a test split is needed (the training rows themselves, for a recall task)")
        features = (test if train is None else train).features
        column = (columns or {}).get("answers", "answers" if "answers" in features else "answer")
        choices = choices or examples.class_names(features.get(column))
        given = {"train": train, "test": test, "validation": validation}
        splits = {split: None if rows is None else (split, rows) for split, rows in given.items()}
        return cls.read(
            name,
            lambda split: examples.read_dataset(split[1], f"task {name!r}, {split[0]} row"),
            splits,
            columns,
            choices,
            **settings,
        )

    @classmethod
    def from_hub(
        cls,
        name: str,
        path: str,
        config: str | None = None,
        revision: str | None = None,
        train_split: str | None = "train",
        test_split: str = "test",
        validation_split: str | None = None,
        columns: Mapping[str, str] | None = None,
        choices: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        **load: Any,
    ) -> Task:
        """Load a dataset of the hub, or anything else that ``datasets.load_dataset`` reads.

        Args:
            name: the task's name.
            path, config, revision: as for ``datasets.load_dataset``; pin ``revision`` to trust a number next year.
            train_split, test_split, validation_split: split expressions such as ``"train[:1000]"``; no training rows
                with ``train_split=None`` and ``measure_only`` among the settings.
            columns, choices: as for ``from_jsonl``.
            settings: ``passages``, ``kind``, ``metric`` and what follows it in ``Task``.
            **load: passed to ``datasets.load_dataset`` (``data_files``, for example).

        Raises:
            DataError: there is no such dataset, configuration or split, or the hub cannot be reached; or as for
                ``from_jsonl``.
        """

        def split(expression: str | None) -> Dataset | None:
            if expression is None:
                return None
            try:
                return load_dataset(path, config, split=expression, revision=revision, **load)
            except Exception as error:  # of datasets, the hub, and its changing HTTP library: they share no base
                # where a file is malformed, datasets says so one error deeper
                cause = (isinstance(error, DatasetGenerationError) and error.__cause__) or error
                raise DataError(
                    f"task {name!r}: cannot load the dataset {path!r} (configuration {config or 'default'!r}, split "
                    f"{expression!r}, revision {revision or 'newest'!r}): {' '.join(str(cause).split()).rstrip('.')}. "
                    "If the hub cannot be reached from here, fetch the files elsewhere and give them as files "
                    "(Task.from_jsonl, Task.from_parquet), or as the argument 'folder' of a stream that has one"
                ) from error

        return cls.from_dataset(
            name,
            split(train_split),
            split(test_split),
            split(validation_split),
            columns,
            choices,
            **dict(settings or {}),
        )

    @classmethod
    def from_pairs(
        cls,
        name: str,
        train: Iterable[tuple[str, str]],
        test: Iterable[tuple[str, str]] | None = None,
        choices: Sequence[str] = (),
        **settings: Any,
    ) -> Task:
        """Question-answer pairs in memory. Without ``test`` it is a recall task: the training pairs are asked."""
        train = list(train)
        splits = {"train": ("train", train), "test": ("test", train if test is None else list(test))}

        def read(split: tuple[str, list[tuple[str, str]]]) -> Iterator[Located]:
            where = f"task {name!r}, {split[0]} pair"
            for number, pair in enumerate(split[1], start=1):
                if isinstance(pair, str) or len(pair) != 2:
                    raise DataError(f"{where} {number}: expected a question and an answer, got {pair!r}")
                yield f"{where} {number}", {"question": pair[0], "answers": pair[1]}

        return cls.read(name, read, splits, None, choices, **settings)

    @classmethod
    def from_text(
        cls, name: str, train: str | Path | None, test: str | Path, characters: int = 1000, **settings: Any
    ) -> Task:
        """Raw text, learned as it stands and measured in perplexity.

        A piece is read after the beginning-of-sequence token (or end-of-sequence, where a tokenizer has no other), and
        its perplexity counts the end-of-sequence token that closes it.

        Args:
            name: the task's name.
            train, test: files of plain text (UTF-8); ``train=None`` with ``measure_only=True``.
            characters: texts are cut at paragraph ends, or at words in long paragraphs, into pieces of at most so
                many characters. A piece must fit into the model's context.
        """

        def read(path: str | Path) -> Iterator[Located]:
            path = Path(path).expanduser()
            if not path.is_file():
                raise DataError(f"there is no file {path}")
            pieces = _pieces(path.read_text(encoding="utf-8"), characters)
            return examples.read_rows(({"question": "", "answers": piece} for piece in pieces), f"{path}, piece")

        splits = {"train": train, "test": test}
        return cls.read(name, read, splits, None, (), metric="perplexity", **settings)


def check_name(kind: str, name: str) -> None:
    """Raise a DataError for a name that cannot be part of a file's."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.\- ]*", unicodedata.normalize("NFC", name)):
        raise DataError(f"{kind} name {name!r}: use letters, digits, spaces, '_', '-' and '.'")
    if len(name.encode()) > LONGEST_NAME:
        raise DataError(f"{kind} name {name[:40]!r}...: has {len(name.encode())} bytes, use at most {LONGEST_NAME}")


def _pieces(text: str, characters: int) -> Iterator[str]:
    """Cut text into pieces of at most ``characters``, at paragraph ends where possible, else between words."""
    if characters < 1:
        raise DataError(f"a piece of text needs at least one character, got {characters}")
    piece = ""
    for part in re.findall(r"[^\n]+\n*|\n+", text):
        while len(part) > characters:
            cut = part.rfind(" ", 1, characters) + 1 or characters
            head, part = part[:cut], part[cut:]
            if piece.strip():
                yield piece
            piece = ""
            if head.strip():
                yield head
        if len(piece) + len(part) > characters:
            if piece.strip():
                yield piece
            piece = ""
        piece += part
    if piece.strip():
        yield piece

"""All rows of a stage as tokens: in memory when they are few, else on disk, where the next run finds them again."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow
from datasets import Dataset, Features, Value
from datasets import List as ListFeature
from datasets.arrow_writer import ArrowWriter
from transformers import PreTrainedTokenizerBase

from lifelong.cache import cache_folder
from lifelong.content_hash import content_hash
from lifelong.encoding import EncodedRow, PromptEncoder
from lifelong.examples import FIELDS

IN_MEMORY = 2_000  # rows up to which nothing is written
CHUNK = 1_000  # rows that are encoded at a time
FORM = 2  # of the files; another number makes old ones unknown
_TOKENS = ListFeature(Value("int32"))
_FEATURES = Features(
    {
        "input_ids": _TOKENS,
        "labels": _TOKENS,
        "task": Value("string"),
        "kind": Value("string"),
        "id": Value("string"),
        "length": Value("int32"),
    }
)


class PreparedRows(Sequence[EncodedRow]):
    """Encoded rows in an Arrow file, read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.table = Dataset.from_file(str(path))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, number: int) -> EncodedRow:
        return self.take([number])[0]

    def take(self, numbers: Sequence[int]) -> list[EncodedRow]:
        """Several rows at once."""
        columns = self.table[list(numbers)]
        return [EncodedRow(*row) for row in zip(*(columns[name] for name in EncodedRow.__slots__), strict=True)]


def prepare(encoder: PromptEncoder, rows: Dataset, book: str) -> Sequence[EncodedRow]:
    """Encode the rows of a stage; what was shortened is counted in ``encoder.counts``, also where a file was found.

    Files are named after their content: rows, tokenizer, wording and length. Any of them may be deleted at any time.

    Args:
        encoder: a family's.
        rows: examples with ``task`` and ``kind``.
        book: as in ``PromptEncoder.encode``.
    """
    if len(rows) <= IN_MEMORY:
        return [row for chunk in _chunks(rows) for row in encoder.encode_rows(chunk, book)]
    path = cache_folder("tokens") / f"{_key(encoder, rows, book)}.arrow"
    counts = path.with_suffix(".json")
    try:
        found, counted = PreparedRows(path), json.loads(counts.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or damaged
        _write(encoder, rows, book, path)
        found, counted = PreparedRows(path), json.loads(counts.read_text(encoding="utf-8"))
    encoder.counts.update(counted)
    return found


def take(rows: Sequence[EncodedRow], numbers: Sequence[int]) -> list[EncodedRow]:
    """Some of what ``prepare`` gave."""
    return rows.take(numbers) if isinstance(rows, PreparedRows) else [rows[number] for number in numbers]


def lengths(rows: Sequence[EncodedRow]) -> Sequence[int]:
    """Tokens of each of the rows that ``prepare`` gave."""
    if isinstance(rows, PreparedRows):
        return rows.table.data.column("length").to_numpy().copy()  # torch wants to own what it reads
    return [len(row.input_ids) for row in rows]


def _write(encoder: PromptEncoder, rows: Dataset, book: str, path: Path) -> None:
    """Under another name first, so that a file that is there is whole, whoever writes at the same time."""
    before, unfinished = Counter(encoder.counts), path.with_suffix(f".{uuid.uuid4().hex}")
    try:
        with ArrowWriter(path=str(unfinished), features=_FEATURES) as writer:
            for chunk in _chunks(rows):
                with _uncollected():
                    table = _table(encoder.encode_rows(chunk, book))
                writer.write_table(table)
            writer.finalize()
        counted = {what: count - before[what] for what, count in encoder.counts.items() if count > before[what]}
        encoder.counts.clear()
        encoder.counts.update(before)
        counts = unfinished.with_suffix(f".{uuid.uuid4().hex}")
        counts.write_text(json.dumps(counted), encoding="utf-8")
        os.replace(counts, path.with_suffix(".json"))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles, which thousands of new lists set off again and again, and which finds none."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _table(rows: Sequence[EncodedRow]) -> pyarrow.Table:
    columns = {name: [getattr(row, name) for row in rows] for name in EncodedRow.__slots__}
    columns["length"] = [len(row.input_ids) for row in rows]
    return pyarrow.table(columns, schema=_FEATURES.arrow_schema)


def _chunks(rows: Dataset) -> Iterator[list[Mapping[str, Any]]]:
    # Arrow's own way to Python is several times quicker than that of datasets, which looks into every list
    tables = rows.with_format("arrow")
    for start in range(0, len(rows), CHUNK):
        with _uncollected():
            chunk = tables[start : start + CHUNK].to_pylist()
        yield chunk


def _key(encoder: PromptEncoder, rows: Dataset, book: str) -> str:
    beside = None  # with a closed book nothing else decides the tokens
    if book != "closed":
        beside = [encoder.seed, "" if encoder.library is None else encoder.library.fingerprint]
    about = {
        "form": FORM,
        "encoder": type(encoder).__qualname__,
        "labels": list(getattr(encoder, "labels", ())),
        "template": asdict(encoder.template),
        "max_length": encoder.max_length,
        "book": book,
        "beside": beside,
        "rows": content_hash(rows, [*FIELDS, "task", "kind"]),
        "tokenizer": _tokenizer_hash(encoder.tokenizer),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    how = (
        backend.to_str()
        if backend is not None
        else [type(tokenizer).__qualname__, sorted(tokenizer.get_vocab().items())]
    )
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    about = [how, special, tokenizer.chat_template]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()

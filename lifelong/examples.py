"""The fields of an example, and how rows from anywhere become checked examples.

Every task, whatever it was read from, ends as a ``datasets.Dataset`` with the seven fields of ``FIELDS``. A row that
cannot be used is an error that names where it stands and which field is at fault; nothing is dropped silently. Many
rows are kept in a file, of which only what is being read is in memory.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow
from datasets import ClassLabel, Dataset, Features, Value
from datasets import List as ListFeature

from lifelong.cache import rows_in_file
from lifelong.errors import DataError, suggestion
from lifelong.messages import asked_and_answered, checked_messages

FIELDS = ("id", "question", "answers", "choices", "passages", "probes", "messages")
LIST_FIELDS = ("answers", "choices", "passages", "probes")
SINGULAR = {"answers": "answer", "choices": "choice", "passages": "passage", "probes": "probe"}
FEATURES = Features(
    {name: ListFeature(Value("string")) if name in LIST_FIELDS else Value("string") for name in FIELDS}
    | {"messages": ListFeature({"role": Value("string"), "content": Value("string")})}
)
ROWS_IN_MEMORY = 10_000  # a longer table is kept in a file
ROWS_AT_A_TIME = 1_000
_AS_WRITTEN = json.JSONEncoder(ensure_ascii=False).encode

Row = Mapping[str, Any]
Located = tuple[str, Row]  # where the row stands, in words, and the row


def read_jsonl(path: str | Path) -> Iterator[Located]:
    """Rows of a JSON-lines file; blank lines are skipped.

    Raises:
        DataError: the file is missing, or a line is not a JSON object.
    """
    path = _existing(path)
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            _check_encoding(where, line)
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{where}: malformed JSON: {error.msg} at column {error.colno}") from None
            if not isinstance(row, dict):
                raise DataError(f"{where}: expected a JSON object, got {type(row).__name__}")
            yield where, row


def read_csv(path: str | Path, delimiter: str = ",") -> Iterator[Located]:
    """Rows of a CSV file with a header line.

    Raises:
        DataError: the file is missing, or a line has more or fewer cells than the header.
    """
    path = _existing(path)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.DictReader(lines, delimiter=delimiter)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise DataError(f"{path}, line {reader.reader.line_num}: malformed CSV: {error}") from None
            if row is None:
                return
            where = f"{path}, line {reader.line_num}"
            _check_encoding(where, *row, *row.values())
            if None in row or None in row.values():
                raise DataError(
                    f"{where}: the number of cells differs from the header's {len(reader.fieldnames or ())}"
                )
            yield where, row


def read_parquet(path: str | Path) -> Iterator[Located]:
    """Rows of a Parquet file, numbered from 1.

    Raises:
        DataError: the file is missing, or is of another format.
    """
    path = _existing(path)
    try:
        dataset = Dataset.from_parquet(str(path))
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: is not a Parquet file: {error}") from None
    return read_dataset(dataset, f"{path}, row")


def read_dataset(dataset: Dataset, where: str) -> Iterator[Located]:
    """Rows of a ``datasets.Dataset``, numbered from 1; class labels, alone or in lists, become their names."""
    labels = {name: names for name, feature in dataset.features.items() if (names := class_names(feature))}
    for number, row in enumerate(plain_rows(dataset), start=1):
        for name, names in labels.items():
            row[name] = _named(row[name], names)
        yield f"{where} {number}", row


def plain_rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Rows as plain values, or as the dataset's own transform makes them; many are read at a time, which is quicker."""
    if dataset.format["type"] != "custom":
        dataset = dataset.with_format(None)
    for batch in dataset.iter(ROWS_AT_A_TIME):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def class_names(feature: Any) -> tuple[str, ...]:
    """The names of the labels that a column of a ``datasets.Dataset`` holds; none if it holds no labels."""
    label = getattr(feature, "feature", feature)  # of a list
    return tuple(label.names) if isinstance(label, ClassLabel) else ()


def _named(label: Any, names: Sequence[str]) -> Any:
    if isinstance(label, list):
        return [_named(item, names) for item in label]
    return names[label] if label is not None and label >= 0 else None  # -1: datasets' mark of an unknown label


def read_rows(rows: Iterable[Row], where: str) -> Iterator[Located]:
    """Rows that are already in memory, numbered from 1."""
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{where} {number}: expected a mapping of fields, got {type(row).__name__}")
        yield f"{where} {number}", row


def build(
    rows: Iterable[Located],
    columns: Mapping[str, str] | None = None,
    choices: Sequence[str] = (),
    raw_text: bool = False,
) -> Dataset:
    """Check rows and turn them into a dataset with the fields of an example.

    Args:
        rows: located rows, from one of the readers above.
        columns: where a field's value is found, as ``{field: column}``. A field that is not named is read from the
            column of its own name (lists from its singular too, such as ``answer``) and may be absent, except question
            and answers.
        choices: the choices of every row that brings none of its own.
        raw_text: the question may be empty (perplexity tasks).

    Returns:
        The rows in memory, or if they are more than 10,000, mapped from a file in the cache folder. The file is named
        after its content, so that the same rows are never there twice.

    Raises:
        DataError: naming place and field, for the first row that cannot be used.
    """
    plural = {singular: field for field, singular in SINGULAR.items()}
    columns = {plural.get(field, field): column for field, column in (columns or {}).items()}
    for field in columns:
        if field not in FIELDS:
            raise DataError(f"unknown field {field!r} in the column mapping{suggestion(field, FIELDS)}")
    checked = _checked(rows, columns, choices, raw_text)
    beginning = list(islice(checked, ROWS_IN_MEMORY + 1))
    if len(beginning) > ROWS_IN_MEMORY:
        return rows_in_file(chain(beginning, checked), FEATURES, "examples", ROWS_AT_A_TIME)
    return Dataset.from_dict({field: [row[field] for row in beginning] for field in FIELDS}, features=FEATURES)


def _checked(
    rows: Iterable[Located], columns: Mapping[str, str], choices: Sequence[str], raw_text: bool
) -> Iterator[dict[str, Any]]:
    first_place: dict[str, str] = {}
    for number, (where, row) in enumerate(rows):
        example = _example(where, row, columns, choices, raw_text)
        example["id"] = example["id"] or str(number)
        if example["id"] in first_place:
            raise DataError(f"{where}, field 'id': {example['id']!r} was used before, at {first_place[example['id']]}")
        first_place[example["id"]] = where
        yield example


def _example(
    where: str, row: Row, columns: Mapping[str, str], choices: Sequence[str], raw_text: bool
) -> dict[str, Any]:
    messages = checked_messages(where, _cell(where, row, "messages", columns))
    required = () if messages else ("question", "answers")
    example = {
        field: messages if field == "messages" else _value(where, row, field, columns, field in required)
        for field in FIELDS
    }
    if messages:
        example |= _asked(where, example)
    if not example["question"].strip() and not raw_text:
        raise DataError(f"{where}, field 'question': is empty")
    if not example["answers"]:
        raise DataError(f"{where}, field 'answers': is empty")
    example["choices"] = example["choices"] or list(choices)
    for field in LIST_FIELDS:
        if any(not text.strip() for text in example[field]):
            raise DataError(f"{where}, field {field!r}: holds an empty text")
    # the first answer is the one that is taught, so it must be one of them
    if example["choices"] and len(set(example["choices"])) < max(2, len(example["choices"])):
        raise DataError(f"{where}, field 'choices': needs two or more that differ, got {example['choices']}")
    if example["choices"] and example["answers"][0] not in example["choices"]:
        raise DataError(
            f"{where}, field 'choices': the answer {example['answers'][0]!r} is not among {example['choices']}"
        )
    for field, value in example.items():
        _check_unicode(where, field, value)
    return example


def _asked(where: str, example: Mapping[str, Any]) -> dict[str, Any]:
    """Question and answers of a conversation: its last two turns, and what else the row calls right."""
    question, answer = asked_and_answered(example["messages"])
    if example["question"] not in ("", question):
        raise DataError(
            f"{where}, field 'question': differs from the last user turn of 'messages', which is the question of a "
            f"conversation: {question!r}"
        )
    return {"question": question, "answers": [answer, *(other for other in example["answers"] if other != answer)]}


def _value(where: str, row: Row, field: str, columns: Mapping[str, str], required: bool) -> Any:
    """One field of one row, brought to its type."""
    value = _cell(where, row, field, columns, required)
    if field not in LIST_FIELDS:
        return "" if value is None else _text(where, field, value)
    if value is None or value == "":
        return []
    values = value if isinstance(value, list | tuple) else [value]
    return [_text(where, field, item) for item in values]


def _cell(where: str, row: Row, field: str, columns: Mapping[str, str], required: bool = False) -> Any:
    """What a row holds for a field, as it is; nothing in a column that is not there is ``None``."""
    column = columns.get(field)
    if column is None:
        column = _own_column(where, row, field)
    if column not in row and (field in columns or required):
        raise DataError(f"{where}, field {field!r}: there is no column {column!r}{suggestion(column, map(str, row))}")
    return row.get(column)


def _own_column(where: str, row: Row, field: str) -> str:
    """The column of a field that no mapping names: its own name, or for a list that name in the singular."""
    singular = SINGULAR.get(field)
    if singular not in row:
        return field
    if field in row:
        raise DataError(f"{where}, field {field!r}: there is a column {singular!r} too; which of them is meant?")
    return singular


def _text(where: str, field: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        raise DataError(f"{where}, field {field!r}: is NaN, as pandas writes an empty cell")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{where}, field {field!r}: expected text, got {type(value).__name__}: {value!r}")


def _check_encoding(where: str, *texts: Any) -> None:
    """Bytes that are not UTF-8 were read as lone surrogates, so that the line they stand in can be named."""
    if any(isinstance(text, str) and re.search("[\udc80-\udcff]", text) for text in texts):
        raise DataError(f"{where}: is not UTF-8 text")


def _check_unicode(where: str, field: str, value: Any) -> None:
    """JSON can escape half of a character, as in ``"\\ud83d"``, which no file can hold."""
    try:
        _AS_WRITTEN(value).encode()
    except UnicodeEncodeError as error:
        before = error.object[max(0, error.start - 20) : error.start]
        raise DataError(f"{where}, field {field!r}: half of a character follows {before!r}") from None


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    return path

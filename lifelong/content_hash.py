"""The hash of a table's content, however the table came to be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow
import pyarrow.compute
from datasets import Dataset

ROWS_AT_A_TIME = 1_000


def content_hash(rows: Dataset, fields: Sequence[str]) -> str:
    """SHA-256 of the given columns, in hexadecimal digits: the same for the same values in the same order.

    It does not matter whether the rows are in memory, in a file or a selection of others, nor how Arrow has cut them
    into chunks. It does matter in which row and field, and at which place of a list, each text begins and ends.

    Args:
        rows: any dataset; its values are texts or numbers (hashed as they are written), and lists and mappings of them.
        fields: the columns to read, in this order.
    """
    digests: dict[tuple[str, ...], Any] = {}  # per column, and per level of nested ones: of all sizes, and of all texts
    for table in rows.select_columns(list(fields)).with_format("arrow").iter(ROWS_AT_A_TIME):
        whole = table.combine_chunks()  # rows that were selected come in a chunk each
        for field in fields:
            for array in whole[field].chunks:
                _feed(digests, (field,), array)
    parts = sorted((path, digest.hexdigest()) for path, digest in digests.items())
    return hashlib.sha256(json.dumps([list(fields), len(rows), parts]).encode()).hexdigest()


def _feed(digests: dict[tuple[str, ...], Any], path: tuple[str, ...], array: pyarrow.Array) -> None:
    """Add an array's sizes and texts, each to its own digest, so that it does not matter where an array ends."""

    def update(part: str, content: Any) -> None:
        digests.setdefault((*path, part), hashlib.sha256()).update(content)

    compute = pyarrow.compute
    if pyarrow.types.is_struct(array.type):
        update("is there", array.is_valid().cast(pyarrow.int8()).to_numpy())
        for field, inner in zip(array.type, array.flatten(), strict=True):
            _feed(digests, (*path, field.name), inner)
        return
    nested = pyarrow.types.is_list(array.type) or pyarrow.types.is_large_list(array.type)
    texts = array if nested else array.cast(pyarrow.large_string())
    sizes = compute.list_value_length(array) if nested else compute.binary_length(texts)
    update("sizes", compute.fill_null(sizes.cast(pyarrow.int64()), -1).to_numpy())
    if nested:
        _feed(digests, (*path, "item"), array.flatten())
    else:
        one_list = pyarrow.ListArray.from_arrays([0, len(texts) - texts.null_count], texts.drop_null())
        update("texts", compute.binary_join(one_list, pyarrow.scalar("", pyarrow.large_string()))[0].as_buffer())

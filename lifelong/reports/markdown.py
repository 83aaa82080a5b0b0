"""Text, tables and code in Markdown, shown as they are whatever they contain."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from lifelong.metrics.accuracy_matrix import AccuracyMatrix


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, on one line, in a cell of a table too."""
    return re.sub(r"([\\`*_\[\]<>|~#&$])", r"\\\1", " ".join(str(text).split()))


def fenced(text: str, language: str) -> str:
    """A block of code, whose fence is longer than any in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def listed(texts: Iterable[object]) -> str:
    """A list with a point for each text."""
    return "\n".join(f"- {escaped(text)}" for text in texts)


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table of as many columns as there are heads."""
    cells = [f"| {' | '.join(map(escaped, line))} |" for line in (heads, *rows)]
    return "\n".join([cells[0], "|---" * len(heads) + "|", *cells[1:]])


def matrix_table(matrix: AccuracyMatrix, last: int | None = None) -> str:
    """Scores by stage and task, up to a stage; ``-`` where nothing was measured, ``~`` for a sample."""
    last = matrix.stages if last is None else last
    heads = ["", *matrix.tasks, *(f"held out: {task}" for task in matrix.held_out)]
    rows = []
    for number, (label, scores) in enumerate(zip(matrix.stage_labels(), matrix.scores.tolist(), strict=True)):
        marks = ["~" if sampled else "" for sampled in matrix.sampled[number].tolist()]
        cells = ["-" if math.isnan(one) else f"{mark}{one:.3f}" for one, mark in zip(scores, marks, strict=True)]
        rows.append([label, *cells])
    note = "\n\n~: of a sample of the questions." if bool(matrix.sampled[: last + 1].any()) else ""
    return table(heads, rows[: last + 1]) + note

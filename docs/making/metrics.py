"""The page of definitions: every figure that a run or a study reports, as the package itself defines it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable

from lifelong.metrics import answers, five_l
from lifelong.metrics.definitions import ACCURACY, GENERAL, Definition, definitions
from lifelong.metrics.retrieval import retrieval_quality
from making.docstrings import as_markdown, with_links

HEAD = """# Definitions

Every figure comes with its definition, in `metrics.json`, in `lifelong show` and here, from one source. In the
formulas R is the [matrix](concepts.md#matrix): `R[i,j]` is the score on task j after stage i, stages and tasks count
from 1, T is the number of tasks, and `b` is the row of the untrained model. H has the same rows, and a column for
each held-out task.

A figure over fewer cells than its definition asks has another name ("over measured tasks, n of T"), and one that is
undefined is `null` with the reason: backward transfer of a single task, say, or anything of the diagonal for a joint
run.
"""


def made() -> dict[str, str]:
    """The page."""
    perplexity = [one for part in definitions("perplexity", higher_is_better=False) for one in part.values()]
    parts = [
        HEAD,
        "## Of scores\n\nThe higher the score, the better.\n\n" + _table(ACCURACY.values()),
        "## Of held-out tasks\n\nThese are asked at every stage and never learned.\n\n" + _table(GENERAL.values()),
        "## Of perplexity\n\nThe lower the score, the better; so it is with any such score, under its own name.\n\n"
        + _table(perplexity),
        "## Of single answers\n\nWhat a cell of the matrix is the mean of, by the `metric` of its task.\n\n"
        + _scores(),
        "## Of 5L-bench\n\n" + as_markdown(inspect.getdoc(five_l)) + "\n",
        "## Of retrieval\n\n" + _prose(retrieval_quality) + "\n",
    ]
    return {"metrics.md": "\n".join(parts)}


def _table(found: Iterable[Definition]) -> str:
    rows = "| figure | definition | formula | source |\n|---|---|---|---|\n"
    for one in found:
        words, formula = one.definition.removesuffix(".").rsplit(": ", 1)
        rows += f"| `{one.name}` | {words}. | `{formula}` | {source(one)} |\n"
    return rows


def source(one: Definition) -> str:
    """Where a figure is from, linked."""
    return "ours" if one.source == "lifelong" else with_links(one.source)


def _scores() -> str:
    rows = "| metric | what it is |\n|---|---|\n"
    for name, score in answers.ANSWER_METRICS.items():
        rows += f"| `{name}` | {_prose(score).replace(chr(10), ' ')} |\n"
    return rows


def _prose(documented: Callable[..., object]) -> str:
    """A docstring up to its arguments."""
    text = as_markdown(inspect.getdoc(documented))
    return re.split(r"\n\n(?=Args:|Arguments|Raises:|Examples:)", text)[0]

"""A report as text for other programs: Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from lifelong.reports.markdown import escaped, fenced, listed, matrix_table, table
from lifelong.reports.numbers import interval, shown
from lifelong.reports.subject import Subject, repeated
from lifelong.summary import COMPARED

_MOST_MATRICES = 12


def summary(subject: Subject) -> pd.DataFrame:
    """The table that says most in least room, as texts: methods where there are several, or else runs."""
    comparison = subject.comparison
    if comparison is not None:
        means = {name: comparison.summary(name) for name in COMPARED if comparison.has(name)}
        runs = comparison.scores(next(iter(means))).notna().sum() if means else {}
        rows = [
            {"method": method, "runs": str(runs[method])}
            | {name: interval(found[method], name) for name, found in means.items()}
            for method in comparison.methods
        ]
        return pd.DataFrame(rows)
    names = [*subject.labels, "state", *(name for name in COMPARED if name in subject.table)]
    rows = [{name: shown(row[name], name) for name in names} for row in subject.table.to_dict("records")]
    return pd.DataFrame(rows, columns=names)


def to_csv(subject: Subject) -> str:
    """One line per run, every column of the table, numbers in full."""
    return subject.table.to_csv(index=False)


def to_json(subject: Subject) -> str:
    """Everything that was measured, and what was run; undefined numbers are null."""
    comparison = subject.comparison
    content: dict[str, Any] = {
        "title": subject.title,
        "kind": subject.kind,
        "warnings": subject.warnings,
        "definitions": {name: {"definition": text, "source": by} for name, (text, by) in subject.definitions.items()},
        "table": subject.table.to_dict("records"),
        "runs": {
            name: {
                "status": run.status,
                "config": run.config,
                "environment": run.environment,
                "cells": run.rows.to_dict("records"),
                "figures": run.figures() if name in subject.measured else [],
                "costs": run.costs,
            }
            for name, run in subject.runs.items()
        },
    }
    if comparison is not None:
        names = [name for name in (*COMPARED, "seconds") if comparison.has(name)]
        content["methods"] = {
            method: {name: asdict(comparison.summary(name)[method]) for name in names} for method in comparison.methods
        }
        content["compared"] = [asdict(one) for one in comparison.against(comparison.methods[0])]
        content["ranking"] = asdict(comparison.ranking())
    return json.dumps(_defined(content), indent=1, ensure_ascii=False, default=str) + "\n"


def to_latex(subject: Subject) -> str:
    """The summary as a table for a paper, with ``booktabs``."""
    frame = summary(subject).rename(columns=_words)
    caption = "" if subject.comparison is None else f"The {repeated(subject.comparison)}."
    text = frame.to_latex(
        index=False,
        escape=True,
        column_format="l" + "r" * (len(frame.columns) - 1),
        caption=caption.replace(" %", r"\,\%"),
        label="tab:lifelong",
        position="tb",
    )
    return "% needs \\usepackage{booktabs}\n" + text


def to_markdown(subject: Subject) -> str:
    """A page for a repository: summary, comparison, warnings, matrices, definitions, and what was run."""
    found, comparison = summary(subject), subject.comparison
    parts = [f"# {escaped(subject.title)}", table([_words(name) for name in found], found.to_numpy().tolist())]
    if comparison is not None:
        parts.insert(1, f"The {repeated(comparison)}.")
    if comparison is not None and subject.sentences:
        parts += [
            f"## Compared with {escaped(comparison.methods[0])}",
            "Of average accuracy:",
            listed(subject.sentences),
        ]
    if subject.warnings:
        parts += ["## Warnings", listed(subject.warnings)]
    if len(subject.measured) <= _MOST_MATRICES:
        for name, run in subject.measured.items():
            parts += [f"## Accuracy matrix of {escaped(name)}", matrix_table(run.matrix)]
    parts += ["## Definitions", listed(f"{name}: {text} ({by})" for name, (text, by) in subject.definitions.items())]
    return "\n\n".join([*parts, "## What was run", escaped(versions(subject)), fenced(subject.settings, "yaml")]) + "\n"


def versions(subject: Subject) -> str:
    """Of what the first run was made with."""
    about = next(iter(subject.runs.values())).environment
    packages = (f"{name} {number}" for name, number in about["packages"].items())
    return ", ".join([f"lifelong {about['lifelong']}", f"Python {about['python']}", *packages])


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _defined(content: Any) -> Any:
    """The same without NaN, which JSON does not know."""
    if isinstance(content, Mapping):
        return {str(key): _defined(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_defined(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content

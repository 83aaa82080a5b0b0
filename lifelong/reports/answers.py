"""All answers of some runs, packed for a page that lets them be looked through."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lifelong.run import Run

MOST_ANSWERS, MOST_BYTES = 250_000, 8_000_000
_Key = tuple[int, int, int, int]  # run, task, split, pass


@dataclass(frozen=True)
class Packed:
    """Answers in little room.

    Args:
        data: JSON, deflated without a header, in base 64.
        answers: how many there are in the runs.
        kept: how many are in ``data``.
        questions: of each task, split and pass so many questions were kept, the first ones; ``None`` for all.
    """

    data: str
    answers: int
    kept: int
    questions: int | None


def pack(runs: Mapping[str, Run], most_answers: int = MOST_ANSWERS, most_bytes: int = MOST_BYTES) -> Packed:
    """Pack the answers of runs; where they are too many, the first questions of each task with all their answers.

    The JSON has ``strings``; the names ``runs``, ``tasks``, ``splits`` and ``passes``; ``stages``, the labels of each
    run's; ``unscored``, the tasks measured in perplexity; and ``questions``, each ``[run, task, split, pass, question,
    [expected answers], [[stage, answer, score, cut], ...]]``, where texts are places in ``strings``.

    Args:
        runs: by name, each with a finished stage.
        most_answers: kept.
        most_bytes: of ``data``.
    """
    names: dict[str, list[str]] = {"runs": list(runs), "tasks": [], "splits": [], "passes": []}
    found: dict[_Key, dict[tuple[str, str], list[Any]]] = {}
    for number, run in enumerate(runs.values()):
        for place, rows in run.answers():
            others = (_place(names[f"{kind}{ending}"], place[kind]) for kind, ending in _NAMES)
            key = (number, *others)
            questions = found.setdefault(key, {})
            for row in rows:
                # a row's probes have its id
                entry = questions.setdefault((row["id"], row["question"]), [row["question"], row["answers"], []])
                entry[2].append((place["stage"], row["prediction"], row["score"], bool(row.get("cut"))))
    metrics = {task["name"]: task["metric"] for run in runs.values() for task in run.environment["tasks"]}
    about = names | {
        "stages": [run.matrix.stage_labels() for run in runs.values()],
        "unscored": [task for task in names["tasks"] if metrics[task] == "perplexity"],
    }
    answers = sum(len(entry[2]) for questions in found.values() for entry in questions.values())
    limit = most = max(map(len, found.values()), default=0)
    while True:
        kept = sum(len(entry[2]) for questions in found.values() for entry in _first(questions, limit))
        if kept <= most_answers or limit <= 1:
            data = _deflated(about | _tabled(found, limit))
            if len(data) <= most_bytes or limit <= 1:
                return Packed(data, answers, kept, None if limit == most else limit)
        limit = max(limit // 2, 1)


_NAMES = (("task", "s"), ("split", "s"), ("pass", "es"))


def _place(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


def _first(questions: Mapping[Any, list[Any]], limit: int) -> Iterator[list[Any]]:
    for _, entry in zip(range(limit), questions.values(), strict=False):
        yield entry


def _tabled(found: Mapping[_Key, Mapping[Any, list[Any]]], limit: int) -> dict[str, Any]:
    """The questions, and the texts in them once each."""
    strings: dict[str, int] = {}

    def number(text: str) -> int:
        return strings.setdefault(text, len(strings))

    questions = [
        [
            *key,
            number(question),
            [number(text) for text in expected],
            [[stage, number(said), _finite(score), int(cut)] for stage, said, score, cut in sorted(given)],
        ]
        for key, entries in found.items()
        for question, expected, given in _first(entries, limit)
    ]
    return {"strings": list(strings), "questions": questions}


def _finite(score: float) -> float | None:
    """A score as JSON knows it; the perplexity of a text may be infinite."""
    return round(score, 4) if math.isfinite(score) else None


def _deflated(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return base64.b64encode(squeezed.compress(text) + squeezed.flush()).decode("ascii")

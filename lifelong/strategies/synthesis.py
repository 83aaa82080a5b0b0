"""Rows that a model writes itself: their wording, which of them are the same, and why some cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lifelong.metrics.answers import normalize_answer
from lifelong.strategies.episodes import Row

ADVICE = {  # by what became of a text that is not kept
    "unreadable": "the model does not write 'Question: ... Answer: ...': a lower temperature, more that is shown, or "
    "writer='base' may help a model that can write at all",
    "copied": "they ask what a demonstration asks: a higher temperature or top_p, or more rows, may bring others",
    "repeated": "they ask what is asked already: a higher temperature or top_p may bring others",
    "unanswered": "asked again, the latest model does not end its answer: refine=False keeps the one first written",
    "other choice": "the answer is none of the choices that the demonstrations share: more rows may bring some",
    "too long": "they, or even one demonstration, do not fit the model's context: see max_length",
}


def why_none(tasks: Sequence[str], counts: Mapping[str, int]) -> str:
    """In words: why nothing of some tasks is replayed, and what to change.

    Args:
        tasks: their names; one may be there more than once.
        counts: what became of the texts written of them, as in ``SelfSynthesizedReplay.counts``.
    """
    names = ", ".join(map(repr, dict.fromkeys(tasks)))
    reasons = sorted((name for name in ADVICE if counts[name]), key=lambda name: -counts[name])
    why = "; ".join(f"{counts[name]} {name} ({ADVICE[name]})" for name in reasons)
    return f"nothing of {names} is replayed, since none of {counts['written']} texts could be kept: {why}"


def can_be_shown(row: Row) -> bool:
    """Whether a row is a question with an answer: neither raw text nor a conversation."""
    return bool(row["question"]) and not row.get("messages")


def written_form(row: Row) -> str:
    """A row as the model reads it, and is to write it."""
    return f"Question: {row['question']}\nAnswer: {row['answers'][0]}"


def read_written(text: str) -> tuple[str, str]:
    """Question and answer of a text that goes on behind ``Question:``; empty where one of them is not there.

    The answer ends at the first empty line, or where another question begins.
    """
    question, _, rest = text.partition("\nAnswer:")
    answer = rest.partition("\n\n")[0].partition("\nQuestion:")[0]
    return ("", "") if "\nQuestion:" in question else (question.strip(), answer.strip())


def question_key(row: Row) -> tuple[str, str]:
    """What two rows with the same question have in common: the task, and the normalised question."""
    return row["task"], normalize_answer(row["question"]) or row["question"]


def shared_choices(rows: Sequence[Row]) -> list[str]:
    """The choices that all rows have, in the first one's order; none where they differ."""
    first = list(rows[0]["choices"])
    return first if all(set(row["choices"]) == set(first) for row in rows) else []

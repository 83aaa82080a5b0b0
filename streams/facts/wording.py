"""How the facts of a table become example rows: one set of sentence templates per task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wording:
    """Templates for the texts of one task.

    Each may use ``{subject}``, ``{answer}`` (the first of the fact's answers) and any further field of the fact. What
    they give starts with a capital letter.

    Args:
        question: the question that is taught and asked.
        probes: other wordings of the same question.
        passages: sentences that hold the answer; the facts take them in turn, one each.
    """

    question: str
    probes: tuple[str, ...]
    passages: tuple[str, ...]

    def rows(self, task: str, facts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One example row per fact.

        Args:
            task: name of the task, the first part of each row's id.
            facts: mappings with ``subject``, ``answers`` and whatever else the templates name.

        Raises:
            KeyError: a template names a field that a fact does not have.
        """
        return [self._row(task, number, fact) for number, fact in enumerate(facts)]

    def _row(self, task: str, number: int, fact: Mapping[str, Any]) -> dict[str, Any]:
        fields = {**fact, "answer": fact["answers"][0]}
        passage = self.passages[number % len(self.passages)]
        return {
            "id": f"{task}/{_slug(str(fact['subject']))}",
            "question": _sentence(self.question, fields),
            "answers": list(fact["answers"]),
            "choices": [],
            "passages": [_sentence(passage, fields)],
            "probes": [_sentence(probe, fields) for probe in self.probes],
        }


def _sentence(template: str, fields: Mapping[str, Any]) -> str:
    text = template.format(**fields)
    return text[:1].upper() + text[1:]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")

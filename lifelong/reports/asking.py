"""Questions in, answers out: from a terminal, or from a pipe."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from lifelong.learned import answered, longest_answer

if TYPE_CHECKING:
    from lifelong.learner import Learner
    from lifelong.run import Run

PROMPT = "? "


def typed_lines() -> Iterator[str]:
    """The lines of the standard input that are not blank; where a person types them, up to the first that is."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    with suppress(ImportError):
        importlib.import_module("readline")  # from then on input() has a history
    while line := _typed():
        yield line


def answer_lines(
    run: Run, learner: Learner, questions: Iterable[str], book: str = "closed", task: str | None = None
) -> None:
    """Print the answer to each question as it comes; passages that were found go to standard error, dimmed.

    Args:
        run: what is asked.
        learner: of the run, after some stage.
        questions: any number.
        book: ``"closed"`` or ``"retrieved"``.
        task: see ``lifelong.learned.answered``.

    Raises:
        ConfigError: the stream has no passages to show, or a question is empty.
    """
    beside, limit = Console(stderr=True, highlight=False), longest_answer(run)
    for question in questions:
        (one,) = answered(learner, question, book, limit, task)
        for passage in one.passages:
            beside.print(Text(passage, "dim"))
        print(one.answer, flush=True)


def _typed() -> str:
    """A line that somebody types; nothing at Ctrl+D and Ctrl+C."""
    try:
        return input(PROMPT).strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""

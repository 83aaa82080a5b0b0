"""A language model on this machine as a judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifelong.chat import ChatModel
from lifelong.judges.base import Case, Judge, Verdict
from lifelong.judges.wording import messages, read


class ModelJudge(ChatModel, Judge):
    """Asked for verdicts as JSON; see `lifelong.chat.ChatModel` for its settings.

    Attributes:
        unreadable: verdicts so far that could not be read.
    """

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.unreadable = 0

    def _judge(self, cases: Sequence[Case]) -> list[Verdict]:
        verdicts = [read(text) for text in self.reply([messages(case) for case in cases])]
        self.unreadable += sum(verdict.score is None for verdict in verdicts)
        return verdicts

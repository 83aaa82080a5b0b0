"""What differs between kinds of model, in one place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from datasets import Dataset
from pyarrow.compute import list_value_length
from transformers import PreTrainedTokenizerBase

from lifelong.data import Batch
from lifelong.encoding import PromptEncoder
from lifelong.prompts import PromptTemplate

if TYPE_CHECKING:
    from lifelong.generation import Sampling
    from lifelong.learner import Learner
    from lifelong.strategies.base import Stage
    from lifelong.tasks import Task

Advance = Callable[[int], None]


class Family(ABC):
    """One kind of model: causal, encoder-decoder, or classifier.

    Args:
        tokenizer: the model's own.
        template: the wording of prompts; the family's own by default.
        max_length: longest row in tokens.
    """

    name: ClassVar[str]
    encoder_class: ClassVar[type[PromptEncoder]] = PromptEncoder
    template: ClassVar[PromptTemplate] = PromptTemplate()

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate | None, max_length: int) -> None:
        self.encoder = self.encoder_class(tokenizer, template or self.template, max_length)

    def check(self, tasks: Iterable[Task]) -> None:
        """Whether such a model can learn and be asked all of this, before anything is trained.

        It looks at one row of every split: the first conversation, or else the first.

        Raises:
            ConfigError, DataError, ModelError: naming the task, and what to do.
        """
        for task in tasks:
            for rows in (task.train, task.test):
                for row in rows.select([_first_conversation(rows)] if len(rows) else []):
                    self.encoder.check({**row, "task": task.name})

    def describe(self) -> str:
        """The family in words, for reports."""
        return self.name

    def follow(self, stage: Stage) -> None:
        """The passages of a stage's tasks have come."""
        if self.encoder.library is not None:
            self.encoder.library.follow(sorted(set(stage.train["task"])))

    def begin_stage(self, stage: Stage) -> None:
        """A stage is about to be learned."""
        self.follow(stage)

    def candidates(self, row: Mapping[str, Any]) -> Sequence[str]:
        """The answers that compete when this row is asked; none: the answer is free."""
        return row["choices"]

    def open_choices(self, task: str | None = None) -> Sequence[str]:
        """The answers that compete for a question from outside of the stream; none: the answer is free.

        Args:
            task: that it is said to be of, if any.
        """
        return ()

    @abstractmethod
    def answer_logits(self, learner: Learner, batch: Batch) -> tuple[Any, torch.Tensor]:
        """Run the model, with logits only where some row of the batch answers.

        Returns:
            The model's outputs, with ``logits`` of shape (B, K, vocabulary), and the targets of shape (B, K): what each
            position should predict, ``IGNORED`` where nothing is asked for.
        """

    @abstractmethod
    def generate(
        self,
        learner: Learner,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        batch_size: int,
        advance: Advance,
        sampling: Sampling | None = None,
    ) -> list[list[int]]:
        """The tokens of answers, anything behind their ends; as ``lifelong.generation.generate_tokens``."""

    @abstractmethod
    def choice_log_likelihoods(
        self,
        learner: Learner,
        prompts: Sequence[Sequence[int]],
        choices: Sequence[Sequence[Sequence[int]]],
        batch_size: int,
        advance: Advance,
    ) -> list[list[float]]:
        """How likely each choice is; as ``lifelong.generation.choice_log_likelihoods``."""


def _first_conversation(rows: Dataset) -> int:
    """The number of the first row that is a conversation; 0 where none is."""
    seen = 0
    if "messages" in rows.column_names:
        # as Arrow's own lists: many rows of no conversation are looked through in no time
        for part in rows.select_columns("messages").with_format("arrow").iter(10_000):
            sizes = list_value_length(part["messages"]).to_pylist()
            if any(sizes):
                return seen + next(number for number, size in enumerate(sizes) if size)
            seen += len(sizes)
    return 0

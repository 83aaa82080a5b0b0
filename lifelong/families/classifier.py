"""Classifiers: an encoder (BERT), or any model without its language head, under one head over all labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import PreTrainedTokenizerBase

from lifelong.classification import Classification
from lifelong.data import Batch
from lifelong.encoding import PromptEncoder, place_of
from lifelong.errors import ConfigError, DataError, suggestion
from lifelong.families.base import Advance, Family
from lifelong.generation import Sampling, prompt_batches
from lifelong.mixtures import padding_known
from lifelong.prompts import PromptTemplate

if TYPE_CHECKING:
    from lifelong.learner import Learner
    from lifelong.strategies.base import Stage


class LabelEncoder(PromptEncoder):
    """The text with the tokenizer's own special tokens, and the number of the label."""

    keeps = "start"
    labels: Sequence[str] = ()

    def reserve(self, tokens: int) -> int:
        return 0

    def joined(self, prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
        return prompt, answer

    def learns_turns(self, row: Any) -> bool:
        return False

    def without_end(self, ids: list[int]) -> list[int]:
        return ids

    def continuations(self, asked: Sequence[tuple[Mapping[str, Any], str, str]]) -> list[list[int]]:
        return [[self._number(row, answer)] for row, _, answer in asked]

    def _number(self, row: Mapping[str, Any], label: str) -> int:
        if label not in self.labels:
            raise DataError(
                f"{place_of(row)}: the label {label!r} is none of the {len(self.labels)} that the classifier was made "
                f"for{suggestion(label, self.labels)}"
            )
        return self.labels.index(label)


class Classifier(Family):
    """Predicts one label for a row.

    Args:
        tokenizer, template, max_length: see ``Family``.
        settings: which labels compete.
        labels: of each task.
    """

    name: ClassVar[str] = "classifier"
    encoder_class = LabelEncoder
    template = PromptTemplate(passage="{passage}\n", question="{question}", cue="")

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: PromptTemplate | None,
        max_length: int,
        settings: Classification,
        labels: Mapping[str, Sequence[str]],
    ) -> None:
        super().__init__(tokenizer, template, max_length)
        self.settings = settings
        self.task_labels: dict[str, tuple[str, ...]] = {}
        self.labels: list[str] = []  # the union, in the order in which the tasks bring them: that of the logits
        self.met: frozenset[str] = frozenset()
        self.add_labels(labels)

    def add_labels(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Further tasks with their labels; those that are new come behind the ones that are there."""
        self.task_labels |= {task: tuple(some) for task, some in labels.items()}
        self.labels = list(dict.fromkeys([*self.labels, *(label for some in labels.values() for label in some)]))
        self.encoder.labels = self.labels

    def describe(self) -> str:
        return f"{self.name} over {len(self.labels)} labels; {self.settings.describe()}"

    def begin_stage(self, stage: Stage) -> None:
        """Labels of earlier tasks, and of all tasks that have rows in this stage, have been met."""
        super().begin_stage(stage)
        tasks = [*(task.name for task in stage.earlier), *stage.train.unique("task")]
        self.met = frozenset(label for task in tasks for label in self.task_labels[task])

    def candidates(self, row: Mapping[str, Any]) -> Sequence[str]:
        competing = self.settings.test_labels
        if competing == "own":
            return row["choices"]
        return [label for label in self.labels if competing == "all" or label in self.met]

    def open_choices(self, task: str | None = None) -> Sequence[str]:
        """The labels that have been met; all of them where all compete in evaluation, the task's where those do.

        Raises:
            ConfigError: there is none yet.
        """
        if self.settings.test_labels == "own" and task is not None:
            return self.task_labels[task]
        labels = [label for label in self.labels if self.settings.test_labels == "all" or label in self.met]
        if not labels:
            raise ConfigError("the classifier has met no label yet, and has none to answer with: ask after a stage")
        return labels

    def answer_logits(self, learner: Learner, batch: Batch) -> tuple[Any, torch.Tensor]:
        outputs = learner.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        logits = learner.head(outputs.last_hidden_state, batch["attention_mask"])
        # the least float and not infinity, with which distances and products between logits stay numbers
        masked = logits.masked_fill(~self._competing(batch, logits.device), torch.finfo(logits.dtype).min)
        outputs.logits = masked.unsqueeze(1)
        return outputs, batch["labels"]

    def _competing(self, batch: Batch, device: torch.device) -> torch.Tensor:
        """Of shape (B, labels): whether a label competes for a row in training."""
        if self.settings.train_labels == "all":
            allowed = [self.labels] * len(batch["task"])
        elif self.settings.train_labels == "met":
            allowed = [self.met] * len(batch["task"])
        else:
            allowed = [self.task_labels.get(task, ()) for task in batch["task"]]
        mask = torch.tensor([[label in some for label in self.labels] for some in allowed], device=device)
        # a row that a strategy brings from elsewhere may have a label that no task has taught yet
        return mask.scatter(1, batch["labels"], True)

    def generate(
        self,
        learner: Learner,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        batch_size: int,
        advance: Advance,
        sampling: Sampling | None = None,
    ) -> list[list[int]]:
        raise DataError("a classifier cannot write a free answer; give the question's choices")

    def choice_log_likelihoods(
        self,
        learner: Learner,
        prompts: Sequence[Sequence[int]],
        choices: Sequence[Sequence[Sequence[int]]],
        batch_size: int,
        advance: Advance,
    ) -> list[list[float]]:
        results: list[list[float]] = [[] for _ in prompts]
        for numbers, ids, mask in prompt_batches(learner, prompts, batch_size, advance):
            with padding_known(learner.model, mask):
                states = learner.model(input_ids=ids, attention_mask=mask).last_hidden_state
            chances = learner.head(states, mask).log_softmax(-1).tolist()
            for number, row in zip(numbers, chances, strict=True):
                results[number] = [row[label] for (label,) in choices[number]]
        return results

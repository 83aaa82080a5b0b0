"""Text becomes batches: tokens of prompt and answer, fitting the context, in an order that the seed decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from lifelong.errors import DataError
from lifelong.prompts import PromptTemplate
from lifelong.randomness import derived_generator

IGNORED = -100  # the label that losses skip, as everywhere in torch and transformers
Batch = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row as tokens: the prompt, then from ``answer_start`` on the answer and the end-of-sequence token."""

    input_ids: list[int]
    answer_start: int
    task: str
    kind: str


@dataclass
class PromptEncoder:
    """Turns rows into tokens that fit into ``max_length``.

    What does not fit is shortened: the last passages go first, then the beginning of the question. ``counts`` says
    how often that happened: ``passages dropped``, ``passages cut``, ``questions cut``, and ``without gold passage`` for
    rows that were to be shown their passages and have none.
    """

    tokenizer: PreTrainedTokenizerBase
    template: PromptTemplate
    max_length: int
    counts: Counter[str] = field(default_factory=Counter)

    def encode(self, row: Mapping[str, Any], book: str = "closed") -> EncodedRow:
        """A training row, with its first answer.

        Args:
            row: an example with its ``task`` and ``kind``.
            book: ``"closed"`` shows no passages, ``"gold"`` the row's own.

        Raises:
            DataError: the answer alone leaves no room for the question.
        """
        answer = [*self.continuation(row, row["question"], row["answers"][0]), self.tokenizer.eos_token_id]
        prompt = self.encode_prompt(row, book, reserve=len(answer))
        return EncodedRow(prompt + answer, len(prompt), row["task"], row["kind"])

    def encode_prompt(
        self, row: Mapping[str, Any], book: str = "closed", question: str | None = None, reserve: int = 0
    ) -> list[int]:
        """The prompt's tokens, leaving room for ``reserve`` more.

        Args:
            row: an example.
            book: as in ``encode``.
            question: another wording to ask instead of the row's own question.
            reserve: tokens of the answer that is to follow.
        """
        question = row["question"] if question is None else question
        passages = list(row["passages"]) if book == "gold" else []
        if book == "gold" and not passages and question:
            self.counts["without gold passage"] += 1
        room = self.max_length - reserve
        tokens = self._tokens(self._render(row, passages, question))
        return tokens if len(tokens) <= room else self._shortened(row, passages, question, room)

    def continuation(self, row: Mapping[str, Any], question: str, answer: str) -> list[int]:
        """The answer's tokens as they follow the prompt: what the whole has beyond it, where that is well defined."""
        prompt, text = self._render(row, [], question), self.template.answer(answer, question)
        if prompt:
            whole, start = self._tokens(prompt + text), self._tokens(prompt)
            if whole[: len(start)] == start:
                return whole[len(start) :]
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _shortened(self, row: Mapping[str, Any], passages: list[str], question: str, room: int) -> list[int]:
        def fits(words: str, kept: list[str] | None = None) -> list[int] | None:
            text = self._render(row, [*kept, words], question) if kept is not None else self._render(row, [], words)
            tokens = self._tokens(text)
            return tokens if len(tokens) <= room else None

        while passages:
            last = passages[-1].split(" ")
            *kept, _ = passages
            size = _largest(len(last), lambda n, last=last, kept=kept: fits(" ".join(last[:n]), kept) is not None)
            if size:
                if size < len(last):
                    self.counts["passages cut"] += 1
                return fits(" ".join(last[:size]), kept)
            self.counts["passages dropped"] += 1
            passages = kept
        words = question.split(" ")
        size = _largest(len(words), lambda n: fits(" ".join(words[len(words) - n :])) is not None)
        if not size:
            raise DataError(
                f"task {row.get('task', '?')!r}, row {row.get('id', '?')!r}: the answer leaves {room} of "
                f"{self.max_length} tokens for the question, which is too few; shorten the answer, or for raw text "
                "use smaller pieces"
            )
        if size < len(words):
            self.counts["questions cut"] += 1
        return fits(" ".join(words[len(words) - size :]))

    def _render(self, row: Mapping[str, Any], passages: Sequence[str], question: str) -> str:
        return self.template.render(question, passages, row["choices"], self.tokenizer)

    def _tokens(self, text: str) -> list[int]:
        if not text:  # raw text has no prompt, and the model needs something to start from
            start = self.tokenizer.bos_token_id
            return [self.tokenizer.eos_token_id if start is None else start]
        # a chat template writes its own special tokens
        ids = self.tokenizer(text, add_special_tokens=not self.template.chat, verbose=False)["input_ids"]
        # some tokenizers close every text with end-of-sequence, which must not stand before the answer
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids


def _largest(size: int, holds: Callable[[int], bool]) -> int:
    """The largest n in 0..size for which ``holds(n)``, a property that is lost as n grows; 0 where none does."""
    low, high = 0, size
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What fills short rows; never seen by the model, since the attention mask hides it."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def collate(rows: Sequence[EncodedRow], pad_id: int, source: str = "stream", weight: float = 1.0) -> Batch:
    """A batch of B rows, padded on the right to its longest.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels`` of shape (B, L), labels being ``IGNORED`` outside of the
        answer; ``task``, ``kind`` and ``source`` as lists of B strings; ``weight`` of shape (B,).
    """
    length = max(len(row.input_ids) for row in rows)
    ids, mask, labels = [], [], []
    for row in rows:
        gap = length - len(row.input_ids)
        ids.append(row.input_ids + [pad_id] * gap)
        mask.append([1] * len(row.input_ids) + [0] * gap)
        labels.append([IGNORED] * row.answer_start + row.input_ids[row.answer_start :] + [IGNORED] * gap)
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
        "task": [row.task for row in rows],
        "kind": [row.kind for row in rows],
        "source": [source] * len(rows),
        "weight": torch.full((len(rows),), weight),
    }


def concatenate(first: Batch, second: Batch, pad_id: int) -> Batch:
    """The rows of two batches in one, on the first one's device."""
    length = max(first["input_ids"].shape[1], second["input_ids"].shape[1])
    fill = {"input_ids": pad_id, "attention_mask": 0, "labels": IGNORED}
    both: Batch = {}
    for key, value in first.items():
        if key in fill:
            parts = (pad(part[key], (0, length - part[key].shape[1]), value=fill[key]) for part in (first, second))
            both[key] = torch.cat([part.to(value.device) for part in parts])
        elif isinstance(value, torch.Tensor):
            both[key] = torch.cat([value, second[key].to(value.device)])
        else:
            both[key] = value + second[key]
    return both


class StepSampler(Sampler[list[list[int]]]):
    """The rows of each optimiser step, as one list of row numbers per micro-batch.

    Rows are shuffled, brought together by length (roughly, so that batches differ from epoch to epoch), and the steps
    shuffled again. The order is a function of (seed, stage, epoch) and nothing else.

    Args:
        lengths: tokens of every row.
        batch_size: rows of a micro-batch.
        accumulate: micro-batches of an optimiser step.
        seed, stage: decide the order, together with the epoch.
    """

    POOL = 64  # steps whose rows are sorted by length together

    def __init__(
        self, lengths: Sequence[int], batch_size: int, accumulate: int = 1, seed: int = 0, stage: int = 0
    ) -> None:
        self.lengths = torch.tensor(lengths, dtype=torch.float64)
        self.batch_size, self.accumulate = batch_size, accumulate
        self.seed, self.stage, self.epoch = seed, stage, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // (self.batch_size * self.accumulate))

    def __iter__(self) -> Iterator[list[list[int]]]:
        draw = derived_generator(self.seed, "data", self.stage, self.epoch)
        order = torch.randperm(len(self.lengths), generator=draw)
        noisy = self.lengths[order] * (0.8 + 0.4 * torch.rand(len(order), generator=draw, dtype=torch.float64))
        rows_per_step = self.batch_size * self.accumulate
        steps: list[torch.Tensor] = []
        for start in range(0, len(order), rows_per_step * self.POOL):
            pool = slice(start, start + rows_per_step * self.POOL)
            steps += order[pool][noisy[pool].argsort()].split(rows_per_step)
        for step in torch.randperm(len(steps), generator=draw).tolist():
            yield [part.tolist() for part in steps[step].split(self.batch_size)]


class StepDataset(Dataset):
    """Micro-batches by lists of row numbers: what a ``StepSampler`` yields."""

    def __init__(self, rows: Sequence[EncodedRow], pad_id: int) -> None:
        self.rows, self.pad_id = rows, pad_id

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, step: list[list[int]]) -> list[Batch]:
        return [collate([self.rows[number] for number in part], self.pad_id) for part in step]


def step_loader(rows: Sequence[EncodedRow], sampler: StepSampler, pad_id: int, workers: int = 0) -> DataLoader:
    """A loader whose items are optimiser steps: lists of micro-batches."""
    return DataLoader(StepDataset(rows, pad_id), sampler=sampler, batch_size=None, num_workers=workers)

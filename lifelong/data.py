"""Encoded rows become batches, in an order that the seed decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from lifelong.encoding import IGNORED, EncodedRow
from lifelong.preparation import take
from lifelong.randomness import derived_generator

Batch = dict[str, Any]


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What fills short rows; never seen by the model, since the attention mask hides it."""
    known = [number for number in (tokenizer.pad_token_id, tokenizer.eos_token_id) if number is not None]
    return known[0] if known else 0


def collate(rows: Sequence[EncodedRow], pad_id: int, source: str = "stream", weight: float = 1.0) -> Batch:
    """A batch of B rows, padded on the right to its longest.

    Returns:
        ``input_ids`` and ``attention_mask`` of shape (B, L); ``labels``, ``IGNORED`` where nothing is learned, of the
        same shape for a causal model, of shape (B, longest answer) for an encoder-decoder and (B, 1) for a classifier;
        ``task``, ``kind``, ``id`` and ``source`` as lists of B strings; ``weight`` of shape (B,).
    """
    return {
        "input_ids": _padded([row.input_ids for row in rows], pad_id),
        "attention_mask": _padded([[1] * len(row.input_ids) for row in rows], 0),
        "labels": _padded([row.labels for row in rows], IGNORED),
        "task": [row.task for row in rows],
        "kind": [row.kind for row in rows],
        "id": [row.id for row in rows],
        "source": [source] * len(rows),
        "weight": torch.full((len(rows),), weight),
    }


def _padded(rows: Sequence[list[int]], fill: int) -> torch.Tensor:
    length = max(map(len, rows))
    return torch.tensor([row + [fill] * (length - len(row)) for row in rows])


def concatenate(first: Batch, second: Batch, pad_id: int) -> Batch:
    """The rows of two batches in one, on the first one's device."""
    fill = {"input_ids": pad_id, "attention_mask": 0, "labels": IGNORED}
    both: Batch = {}
    for key, value in first.items():
        if key in fill:
            length = max(value.shape[1], second[key].shape[1])
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
        self.lengths = torch.as_tensor(lengths).double()
        self.batch_size, self.accumulate = batch_size, accumulate
        self.seed, self.stage, self.epoch = seed, stage, 0
        self._begins = (0, 0)

    def skip(self, steps: int) -> None:
        """Begin behind the first steps of a stage: in a later epoch, and in its middle."""
        self._begins = divmod(steps, len(self))
        self.epoch = self._begins[0]

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
        epoch, done = self._begins
        for step in torch.randperm(len(steps), generator=draw)[done if self.epoch == epoch else 0 :].tolist():
            yield [part.tolist() for part in steps[step].split(self.batch_size)]


class StepDataset(Dataset):
    """Micro-batches by lists of row numbers: what a ``StepSampler`` yields."""

    def __init__(self, rows: Sequence[EncodedRow], pad_id: int) -> None:
        self.rows, self.pad_id = rows, pad_id

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, step: list[list[int]]) -> list[Batch]:
        return [collate(take(self.rows, part), self.pad_id) for part in step]


def step_loader(rows: Sequence[EncodedRow], sampler: StepSampler, pad_id: int, workers: int = 0) -> DataLoader:
    """A loader whose items are optimiser steps: lists of micro-batches."""
    return DataLoader(StepDataset(rows, pad_id), sampler=sampler, batch_size=None, num_workers=workers)

"""What a training step of ``nano`` computes on: rows of tokens, several questions to a row, and their masked batch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import nano_data
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Row:
    """Tokens of one row.

    Args:
        ids: the tokens.
        known: whether each token carries loss.
        segments: 0 for what every later token sees, else the number of the question that alone sees it.
        kind: whose loss it counts to: ``text``, ``copy``, ``recall`` or ``read``.
        reads: for each place that foretells a token of an answer that stands in the passages, where to look: for the
            first token from there to the end of its sentence, for the others at the token itself.
        carries: for each place from an answer in the passages to the end of its sentence, where the answer begins.
    """

    ids: list[int]
    known: list[bool]
    segments: list[int]
    kind: str
    reads: dict[int, list[int]]
    carries: dict[int, list[int]]


def plain_row(ids: list[int], known: list[bool], kind: str) -> Row:
    """A row without questions."""
    return Row(ids, known, [0] * len(ids), kind, {}, {})


def question_rows(
    episodes: Sequence[nano_data.Episode], tokenizer: PreTrainedTokenizerFast, kind: str, longest: int = 400
) -> list[Row]:
    """Episodes as rows; those with the same passages share a row of up to ``longest`` tokens, unseen by each other.

    The loss is on the answers and on what ends them. Tokens are those of each prompt on its own: passages end in a
    line break, which no token reaches over.
    """
    rows = []
    for passages, group in groupby(episodes, key=lambda episode: episode.passages):
        shared = nano_data.shared_prompt(passages)
        texts = [episode.texts() for episode in group]
        parts = [shared, *(prompt[len(shared) :] for prompt, _ in texts), *(answer for _, answer in texts)]
        encodings = tokenizer.backend_tokenizer.encode_batch(parts, add_special_tokens=False)
        ends = _sentence_ends(shared, encodings[0].offsets)
        encoded = [encoding.ids for encoding in encodings]
        prefix, prompts, answers = encoded[0], encoded[1 : len(texts) + 1], encoded[len(texts) + 1 :]
        row = Row([], [], [], kind, {}, {})
        for prompt, answer in zip(prompts, answers, strict=True):
            size = len(prompt) + len(answer) + 1
            if not row.ids or len(row.ids) + size > longest:
                row = Row(list(prefix), [False] * len(prefix), [0] * len(prefix), kind, {}, {})
                rows.append(row)
            number = row.segments[-1] + 1 if row.segments else 1
            found = [i for i in range(len(prefix)) if prefix[i : i + len(answer)] == answer]
            tails = [range(start, ends[start + len(answer) - 1]) for start in found]
            for offset in range(len(answer) if found else 0):
                look = [start + offset for start in found] if offset else [place for tail in tails for place in tail]
                row.reads[len(row.ids) + len(prompt) - 1 + offset] = look
            for tail in tails:
                for place in tail:
                    row.carries.setdefault(place, []).append(tail[0])
            row.ids.extend([*prompt, *answer, tokenizer.eos_token_id])
            row.known.extend([False] * len(prompt) + [True] * (len(answer) + 1))
            row.segments.extend([number] * size)
    return rows


def _sentence_ends(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """For each token, given by its characters, the number of the first token behind its sentence or its line."""
    closing = [match.end() for match in re.finditer(r"[.!?](?=\s)|\n", text)]
    ends = [0] * len(offsets)
    end = len(offsets)
    for number in range(len(offsets) - 1, -1, -1):
        while closing and closing[-1] > offsets[number][0]:
            closing.pop()
            end = number + 1
        ends[number] = end
    return ends


@dataclass(frozen=True)
class Pointers:
    """Where attention should go: (n, 2), row and place that looks; (n, length), the places looked at."""

    places: Tensor
    targets: Tensor

    @classmethod
    def of(cls, rows: Sequence[dict[int, list[int]]], length: int) -> Pointers:
        """From each row's places and where they should look."""
        places = [(i, place) for i, row in enumerate(rows) for place in row]
        targets = torch.zeros((len(places), length), dtype=torch.bool)
        for number, (i, place) in enumerate(places):
            targets[number, rows[i][place]] = True
        return cls(torch.tensor(places, dtype=torch.long).reshape(-1, 2), targets)

    def to(self, device: torch.device) -> Pointers:
        """The same on another device."""
        return Pointers(self.places.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Batch:
    """Rows side by side, padded on the right.

    Args:
        ids: (rows, length).
        targets: (rows, length), the token that comes next where it carries loss, else -100.
        positions: (rows, length); a question's go on from the passages.
        sees: (rows, 1, length, length), whether a position sees another; ``None`` where all see all before them.
        reads: where places that foretell tokens of answers should look.
        carries: where places behind answers in passages should look.
        kinds: of each row.
        tokens: number of tokens that are no padding.
        answers: number of questions.
    """

    ids: Tensor
    targets: Tensor
    positions: Tensor
    sees: Tensor | None
    reads: Pointers
    carries: Pointers
    kinds: tuple[str, ...]
    tokens: int
    answers: int

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        sees = None if self.sees is None else self.sees.to(device)
        moved = [t.to(device) for t in (self.ids, self.targets, self.positions)]
        pointed = (self.reads.to(device), self.carries.to(device))
        return Batch(*moved, sees, *pointed, self.kinds, self.tokens, self.answers)


def stack(rows: Sequence[Row], pad: int) -> Batch:
    """Rows as one batch."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad)
    targets = torch.full((len(rows), length), -100)
    segments = torch.full((len(rows), length), -1)
    positions = torch.zeros((len(rows), length), dtype=torch.long)
    for i, row in enumerate(rows):
        size = len(row.ids)
        ids[i, :size] = torch.tensor(row.ids)
        segments[i, :size] = torch.tensor(row.segments)
        # the first token of a question is never foreseen, so no target reaches from one question into the next
        targets[i, : size - 1] = torch.where(torch.tensor(row.known[1:]), ids[i, 1:size], -100)
        places, shared, start = [], 0, 0
        for segment, group in groupby(row.segments):
            count = len(list(group))
            shared, start = (count, 0) if segment == 0 else (shared, shared)
            places.extend(range(start, start + count))
        positions[i, :size] = torch.tensor(places)
    sees = None
    if bool(segments.any()):
        same = segments[:, :, None] == segments[:, None, :]
        sees = ((same | (segments[:, None, :] == 0)) & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
    pointed = [Pointers.of([getattr(row, name) for row in rows], length) for name in ("reads", "carries")]
    tokens = sum(len(row.ids) for row in rows)
    answers = sum(row.segments[-1] for row in rows)
    return Batch(ids, targets, positions, sees, *pointed, tuple(row.kind for row in rows), tokens, answers)


def answer_logits(model: LlamaForCausalLM, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (positions with loss, vocabulary), their targets and their rows; no logits are computed anywhere else."""
    hidden = model.model(
        input_ids=batch.ids, attention_mask=batch.sees, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    row, place = (batch.targets != -100).nonzero(as_tuple=True)
    return model.lm_head(hidden[row, place]), batch.targets[row, place], row

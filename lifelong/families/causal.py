"""Causal language models: prompt and answer are one sequence."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import Cache
from transformers.utils import ModelOutput

from lifelong.data import Batch
from lifelong.encoding import IGNORED
from lifelong.families.base import Advance, Family
from lifelong.generation import Sampling, configured, decoding, padded, prompt_batches
from lifelong.losses import row_losses, token_losses
from lifelong.mixtures import padding_known

if TYPE_CHECKING:
    from lifelong.learner import Learner


class Causal(Family):
    """Predicts the next token, and answers by going on."""

    name: ClassVar[str] = "causal"

    def answer_logits(self, learner: Learner, batch: Batch) -> tuple[Any, torch.Tensor]:
        answers = batch["labels"][:, 1:] != IGNORED
        places = answers.any(0).nonzero().squeeze(1)
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
        keeps = "logits_to_keep" in learner.forward_parameters
        if keeps:
            inputs["logits_to_keep"] = places
        outputs = learner.model(**inputs)
        if not keeps:
            outputs.logits = outputs.logits[:, places]
        return outputs, batch["labels"][:, places + 1]

    def generate(
        self,
        learner: Learner,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        batch_size: int,
        advance: Advance,
        sampling: Sampling | None = None,
    ) -> list[list[int]]:
        settings = decoding(learner, max_new_tokens, sampling)
        answers: list[list[int]] = [[] for _ in prompts]
        # padded on the left whatever the tokenizer's habit: answers go on at the right
        for numbers, ids, mask in prompt_batches(learner, prompts, batch_size, advance, left=True):
            with configured(learner, settings), padding_known(learner.model, mask):
                output = learner.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
            for number, answer in zip(numbers, output[:, ids.shape[1] :].tolist(), strict=True):
                answers[number] = answer
        return answers

    def choice_log_likelihoods(
        self,
        learner: Learner,
        prompts: Sequence[Sequence[int]],
        choices: Sequence[Sequence[Sequence[int]]],
        batch_size: int,
        advance: Advance,
    ) -> list[list[float]]:
        """The choices go on from the key-value cache of their prompt."""
        results: list[list[float]] = [[] for _ in prompts]
        # padded on the left whatever the tokenizer's habit: answers go on at the right
        for numbers, ids, mask in prompt_batches(learner, prompts, batch_size, advance, left=True):
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            # of a prompt only the last position's logits are of use, and a vocabulary is wide
            last = {"logits_to_keep": 1} if "logits_to_keep" in learner.forward_parameters else {}
            outputs = _forward(learner, ids, mask, mask, positions, **last)
            first = outputs.logits[:, -1].float().log_softmax(-1)
            some = [choices[number] for number in numbers]
            begun = [[float(first[place, choice[0]]) for choice in row] for place, row in enumerate(some)]
            weigh = _weigh_packed if _takes_masks(learner) else _weigh_apart
            rest = weigh(learner, outputs.past_key_values, mask, some, batch_size)
            for number, starts, others in zip(numbers, begun, rest, strict=True):
                results[number] = [start + other for start, other in zip(starts, others, strict=True)]
        return results


def _takes_masks(learner: Learner) -> bool:
    """Whether any token may be hidden from any other: not where attention is a kernel that knows causal masks alone."""
    kind = getattr(learner.model.config.get_text_config(), "_attn_implementation", None)
    return kind in ("sdpa", "eager") and "position_ids" in learner.forward_parameters


def _weigh_packed(
    learner: Learner, cache: Cache, mask: torch.Tensor, choices: Sequence[Sequence[Sequence[int]]], batch_size: int
) -> list[list[float]]:
    """The log-likelihood of all but the first token of each choice, all choices of a prompt in one row.

    Each sees the prompt and itself, so that nothing of the prompt's cache is copied per choice.

    Args:
        learner: whose model is asked.
        cache: of N prompts.
        mask: (N, P), 1 at the prompts' tokens.
        choices: of each prompt.
        batch_size: choices at a time; all of one prompt stay together.
    """
    results: list[list[float]] = []
    at_a_time = max(1, batch_size // max(map(len, choices)))
    for start in range(0, len(choices), at_a_time):
        some = choices[start : start + at_a_time]
        rows = torch.arange(start, start + len(some), device=mask.device)
        read = [[token for choice in row for token in choice[:-1]] for row in some]
        said = [[token for choice in row for token in choice[1:]] for row in some]
        if not any(read):
            results += [[0.0] * len(row) for row in some]
            continue
        which = [[number for number, choice in enumerate(row) for _ in choice[1:]] for row in some]
        place = [[offset for choice in row for offset in range(len(choice) - 1)] for row in some]
        ids, targets, offsets = (padded(part, 0)[0].to(mask.device) for part in (read, said, place))
        owner = padded(which, -1)[0].to(mask.device)
        width = ids.shape[1]
        earlier = torch.ones(width, width, dtype=torch.bool, device=mask.device).tril()
        own = (owner[:, :, None] == owner[:, None, :]) & earlier
        seen = torch.cat([mask[rows, None, :].bool().expand(-1, width, -1), own], 2)
        hidden = torch.finfo(learner.model.dtype).min
        bias = torch.zeros(seen.shape, dtype=learner.model.dtype, device=mask.device).masked_fill(~seen, hidden)
        positions = mask[rows].sum(1, keepdim=True) + offsets
        earlier_keys = _rows_of(cache, rows, len(mask))
        outputs = _forward(learner, ids, owner >= 0, bias[:, None], positions, past_key_values=earlier_keys)
        values = (-token_losses(outputs.logits, targets)).tolist()
        for row, owners, row_values in zip(some, which, values, strict=True):
            sums = [0.0] * len(row)
            for number, value in zip(owners, row_values, strict=False):
                sums[number] += value
            results.append(sums)
    return results


def _weigh_apart(
    learner: Learner, cache: Cache, mask: torch.Tensor, choices: Sequence[Sequence[Sequence[int]]], batch_size: int
) -> list[list[float]]:
    """As ``_weigh_packed``, each choice in a row of its own, with a copy of its prompt's cache."""
    results = [[0.0] * len(row) for row in choices]
    pairs = [
        (place, number, choice)
        for place, row in enumerate(choices)
        for number, choice in enumerate(row)
        if len(choice) > 1
    ]
    for start in range(0, len(pairs), batch_size):
        some = pairs[start : start + batch_size]
        tokens, known = (part.to(mask.device) for part in padded([choice for *_, choice in some], learner.pad_id))
        rows = torch.tensor([place for place, *_ in some], device=mask.device)
        positions = mask[rows].sum(1, keepdim=True) + torch.arange(tokens.shape[1] - 1, device=mask.device)
        seen = torch.cat([mask[rows], known[:, :-1]], 1)
        earlier_keys = _rows_of(cache, rows, len(mask))
        outputs = _forward(learner, tokens[:, :-1], known[:, 1:], seen, positions, past_key_values=earlier_keys)
        values = (-row_losses(outputs.logits, tokens[:, 1:].masked_fill(known[:, 1:] == 0, IGNORED))).tolist()
        for (place, number, _), value in zip(some, values, strict=True):
            results[place][number] = value
    return results


def _forward(
    learner: Learner, ids: torch.Tensor, known: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, **inputs: Any
) -> ModelOutput:
    """Run the model on ``ids``, of which those count where ``known`` is 1; ``mask`` is what its attention takes."""
    # models with relative positions take none
    if "position_ids" in learner.forward_parameters:
        inputs["position_ids"] = positions
    with padding_known(learner.model, known):
        return learner.model(input_ids=ids, attention_mask=mask, use_cache=True, **inputs)


def _rows_of(cache: Cache, rows: torch.Tensor, size: int) -> Cache:
    """The given rows of a key-value cache of ``size``; the original, which others go on from, stays as it is."""
    # layers replace their tensors and never write into them, so flat copies are enough
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    if len(rows) < size or not torch.equal(rows, torch.arange(size, device=rows.device)):
        twin.batch_select_indices(rows)
    return twin

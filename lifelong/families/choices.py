"""The log-likelihood of choices as answers, of causal language models."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers import Cache
from transformers.utils import ModelOutput

from lifelong.encoding import IGNORED
from lifelong.families.choice_attention import Layout, UnknownAttentionError, choices_apart
from lifelong.generation import padded
from lifelong.losses import row_losses, token_losses
from lifelong.mixtures import padding_known

if TYPE_CHECKING:
    from lifelong.learner import Learner

Choices = Sequence[Sequence[Sequence[int]]]


def log_likelihoods(
    learner: Learner, ids: torch.Tensor, mask: torch.Tensor, choices: Choices, batch_size: int
) -> list[list[float]]:
    """In nats, of each choice of N prompts.

    Args:
        learner: whose model is asked.
        ids, mask: (N, P), padded on the left.
        choices: of each prompt, as tokens.
        batch_size: choices at a time; all of one prompt stay together.
    """
    results: list[list[float]] = []
    at_a_time = max(1, batch_size // max(map(len, choices)))
    for start in range(0, len(choices), at_a_time):
        part = slice(start, start + at_a_time)
        try:
            results += _in_one_row(learner, ids[part], mask[part], choices[part])
        except UnknownAttentionError:
            return results + _from_cache(learner, ids[start:], mask[start:], choices[start:], batch_size)
    return results


def _in_one_row(learner: Learner, ids: torch.Tensor, mask: torch.Tensor, choices: Choices) -> list[list[float]]:
    """In one pass over rows of a prompt and all of its choices, none of which sees another."""
    if not {"position_ids", "logits_to_keep"} <= learner.forward_parameters:
        raise UnknownAttentionError
    # a choice's last token is predicted and not read
    layout = Layout(mask, [[len(choice) - 1 for choice in row] for row in choices])
    read, known = padded([[token for choice in row for token in choice[:-1]] for row in choices], learner.pad_id)
    offsets, _ = padded([[place for choice in row for place in range(len(choice) - 1)] for row in choices], 0)
    said, _ = padded([[token for choice in row for token in choice[1:]] for row in choices], IGNORED)
    read, known, offsets, said = (part.to(mask.device) for part in (read, known, offsets, said))
    positions = torch.cat([(mask.cumsum(1) - 1).clamp(min=0), mask.sum(1, keepdim=True) + offsets], 1)
    model = learner.model.get_base_model() if isinstance(learner.model, PeftModel) else learner.model
    with choices_apart(model, layout), padding_known(learner.model, torch.cat([mask, known], 1)):
        outputs = learner.model(
            input_ids=torch.cat([ids, read], 1),
            position_ids=positions,
            use_cache=False,
            logits_to_keep=said.shape[1] + 1,
        )
    begun = _first(outputs.logits[:, 0], choices)
    # row by row: as wide as a vocabulary is, a copy of all logits takes longer than its use
    rest = [
        (-token_losses(row[None, 1:], targets[None])[0]).tolist()
        for row, targets in zip(outputs.logits, said, strict=True)
    ]
    results = []
    for row, firsts, values in zip(choices, begun, rest, strict=True):
        ends = itertools.accumulate((len(choice) - 1 for choice in row), initial=0)
        sums = [sum(values[start:end]) for start, end in itertools.pairwise(ends)]
        results.append([first + value for first, value in zip(firsts, sums, strict=True)])
    return results


def _first(logits: torch.Tensor, choices: Choices) -> list[list[float]]:
    """The log-likelihood of each choice's first token, from the logits (N, V) that stand before it."""
    tokens, _ = padded([[choice[0] for choice in row] for row in choices], 0)
    values = logits.float().log_softmax(-1).gather(1, tokens.to(logits.device)).tolist()
    return [row_values[: len(row)] for row_values, row in zip(values, choices, strict=True)]


def _from_cache(
    learner: Learner, ids: torch.Tensor, mask: torch.Tensor, choices: Choices, batch_size: int
) -> list[list[float]]:
    """In a pass over the prompts, and passes over the choices, which go on from copies of its key-value cache."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    # of a prompt only the last position's logits are of use, and a vocabulary is wide
    last = {"logits_to_keep": 1} if "logits_to_keep" in learner.forward_parameters else {}
    outputs = _forward(learner, ids, mask, mask, positions, **last)
    results = _first(outputs.logits[:, -1], choices)
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
        earlier_keys = _rows_of(outputs.past_key_values, rows)
        further = _forward(learner, tokens[:, :-1], known[:, 1:], seen, positions, past_key_values=earlier_keys)
        values = (-row_losses(further.logits, tokens[:, 1:].masked_fill(known[:, 1:] == 0, IGNORED))).tolist()
        for (place, number, _), value in zip(some, values, strict=True):
            results[place][number] += value
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


def _rows_of(cache: Cache, rows: torch.Tensor) -> Cache:
    """The given rows of a key-value cache; the original, which others go on from, stays as it is."""
    # layers replace their tensors and never write into them, so flat copies are enough
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    twin.batch_select_indices(rows)
    return twin

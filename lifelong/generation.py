"""Let a causal model write answers, or weigh given ones, in batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import Cache, GenerationConfig
from transformers.utils import ModelOutput

from lifelong.learner import Learner


def generate(
    learner: Learner,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda asked: None,
) -> list[str]:
    """Greedy answers to N prompts, asked in batches of similar length.

    Args:
        learner: whose model is asked, in the mode that it is in.
        prompts: tokens of each prompt.
        max_new_tokens: length of the longest answer.
        batch_size: prompts at a time.
        advance: called with the number of prompts after each batch.

    Returns:
        N texts without special tokens and surrounding space.
    """
    eos = learner.tokenizer.eos_token_id
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=eos, pad_token_id=learner.pad_id, use_cache=True
    )
    texts = [""] * len(prompts)
    for numbers in by_length([len(prompt) for prompt in prompts], batch_size):
        ids, mask = _left_padded([prompts[number] for number in numbers], learner)
        with _configured(learner, greedy):
            output = learner.model.generate(input_ids=ids, attention_mask=mask, generation_config=greedy)
        for number, answer in zip(numbers, output[:, ids.shape[1] :].tolist(), strict=True):
            # padding may be a token of its own, so the answer is cut here rather than by skipping special tokens
            answer = answer[: answer.index(eos)] if eos in answer else answer
            texts[number] = learner.tokenizer.decode(answer, skip_special_tokens=True).strip()
        advance(len(numbers))
    return texts


def choice_log_likelihoods(
    learner: Learner,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda asked: None,
) -> list[list[float]]:
    """The log-likelihood, in nats, of every choice as the continuation of its prompt.

    A prompt is read once, whatever the number of its choices: they go on from its key-value cache.

    Args:
        learner: whose model is asked, in the mode that it is in.
        prompts: tokens of N prompts.
        choices: for each prompt, the tokens of each of its choices.
        batch_size: prompts, and continuations, at a time.
        advance: called with the number of prompts after each batch.

    Returns:
        For each prompt one number per choice.
    """
    results: list[list[float]] = [[] for _ in prompts]
    for numbers in by_length([len(prompt) for prompt in prompts], batch_size):
        ids, mask = _left_padded([prompts[number] for number in numbers], learner)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        # of a prompt only the last position's logits are of use, and a vocabulary is wide
        last = {"logits_to_keep": 1} if "logits_to_keep" in learner.forward_parameters else {}
        outputs = _forward(learner, ids, mask, positions, **last)
        first = outputs.logits[:, -1].float().log_softmax(-1)
        pairs = [(place, choice) for place, number in enumerate(numbers) for choice in choices[number]]
        scores = [float(first[place, choice[0]]) for place, choice in pairs]
        longer = [index for index, (_, choice) in enumerate(pairs) if len(choice) > 1]
        for start in range(0, len(longer), batch_size):
            some = longer[start : start + batch_size]
            rest = _continue(learner, outputs.past_key_values, mask, [pairs[index] for index in some])
            for index, value in zip(some, rest, strict=True):
                scores[index] += value
        for (place, _), value in zip(pairs, scores, strict=True):
            results[numbers[place]].append(value)
        advance(len(numbers))
    return results


@contextmanager
def _configured(learner: Learner, configuration: GenerationConfig) -> Iterator[None]:
    """In place of the model's own, which may ask for penalties, and with which ``generate`` fills what is not set."""
    model = learner.model.get_base_model() if isinstance(learner.model, PeftModel) else learner.model
    own, model.generation_config = model.generation_config, configuration
    try:
        yield
    finally:
        model.generation_config = own


def _continue(
    learner: Learner, cache: Cache, mask: torch.Tensor, pairs: Sequence[tuple[int, Sequence[int]]]
) -> list[float]:
    """The log-likelihood of all but the first token of each choice, going on from the cache row it belongs to."""
    device = mask.device
    width = max(len(choice) for _, choice in pairs)
    tokens = torch.full((len(pairs), width), learner.pad_id)
    known = torch.zeros(len(pairs), width, dtype=torch.long)
    for index, (_, choice) in enumerate(pairs):
        tokens[index, : len(choice)] = torch.tensor(choice)
        known[index, : len(choice)] = 1
    tokens, known = tokens.to(device), known.to(device)
    rows = torch.tensor([place for place, _ in pairs], device=device)
    positions = mask[rows].sum(1, keepdim=True) + torch.arange(width - 1, device=device)
    seen = torch.cat([mask[rows], known[:, :-1]], 1)
    outputs = _forward(learner, tokens[:, :-1], seen, positions, past_key_values=_rows_of(cache, rows))
    losses = cross_entropy(outputs.logits.float().transpose(1, 2), tokens[:, 1:], reduction="none")
    return (-losses * known[:, 1:]).sum(1).tolist()


def _forward(
    learner: Learner, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, **inputs: Any
) -> ModelOutput:
    # models with relative positions take none
    if "position_ids" in learner.forward_parameters:
        inputs["position_ids"] = positions
    return learner.model(input_ids=ids, attention_mask=mask, use_cache=True, **inputs)


def _rows_of(cache: Cache, rows: torch.Tensor) -> Cache:
    """The given rows of a key-value cache; the original, which other continuations need, stays as it is."""
    # layers replace their tensors and never write into them, so flat copies are enough
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    twin.batch_select_indices(rows)
    return twin


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Numbers of all items in batches of similar length, the longest first."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _left_padded(prompts: Sequence[Sequence[int]], learner: Learner) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, padded on the left whatever the tokenizer's habit: answers go on at the right."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[learner.pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(learner.device), mask.to(learner.device)

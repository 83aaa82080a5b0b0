"""Let a model write answers, or weigh given ones, in batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from peft import PeftModel
from transformers import GenerationConfig

if TYPE_CHECKING:
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
    return learner.family.generate(learner, prompts, max_new_tokens, batch_size, advance)


def choice_log_likelihoods(
    learner: Learner,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda asked: None,
) -> list[list[float]]:
    """The log-likelihood, in nats, of every choice as the answer to its prompt.

    A prompt is read once, whatever the number of its choices.

    Args:
        learner: whose model is asked, in the mode that it is in.
        prompts: tokens of N prompts.
        choices: for each prompt, the tokens of each of its choices.
        batch_size: prompts, and choices, at a time.
        advance: called with the number of prompts after each batch.

    Returns:
        For each prompt one number per choice.
    """
    return learner.family.choice_log_likelihoods(learner, prompts, choices, batch_size, advance)


def greedy(learner: Learner, max_new_tokens: int, **settings: int) -> GenerationConfig:
    """Settings for the likeliest token at every place, with a cache."""
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=learner.encoder.ends,
        pad_token_id=learner.pad_id,
        use_cache=True,
        **settings,
    )


@contextmanager
def configured(learner: Learner, configuration: GenerationConfig) -> Iterator[None]:
    """In place of the model's own, which may ask for penalties, and with which ``generate`` fills what is not set."""
    model = learner.model.get_base_model() if isinstance(learner.model, PeftModel) else learner.model
    own, model.generation_config = model.generation_config, configuration
    try:
        yield
    finally:
        model.generation_config = own


def answer_text(learner: Learner, ids: Sequence[int]) -> str:
    """The text of generated tokens up to the first that ends an answer."""
    # padding may be a token of its own, so the answer is cut here rather than by skipping special tokens
    ends = set(learner.encoder.ends)
    answer = list(itertools.takewhile(lambda token: token not in ends, ids))
    return learner.tokenizer.decode(answer, skip_special_tokens=True).strip()


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Numbers of all items in batches of similar length, the longest first."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def prompt_batches(
    learner: Learner,
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    advance: Callable[[int], None],
    left: bool = False,
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Prompts in batches of similar length, where the model is; ``advance`` is called as each has been dealt with.

    Yields:
        The numbers of the batch's prompts, and their ids and mask as ``padded`` makes them.
    """
    for numbers in by_length([len(prompt) for prompt in prompts], batch_size):
        ids, mask = padded([prompts[number] for number in numbers], learner.pad_id, left)
        yield numbers, ids.to(learner.device), mask.to(learner.device)
        advance(len(numbers))


def padded(rows: Sequence[Sequence[int]], fill: int, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of tokens as a tensor (N, longest), and the mask that is 1 where they are."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), fill)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.long)
        mask[number, place] = 1
    return ids, mask

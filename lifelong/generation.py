"""Let a model write answers, or weigh given ones, in batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers import GenerationConfig

from lifelong.compute import note_pass

if TYPE_CHECKING:
    from lifelong.learner import Learner


@dataclass(frozen=True)
class Sampling:
    """Draw each token from the model's distribution instead of taking the likeliest.

    Args:
        seed: decides the draws, together with the prompts and how they are batched.
        temperature: what logits are divided by; above 0.
        top_p: draw among the likeliest tokens only that have this probability together; in (0, 1].
    """

    seed: int
    temperature: float = 1.0
    top_p: float = 1.0


def generate(
    learner: Learner,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda asked: None,
    sampling: Sampling | None = None,
) -> list[str]:
    """Answers to N prompts, asked in batches of similar length.

    Args:
        learner: whose model is asked, in the mode that it is in.
        prompts: tokens of each prompt.
        max_new_tokens: length of the longest answer.
        batch_size: prompts at a time.
        advance: called with the number of prompts after each batch.
        sampling: how tokens are drawn; ``None`` takes the likeliest.

    Returns:
        N texts without special tokens and surrounding space.
    """
    answers = generate_tokens(learner, prompts, max_new_tokens, batch_size, advance, sampling)
    return [answer_text(learner, answer) for answer in answers]


def generate_tokens(
    learner: Learner,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda asked: None,
    sampling: Sampling | None = None,
) -> list[list[int]]:
    """As ``generate``, but the tokens of each answer, up to and with the one that ends it where there is one.

    The global random state is the same afterwards.
    """
    with _drawing(learner, sampling):
        rows = learner.family.generate(learner, prompts, max_new_tokens, batch_size, advance, sampling)
    read, written = sum(map(len, prompts)), sum(map(len, rows))
    note_pass(learner.positions, read + written * learner.encoder.continues_prompt, written, trained=False)
    return [_ended(learner, row) for row in rows]


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


def decoding(
    learner: Learner, max_new_tokens: int, sampling: Sampling | None = None, **settings: int
) -> GenerationConfig:
    """Settings for the likeliest token at every place, or for one that is drawn, with a cache."""
    # no top_k: transformers would draw among 50 tokens
    drawn: dict[str, Any] = (
        {} if sampling is None else {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    )
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=sampling is not None,
        **drawn,
        eos_token_id=learner.encoder.ends,
        pad_token_id=learner.pad_id,
        use_cache=True,
        **settings,
    )


@contextmanager
def _drawing(learner: Learner, sampling: Sampling | None) -> Iterator[None]:
    """Draws come from the seed inside, and the global random states, the device's too, are the same afterwards."""
    if sampling is None:
        yield
        return
    # a model may be spread over all accelerators, and one on the CPU should wake none of them
    seen = range(torch.accelerator.device_count()) if learner.device.type != "cpu" else ()
    with torch.random.fork_rng(list(seen)):
        (torch.manual_seed if seen else torch.default_generator.manual_seed)(sampling.seed)
        yield


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
    ends = set(learner.encoder.ends)
    answer = list(itertools.takewhile(lambda token: token not in ends, ids))
    return learner.tokenizer.decode(answer, skip_special_tokens=True).strip()


def _ended(learner: Learner, ids: Sequence[int]) -> list[int]:
    """Generated tokens without the padding behind the first that ends an answer."""
    # padding may be a token of its own, so the answer is cut here rather than by skipping special tokens
    ends = set(learner.encoder.ends)
    last = next((place for place, token in enumerate(ids) if token in ends), len(ids) - 1)
    return list(ids[: last + 1])


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

"""Causal language models: prompt and answer are one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from lifelong.data import Batch
from lifelong.encoding import IGNORED
from lifelong.families.base import Advance, Family
from lifelong.families.choices import log_likelihoods
from lifelong.generation import Sampling, configured, decoding, prompt_batches
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
        """All choices of a prompt are read behind it in one pass where the model's attention allows it."""
        results: list[list[float]] = [[] for _ in prompts]
        # padded on the left whatever the tokenizer's habit: answers go on at the right
        for numbers, ids, mask in prompt_batches(learner, prompts, batch_size, advance, left=True):
            some = [choices[number] for number in numbers]
            for number, values in zip(numbers, log_likelihoods(learner, ids, mask, some, batch_size), strict=True):
                results[number] = values
        return results

"""Encoder-decoder models (T5, BART): the prompt is read whole, the answer is a sequence of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from peft import PeftModel
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.modeling_outputs import BaseModelOutput

from lifelong.data import Batch
from lifelong.encoding import IGNORED, EncodedRow, PromptEncoder, Row, place_of
from lifelong.errors import DataError
from lifelong.families.base import Advance, Family
from lifelong.generation import Sampling, configured, decoding, padded, prompt_batches
from lifelong.losses import row_losses
from lifelong.mixtures import has_mixtures, padding_known

if TYPE_CHECKING:
    from lifelong.learner import Learner


class Seq2SeqEncoder(PromptEncoder):
    """Prompt and answer as two sequences of up to ``max_length`` tokens, with the tokenizer's special tokens around."""

    continues_prompt = False

    def encode_rows(self, rows: Sequence[Row], book: str = "closed") -> list[EncodedRow]:
        encoded = super().encode_rows(rows, book)
        for row, one in zip(rows, encoded, strict=True):
            if len(one.labels) > self.max_length:
                raise DataError(
                    f"{place_of(row)}: the answer has {len(one.labels)} of at most {self.max_length} tokens; shorten "
                    "it, or for raw text use smaller pieces"
                )
        return encoded

    def reserve(self, tokens: int) -> int:
        return 0  # the decoder has a context of its own

    def joined(self, prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
        return prompt, [*answer, self._eos]

    def learns_turns(self, row: Any) -> bool:
        return False  # earlier turns are read, and the last one is said

    def without_end(self, ids: list[int]) -> list[int]:
        return ids

    def _answers(self, keys: Sequence[tuple[str, str]]) -> list[list[int]]:
        texts = [text for _, text in keys]
        found = self.tokenizer(text_target=texts, verbose=False, return_attention_mask=False)["input_ids"]
        return [super(Seq2SeqEncoder, self).without_end(ids) for ids in found]


class Seq2Seq(Family):
    """Reads the prompt with the encoder, and answers with the decoder."""

    name: ClassVar[str] = "seq2seq"
    encoder_class = Seq2SeqEncoder

    def answer_logits(self, learner: Learner, batch: Batch) -> tuple[Any, torch.Tensor]:
        labels = batch["labels"]
        outputs = learner.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            decoder_input_ids=_shifted(learner, labels),
            use_cache=False,
        )
        return outputs, labels

    def generate(
        self,
        learner: Learner,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        batch_size: int,
        advance: Advance,
        sampling: Sampling | None = None,
    ) -> list[list[int]]:
        limit = min(max_new_tokens, learner.encoder.max_length)  # a decoder may have no places for more
        settings = decoding(learner, limit, sampling, decoder_start_token_id=_start(learner))
        answers: list[list[int]] = [[] for _ in prompts]
        for numbers, ids, mask in prompt_batches(learner, prompts, batch_size, advance):
            writing = _StillWriting(learner.encoder.ends, mask)
            criteria = StoppingCriteriaList([writing] if has_mixtures(learner.model) else [])
            with configured(learner, settings), padding_known(learner.model, mask, writing.mask):
                output = learner.model.generate(
                    input_ids=ids, attention_mask=mask, generation_config=settings, stopping_criteria=criteria
                )
            for number, answer in zip(numbers, output[:, 1:].tolist(), strict=True):
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
        """The decoder weighs every choice on one reading of the prompt."""
        results: list[list[float]] = [[] for _ in prompts]
        for numbers, ids, mask in prompt_batches(learner, prompts, batch_size, advance):
            with padding_known(learner.model, mask):
                read = learner.model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
            pairs = [(place, choice) for place, number in enumerate(numbers) for choice in choices[number]]
            for start in range(0, len(pairs), batch_size):
                some = pairs[start : start + batch_size]
                for (place, _), value in zip(some, _weigh(learner, read, mask, some), strict=True):
                    results[numbers[place]].append(value)
        return results


class _StillWriting(StoppingCriteria):
    """Stops nothing, and keeps the decoder's mask (B, 1): 0 for rows that have ended and are padded from then on.

    Args:
        ends: tokens that end an answer.
        prompts: (B, S), any tensor of the batch.
    """

    def __init__(self, ends: Sequence[int], prompts: torch.Tensor) -> None:
        self.ends = torch.tensor(list(ends), device=prompts.device)
        self.mask = torch.ones_like(prompts[:, :1])
        self.never = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self.mask.masked_fill_(torch.isin(input_ids[:, -1:], self.ends), 0)
        return self.never


def _weigh(
    learner: Learner, read: torch.Tensor, mask: torch.Tensor, pairs: Sequence[tuple[int, Sequence[int]]]
) -> list[float]:
    rows = torch.tensor([place for place, _ in pairs], device=mask.device)
    tokens, known = padded([choice for _, choice in pairs], 0)
    labels = tokens.masked_fill(known == 0, IGNORED).to(mask.device)
    with padding_known(learner.model, mask[rows], labels != IGNORED):
        outputs = learner.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=read[rows]),
            attention_mask=mask[rows],
            decoder_input_ids=_shifted(learner, labels),
            use_cache=False,
        )
    return (-row_losses(outputs.logits, labels)).tolist()


def _shifted(learner: Learner, labels: torch.Tensor) -> torch.Tensor:
    """What the decoder reads: its start token, then each label but the last."""
    start = labels.new_full((len(labels), 1), _start(learner))
    return torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, learner.pad_id)], 1)


def _start(learner: Learner) -> int:
    """The token that a decoder starts from."""
    model = learner.model.get_base_model() if isinstance(learner.model, PeftModel) else learner.model
    for settings in (model.config, model.generation_config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            if getattr(settings, name, None) is not None:
                return getattr(settings, name)
    return learner.pad_id  # as in T5, whose older configurations name none

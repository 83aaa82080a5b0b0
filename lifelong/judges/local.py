"""A language model on this machine as a judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lifelong.errors import ModelError
from lifelong.judges.base import Case, Judge, Verdict
from lifelong.judges.wording import messages, read
from lifelong.libraries import quiet_libraries
from lifelong.models import load_model


class ModelJudge(Judge):
    """A causal model of transformers with a chat template, asked for verdicts as JSON; greedy decoding.

    Args:
        model: a name on the hub, or a folder.
        batch_size: cases that are read at a time.
        max_new_tokens: longest verdict.
        device: where it runs.
        dtype: of its weights.

    Attributes:
        unreadable: verdicts so far that could not be read.

    Raises:
        ModelError: there is no such model, or it has no chat template.
    """

    def __init__(
        self,
        model: str | Path,
        batch_size: int = 8,
        max_new_tokens: int = 96,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        with quiet_libraries():
            self.model, self.tokenizer = load_model(str(model), dtype=dtype)
        if getattr(self.tokenizer, "chat_template", None) is None:
            raise ModelError(f"ModelJudge: {model} has no chat template, so it cannot be told what to judge")
        self.model.to(device).eval()
        self._name, self.batch_size, self.max_new_tokens = Path(model).name, batch_size, max_new_tokens
        self.unreadable = 0

    @property
    def name(self) -> str:
        return f"model ({self._name})"

    def _judge(self, cases: Sequence[Case]) -> list[Verdict]:
        verdicts = []
        for start in range(0, len(cases), self.batch_size):
            verdicts += [read(text) for text in self._written(cases[start : start + self.batch_size])]
        self.unreadable += sum(verdict.score is None for verdict in verdicts)
        return verdicts

    @torch.inference_mode()
    def _written(self, cases: Sequence[Case]) -> list[str]:
        render = self.tokenizer.apply_chat_template
        texts = [render(messages(case), tokenize=False, add_generation_prompt=True) for case in cases]
        batch = self.tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        ).to(self.model.device)
        ids = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return self.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

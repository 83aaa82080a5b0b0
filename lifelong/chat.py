"""A language model on this machine that is talked to, for judges and writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch

from lifelong.errors import ModelError
from lifelong.libraries import quiet_libraries
from lifelong.models import load_model
from lifelong.store import weights_digest

Conversation = Sequence[Mapping[str, str]]


class ChatModel:
    """A causal model of transformers with a chat template; greedy decoding.

    Args:
        model: a name on the hub, or a folder.
        batch_size: conversations that are read at a time.
        max_new_tokens: longest reply.
        device: where it runs.
        dtype: of its weights.

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
            raise ModelError(f"{type(self).__name__}: {model} has no chat template, so it cannot be told what to do")
        self.model.to(device).eval()
        self._name, self.batch_size, self.max_new_tokens = Path(model).name, batch_size, max_new_tokens

    @property
    def name(self) -> str:
        """In reports."""
        return f"model ({self._name})"

    @cached_property
    def digest(self) -> str:
        """Of the weights."""
        return weights_digest(self.model)

    def reply(self, conversations: Sequence[Conversation]) -> list[str]:
        """What the model says next in each conversation."""
        said = []
        for start in range(0, len(conversations), self.batch_size):
            said += self._some(conversations[start : start + self.batch_size])
        return said

    @torch.inference_mode()
    def _some(self, conversations: Sequence[Conversation]) -> list[str]:
        render = self.tokenizer.apply_chat_template
        texts = [render(list(turns), tokenize=False, add_generation_prompt=True) for turns in conversations]
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

"""Attention in which all choices of a prompt are read behind it in one row, each seeing the prompt and itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

NAME = "lifelong_choices"
# what models hand to their attention that changes nothing about it
_HARMLESS = {"position_ids", "cache_position", "use_cache", "output_attentions", "is_causal", "position_embeddings"}


class UnknownAttentionError(Exception):
    """A model asks of its attention what is not done here."""


@dataclass
class Layout:
    """Rows of a prompt, padded on the left to P, and of its choices one after the other, padded on the right to W.

    Args:
        prompts: (N, P), 1 at the prompts' tokens.
        lengths: of each row's choices.
    """

    prompts: torch.Tensor
    lengths: list[list[int]]
    layers: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        device = self.prompts.device
        self.width = self.prompts.shape[1]
        self.count, self.longest = max(map(len, self.lengths)), max(map(max, self.lengths))
        padded = not bool(self.prompts.all())
        self.hidden = ~self.prompts.bool()[:, None, None] if padded else None
        self.seen = None
        if padded:
            earlier = torch.ones(self.width, self.width, dtype=torch.bool, device=device).tril()
            # what pads sees itself, so that no row of scores is empty
            self.seen = (earlier & ~self.hidden) | torch.eye(self.width, dtype=torch.bool, device=device)
        self.later = torch.ones(self.longest, self.longest, dtype=torch.bool, device=device).triu(1)
        self.blocks = self.places = None
        if any(length != self.longest for row in self.lengths for length in row) or any(
            len(row) != self.count for row in self.lengths
        ):
            self.blocks, self.places = (part.to(device) for part in self._ragged())
            self.rows = torch.arange(len(self.lengths), device=device)[:, None]

    def _ragged(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each place of the blocks, (N, count * longest), its token's place in the row; and the reverse, (N, W)."""
        width = max(map(sum, self.lengths))
        blocks = torch.zeros(len(self.lengths), self.count * self.longest, dtype=torch.long)
        places = torch.zeros(len(self.lengths), width, dtype=torch.long)
        for number, row in enumerate(self.lengths):
            start = 0
            for choice, length in enumerate(row):
                offset, tokens = choice * self.longest, torch.arange(length)
                blocks[number, offset : offset + length] = start + tokens
                places[number, start : start + length] = offset + tokens
                start += length
        return blocks, places

    def choices(self, states: torch.Tensor) -> torch.Tensor:
        """From (N, heads, P + W, size) to the choices' (N, heads, count * longest, size)."""
        behind = states[:, :, self.width :]
        if self.blocks is None:
            return behind
        return behind.transpose(1, 2)[self.rows, self.blocks].transpose(1, 2)

    def row(self, states: torch.Tensor) -> torch.Tensor:
        """From the choices' (N, heads, count * longest, size) to (N, W, heads, size)."""
        states = states.transpose(1, 2)
        return states if self.places is None else states[self.rows, self.places]


_layout: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextmanager
def choices_apart(model: PreTrainedModel, layout: Layout) -> Iterator[None]:
    """The model's attention reads rows of this layout: prompts causally, and each choice its prompt and itself.

    Raises:
        UnknownAttentionError: where the model's attention cannot be replaced, or does more than attention does, inside
            and at the end.
    """
    config = model.config.get_text_config()
    if not (model._can_set_attn_implementation() and _sees_all(config, layout.width + layout.longest)):
        raise UnknownAttentionError
    own = model.config._attn_implementation
    token = _layout.set(layout)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(own)
        _layout.reset(token)
    if layout.layers != set(range(config.num_hidden_layers)):
        raise UnknownAttentionError


def _sees_all(config: PreTrainedConfig, length: int) -> bool:
    """Whether, by a model's configuration, each of so many tokens sees all before it in every layer."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) or 0
    return kinds <= {"full_attention", "sliding_attention"} and ("sliding_attention" not in kinds or length <= window)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: (N, heads, P + W, size) to (N, P + W, heads, size)."""
    layout = _layout.get()
    further = {name for name, given in others.items() if given is not None and given is not False} - _HARMLESS
    if layout is None or further or dropout or not hasattr(module, "layer_idx"):
        raise UnknownAttentionError
    if not getattr(module, "is_causal", True):
        raise UnknownAttentionError
    if sliding_window is not None and layout.width + layout.longest > sliding_window:
        raise UnknownAttentionError
    layout.layers.add(module.layer_idx)
    if key.shape[1] != query.shape[1]:
        key, value = (part.repeat_interleave(query.shape[1] // key.shape[1], 1) for part in (key, value))
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    asked, keys, values = (part[:, :, : layout.width] for part in (query, key, value))
    prompts = scaled_dot_product_attention(
        asked, keys, values, attn_mask=layout.seen, is_causal=layout.seen is None, scale=scaling
    )
    choices = _choices(layout, [layout.choices(part) for part in (query, key, value)], keys, values, scaling)
    said = value.new_empty(len(query), query.shape[2], query.shape[1], value.shape[3])
    said[:, : layout.width], said[:, layout.width :] = prompts.transpose(1, 2), layout.row(choices)
    return said, None


def _choices(
    layout: Layout, states: list[torch.Tensor], keys: torch.Tensor, values: torch.Tensor, scaling: float
) -> torch.Tensor:
    """What choices read of their prompts and of themselves: (N, heads, count * longest, size).

    Args:
        layout: of the rows.
        states: the choices' queries, keys and values, (N, heads, count * longest, size).
        keys, values: the prompts', (N, heads, P, size).
        scaling: of the scores.
    """
    asked, own_keys, own_values = (part.contiguous() for part in states)
    rows, heads, tokens, size = asked.shape
    each = (rows * heads, tokens)
    blocks = (rows * heads * layout.count, layout.longest)
    of_prompt = asked.flatten(0, 1) @ keys.flatten(0, 1).mT
    if layout.hidden is not None:
        of_prompt.unflatten(0, (rows, heads)).masked_fill_(layout.hidden, -torch.inf)
    of_own = (asked.view(*blocks, size) @ own_keys.view(*blocks, size).mT).masked_fill_(layout.later, -torch.inf)
    scores = torch.cat([of_prompt, of_own.view(*each, layout.longest)], -1).mul_(scaling)
    shares = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
    of_prompt, of_own = shares.split([layout.width, layout.longest], -1)
    read = of_own.unflatten(1, (layout.count, layout.longest)).flatten(0, 1) @ own_values.view(
        *blocks, values.shape[-1]
    )
    return torch.baddbmm(read.view(*each, values.shape[-1]), of_prompt, values.flatten(0, 1)).unflatten(
        0, (rows, heads)
    )


AttentionInterface.register(NAME, attention)

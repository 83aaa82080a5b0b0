"""A linear map behind dropout that keeps its input once."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


class DroppedLinear(torch.autograd.Function):
    """``linear(dropout(x, rate), weight)``, of which x itself is kept for the backward pass, and a mask of bytes.

    Dropout and linear by themselves keep what is left of x. The router, which sees all of it, needs x too, and inputs
    of feed-forward layers are what a training step has most of.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, rate: float) -> torch.Tensor:
        left, kept = torch.native_dropout(x, rate, True)
        ctx.save_for_backward(x, weight, kept)
        ctx.factor = 1 / (1 - rate)
        return linear(left, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, weight, kept = ctx.saved_tensors
        # under autocast the product was of another type than its factors; numbers times bytes would copy the bytes
        kind, along, across = gradient.dtype, None, None
        if ctx.needs_input_grad[0]:
            along = (gradient @ weight.to(kind)).masked_fill_(~kept, 0).mul_(ctx.factor).to(x.dtype)
        if ctx.needs_input_grad[1]:
            across = (gradient.t() @ torch.where(kept, x, 0).mul_(ctx.factor).to(kind)).to(weight.dtype)
        return along, across, None

"""What a batch brings beside its activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RoutingContext:
    """What a layer knows of the batch.

    Args:
        mask: (B, S), 1 at tokens, 0 at padding; ``None`` if all are tokens.
        downstream: (B,), true for samples of downstream tasks; ``None`` if not said.
        decodes: whether the mask is that of a decoder, which stands for each token that it writes where S is 1.
        scale: factor of the auxiliary losses' gradient.
        silent: whether there are to be no auxiliary losses.
        total: sums a tensor over the processes of which each has some of the batch's rows; ``None`` where one has all.
    """

    mask: torch.Tensor | None = None
    downstream: torch.Tensor | None = None
    decodes: bool = False
    scale: float = 1.0
    silent: bool = False
    total: Callable[[torch.Tensor], torch.Tensor] | None = None

    def tokens_that_count(self, shape: torch.Size) -> torch.Tensor | None:
        """The mask as (T,); none if a layer sees other tokens than those of the batch, as in generation.

        Args:
            shape: of what a layer sees, T in all: (B, S), (n B, S) where each row stands n times, as for n beams, or
                (B S,).
        """
        if self.mask is None:
            return None
        if len(shape) != 2:
            return self.mask.reshape(-1) if self.mask.numel() == shape.numel() else None
        rows, length = self.mask.shape
        if shape == self.mask.shape:
            return self.mask.reshape(-1)
        if shape[1] != length or not rows or shape[0] % rows:
            return None
        return self.mask.repeat_interleave(shape[0] // rows, 0).reshape(-1)

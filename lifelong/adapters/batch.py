"""What a batch brings beside its activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RoutingContext:
    """What a layer knows of the batch.

    Args:
        mask: (B, S), 1 at tokens, 0 at padding; ``None`` if all are tokens.
        downstream: (B,), true for samples of downstream tasks; ``None`` if not said.
        scale: factor of the auxiliary losses' gradient.
        silent: whether there are to be no auxiliary losses.
    """

    mask: torch.Tensor | None = None
    downstream: torch.Tensor | None = None
    scale: float = 1.0
    silent: bool = False

    def tokens_that_count(self, tokens: int) -> torch.Tensor | None:
        """The mask as (T,); none if a layer sees other tokens than those of the batch, as in generation."""
        return self.mask.reshape(-1) if self.mask is not None and self.mask.numel() == tokens else None

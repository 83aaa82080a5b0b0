"""What answers cost: negative log-likelihoods, in nats, computed in float32."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from lifelong.data import Batch
from lifelong.encoding import IGNORED


def answer_weight(batch: Batch) -> torch.Tensor:
    """The number of answer tokens of a batch, each counted with its row's weight; 0-dim."""
    return ((batch["labels"] != IGNORED).sum(1) * batch["weight"]).sum()


def row_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each row's answer, a sum over its tokens: (B,). Arguments as for ``token_losses``."""
    return token_losses(logits, targets).sum(1)


def token_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each token.

    Args:
        logits: (B, K, vocabulary).
        targets: (B, K), ``IGNORED`` where nothing is asked for.

    Returns:
        (B, K), 0 where nothing is asked for.
    """
    losses = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view_as(targets)

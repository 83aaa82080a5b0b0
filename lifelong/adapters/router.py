"""The router: which experts answer for a token, and how much each of them counts."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Routing(NamedTuple):
    """What the router says of T tokens and E experts.

    Args:
        probabilities: (T, E), a softmax over the experts.
        gates: (T, E), the factor of each expert's output; 0 for experts that do not answer.
        selected: (T, E), 1 for the experts that answer, else 0; ``None`` where all do.
    """

    probabilities: torch.Tensor
    gates: torch.Tensor
    selected: torch.Tensor | None


def route(logits: torch.Tensor, top_k: int | None = None, renormalize: bool = True) -> Routing:
    """Gates from the router's logits, computed in float32 or better.

    Args:
        logits: (T, E).
        top_k: experts that answer for a token; ``None`` or E lets all of them (dense routing).
        renormalize: whether the gates of those that answer sum to 1.
    """
    precise = torch.promote_types(logits.dtype, torch.float32)
    probabilities = torch.softmax(logits, -1, dtype=precise)
    if top_k is None or top_k >= logits.shape[-1]:
        return Routing(probabilities, probabilities, None)
    best = probabilities.topk(top_k, dim=-1).indices
    selected = torch.zeros_like(probabilities).scatter_(-1, best, 1.0)
    gates = probabilities * selected
    if renormalize:
        gates = gates / gates.sum(-1, keepdim=True)
    return Routing(probabilities, gates, selected)

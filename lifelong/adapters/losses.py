"""Auxiliary losses of the router and the experts, as pure functions; and how their gradient joins the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

NORM_FLOOR = 1e-2  # below it an expert's output counts as small, not as a direction


Total = Callable[[torch.Tensor], torch.Tensor]


def switch_balance(
    probabilities: torch.Tensor,
    selected: torch.Tensor | None = None,
    counted: torch.Tensor | None = None,
    total: Total = lambda one: one,
) -> torch.Tensor:
    """Load balance as in Switch Transformers (arXiv 2101.03961, equation 4): ``E * sum_i f_i P_i``.

    f_i is the share of all selections that go to expert i, P_i the mean of its probability. 1 for uniform use, E where
    one expert does everything. With dense routing every expert is always selected, so that the loss is 1 and has no
    gradient.

    Args:
        probabilities: (T, E), over the experts.
        selected: (T, E), 1 for the experts that answer; ``None`` where all do.
        counted: (T,), 1 for the tokens that count, 0 for padding; ``None`` counts all.
        total: sums over processes of which each has some of the tokens; see ``routing_context``.

    Returns:
        0-dim.
    """
    experts = probabilities.shape[-1]
    weights = torch.ones_like(probabilities[:, 0]) if counted is None else counted.to(probabilities.dtype)
    tokens = total(weights.sum()).clamp(min=1)
    mean = total((weights[:, None] * probabilities).sum(0)) / tokens
    if selected is None:
        return mean.sum()
    chosen = total((weights[:, None] * selected).sum(0))
    return experts * (chosen / chosen.sum().clamp(min=1) * mean).sum()


def localized_balance(
    gates: torch.Tensor,
    same_type: torch.Tensor,
    delta: float,
    form: str = "paper",
    counted: torch.Tensor | None = None,
    total: Total | None = None,
) -> torch.Tensor:
    """LoRAMoE's localised balancing constraint (arXiv 2312.09979, equations 5 to 7), of one layer.

    ``Q[n, m]`` sums the gates of expert n over the tokens of sample m; ``I[n, m]`` is ``1 + delta`` where expert and
    sample are of one type, else ``1 - delta``; ``Z = I * Q``.

    Args:
        gates: (B, S, E).
        same_type: (E, B), true where the expert has the sample's type.
        delta: between 0 and 1.
        form: ``"paper"``: variance of Z (over all its entries, not corrected) divided by its mean. ``"code"``: what the
            authors' code computes, the unbiased variance divided by the squared mean plus 1e-10.
        counted: (B, S), 1 for the tokens that count, 0 for padding; ``None`` counts all.
        total: sums over processes of which each has some of the samples, see ``routing_context``; samples without a
            token that counts are none then.

    Returns:
        0-dim; the paper's form grows with the number of tokens, and the sum over layers with depth.
    """
    if counted is not None:
        gates = gates * counted[..., None].to(gates.dtype)
    use = gates.sum(1).t()  # (E, B)
    importance = 1 - delta + 2 * delta * same_type.to(use.dtype)
    weighed = importance * use
    if total is not None:
        there = torch.ones_like(use[0]) if counted is None else counted.any(1).to(use.dtype)
        return _dispersion(weighed, there, form, total)
    if form == "code":
        return weighed.var() / (weighed.mean() ** 2 + 1e-10)
    return weighed.var(correction=0) / weighed.mean().clamp(min=torch.finfo(use.dtype).tiny)


def _dispersion(weighed: torch.Tensor, there: torch.Tensor, form: str, total: Total) -> torch.Tensor:
    """The constraint over the samples of all processes.

    Args:
        weighed: (E, B), Z.
        there: (B,), 1 for samples, 0 for what fills a batch without any.
        form: as above.
        total: as above.
    """
    entries = total(there.sum()) * len(weighed)
    mean = total((weighed * there).sum()) / entries
    # where deviations are taken from does not change their sum's gradient, and a total within a total would
    squares = total(((weighed - mean.detach()).square() * there).sum())
    if form == "code":
        return squares / (entries - 1) / (mean**2 + 1e-10)
    return squares / entries / mean.clamp(min=torch.finfo(weighed.dtype).tiny)


def expert_contrast(outputs: torch.Tensor, temperature: float, valid: torch.Tensor | None = None) -> torch.Tensor:
    """InfoNCE between experts: each expert's outputs alike for different tokens, and unlike those of other experts.

    For an output o[t, i] of expert i, every o[t', i] with t' != t is a positive; the o[t', j] of all other experts and
    of all tokens are its negatives. The loss is the mean over all pairs of ``-log(e^p / (e^p + sum_n e^n))``, with
    cosine similarities divided by the temperature. Norms below 0.01 are taken as 0.01, so that experts which add
    nothing yet have no direction, and the gradient stays finite. Formula ours; the paper's could not be verified.

    Args:
        outputs: (T, E, D), what each expert says of each of a few tokens.
        temperature: above 0.
        valid: (T,), false for places that hold no token of their own; ``None`` takes all.

    Returns:
        0-dim; 0 where there is no pair of tokens.
    """
    tokens, experts, size = outputs.shape
    flat = outputs.reshape(tokens * experts, size)
    flat = flat / flat.norm(dim=-1, keepdim=True).clamp(min=NORM_FLOOR)
    similar = flat @ flat.t() / temperature
    places = torch.arange(tokens, device=outputs.device)
    token, expert = places.repeat_interleave(experts), torch.arange(experts, device=outputs.device).repeat(tokens)
    there = torch.ones(tokens, dtype=torch.bool, device=outputs.device) if valid is None else valid
    both = there[token][:, None] & there[token][None, :]
    same_expert = expert[:, None] == expert[None, :]
    positive = both & same_expert & (token[:, None] != token[None, :])
    least = torch.finfo(similar.dtype).min
    others = similar.masked_fill(~(both & ~same_expert), least).logsumexp(-1, keepdim=True)
    losses = torch.logaddexp(similar, others) - similar
    return torch.where(positive, losses, 0).sum() / positive.sum().clamp(min=1)


def evenly_spaced(
    count: int, tokens: int, counted: torch.Tensor | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """At most ``count`` of the tokens that count, evenly spaced: the same ones whenever a forward pass is repeated.

    Args:
        count: how many are wanted.
        tokens: how many there are (T).
        counted: (T,), 1 for those that count, 0 for padding; ``None`` counts all.
        device: of the result.

    Returns:
        Their places, and which of these hold one, where fewer tokens count than are wanted (else ``None``).
    """
    count = min(count, tokens)
    steps = torch.arange(count, device=device)
    if counted is None:
        return steps * tokens // count, None
    total = counted.sum().long()
    in_front = torch.argsort(counted.logical_not().to(torch.int8), stable=True)
    return in_front[torch.where(total > count, steps * total // count, steps)], steps < total


class _Attach(torch.autograd.Function):
    """The identity, whose backward pass also gives ``loss`` the gradient ``scale``."""

    @staticmethod
    def forward(ctx: Any, carrier: torch.Tensor, loss: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale, ctx.dtype = scale, loss.dtype
        return carrier.view_as(carrier)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        return gradient, torch.full((), ctx.scale, dtype=ctx.dtype, device=gradient.device), None


def attach_loss(carrier: torch.Tensor, loss: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """``carrier`` unchanged; whoever runs backward through it also adds ``scale * loss`` to the objective.

    A loss that is collected after the forward pass loses its gradient under reentrant checkpointing, where the forward
    pass that it came from has none, and is counted twice where that pass is repeated.
    """
    return _Attach.apply(carrier, loss, scale)

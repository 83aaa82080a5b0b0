"""Heads that ``nano`` begins with instead of discovering them, and the loss that tells some of them where to look.

A model of this size finds copying after most of an hour on two cores, and did not find by itself which of several facts
is asked for. Both are a few matrices away from a random initialisation:

- a head of the first layer looks one token back, another one sums up the tokens of a window, and both write what they
  see into dimensions that the embeddings leave almost empty;
- heads of the third layer look for a position whose predecessor is the present token, and copy the token there (an
  induction head);
- the carrier of the fourth layer writes the first token of a sentence's value wherever that is known, at the value and
  behind it: a model that looks back only cannot tell at "Rome" that "is the capital of Italy" will follow;
- the readers of the fifth layer look for a far position whose window holds the same words as the present one, a
  statement that resembles the question, and copy the token and what was carried there.

Everything else stays random, and all of it is trained. While it is, `pointing_loss` rewards the carrier and the readers
for looking at the answers in the passages.
"""

from __future__ import annotations

import torch
from nano_rows import Batch, Pointers
from torch import Tensor
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

COPIER_LAYER = 2
# layer and heads
CARRIER = (3, [0])
READERS = (4, [0, 1])
# rotary frequencies, fastest first: the fast ones tell neighbours apart, the middle ones a window of some ten tokens
FAST, MIDDLE = slice(0, 8), slice(4, 8)


def reserved(config: LlamaConfig) -> tuple[int, int]:
    """Number of dimensions that hold embeddings, and width of a head.

    Behind the embeddings stand a head's width for the predecessor, one for the window, and one constant.
    """
    size = config.hidden_size // config.num_attention_heads
    return config.hidden_size - 2 * size - 1, size


@torch.no_grad()
def plant_heads(model: LlamaForCausalLM, std: float = 0.1) -> None:
    """Initialise the heads described above, in place; seed torch before.

    Args:
        model: at least five layers, heads of at least 32 dimensions; embeddings are drawn anew.
        std: standard deviation of the embeddings.

    Raises:
        ValueError: fewer layers than the heads need.
    """
    if len(model.model.layers) <= READERS[0]:
        raise ValueError(f"{len(model.model.layers)} layers; the planted heads need {READERS[0] + 1}")
    config, layers = model.config, model.model.layers
    tokens, size = reserved(config)
    half = size // 2
    before, window = slice(tokens, tokens + size), slice(tokens + size, tokens + 2 * size)
    # slow angles hardly turn over a prompt's length: what is compared there is alike at every distance
    slow = torch.cat([torch.arange(half // 2, half), torch.arange(half // 2, half) + half])

    embedding = model.model.embed_tokens.weight
    embedding.normal_(std=std)
    embedding[:, tokens:-1] *= 0.2
    embedding[:, -1] = 2 * std
    model.model.norm.weight.fill_(0.7)  # softer first guesses: a gradient too large would undo the heads
    for layer in layers:
        layer.self_attn.o_proj.weight *= 0.35
        layer.mlp.down_proj.weight *= 0.35
    for layer in layers[1:]:  # a weak look at windows everywhere
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            projection.weight[:, window] += 0.02 * torch.randn_like(projection.weight[:, window])

    def code() -> Tensor:
        """Orthonormal directions, one per row, that stand for tokens."""
        return torch.linalg.qr(torch.randn(tokens, tokens))[0]

    def cleared(layer: int, head: int) -> slice:
        """The head's rows, now empty."""
        rows, attention = slice(head * size, (head + 1) * size), layers[layer].self_attn
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight[rows] = 0
        attention.o_proj.weight[:, rows] = 0
        return rows

    def copies(layer: int, head: int, directions: Tensor) -> None:
        """The head writes the token that it looks at, as far as it lies in the directions."""
        rows, attention = slice(head * size, head * size + len(directions)), layers[layer].self_attn
        attention.v_proj.weight[rows, :tokens] = directions
        attention.o_proj.weight[:tokens, rows] = 4 * std * directions.T

    # one token back: a constant query, and a constant key that is turned one position on
    first, seen = layers[0].self_attn, code()[:size]
    rows = cleared(0, 0)
    angle = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    first.q_proj.weight[:half, -1][FAST] = 3.0
    first.k_proj.weight[:half, -1][FAST] = 3.0 * angle.cos()[FAST]
    first.k_proj.weight[half:size, -1][FAST] = 3.0 * angle.sin()[FAST]
    first.v_proj.weight[rows, :tokens] = seen
    first.o_proj.weight[before, rows] = 1.5 * std * torch.eye(size)
    # the window: a constant query and key
    rows = cleared(0, 1)
    for projection in (first.q_proj, first.k_proj):
        projection.weight[size : size + half, -1][MIDDLE] = 1.6
    first.v_proj.weight[rows, :tokens] = code()[:size]
    first.o_proj.weight[window, rows] = 4 * std * torch.eye(size)

    written, copier = code(), layers[COPIER_LAYER].self_attn
    for head in range(config.num_attention_heads - 1):
        rows, part = cleared(COPIER_LAYER, head), head % 2 * half
        copier.q_proj.weight[head * size + slow, :tokens] = 4 * seen[part : part + half]
        copier.k_proj.weight[head * size + slow, tokens + part + torch.arange(half)] = 4.0
        copies(COPIER_LAYER, head, written[rows])
    # what is carried takes the place of the predecessor, which only the copying heads below needed
    layer, (head,) = CARRIER
    carrier, carried, rows = layers[layer].self_attn, code()[:size], cleared(layer, head)
    for projection in (carrier.q_proj, carrier.k_proj):
        projection.weight[head * size : head * size + half, -1][MIDDLE] = 1.6
        projection.weight[rows] += 0.02 * torch.randn_like(projection.weight[rows])
    carrier.v_proj.weight[rows, :tokens] = carried
    carrier.o_proj.weight[before, rows] = 4 * std * torch.eye(size)
    layer, heads = READERS
    reader = layers[layer].self_attn
    for head in heads:
        rows = cleared(layer, head)
        part = tokens + size + head * half + torch.arange(half)
        reader.q_proj.weight[head * size + slow, part] = 2.5
        reader.k_proj.weight[head * size + slow, part] = 2.5
        # away from the present position, which resembles itself most
        reader.q_proj.weight[head * size : head * size + half, -1][MIDDLE] = 4.5
        reader.k_proj.weight[head * size : head * size + half, -1][MIDDLE] = -4.5
    copies(layer, heads[0], code()[:size])
    reader.v_proj.weight[rows, before] = torch.eye(size)
    reader.o_proj.weight[:tokens, rows] = 4 * std * carried.T


def _watched(module: torch.nn.Module, query: Tensor, key: Tensor, *rest: object, **settings: object) -> tuple:
    """PyTorch's attention; layers that are told where to look keep queries and keys while gradients are computed."""
    if module.layer_idx in (CARRIER[0], READERS[0]) and torch.is_grad_enabled():
        module.looked = (query, key)
    return sdpa_attention_forward(module, query, key, *rest, **settings)


AttentionInterface.register("nano_watched", _watched)


def watch(model: LlamaForCausalLM) -> None:
    """Prepare a model for `pointing_loss`; nothing that it computes changes."""
    model.set_attn_implementation("nano_watched")


def pointing_loss(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """How far the carrier and the readers look from the answers, after a forward pass over ``batch`` with gradients.

    The mean over places and heads of minus the logarithm of the share of attention that goes where it should
    (`nano_rows.Row`), for the carrier plus the same for the readers; zero without places.
    """
    pointed = ((CARRIER, batch.carries), (READERS, batch.reads))
    return sum((_pointing_loss(model, batch, *heads, pointers) for heads, pointers in pointed), start=torch.zeros(()))


def _pointing_loss(model: LlamaForCausalLM, batch: Batch, layer: int, heads: list[int], pointers: Pointers) -> Tensor:
    attention = model.model.layers[layer].self_attn
    (query, key), attention.looked = attention.looked, None
    if not len(pointers.places):
        return query.new_zeros(())
    row, place = pointers.places.T
    scores = torch.einsum("nhd,nhld->nhl", query[row, :, place][:, heads], key[row][:, heads]) * attention.scaling
    causal = torch.arange(batch.ids.shape[1], device=row.device) <= place[:, None]
    visible = causal if batch.sees is None else batch.sees[row, 0, place]
    scores = scores.masked_fill(~visible[:, None], -torch.inf)
    answers = scores.masked_fill(~pointers.targets[:, None], -torch.inf)
    return (scores.logsumexp(-1) - answers.logsumexp(-1)).mean()

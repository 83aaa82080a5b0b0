"""What ``nano`` can do while it is trained: held-out text, copying, and unseen episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import nano_data
import torch
from nano_corpus import Corpus
from nano_rows import Row, answer_logits, plain_row, question_rows, stack
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

# facts in the passages, and sentences beside them
READING = {
    "read_1": (1, 0),
    "read_2": (2, 0),
    "read_3": (3, 0),
    "read_4": (4, 0),
    "read_6": (6, 0),
    "read_6_noise": (6, 3),
}


@torch.no_grad()
def right_rows(model: LlamaForCausalLM, rows: Sequence[Row], pad: int) -> list[bool]:
    """Whether every token with loss is the likeliest one: for an answer and its end, greedy decoding's exact match."""
    device = model.device
    right = []
    for i in range(0, len(rows), 64):
        logits, targets, place = answer_logits(model, stack(rows[i : i + 64], pad).to(device))
        wrong = torch.zeros(len(rows[i : i + 64]), dtype=torch.bool)
        wrong[place.cpu()[(logits.argmax(-1) != targets).cpu()]] = True
        right += (~wrong).tolist()
    return right


def exact_match(
    model: LlamaForCausalLM, episodes: Sequence[nano_data.Episode], tokenizer: PreTrainedTokenizerFast
) -> float:
    """Share of episodes answered exactly, each in a prompt of its own."""
    rows = [row for episode in episodes for row in question_rows([episode], tokenizer, "read")]
    right = right_rows(model, rows, tokenizer.pad_token_id)
    return sum(right) / len(right)


def copied(model: LlamaForCausalLM, corpus: Corpus, count: int) -> float:
    """Share of the repeated random tokens that are foreseen, in rows that nothing was trained on."""
    dice = corpus.dice("copies")
    rows = [plain_row(*nano_data.copy_row(dice, corpus.vocabulary, 48), "copy") for _ in range(count)]
    with torch.no_grad():
        logits, targets, _ = answer_logits(model, stack(rows, corpus.pad).to(model.device))
    return (logits.argmax(-1) == targets).float().mean().item()


@torch.no_grad()
def text_loss(model: LlamaForCausalLM, corpus: Corpus, windows: int, length: int = 128) -> float:
    """Mean loss per token on held-out text, in nats."""
    total, seen = 0.0, 0
    starts = range(0, min(len(corpus.held) - length, windows * length), length)
    for start in starts:
        row = plain_row(corpus.held[start : start + length], [False] + [True] * (length - 1), "text")
        logits, targets, _ = answer_logits(model, stack([row], corpus.pad).to(model.device))
        total += functional.cross_entropy(logits, targets, reduction="sum").item()
        seen += len(targets)
    return total / seen


def simple(model: LlamaForCausalLM, corpus: Corpus, facts: int, count: int, name: str) -> float:
    """Exact match on unseen sheets of short facts."""
    dice = corpus.dice(f"{name}-simple-{facts}", unseen=True)
    draws = [nano_data.simple_sheet(dice, facts, asked=1)[0] for _ in range(count)]
    return exact_match(model, draws, corpus.tokenizer)


def reading(model: LlamaForCausalLM, corpus: Corpus, count: int, name: str = "evaluation") -> dict[str, float]:
    """Exact match on unseen episodes, whose entities training never saw, by kind and number of facts.

    ``absent`` is the share of questions without an answer that get "unknown"; ``refused`` that of the others.
    """
    dice = corpus.dice(name, unseen=True)
    figures, refused, asked = {}, 0.0, 0
    for key, (facts, noise) in READING.items():
        draws = [nano_data.read_sheet(dice, facts, noise, 1, 0.0, corpus.sentences)[0] for _ in range(count)]
        figures[key] = exact_match(model, draws, corpus.tokenizer)
        denied = [nano_data.Episode("absent", e.question, nano_data.UNKNOWN, e.passages, e.facts) for e in draws]
        refused += exact_match(model, denied, corpus.tokenizer) * count
        asked += count
    draws = [nano_data.read_sheet(dice, dice.choice((1, 2, 3, 4, 6)), 0, 1, 1.0)[0] for _ in range(2 * count)]
    figures |= {"absent": exact_match(model, draws, corpus.tokenizer), "refused": refused / asked}
    return figures


def evaluate(model: LlamaForCausalLM, corpus: Corpus, count: int, name: str = "validation") -> dict[str, float]:
    """Text, copying, reading, and closed-book questions that nobody can answer."""
    loss = text_loss(model, corpus, count)
    dice = corpus.dice(f"{name}-closed", unseen=True)
    closed = [nano_data.closed_episode(dice) for _ in range(count)]
    return {
        "held_out_loss": loss,
        "bits_per_byte": loss / math.log(2) * len(corpus.held) / corpus.held_bytes,
        "copied": copied(model, corpus, count),
        **{f"simple_{facts}": simple(model, corpus, facts, count, name) for facts in (2, 4, 8)},
        **reading(model, corpus, count, name),
        "closed": exact_match(model, closed, corpus.tokenizer),
    }

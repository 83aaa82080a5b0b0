"""A toy model that writes questions and answers, for strategies that have the model write."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from lifelong.testing.toys import FACTS, rows_of, toy_model

STEPS, ROWS, LEARNING_RATE = 120, 16, 1e-2


def toy_writer(family: str, folder: Path) -> Path:
    """As ``toy_model``, but the causal one has learned to write the questions and answers of ``toy_stream``.

    It answers a question and ends there, or goes on with further questions of the same task where it has read some. Its
    training takes seconds, and comes to the same weights each time on one machine.

    Args:
        family: as for ``toy_model``; encoder-decoders and classifiers are the same as there.
        folder: made if it is not there.

    Returns:
        The folder.
    """
    toy_model(family, folder)
    if family != "causal":
        return folder
    model, tokenizer = LlamaForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model.eval()  # without dropout, so that nothing is drawn
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    draw = random.Random(0)
    for _ in range(STEPS):
        batch = _batch(tokenizer, [_text(draw) for _ in range(ROWS)])
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.save_pretrained(folder)
    return folder


def _text(draw: random.Random) -> str:
    """One row of a task, or several with empty lines between them, in the wording of ``PromptTemplate``."""
    rows = rows_of(draw.choice(list(FACTS)))
    some = draw.sample(rows, draw.choice((1, 1, 4)))
    return "\n\n".join(f"Question: {row['question']}\nAnswer: {row['answers'][0]}" for row in some)


def _batch(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> dict[str, torch.Tensor]:
    batch = tokenizer([text + tokenizer.eos_token for text in texts], padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}

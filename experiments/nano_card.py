"""The figures of ``nano``'s model card, measured on the written model as a user of lifelong would."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nano_data
import torch
from nano_measure import right_rows
from nano_rows import answer_logits, question_rows, stack
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lifelong import Learner
from lifelong.generation import generate
from lifelong.metrics.answers import exact_match, token_f1
from lifelong.models import load_model
from streams import world_facts

LONGEST = 24
SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')]))\s+(?=[A-Z\"'(0-9])")


def answers(learner: Learner, rows: Sequence[dict[str, Any]], book: str) -> list[str]:
    """Greedy answers of at most `LONGEST` tokens to rows with a question and, for an open book, passages."""
    with torch.inference_mode():
        prompts = learner.encoder.encode_prompts(rows, book, reserves=[LONGEST] * len(rows))
        return generate(learner, prompts, LONGEST)


def share_right(learner: Learner, rows: Sequence[dict[str, Any]], book: str = "gold") -> float:
    """Exact match, as runs measure it."""
    given = answers(learner, rows, book)
    return sum(exact_match(text, row["answers"]) for text, row in zip(given, rows, strict=True)) / len(rows)


def world_facts_figures(folder: Path, seed: int) -> dict[str, float]:
    """Exact match on every task of `world_facts`: closed book, with the gold passage, and with three more of the task.

    ``gold_probes`` is the mean over the other wordings of each question, with the gold passage.
    """
    learner, dice, figures = Learner(*load_model(str(folder))).eval(), nano_data.Dice(f"{seed}-world"), {}
    for task in world_facts():
        passages = [row["passages"][0] for row in task.test]
        settings = defaultdict(list)
        for row in task.test:
            gold = row["passages"][0]
            shown = [gold, *dice.sample([p for p in passages if p != gold], 3)]
            dice.shuffle(shown)
            settings["gold"].append({**row, "passages": [gold]})
            settings["gold_probes"] += [{**row, "question": probe, "passages": [gold]} for probe in row["probes"]]
            settings["distracted"].append({**row, "passages": shown})
        figures[f"{task.name}_closed"] = share_right(learner, settings["gold"], "closed")
        for name, rows in settings.items():
            figures[f"{task.name}_{name}"] = share_right(learner, rows)
    return figures


def squad_rows(file: Path) -> list[dict[str, Any]]:
    """Questions of a file in SQuAD's format; the passage is the sentence of the paragraph that holds the answer."""
    rows = []
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            ends = [match.end() for match in SENTENCE_END.finditer(context)]
            for asked in paragraph["qas"]:
                answer = asked["answers"][0]
                first, last = answer["answer_start"], answer["answer_start"] + len(answer["text"])
                start = max((end for end in ends if end <= first), default=0)
                stop = min((end for end in ends if end >= last), default=len(context))
                passage, texts = context[start:stop].strip(), [a["text"] for a in asked["answers"]]
                row = {"question": asked["question"], "answers": texts, "passages": [passage], "choices": []}
                rows.append(row)
    return rows


def squad_figures(folder: Path, file: Path) -> dict[str, float]:
    """Exact match and F1 on the questions of a file in SQuAD's format, with the sentence that holds the answer."""
    learner, rows = Learner(*load_model(str(folder))).eval(), squad_rows(file)
    given = answers(learner, rows, "gold")
    pairs = list(zip(given, (row["answers"] for row in rows), strict=True))
    return {
        f"{file.stem}_{name}": sum(score(*pair) for pair in pairs) / len(rows)
        for name, score in (("em", exact_match), ("f1", token_f1))
    }


def learnability(folder: Path, episodes: Sequence[nano_data.Episode], rate: float, epochs: int, seed: int) -> float:
    """How well a LoRA (rank 16, every linear layer, batches of 16, AdamW) on the written model learns rows.

    Returns:
        exact match on the rows themselves after ``epochs`` passes.
    """
    torch.manual_seed(seed)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    lora = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    rows = [row for episode in episodes for row in question_rows([episode], tokenizer, "read")]
    weights = [p for p in lora.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    for _ in range(epochs):
        order = torch.randperm(len(rows)).tolist()
        for i in range(0, len(order), 16):
            batch = stack([rows[j] for j in order[i : i + 16]], tokenizer.pad_token_id)
            logits, targets, _ = answer_logits(model, batch)
            functional.cross_entropy(logits, targets).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
    right = right_rows(model, rows, tokenizer.pad_token_id)
    return sum(right) / len(right)

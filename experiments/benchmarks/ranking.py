"""What ranking c choices costs beside one pass over the prompts.

    python experiments/benchmarks/ranking.py

Prompts are four times longer than choices. Asked: at most 1 + c / 4 times one prefix pass. Beside the plain pass,
`model(input_ids, attention_mask)`, stands one with logits for the last position alone, with which ranking begins: each
token of a choice needs logits, so that with a wide vocabulary on a narrow model ranking cannot come near to it.
"""

from __future__ import annotations

from functools import partial

import torch
from timing import median_seconds
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lifelong.generation import choice_log_likelihoods, padded
from lifelong.learner import Learner
from lifelong.models import NANO, count_parameters, load_model

PROMPTS, PROMPT, CHOICE, ROUNDS = 16, 96, 24, 9


def learners() -> dict[str, Learner]:
    """The embedded model, and one of ten times its size."""
    model, tokenizer = load_model("nano")
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=512,
    )
    larger = LlamaForCausalLM(config)
    name = f"Llama, {count_parameters(larger)[1] / 1e6:.0f} M"
    return {
        "nano": Learner(model, tokenizer).eval(),
        name: Learner(larger, AutoTokenizer.from_pretrained(NANO)).eval(),
    }


def main() -> None:
    draw = torch.Generator().manual_seed(0)
    print(f"{PROMPTS} prompts of {PROMPT} tokens, choices of {CHOICE}; {torch.get_num_threads()} threads")
    print(
        "| model | choices | plain pass, ms | last logits alone, ms | ranking, ms | of plain | of last alone | asked |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, learner in learners().items():
        prompts = torch.randint(10, 4000, (PROMPTS, PROMPT), generator=draw).tolist()
        ids, mask = padded(prompts, learner.pad_id)
        inputs = {"input_ids": ids, "attention_mask": mask}
        for count in (2, 4, 8):
            choices = torch.randint(10, 4000, (PROMPTS, count, CHOICE), generator=draw).tolist()
            with torch.inference_mode():
                seconds = median_seconds(
                    {
                        "plain": partial(learner.model, **inputs),
                        "last": partial(learner.model, **inputs, logits_to_keep=1),
                        "ranking": partial(choice_log_likelihoods, learner, prompts, choices),
                    },
                    ROUNDS,
                )
            milliseconds = " | ".join(f"{1000 * value:.0f}" for value in seconds.values())
            ratios = " | ".join(f"{seconds['ranking'] / seconds[way]:.2f}" for way in ("plain", "last"))
            print(f"| {name} | {count} | {milliseconds} | {ratios} | at most {1 + count / 4:.2f} |")


if __name__ == "__main__":
    main()

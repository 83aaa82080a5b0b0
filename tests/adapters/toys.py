"""Toy models of four architectures, small adapters for them, and a padded batch for each."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from lifelong.adapters import DenseMoeConfig, LoraMoeConfig, MoeLoraConfig, MoralConfig
from lifelong.adapters.config import MixtureConfig

FAMILIES = ("llama", "gpt2", "t5", "bert")
METHODS = {"moral": MoralConfig, "loramoe": LoraMoeConfig, "moelora": MoeLoraConfig, "densemoe": DenseMoeConfig}
# methods differ in their layers (feed-forward, attention) and in whether experts have a rank
PAIRS = [
    *((family, method) for family in FAMILIES for method in ("moral", "moelora")), ("llama", "loramoe"),
    ("gpt2", "densemoe"),
]  # fmt: skip
PAD, EOS, VOCABULARY, WIDTH, INNER = 0, 1, 40, 16, 24
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
TYPES = ["knowledge", "downstream"]


def base(family: str, width: int = WIDTH, blocks: int = 2) -> PreTrainedModel:
    """A model without dropout, in evaluation mode, with the same weights at every call."""
    torch.manual_seed(0)
    tokens = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": 2}
    if family == "llama":
        config = LlamaConfig(
            hidden_size=width, intermediate_size=INNER, num_hidden_layers=blocks, num_attention_heads=2,
            num_key_value_heads=1, **tokens,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()
    if family == "gpt2":
        none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        config = GPT2Config(n_embd=width, n_inner=INNER, n_layer=blocks, n_head=2, n_positions=32, **none, **tokens)
        return GPT2LMHeadModel(config).eval()
    if family == "t5":
        config = T5Config(
            d_model=width, d_ff=INNER, d_kv=8, num_layers=blocks, num_heads=2, dropout_rate=0.0,
            decoder_start_token_id=PAD, **tokens,
        )  # fmt: skip
        return T5ForConditionalGeneration(config).eval()
    config = BertConfig(
        hidden_size=width, intermediate_size=INNER, num_hidden_layers=blocks, num_attention_heads=2, num_labels=3,
        max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **tokens,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def batch(family: str) -> dict[str, torch.Tensor]:
    """Two samples, of six and of four tokens; with labels."""
    tokens = torch.arange(12).view(2, 6) * 3 % (VOCABULARY - 3) + 3
    ids = torch.where(MASK.bool(), tokens, PAD)
    labels = torch.tensor([0, 2]) if family == "bert" else torch.where(MASK.bool(), ids.flip(1), -100)
    if family == "t5":
        labels = torch.tensor([[5, 6, 7, EOS], [9, EOS, -100, -100]])
    return {"input_ids": ids, "attention_mask": MASK.clone(), "labels": labels}


def small(method: str, **changes: Any) -> MixtureConfig:
    """Few experts of low rank, without dropout."""
    settings = {"num_experts": 4, "top_k": 2} | ({} if method == "densemoe" else {"r": 2, "lora_dropout": 0.0})
    if method == "loramoe":
        settings["top_k"] = None
    return METHODS[method](**(settings | changes))


def fill(model: nn.Module, seed: int = 1) -> None:
    """Let the experts do something: B is no longer zero, and routers prefer some of them."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "_experts." in name:
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def adapted(family: str, method: str, blocks: int = 2, **changes: Any) -> PeftModel:
    """A model with an adapter that does something, in evaluation mode."""
    model = get_peft_model(base(family, blocks=blocks), small(method, **changes)).eval()
    fill(model)
    return model


@torch.no_grad()
def outputs(model: nn.Module, family: str) -> torch.Tensor:
    """The logits of the batch."""
    return model(**batch(family)).logits

"""What the tests of adapters share: toy models of many architectures, and gradients by name."""

from __future__ import annotations

import pytest

WIDTH, INNER = 16, 24


@pytest.fixture(scope="session")
def toy():
    """A function that makes a fresh model of two blocks: ``toy("llama")``, ``toy("t5", feed_forward_proj=...)``."""
    import torch
    import transformers

    common = {"vocab_size": 40}
    llama = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, **common}
    plain = {**llama, "intermediate_size": INNER}
    bart = {
        "d_model": WIDTH,
        **{f"{side}_{name}": number for side in ("encoder", "decoder") for name, number in _SIDE.items()},
        **common,
    }
    makers = {
        "llama": ("LlamaConfig", "LlamaForCausalLM", plain),
        "mistral": ("MistralConfig", "MistralForCausalLM", {**plain, "num_key_value_heads": 1}),
        "phi": ("PhiConfig", "PhiForCausalLM", plain),
        "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", plain),
        "bert": ("BertConfig", "BertModel", plain),
        "gpt2": ("GPT2Config", "GPT2LMHeadModel", {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, **common}),
        "t5": (
            "T5Config",
            "T5ForConditionalGeneration",
            {"d_model": WIDTH, "d_kv": 8, "d_ff": INNER, "num_layers": 2, "num_heads": 2, **common},
        ),
        "opt": ("OPTConfig", "OPTForCausalLM", {**llama, "ffn_dim": INNER, "word_embed_proj_dim": WIDTH}),
        "distilbert": (
            "DistilBertConfig",
            "DistilBertModel",
            {"dim": WIDTH, "hidden_dim": INNER, "n_layers": 2, "n_heads": 2, **common},
        ),
        "bart": ("BartConfig", "BartForConditionalGeneration", bart),
    }

    def make(kind: str, **settings):
        config, model, own = makers[kind]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return getattr(transformers, model)(getattr(transformers, config)(**{**own, **settings}))

    return make


_SIDE = {"layers": 2, "attention_heads": 2, "ffn_dim": INNER}


@pytest.fixture(scope="session")
def gradients():
    """A function that gives the gradients of a module's trainable parameters by name, and forgets them."""

    def take(module) -> dict:
        found = {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}
        module.zero_grad(set_to_none=True)
        return found

    return take

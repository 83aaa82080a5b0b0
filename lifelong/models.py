"""A name becomes a model and its tokenizer, with an adapter if one is wanted."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lifelong.errors import ModelError, suggestion
from lifelong.randomness import derived_seed

NANO = Path(__file__).parent / "assets" / "nano"

# other families (sequence to sequence, classifiers) take their place here
AUTO_CLASSES: dict[str, Any] = {"causal": AutoModelForCausalLM}


def load_model(
    name: str = "nano",
    adapter: PeftConfig | str | Path | None = None,
    *,
    family: str = "causal",
    dtype: str = "float32",
    revision: str | None = None,
    gradient_checkpointing: bool = False,
    trust_remote_code: bool = False,
    seed: int = 0,
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer, ready for training.

    Args:
        name: ``"nano"`` (the embedded model), a folder, or a name on the hub.
        adapter: ``None`` trains all weights; a PEFT configuration puts a fresh adapter on frozen weights; a folder or
            hub name goes on training the adapter found there.
        family: kind of model; ``"causal"`` for now.
        dtype: of the loaded weights, such as ``"float32"``, ``"bfloat16"`` or ``"auto"``.
        revision: version of the model on the hub.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        trust_remote_code: run code that comes with the model.
        seed: decides the adapter's initial weights; the global random state is left as it was.

    Raises:
        ModelError: the model, tokenizer or adapter is missing or does not fit.
    """
    source = _source(name)
    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ModelError(f"unknown dtype {dtype!r}{suggestion(dtype, ('float32', 'bfloat16', 'float16', 'auto'))}")
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = AUTO_CLASSES[family].from_pretrained(source, dtype=dtype, **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"model {name!r} cannot be loaded: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {name!r} has no end-of-sequence token, so no answer could ever end")
    if adapter is not None:
        model = _with_adapter(model, adapter, seed)
    else:
        model.requires_grad_(True)
    if gradient_checkpointing:
        # transformers renamed it within version 5
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model, tokenizer


def context_length(model: torch.nn.Module) -> int | None:
    """The longest sequence that the model was made for, in tokens; ``None`` where its configuration names none."""
    config = model.config.get_text_config()
    for key in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
        if isinstance(getattr(config, key, None), int):
            return getattr(config, key)
    return None


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Trainable and total parameters; shared weights count once."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes)


def _source(name: str) -> str:
    if name == "nano":
        return str(NANO)
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    looks_like_a_folder = path.is_absolute() or name.startswith((".", "~")) or name.endswith(os.sep)
    if looks_like_a_folder or name.count("/") > 1:
        raise ModelError(f"there is no model folder {name!r}")
    return name


def _with_adapter(model: PreTrainedModel, adapter: PeftConfig | str | Path, seed: int) -> PeftModel:
    with torch.random.fork_rng():  # a loaded adapter is drawn too, before its weights are read
        torch.manual_seed(derived_seed(seed, "adapter"))
        if isinstance(adapter, PeftConfig):
            try:
                return get_peft_model(model, copy.deepcopy(adapter))  # PEFT writes into it
            except ValueError as error:
                raise ModelError(f"the adapter {type(adapter).__name__} does not fit this model: {error}") from error
        try:
            return PeftModel.from_pretrained(model, _source(str(adapter)), is_trainable=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"adapter {str(adapter)!r} cannot be loaded: {error}") from error

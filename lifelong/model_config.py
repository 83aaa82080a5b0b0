"""What a model's configuration says of it: its family, and how long a row may be."""

from __future__ import annotations

import torch
from peft import PeftModel
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from lifelong.errors import ConfigError, ModelError

DEFAULT_LENGTH = 1024  # tokens of a row, for models whose configuration names no limit


def family_of(config: PreTrainedConfig) -> str:
    """The family that a model's configuration speaks of.

    Raises:
        ModelError: it speaks of none.
    """
    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    made = (getattr(config, "architectures", None) or [""])[0]
    if is_encoder(config) or made.endswith("ForSequenceClassification"):
        return "classifier"
    if is_decoder(config) or "CausalLM" in made or "LMHead" in made:
        return "causal"
    raise ModelError(f"what family {config.model_type!r} belongs to is not known here; say so in `family`")


def is_encoder(config: PreTrainedConfig) -> bool:
    """Whether a token sees those behind it too, as in BERT."""
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)


def is_decoder(config: PreTrainedConfig) -> bool:
    """Whether a token sees itself and those before it alone, as in Llama."""
    return config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not is_encoder(config)


def family_of_model(model: torch.nn.Module) -> str:
    """The family of a model that has been loaded: one without a language head is a classifier's."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if getattr(base.config, "is_encoder_decoder", False):
        return "seq2seq"
    return "classifier" if base.get_output_embeddings() is None else "causal"


def check_family(family: str, config: PreTrainedConfig, name: str) -> None:
    """Whether a model can be of the family that it is said to be of.

    Raises:
        ModelError: it cannot.
    """
    pairs = getattr(config, "is_encoder_decoder", False)
    if pairs != (family == "seq2seq"):
        what = "an encoder-decoder" if pairs else "no encoder-decoder"
        raise ModelError(f"family: {family!r} does not fit the model {name!r}, which is {what}")
    if family == "causal" and is_encoder(config):
        raise ModelError(
            f"family: 'causal' does not fit the model {name!r}, an encoder, whose tokens see those that they are to "
            "predict; leave family out, and it becomes a classifier"
        )


def context_length(model: torch.nn.Module) -> int | None:
    """The longest sequence that the model was made for, in tokens; ``None`` where its configuration names none."""
    for module in model.modules():
        positions = getattr(module, "position_embeddings", None)
        # RoBERTa and its kin count positions from behind that of padding, and their configurations do not
        if isinstance(positions, torch.nn.Embedding) and positions.padding_idx is not None:
            return positions.num_embeddings - positions.padding_idx - 1
    return context_in(model.config)


def context_in(config: PreTrainedConfig) -> int | None:
    """As ``context_length``, from a configuration alone."""
    config = config.get_text_config()
    for key in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
        length = getattr(config, key, None)
        if isinstance(length, int) and length > 0:
            return length
    return None


def row_length(context: int | None, wanted: int | None) -> int:
    """The longest row in tokens: what is wanted, or else the model's context.

    Raises:
        ConfigError: more is wanted than the context holds.
    """
    if wanted is not None and wanted < 1:
        raise ConfigError(f"max_length: must be at least 1, got {wanted!r}")
    if wanted is not None and context is not None and wanted > context:
        raise ConfigError(f"max_length: {wanted} tokens are more than the model's context of {context}")
    return wanted or context or DEFAULT_LENGTH

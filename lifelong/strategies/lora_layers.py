"""The LoRA layers of a model, for strategies that read and write A and B themselves."""

from __future__ import annotations

from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from lifelong.adapter_folder import DEFAULT
from lifelong.errors import ConfigError

# settings under which a LoRA is more, or something else, than h = W x + scaling * B A x
MORE_THAN_A_AND_B = (
    "modules_to_save",
    "trainable_token_indices",
    "lora_bias",
    "target_parameters",
    "layer_replication",
    "ensure_weight_tying",
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "velora_config",
    "monteclora_config",
    "kasa_config",
    "arrow_config",
    "alora_invocation_tokens",
)


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """The layers with a LoRA of the default adapter on a linear layer, by their names in the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and DEFAULT in module.lora_A
    }


def check_plain(name: str, model: PeftModel) -> None:
    """Whether a model's adapter is B A of linear layers and nothing else.

    Args:
        name: of the strategy that asks.
        model: with one LoRA.

    Raises:
        ConfigError: naming the setting by which it is more.
    """
    config: LoraConfig = model.peft_config[DEFAULT]
    if config.bias != "none":
        raise ConfigError(f"{name}: the adapter's bias must be 'none', and is {config.bias!r}: biases are no B A")
    for setting in MORE_THAN_A_AND_B:
        if getattr(config, setting, None):
            raise ConfigError(f"{name}: needs a plain LoRA; leave the adapter's {setting} out")
    for path, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        if DEFAULT in module.lora_embedding_A:
            raise ConfigError(f"{name}: the adapter's target_modules has the embedding {path}; only linear layers work")
        if DEFAULT in module.lora_variant:
            raise ConfigError(f"{name}: needs a plain LoRA, and {path} has {type(module.lora_variant[DEFAULT])}")
        if not isinstance(module.lora_A[DEFAULT], nn.Linear) or getattr(module, "parameter_name", None):
            raise ConfigError(f"{name}: the adapter's target_modules has {path}, which is no linear layer")

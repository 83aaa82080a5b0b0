"""Weights in four or eight bits: from a setting to what transformers loads with, and what it takes.

Quantised weights are frozen: an adapter beside them is what learns (QLoRA, arXiv 2305.14314). Of what
``peft.prepare_model_for_kbit_training`` does for that, nothing is left to be done here: ``get_peft_model`` freezes the
weights, gradient checkpointing is a setting of its own, and what is not quantised (embeddings, norms, the output layer)
has the model's ``dtype``, float32 by default. With ``dtype="bfloat16"`` hidden states take half of the memory; norms
compute in float32 either way.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from torch.nn.functional import linear
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module
from transformers.utils import is_bitsandbytes_available

from lifelong.errors import ConfigError, ModelError, suggestion

BLOCK = 64  # weights that share one scale, in four bits; bitsandbytes' default
NESTED_BLOCK = 256  # scales that share one scale of their own, where they are quantised too

Quantization = str | Mapping[str, Any] | None


def parse(setting: Quantization) -> BitsAndBytesConfig | None:
    """The configuration that a setting stands for; bitsandbytes need not be there.

    Args:
        setting: ``None``; ``"4bit"``: NormalFloat in blocks of 64, scales quantised again, and products computed in
            bfloat16 where the device has it, as in sections 3 and 4 of QLoRA; ``"8bit"``: LLM.int8()
            (arXiv 2208.07339) with its threshold of 6; or arguments of ``transformers.BitsAndBytesConfig``, of which
            ``load_in_4bit`` or ``load_in_8bit`` must be true, and which are taken as they are.

    Raises:
        ConfigError: the setting is unknown, or its arguments do not fit.
    """
    if setting is None:
        return None
    if isinstance(setting, Mapping):
        return _from_arguments(setting)
    if setting == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    if setting == "4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=_compute_dtype(),
        )
    raise ConfigError(f"quantization: unknown {setting!r}{suggestion(str(setting), ('4bit', '8bit'))}")


def quantization_config(setting: Quantization, trains_all: bool) -> BitsAndBytesConfig | None:
    """What ``from_pretrained`` takes as its ``quantization_config``.

    Args:
        setting: as for ``parse``.
        trains_all: whether all weights are to be trained, with no adapter beside them.

    Raises:
        ConfigError: the setting is unknown, or there is nothing that could learn.
        ModelError: bitsandbytes is missing, or too old for transformers.
    """
    config = parse(setting)
    if config is None:
        return None
    if trains_all:
        refuse_full_training()
    if not is_bitsandbytes_available():
        least = inspect.signature(is_bitsandbytes_available).parameters["min_version"].default
        raise ModelError(
            f"quantization: needs bitsandbytes {least} or later, which is not installed: "
            "pip install 'lifelong[quantization]', or pip install bitsandbytes"
        )
    return config


def refuse_full_training() -> NoReturn:
    """Say that quantised weights cannot be trained.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        "quantization: quantised weights cannot be trained; set an adapter, such as peft.LoraConfig, to be trained "
        "beside them, or leave quantization out"
    )


def packed_bytes(weights: int, outputs: int, config: BitsAndBytesConfig) -> int:
    """The memory that a quantised linear layer's matrix takes.

    Four bits: half a byte a weight, and for each block of 64 a scale in float32; where scales are quantised again, each
    takes a byte, and each 256 of them a scale in float32. Eight bits: a byte a weight, and a scale in float32 for each
    output. The two tables of bitsandbytes that say which value each code stands for, 1 KB a layer, are left out.

    Args:
        weights: of the matrix.
        outputs: of the layer.
        config: as ``parse`` gives it.
    """
    if config.load_in_8bit:
        return weights + 4 * outputs
    scales = -(-weights // BLOCK)
    nested = config.bnb_4bit_use_double_quant
    return -(-weights // 2) + (scales + 4 * -(-scales // NESTED_BLOCK) if nested else 4 * scales)


class PackedLinear(torch.nn.Linear):
    """A frozen linear layer that takes the memory of one of bitsandbytes, in its weights and in what it does.

    The packed weights are unpacked for each product, forwards and backwards, and dropped after it; eight bits keep the
    input for the backward pass, and four bits compute in a type of their own (bitsandbytes 0.50).
    """

    def __init__(self, columns: int, rows: int, bias: torch.nn.Parameter | None, config: BitsAndBytesConfig) -> None:
        super().__init__(columns, rows, bias=False, device="meta")
        size = packed_bytes(columns * rows, rows, config)
        self.weight = torch.nn.Parameter(torch.empty(size, dtype=torch.uint8, device="meta"), requires_grad=False)
        self.weight.quant_state = SimpleNamespace(shape=(rows, columns))  # where bitsandbytes says what it stands for
        self.bias = bias
        self.keeps_input = config.load_in_8bit
        self.compute_dtype = None if config.load_in_8bit else config.bnb_4bit_compute_dtype

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        computed = hidden if self.compute_dtype is None else hidden.to(self.compute_dtype)
        bias = None if self.bias is None else self.bias.to(computed.dtype)
        return _PackedProduct.apply(computed, bias, self).to(hidden.dtype)


class _PackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, bias: torch.Tensor | None, layer: PackedLinear) -> torch.Tensor:
        ctx.shape = (layer.out_features, layer.in_features)
        ctx.save_for_backward(*([hidden] if layer.keeps_input else []))
        return linear(hidden, hidden.new_empty(ctx.shape), bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient @ gradient.new_empty(ctx.shape), None, None


def pack(model: PreTrainedModel, config: BitsAndBytesConfig) -> None:
    """Put packed layers into a model on the meta device, where bitsandbytes would put its own.

    That is all linear ones (GPT-2's are called convolutions) but the output layer, what shares its weights with another
    one, and what the configuration or the model excepts.
    """
    kept = HfQuantizer.get_modules_to_not_convert(model, config.llm_int8_skip_modules, model._keep_in_fp32_modules)
    for name, module in list(model.named_modules()):
        if (isinstance(module, Conv1D) or type(module) is torch.nn.Linear) and should_convert_module(name, kept):
            shape = module.weight.shape
            columns, rows = shape if isinstance(module, Conv1D) else reversed(shape)
            model.set_submodule(name, PackedLinear(columns, rows, module.bias, config))


def _from_arguments(arguments: Mapping[str, Any]) -> BitsAndBytesConfig:
    known = [name for name in inspect.signature(BitsAndBytesConfig).parameters if name != "kwargs"]
    for name in arguments:
        if name not in known:
            raise ConfigError(f"quantization.{name}: there is no such setting{suggestion(str(name), known)}")
    try:
        config = BitsAndBytesConfig(**arguments)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"quantization: {error}") from None
    if not config.is_quantizable():
        raise ConfigError("quantization: one of load_in_4bit and load_in_8bit must be true")
    return config


def _compute_dtype() -> torch.dtype:
    """bfloat16 where it is computed in hardware; float16 instead would let small gradients vanish."""
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float32
    return torch.bfloat16

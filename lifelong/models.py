"""A name becomes a model and its tokenizer, with an adapter if one is wanted."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from peft.utils import CONFIG_NAME as ADAPTER_CONFIG
from peft.utils import SAFETENSORS_WEIGHTS_NAME as ADAPTER_WEIGHTS
from peft.utils import WEIGHTS_NAME as PICKLED_ADAPTER
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME

from lifelong.adapter_folder import check_alone
from lifelong.errors import ModelError, suggestion
from lifelong.inside import inside
from lifelong.model_config import check_family, family_of
from lifelong.quantization import Quantization, quantization_config
from lifelong.randomness import derived_seed

NANO = Path(__file__).parent / "assets" / "nano"

# the class that loads a family's model; a classifier's head is the Learner's, so its model comes without one
AUTO_CLASSES: dict[str, Any] = {
    "causal": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classifier": AutoModel,
}
# what PEFT calls them, the right name first. An adapter for sequence classification would bring a head of its own, and
# a fresh one with every adapter
TASK_TYPES = {
    "causal": (TaskType.CAUSAL_LM,),
    "seq2seq": (TaskType.SEQ_2_SEQ_LM,),
    "classifier": (TaskType.FEATURE_EXTRACTION, TaskType.SEQ_CLS),
}


def load_model(
    name: str = "nano",
    adapter: PeftConfig | str | Path | None = None,
    *,
    family: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    gradient_checkpointing: bool = False,
    trust_remote_code: bool = False,
    seed: int = 0,
    quantization: Quantization = None,
    device_map: str | Mapping[str, Any] | None = None,
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer, ready for training.

    Args:
        name: ``"nano"`` (the embedded model), a folder, or a name on the hub.
        adapter: ``None`` trains all weights; a PEFT configuration puts a fresh adapter on frozen weights; a folder or
            hub name goes on training the adapter found there.
        family: ``"causal"``, ``"seq2seq"`` (encoder-decoder) or ``"classifier"`` (the model without a head: that is the
            ``Learner``'s); ``"auto"`` goes by the model's configuration.
        dtype: of the loaded weights, such as ``"float32"``, ``"bfloat16"`` or ``"auto"``.
        revision: version of the model on the hub.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        trust_remote_code: run code that comes with the model.
        seed: decides the adapter's initial weights; the global random state is left as it was.
        quantization: ``"4bit"``, ``"8bit"`` or arguments of ``BitsAndBytesConfig``; see ``lifelong.quantization``.
        device_map: where transformers puts the weights while it loads them, such as ``"auto"``, which spreads a model
            that is too large for one device. Quantised weights are put on the first accelerator by default.

    Raises:
        ModelError: the model, tokenizer or adapter is missing or does not fit.
        ConfigError: the quantisation is unknown, or would leave nothing to train.
    """
    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ModelError(f"unknown dtype {dtype!r}{suggestion(dtype, ('float32', 'bfloat16', 'float16', 'auto'))}")
    packed = quantization_config(quantization, trains_all=adapter is None)
    config, tokenizer, family = read_model(name, family, revision, trust_remote_code)
    if not trust_remote_code:
        check_model_folder(Path(_source(name)))
    if isinstance(adapter, PeftConfig):
        check_adapter(adapter, family)
    options = {
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "dtype": dtype,
        "quantization_config": packed,
        "device_map": device_map,
        "use_safetensors": None if trust_remote_code else True,
        **without_pooler(family, config),
    }
    with _loading(name):
        model = _whole_model(AUTO_CLASSES[family], _source(name), name, seed, options)
    if adapter is not None:
        model = _with_adapter(model, adapter, family, seed)
    else:
        model.requires_grad_(True)
    if gradient_checkpointing:
        # transformers renamed it within version 5
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model, tokenizer


def read_model(
    name: str, family: str = "auto", revision: str | None = None, trust_remote_code: bool = False
) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase, str]:
    """A model's configuration, tokenizer and family, without its weights; arguments as for ``load_model``.

    Raises:
        ModelError: one of them is missing or does not fit.
    """
    if family not in ("auto", *AUTO_CLASSES):
        raise ModelError(f"family: unknown {family!r}{suggestion(family, ('auto', *AUTO_CLASSES))}")
    source, options = _source(name), {"revision": revision, "trust_remote_code": trust_remote_code}
    if (Path(source) / ADAPTER_CONFIG).is_file() and not (Path(source) / CONFIG_NAME).is_file():
        raise ModelError(
            f"model: {name!r} is the folder of an adapter: name it in `adapter`, and in `model` what it was trained on"
        )
    with _loading(name):
        config = AutoConfig.from_pretrained(source, **options)
    if family == "auto":
        family = family_of(config)
    else:
        check_family(family, config, name)
    with _loading(name):
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    if tokenizer.eos_token_id is None and family != "classifier":
        raise ModelError(f"the tokenizer of {name!r} has no end-of-sequence token, so no answer could ever end")
    words = tokenizer("The answer to it is one word", add_special_tokens=False)["input_ids"]
    if tokenizer.unk_token_id is not None and 2 * words.count(tokenizer.unk_token_id) >= len(words):
        raise ModelError(f"the tokenizer of {name!r} knows no words: the files of its vocabulary are missing")
    return config, tokenizer, family


def check_model_folder(folder: Path) -> None:
    """Whether a model's weights are safetensors, which hold nothing but numbers; of no account for names on the hub.

    Raises:
        ModelError: they are pickles, which can run code when they are read.
        RunError: the index of their parts names a file outside of the folder.
    """
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        for part in set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()):
            inside(folder, part, index)
    pickles = sorted(file for ending in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(ending))
    if pickles and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{pickles[0]} is a pickle, which could run code, and is not read. If you know who made it, load it with "
            "transformers, and write it again with save_pretrained: weights are read from model.safetensors"
        )


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


@contextmanager
def _loading(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        hint = ""
        if not _is_folder(name) and isinstance(error, OSError):
            hint = " A model that this machine cannot reach can be fetched elsewhere, and given as its folder."
        raise ModelError(f"model {name!r} cannot be loaded: {error}{hint}") from error


def _whole_model(kind: Any, source: str, name: str, seed: int, options: Mapping[str, Any]) -> PreTrainedModel:
    """A loaded model; weights that the checkpoint lacks are drawn by the seed, and said."""
    log = logging.getLogger("transformers.modeling_utils")
    log.disabled, before = True, log.disabled  # its report lists every weight that a head or pooler left behind
    try:
        with torch.random.fork_rng():
            torch.manual_seed(derived_seed(seed, "model"))
            model, found = kind.from_pretrained(
                source, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    finally:
        log.disabled = before
    if found["mismatched_keys"]:
        weight, there, here = sorted(found["mismatched_keys"])[0]
        raise ValueError(f"{weight} has the shape {tuple(there)}, and {tuple(here)} by its configuration")
    if found["missing_keys"]:
        some = ", ".join(sorted(found["missing_keys"])[:3])
        warnings.warn(f"model {name!r}: weights that it lacks begin at random values: {some}", stacklevel=3)
    return model


def _is_folder(name: str) -> bool:
    return name == "nano" or Path(name).expanduser().is_dir()


def without_pooler(family: str, config: PreTrainedConfig) -> dict[str, bool]:
    """How to load a model without BERT's pooler, which nothing here trains, and which is new where there is none."""
    if family != "classifier":
        return {}
    kind = AutoModel._model_mapping.get(type(config), None)
    accepted = inspect.isclass(kind) and "add_pooling_layer" in inspect.signature(kind).parameters
    return {"add_pooling_layer": False} if accepted else {}


def check_adapter(adapter: PeftConfig, family: str) -> None:
    """Whether models of a family can be trained with such an adapter, going by its configuration.

    Raises:
        ModelError: it is for another family, or of a kind that cannot be used.
    """
    if adapter.is_prompt_learning:
        raise ModelError(
            f"the adapter {type(adapter).__name__} puts virtual tokens before the prompt, which ranking "
            "choices does not count with; use an adapter of the weights, such as LoRA or IA3"
        )
    made_for = adapter.task_type
    if made_for is not None and TaskType(made_for) not in TASK_TYPES[family]:
        raise ModelError(
            f"the adapter {type(adapter).__name__} is for task_type {TaskType(made_for).value}, and the model is of "
            f"the family {family!r}: leave task_type out, or set it to {TASK_TYPES[family][0].value}"
        )


def _with_adapter(model: PreTrainedModel, adapter: PeftConfig | str | Path, family: str, seed: int) -> PeftModel:
    with torch.random.fork_rng():  # a loaded adapter is drawn too, before its weights are read
        torch.manual_seed(derived_seed(seed, "adapter"))
        if isinstance(adapter, PeftConfig):
            adapter = copy.deepcopy(adapter)  # PEFT writes into it
            if adapter.task_type is not None:
                adapter.task_type = TASK_TYPES[family][0]
            try:
                return get_peft_model(model, adapter)
            except ValueError as error:
                raise ModelError(f"the adapter {type(adapter).__name__} does not fit this model: {error}") from error
        try:
            return _loaded_adapter(model, _source(str(adapter)), family)
        except (OSError, ValueError, RuntimeError, SafetensorError, UserWarning) as error:
            raise ModelError(f"adapter {str(adapter)!r} cannot be loaded: {error}") from error


def adapter_config(source: str) -> PeftConfig:
    """The configuration of an adapter in a folder or on the hub, of a method of PEFT or of ``lifelong.adapters``."""
    importlib.import_module("lifelong.adapters")  # from then on PEFT knows its methods
    pickled = Path(source) / PICKLED_ADAPTER
    if pickled.is_file() and not (Path(source) / ADAPTER_WEIGHTS).is_file():
        raise ModelError(
            f"{pickled} is a pickle, which could run code, and is not read. If you know who made it, load it with PEFT "
            f"and write it again with save_pretrained: weights are read from {ADAPTER_WEIGHTS}"
        )
    check_alone(Path(source))
    return PeftConfig.from_pretrained(source)


def _loaded_adapter(model: PreTrainedModel, source: str, family: str) -> PeftModel:
    config = adapter_config(source)
    check_adapter(config, family)
    if config.task_type is not None:
        config.task_type = TASK_TYPES[family][0]
    with warnings.catch_warnings():
        # PEFT would leave these at their initial values
        warnings.filterwarnings("error", message="Found missing adapter keys")
        return PeftModel.from_pretrained(model, source, config=config, is_trainable=True)

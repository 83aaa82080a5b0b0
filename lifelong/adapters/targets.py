"""Which layers of a model an adapter is for."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn

from lifelong.adapters.config import QUERY_VALUE, MixtureConfig
from lifelong.adapters.layer import linear_features
from lifelong.errors import ConfigError

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)


def default_targets(config: MixtureConfig, model: nn.Module) -> set[str]:
    """The modules that a configuration means which names none.

    Raises:
        ConfigError: this model's cannot be told, or none is in the blocks of ``layers_to_transform``; the message lists
            its linear layers.
    """
    found = _query_value(model) if config.default_targets == QUERY_VALUE else set(feed_forward_layers(model))
    if not found:
        raise ConfigError(
            f"target_modules: the {config.default_targets} layers of {type(model).__name__} cannot be told by its "
            f"structure; name them. Linear layers: {linear_names(model)}"
        )
    chosen = {name for name in found if "." not in name or _in_chosen_block(config, name)}
    if not chosen:
        raise ConfigError(
            f"layers_to_transform: no block of {type(model).__name__} with {config.default_targets} layers is meant by "
            f"layers_to_transform = {config.layers_to_transform}. Linear layers: {linear_names(model)}"
        )
    return chosen


def feed_forward_layers(model: nn.Module) -> list[str]:
    """The linear layers of the feed-forward parts, found by structure: names differ, and BERT's mean two things.

    In a block (a member of a list of modules that has attention in it) they are the linear layers outside of attention
    that lead from the model's width to another one and back.
    """
    names = []
    for block_name, block in _blocks(model):
        layers = {
            f"{block_name}.{name}": features
            for name, features in _linear_layers(block)
            if not _ATTENTION.search(name) and not _in_attention(block, name)
        }
        names += [
            name
            for name, (inputs, outputs) in layers.items()
            if any(other != name and back == (outputs, inputs) for other, back in layers.items())
        ]
    return names


def linear_names(model: nn.Module) -> str:
    """The kinds of linear layers there are, for messages: full names with numbers as stars."""
    kinds = dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name, _ in _linear_layers(model))
    return ", ".join(kinds) or "none"


def outer_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules but those inside of an adapted layer, which has the name that the layer had before."""
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name and not (inside and name.startswith(inside)):
            if isinstance(module, BaseTunerLayer):
                inside = (*inside, f"{name}.")
            yield name, module


def _query_value(model: nn.Module) -> set[str]:
    """Ends of names, or whole names, as PEFT knows them for the model's architecture."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind, ())
    if isinstance(known, str):
        return {name for name, _ in _linear_layers(model) if re.fullmatch(known, name)}
    # of some, such as Phi, it names the feed-forward part too
    return set(known) - {name.rpartition(".")[2] for name in feed_forward_layers(model)}


def _in_chosen_block(config: MixtureConfig, name: str) -> bool:
    """Whether ``layers_to_transform`` means a layer; PEFT does not ask that of one whose whole name is given."""
    by_end = copy.copy(config)
    by_end.target_modules, by_end.exclude_modules, by_end.modules_to_save = {name.rpartition(".")[2]}, None, None
    return bool(check_target_module_exists(by_end, name))


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names and features."""
    for name, module in outer_modules(model):
        features = linear_features(module.get_base_layer() if isinstance(module, BaseTunerLayer) else module)
        if features is not None:
            yield name, features


def _blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The members of lists of modules that have attention in them, without those inside of others."""
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(module, nn.ModuleList) and _has_attention(module):
            inside = (*inside, f"{name}.")
            yield from ((f"{name}.{number}", block) for number, block in enumerate(module))


def _has_attention(module: nn.Module) -> bool:
    return any(_ATTENTION.search(type(part).__name__) for part in module.modules())


def _in_attention(block: nn.Module, name: str) -> bool:
    """Whether a part of ``block`` lies in a module whose class says that it is attention."""
    parts = name.split(".")
    return any(
        _ATTENTION.search(type(block.get_submodule(".".join(parts[:depth]))).__name__) for depth in range(1, len(parts))
    )

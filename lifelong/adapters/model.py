"""The tuners: what PEFT calls to put mixtures into a model, to take them out, and to load them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _find_minimal_target_modules
from torch import nn

from lifelong.adapters.config import MixtureConfig
from lifelong.adapters.layer import CANNOT_MERGE, MixtureLayer, linear_features
from lifelong.adapters.targets import default_targets, linear_names, outer_modules
from lifelong.errors import ConfigError, ModelError


class MixtureModel(BaseTuner):
    """A model with mixtures of experts in place of some of its linear layers; see ``BaseTuner`` of PEFT."""

    tuner_layer_cls = MixtureLayer

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        _check_others(model, self.prefix)
        super().__init__(model, *args, **kwargs)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """PEFT's; where it fails, the model is as before, and the name is free."""
        trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        again = any(adapter_name in layer.mixtures for _, layer in _mixture_layers(model))
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except Exception:
            if not again:
                self.peft_config.pop(adapter_name, None)
                _take_out(model, adapter_name)
            for parameter, trains in trained:
                parameter.requires_grad = trains
            raise

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Called by PEFT around each pass."""
        if kwargs.get("adapter_names") is not None:
            raise ConfigError("adapter_names: a batch whose rows use different adapters is not supported by mixtures")
        yield

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        return peft_config  # what it means without target_modules can be told from the model alone: see below

    def _prepare_model(self, peft_config: MixtureConfig, model: nn.Module) -> None:
        """Settle which modules are meant, and look at all of them before any is replaced."""
        if peft_config.target_modules is None:
            peft_config.target_modules = _shortened(default_targets(peft_config, model), model)
        if peft_config.target_modules == "all-linear":
            return
        matched = [
            name
            for name, module in outer_modules(model)
            if self._check_target_module_exists(peft_config, name) and _check_linear(name, module)
        ]
        if not matched:
            raise ConfigError(_no_match(peft_config, model))

    def _create_and_replace(
        self,
        peft_config: MixtureConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = target if isinstance(target, MixtureLayer) else MixtureLayer(target, self.prefix)
        layer.set_adapter(self.active_adapters)
        layer.add_mixture(adapter_name, peft_config)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def _check_merge_allowed(self) -> None:
        raise NotImplementedError(CANNOT_MERGE)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        found = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        try:
            _check_tensors(model, cls.prefix, adapter_name, found)
        except ModelError:
            if config.unread and isinstance(model, PeftModel) and _is_fresh(model, adapter_name):
                _forget(model, adapter_name)
            raise
        config.unread = False
        return found


class MoralModel(MixtureModel):
    """MoRAL's tuner."""

    prefix = "moral_"


class LoraMoeModel(MixtureModel):
    """LoRAMoE's tuner."""

    prefix = "loramoe_"


class MoeLoraModel(MixtureModel):
    """MoELoRA's tuner; "moelora_" has LoRA's own prefix in it, by which libraries tell LoRA's parameters."""

    prefix = "moelr_"


class DenseMoeModel(MixtureModel):
    """The tuner of full-rank experts."""

    prefix = "densemoe_"


def _mixture_layers(model: nn.Module) -> list[tuple[str, MixtureLayer]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, MixtureLayer)]


def _check_others(model: nn.Module, prefix: str) -> None:
    """Whether the model carries adapters of another method; PEFT saves and switches those of one method only."""
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and getattr(module, "experts_name", None) != f"{prefix}experts":
            raise ConfigError(
                f"{name} carries an adapter of another method, {type(module).__module__}.{type(module).__name__}; "
                "methods cannot be mixed in one model: take that adapter out first, with PEFT's unload() or "
                "merge_and_unload(), or load the base model again"
            )


def _take_out(model: nn.Module, adapter_name: str) -> None:
    """Remove an adapter, and put layers back that have no other."""
    for name, layer in _mixture_layers(model):
        if adapter_name in layer.mixtures:
            layer.delete_adapter(adapter_name)
        if not layer.mixtures:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.base_layer)


def _is_fresh(model: nn.Module, adapter_name: str) -> bool:
    """Whether an adapter has learned nothing yet."""
    ours = [layer.mixtures[adapter_name].B for _, layer in _mixture_layers(model) if adapter_name in layer.mixtures]
    return all(B.is_meta or not B.any() for B in ours)


def _forget(model: PeftModel, adapter_name: str) -> None:
    """Undo that PEFT has put an adapter into the model, whose tensors then turned out not to fit."""
    if len(model.peft_config) == 1:
        model.base_model.unload()
    else:
        model.base_model.delete_adapter(adapter_name)
        _take_out(model.base_model.model, adapter_name)


def _shortened(names: set[str], model: nn.Module) -> set[str]:
    """Full names without beginnings that are not needed; these differ between models with and without a head."""
    every = {name for name, _ in outer_modules(model)}
    return _find_minimal_target_modules(names, every - names) if names <= every else names


def _check_linear(name: str, module: nn.Module) -> bool:
    if not isinstance(module, MixtureLayer) and linear_features(module) is None:
        raise ConfigError(
            f"target_modules: {name} is a {type(module).__name__}; a mixture can only stand beside a linear layer, "
            "which has in_features and out_features"
        )
    return True


def _no_match(config: MixtureConfig, model: nn.Module) -> str:
    wanted, blocks = config.target_modules, config.layers_to_transform
    names = wanted if isinstance(wanted, str) else ", ".join(sorted(wanted))
    where = "" if blocks is None else f" in layers_to_transform = {blocks}"
    return f"target_modules: nothing in {type(model).__name__} matches {names}{where}. There is: {linear_names(model)}"


def _check_tensors(model: nn.Module, prefix: str, adapter_name: str, found: dict[str, torch.Tensor]) -> None:
    """Whether what was read is what the model has places for; PEFT itself warns, or passes over it."""
    mark = f".{prefix}experts.{adapter_name}."
    places = {name: value.shape for name, value in model.state_dict().items()}
    wanted = {name: shape for name, shape in places.items() if mark in name}
    given = {name: value.shape for name, value in found.items()}
    missing = sorted(set(wanted) - set(given))
    # PEFT cuts its own beginning off names only later, where the model has none
    foreign = sorted(name for name in given if not {name, name.removeprefix("base_model.model.")} & set(places))
    other = sorted(name for name in set(wanted) & set(given) if wanted[name] != given[name])
    problems = []
    if missing:
        problems.append(f"{len(missing)} tensors are missing, such as {missing[0]}")
    if foreign:
        problems.append(f"{len(foreign)} tensors have no place in the model, such as {foreign[0]}")
    if other:
        name = other[0]
        problems.append(
            f"{len(other)} tensors have another shape, such as {name}: {tuple(given[name])}, where the model's layer "
            f"needs {tuple(wanted[name])}"
        )
    if problems:
        raise ModelError(f"the adapter's file does not fit this model: {'; '.join(problems)}")

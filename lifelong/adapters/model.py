"""The tuners: what PEFT calls to put mixtures into a model, to take them out, and to load them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from lifelong.adapters.config import MixtureConfig
from lifelong.adapters.layer import CANNOT_MERGE, MixtureLayer, linear_features
from lifelong.adapters.targets import default_targets, linear_names, outer_modules
from lifelong.errors import ConfigError, ModelError


class MixtureModel(BaseTuner):
    """A model with mixtures of experts in place of some of its linear layers; see ``BaseTuner`` of PEFT."""

    tuner_layer_cls = MixtureLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        return peft_config  # what it means without target_modules can be told from the model alone: see below

    def _prepare_model(self, peft_config: MixtureConfig, model: nn.Module) -> None:
        """Settle which modules are meant, and look at all of them before any is replaced."""
        if peft_config.target_modules is None:
            peft_config.target_modules = default_targets(peft_config, model)
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
        _check_tensors(model, cls.prefix, adapter_name, found)
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


def _check_linear(name: str, module: nn.Module) -> bool:
    if isinstance(module, BaseTunerLayer) and not isinstance(module, MixtureLayer):
        raise ConfigError(f"target_modules: {name} carries an adapter of another method, {type(module).__name__}")
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
    wanted = {name: value.shape for name, value in model.state_dict().items() if mark in name}
    given = {name: value.shape for name, value in found.items()}
    missing = sorted(set(wanted) - set(given))
    foreign = sorted(name for name in set(given) - set(wanted) if f".{prefix}" in name)
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

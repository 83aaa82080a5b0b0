"""The one place where PEFT learns of the methods here."""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from lifelong.adapters.config import AdapterType, DenseMoeConfig, LoraMoeConfig, MoeLoraConfig, MoralConfig
from lifelong.adapters.model import DenseMoeModel, LoraMoeModel, MoeLoraModel, MoralModel

METHODS = {
    AdapterType.MORAL: (MoralConfig, MoralModel),
    AdapterType.LORAMOE: (LoraMoeConfig, LoraMoeModel),
    AdapterType.MOELORA: (MoeLoraConfig, MoeLoraModel),
    AdapterType.DENSEMOE: (DenseMoeConfig, DenseMoeModel),
}


def register() -> None:
    """Enter each method into PEFT's tables; PEFT's own function for that takes only types of its enumeration."""
    for kind, (config, model) in METHODS.items():
        PEFT_TYPE_TO_CONFIG_MAPPING[kind] = config
        PEFT_TYPE_TO_TUNER_MAPPING[kind] = model
        PEFT_TYPE_TO_PREFIX_MAPPING[kind] = model.prefix

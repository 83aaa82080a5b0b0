"""Mixtures of LoRA experts as PEFT methods: importing this package makes PEFT and transformers know them."""

from lifelong.adapters.accounting import account
from lifelong.adapters.config import DenseMoeConfig, LoraMoeConfig, MoeLoraConfig, MoralConfig
from lifelong.adapters.context import auxiliary_loss, routing_context
from lifelong.adapters.diagnostics import record_routing
from lifelong.adapters.registration import register

__all__ = [
    "DenseMoeConfig",
    "LoraMoeConfig",
    "MoeLoraConfig",
    "MoralConfig",
    "account",
    "auxiliary_loss",
    "record_routing",
    "routing_context",
]

register()

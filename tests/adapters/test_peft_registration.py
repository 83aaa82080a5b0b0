"""PEFT knows the methods, by plain strings too."""

import importlib

import pytest
import torch
from peft import get_peft_config
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

import lifelong.adapters
from lifelong.adapters import registration
from tests.adapters.toys import METHODS, adapted, outputs

TABLES = (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_found_by_a_plain_string(method):
    assert PEFT_TYPE_TO_CONFIG_MAPPING[method.upper()] is METHODS[method]
    config = get_peft_config({"peft_type": method.upper(), "num_experts": 6})
    assert type(config) is METHODS[method] and config.num_experts == 6
    assert config.peft_type == method.upper() and config.peft_type.value == method.upper()


def test_prefixes_are_each_methods_own_and_none_is_loras():
    prefixes = [PEFT_TYPE_TO_PREFIX_MAPPING[method.upper()] for method in METHODS]
    others = [PEFT_TYPE_TO_PREFIX_MAPPING[kind] for kind in PEFT_TYPE_TO_PREFIX_MAPPING if kind.lower() not in METHODS]
    assert len(set(prefixes)) == 4
    for prefix in prefixes:
        assert "lora_" not in prefix
        assert not any(prefix in other or other in prefix for other in others)


def test_registering_again_changes_nothing():
    before = [dict(table) for table in TABLES]
    registration.register()
    importlib.reload(registration)
    importlib.reload(lifelong.adapters)
    assert [dict(table) for table in TABLES] == before
    model = adapted("llama", "moral")
    assert torch.isfinite(outputs(model, "llama")).all()

"""Settings: what the papers say, what cannot be, and what survives being written."""

import dataclasses
import json

import pytest
from peft import PeftConfig

from lifelong.adapters import DenseMoeConfig, LoraMoeConfig, MoeLoraConfig, MoralConfig
from lifelong.adapters.config import AdapterType
from lifelong.errors import ConfigError

ALL = [MoralConfig, LoraMoeConfig, MoeLoraConfig, DenseMoeConfig]
LOW_RANK = [MoralConfig, LoraMoeConfig, MoeLoraConfig]


@pytest.mark.parametrize(
    ("config", "defaults"),
    [
        (
            MoralConfig,
            {
                "num_experts": 8,
                "top_k": 2,
                "r": 8,
                "lora_alpha": 16,
                "lora_dropout": 0.05,
                "renormalize": True,
                "balance_weight": 0,
                "peft_type": "MORAL",
            },
        ),
        (
            LoraMoeConfig,
            {
                "num_experts": 6,
                "top_k": None,
                "r": 4,
                "lora_alpha": 32,
                "lora_dropout": 0.05,
                "balance_weight": 0.1,
                "delta": 0.1,
                "form": "paper",
                "types": ["knowledge"] * 3 + ["downstream"] * 3,
                "count_padding": False,
                "router_init_std": None,
                "peft_type": "LORAMOE",
            },
        ),
        (
            MoeLoraConfig,
            {
                "num_experts": 8,
                "top_k": 2,
                "r": 8,
                "temperature": 0.1,
                "contrast_weight": 0.01,
                "balance_weight": 0.01,
                "default_targets": "query and value",
                "peft_type": "MOELORA",
            },
        ),
        (DenseMoeConfig, {"top_k": None, "balance_weight": 0, "low_rank": False, "peft_type": "DENSEMOE"}),
    ],
)
def test_defaults_are_those_of_the_paper_or_the_documented_ones_of_ours(config, defaults):
    made = config()
    assert {name: getattr(made, name) for name in defaults} == defaults


@pytest.mark.parametrize("config", ALL)
def test_every_field_has_a_line_of_help(config):
    for field in dataclasses.fields(config):
        assert field.metadata.get("help"), field.name
        assert field.name in PeftConfig.__dataclass_fields__ or field.metadata["help"].endswith("."), field.name


@pytest.mark.parametrize("config", ALL)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_experts": 4, "top_k": 5}, "top_k: 5 experts cannot be chosen among num_experts = 4"),
        ({"top_k": 0}, "top_k: must be a whole number of at least 1, got 0"),
        ({"top_k": -1}, "top_k: must be a whole number of at least 1, got -1"),
        ({"top_k": 1.5}, "top_k: must be a whole number of at least 1, got 1.5"),
        ({"top_k": True}, "top_k: must be a whole number of at least 1, got True"),
        ({"num_experts": 0}, "num_experts: must be a whole number of at least 1, got 0"),
        ({"num_experts": "8"}, "num_experts: must be a whole number of at least 1, got '8'"),
        ({"num_experts": None}, "num_experts: must be a whole number of at least 1, got None"),
        ({"balance_weight": -0.1}, "balance_weight: must be a number of at least 0, got -0.1"),
        ({"balance_weight": "0.1"}, "balance_weight: must be a number of at least 0, got '0.1'"),
        ({"balance_weight": float("nan")}, "balance_weight: must be a number of at least 0, got nan"),
        ({"balance_weight": None}, "balance_weight: must be a number of at least 0, got None"),
        ({"router_init_std": -1}, "router_init_std: must be a number of at least 0, got -1"),
        ({"top_k": 1}, "renormalize: with top_k = 1 every gate would be 1, and the router would learn nothing"),
        ({"router_init_std": 0, "top_k": 2}, "router_init_std: with 0 all tokens would choose the same experts"),
        ({"layers_pattern": "h"}, "layers_pattern: only says where layers_to_transform counts"),
        ({"target_modules": "all-linear", "layers_to_transform": 1}, "layers_to_transform: does not count where"),
        ({"target_modules": 3}, "target_modules: must be a list of names, or a text with a regular expression, got 3"),
        ({"target_modules": ["up", 3]}, "target_modules: must be a list of names, or a text"),
        ({"target_modules": []}, "target_modules: is empty"),
        ({"target_modules": ""}, "target_modules: is empty"),
        ({"target_modules": "*up"}, "target_modules: '*up' is no regular expression: nothing to repeat"),
        ({"exclude_modules": "(up"}, "exclude_modules: '(up' is no regular expression: missing )"),
        ({"exclude_modules": 3}, "exclude_modules: must be a list of names"),
        ({"layers_to_transform": "0"}, "layers_to_transform: must be a block's number, counted from 0, or a list"),
        ({"layers_to_transform": [0, "1"]}, "layers_to_transform: must be a block's number"),
        ({"layers_to_transform": -1}, "layers_to_transform: must be a block's number"),
        ({"layers_to_transform": True}, "layers_to_transform: must be a block's number"),
        ({"layers_to_transform": []}, "layers_to_transform: is empty"),
        ({"layers_to_transform": 0, "layers_pattern": 3}, "layers_pattern: must be a name or a list of names, got 3"),
        ({"layers_to_transform": 0, "layers_pattern": "h["}, "layers_pattern: 'h[' is no regular expression"),
        ({"modules_to_save": "head"}, "modules_to_save: must be a list of names, got the text 'head'"),
        ({"target_modules": ".*up", "layers_to_transform": [1]}, "layers_to_transform: does not count where"),
    ],
)
def test_what_no_mixture_can_have_is_refused(config, settings, message):
    with pytest.raises(ConfigError) as error:
        config(**settings)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("config", LOW_RANK)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "r: must be a whole number of at least 1, got 0"),
        ({"r": 4.0}, "r: must be a whole number of at least 1, got 4.0"),
        ({"r": None}, "r: must be a whole number of at least 1, got None"),
        ({"lora_dropout": 1}, "lora_dropout: must be a number of at least 0 and below 1, got 1"),
        ({"lora_dropout": -0.1}, "lora_dropout: must be a number of at least 0 and below 1, got -0.1"),
        ({"lora_dropout": "none"}, "lora_dropout: must be a number of at least 0 and below 1, got 'none'"),
        ({"lora_alpha": 0}, "lora_alpha: must be a number above 0, got 0"),
        ({"lora_alpha": "16"}, "lora_alpha: must be a number above 0, got '16'"),
    ],
)
def test_what_no_mixture_of_lora_experts_can_have_is_refused(config, settings, message):
    with pytest.raises(ConfigError) as error:
        config(**settings)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (LoraMoeConfig, {"num_experts": 5}, "num_experts: 5 experts have no two halves; make it even, or set"),
        (LoraMoeConfig, {"form": "papers"}, "form: unknown 'papers'. Did you mean 'paper'?"),
        (LoraMoeConfig, {"form": "xyz"}, "form: unknown 'xyz'. There is: code, paper"),
        (LoraMoeConfig, {"delta": 1}, "delta: must be a number of at least 0 and below 1, got 1"),
        (LoraMoeConfig, {"delta": -0.1}, "delta: must be a number of at least 0 and below 1, got -0.1"),
        (LoraMoeConfig, {"expert_types": ["knowledge"]}, "expert_types: 1 types for num_experts = 6"),
        (
            LoraMoeConfig,
            {"num_experts": 2, "expert_types": ["knowledge", "downstreem"]},
            "expert_types: unknown type 'downstreem'. Did you mean 'downstream'?",
        ),
        (
            LoraMoeConfig,
            {"num_experts": 1, "expert_types": ["knowledge"]},
            "balance_weight: a single expert has no other to be balanced with; set it to 0",
        ),
        (
            LoraMoeConfig,
            {"num_experts": 2, "expert_types": ["knowledge"] * 2},
            "expert_types: all are of the type 'knowledge', and what the localised constraint compares is a group",
        ),
        (MoralConfig, {"top_k": None, "balance_weight": 0.1}, "balance_weight: where all experts answer"),
        (DenseMoeConfig, {"balance_weight": 0.1}, "balance_weight: where all experts answer"),
        (MoralConfig, {"use_rslora": "no"}, "use_rslora: must be true or false, got 'no'"),
        (LoraMoeConfig, {"expert_types": "knowledge"}, "expert_types: must be a list"),
        (MoeLoraConfig, {"contrast_weight": -1}, "contrast_weight: must be a number of at least 0, got -1"),
        (MoeLoraConfig, {"temperature": 0}, "temperature: must be a number above 0, got 0"),
        (MoeLoraConfig, {"contrast_tokens": 1}, "contrast_tokens: must be a whole number of at least 2, got 1"),
        (MoeLoraConfig, {"contrast_tokens": None}, "contrast_tokens: must be a whole number of at least 2, got None"),
        (
            MoeLoraConfig,
            {"num_experts": 1, "balance_weight": 0, "top_k": 1},
            "contrast_weight: a single expert has no other to be",
        ),
    ],
)
def test_what_a_method_cannot_have_is_refused(config, settings, message):
    with pytest.raises(ConfigError) as error:
        config(**settings)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (MoralConfig, {"num_experts": 1, "top_k": 1}),
        (MoralConfig, {"num_experts": 4, "top_k": 4, "router_init_std": 0}),
        (MoralConfig, {"top_k": None, "router_init_std": 0}),
        (MoralConfig, {"lora_dropout": 0, "balance_weight": 1}),
        (LoraMoeConfig, {"num_experts": 5, "balance_weight": 0}),
        (LoraMoeConfig, {"num_experts": 1, "balance_weight": 0}),
        (LoraMoeConfig, {"num_experts": 3, "expert_types": ["knowledge", "downstream", "downstream"]}),
        (MoeLoraConfig, {"num_experts": 1, "top_k": 1, "balance_weight": 0, "contrast_weight": 0}),
        (MoralConfig, {"layers_to_transform": 0, "layers_pattern": "h"}),
        (MoralConfig, {"layers_to_transform": (0, 2), "layers_pattern": ["h", "blocks"]}),
        (MoralConfig, {"target_modules": {"up"}, "exclude_modules": set(), "modules_to_save": []}),
    ],
)
def test_what_is_at_the_edge_is_allowed(config, settings):
    made = config(**settings)
    assert {name: getattr(made, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        (MoralConfig(r=4, lora_alpha=10), 2.5),
        (MoralConfig(r=4, lora_alpha=10, use_rslora=True), 5.0),
        (LoraMoeConfig(), 8.0),
        (DenseMoeConfig(), 1.0),
    ],
)
def test_what_experts_add_is_scaled(config, scaling):
    assert config.scaling == scaling


@pytest.mark.parametrize(
    ("config", "auxiliary"),
    [
        (MoralConfig(), False),
        (MoralConfig(balance_weight=0.1), True),
        (LoraMoeConfig(), True),
        (LoraMoeConfig(balance_weight=0), False),
        (MoeLoraConfig(), True),
        (MoeLoraConfig(balance_weight=0), True),
        (MoeLoraConfig(contrast_weight=0), True),
        (MoeLoraConfig(balance_weight=0, contrast_weight=0), False),
        (DenseMoeConfig(balance_weight=0.1, top_k=2), True),
    ],
)
def test_a_configuration_knows_whether_any_loss_has_a_weight(config, auxiliary):
    assert config.auxiliary() is auxiliary


CHANGED = [
    MoralConfig(
        target_modules=["up", "down"],
        exclude_modules=["head"],
        layers_to_transform=[0, 2],
        layers_pattern="blocks",
        modules_to_save=["head"],
        num_experts=4,
        top_k=3,
        renormalize=False,
        router_init_std=0.02,
        balance_weight=0.5,
        count_padding=True,
        r=2,
        lora_alpha=3.5,
        lora_dropout=0.2,
        use_rslora=True,
        task_type="CAUSAL_LM",
    ),
    LoraMoeConfig(num_experts=3, expert_types=["downstream", "knowledge", "knowledge"], form="code", delta=0.3),
    MoeLoraConfig(contrast_weight=0.2, temperature=0.4, contrast_tokens=16, target_modules=r".*\.q"),
    DenseMoeConfig(top_k=1, renormalize=False, num_experts=3),
]


@pytest.mark.parametrize("config", [*(kind() for kind in ALL), *CHANGED], ids=lambda config: type(config).__name__)
def test_a_configuration_written_and_read_is_the_same(config, tmp_path):
    config.save_pretrained(str(tmp_path))
    for reader in (PeftConfig, type(config)):
        read = reader.from_pretrained(str(tmp_path))
        assert type(read) is type(config)
        assert read == config
    assert isinstance(read.peft_type, AdapterType)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["peft_type"] == config.peft_type.value == config.peft_type.name
    assert set(written) == {field.name for field in dataclasses.fields(config)} == set(config.to_dict())


def test_types_are_members_that_text_finds():
    assert AdapterType("MORAL") is AdapterType.MORAL
    assert all(kind == kind.value == kind.name for kind in AdapterType)


def test_the_order_in_which_modules_are_named_does_not_matter():
    one, other = ({"target_modules": names, "exclude_modules": names} for names in (["up", "down"], ["down", "up"]))
    assert MoralConfig(**one) == MoralConfig(**other)

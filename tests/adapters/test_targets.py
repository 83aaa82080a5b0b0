"""The feed-forward layers are found by structure, in any architecture; and an error leaves the model as it was."""

import re

import pytest
import torch
from peft import PeftConfig, get_peft_model
from torch import nn

from lifelong.adapters import DenseMoeConfig, LoraMoeConfig, MoeLoraConfig, MoralConfig
from lifelong.adapters.layer import MixtureLayer
from lifelong.adapters.targets import default_targets, feed_forward_layers, linear_names, outer_modules
from lifelong.errors import ConfigError

# written down from the architectures' published code
FEED_FORWARD = {
    "llama": {f"model.layers.{i}.mlp.{name}_proj" for i in (0, 1) for name in ("gate", "up", "down")},
    "mistral": {f"model.layers.{i}.mlp.{name}_proj" for i in (0, 1) for name in ("gate", "up", "down")},
    "gpt2": {f"transformer.h.{i}.mlp.{name}" for i in (0, 1) for name in ("c_fc", "c_proj")},
    "bert": {f"encoder.layer.{i}.{name}.dense" for i in (0, 1) for name in ("intermediate", "output")},
    "opt": {f"model.decoder.layers.{i}.{name}" for i in (0, 1) for name in ("fc1", "fc2")},
    "phi": {f"model.layers.{i}.mlp.{name}" for i in (0, 1) for name in ("fc1", "fc2")},
    "gpt_neox": {f"gpt_neox.layers.{i}.mlp.dense_{name}" for i in (0, 1) for name in ("h_to_4h", "4h_to_h")},
    "distilbert": {f"transformer.layer.{i}.ffn.{name}" for i in (0, 1) for name in ("lin1", "lin2")},
    "bart": {
        f"model.{side}.layers.{i}.{name}" for side in ("encoder", "decoder") for i in (0, 1) for name in ("fc1", "fc2")
    },
    "t5": {
        f"{side}.block.{i}.layer.{last}.DenseReluDense.{name}"
        for side, last in (("encoder", 1), ("decoder", 2))
        for i in (0, 1)
        for name in ("wi", "wo")
    },
}
QUERY_VALUE = {
    "llama": {f"model.layers.{i}.self_attn.{name}_proj" for i in (0, 1) for name in "qv"},
    "phi": {f"model.layers.{i}.self_attn.{name}_proj" for i in (0, 1) for name in "qv"},
    "bert": {f"encoder.layer.{i}.attention.self.{name}" for i in (0, 1) for name in ("query", "value")},
    "gpt2": {f"transformer.h.{i}.attn.c_attn" for i in (0, 1)},  # query, key and value in one
    "t5": {
        f"{block}.{name}"
        for i in (0, 1)
        for block in (
            f"encoder.block.{i}.layer.0.SelfAttention",
            f"decoder.block.{i}.layer.0.SelfAttention",
            f"decoder.block.{i}.layer.1.EncDecAttention",
        )
        for name in "qv"
    },
}


def adapted(model: nn.Module) -> set[str]:
    """Names of the layers that carry a mixture, as the base model has them."""
    found = {name for name, module in model.named_modules() if isinstance(module, MixtureLayer)}
    return {name.removeprefix("base_model.model.") for name in found}


def state(model: nn.Module) -> tuple[dict, dict, dict]:
    """Everything that an adapter could change in a model."""
    return (
        {name: (type(module), id(module), module.training) for name, module in model.named_modules()},
        {name: value.clone() for name, value in model.state_dict().items()},
        {name: value.requires_grad for name, value in model.named_parameters()},
    )


def assert_untouched(model: nn.Module, before: tuple[dict, dict, dict]) -> None:
    modules, values, trainable = state(model)
    assert modules == before[0]
    assert values.keys() == before[1].keys()
    assert all(torch.equal(value, before[1][name]) for name, value in values.items())
    assert trainable == before[2]
    assert not hasattr(model, "peft_config")


@pytest.mark.parametrize("kind", FEED_FORWARD)
def test_feed_forward_layers_are_found_by_structure(toy, kind):
    found = feed_forward_layers(toy(kind))
    assert len(found) == len(set(found))
    assert set(found) == FEED_FORWARD[kind]


def test_both_inputs_of_a_gated_t5_are_found(toy):
    names = {name.replace(".wi", f".wi_{i}") for name in FEED_FORWARD["t5"] for i in (0, 1)}
    assert set(feed_forward_layers(toy("t5", feed_forward_proj="gated-gelu"))) == names


@pytest.mark.parametrize("head_dim", [4, 12, 16])
def test_attention_that_leads_to_another_width_and_back_is_not_taken_for_feed_forward(toy, head_dim):
    model = toy("mistral", head_dim=head_dim)
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.out_features == attention.o_proj.in_features == 2 * head_dim != 16
    assert set(feed_forward_layers(model)) == FEED_FORWARD["mistral"]


@pytest.mark.parametrize("kind", ["llama", "bert", "phi", "gpt_neox"])
def test_a_feed_forward_part_as_wide_as_the_model_is_found(toy, kind):
    assert set(feed_forward_layers(toy(kind, intermediate_size=16))) == FEED_FORWARD[kind]


def test_a_decoder_like_bert_with_cross_attention_gives_the_same_layers(toy):
    assert set(feed_forward_layers(toy("bert", is_decoder=True, add_cross_attention=True))) == FEED_FORWARD["bert"]


def test_a_layer_that_leads_nowhere_else_and_back_is_no_feed_forward_layer():
    class Attention(nn.Module):
        pass

    block = nn.ModuleDict(
        {
            "mixer": Attention(),
            "up": nn.Linear(4, 8),
            "down": nn.Linear(8, 4),
            "own": nn.Linear(4, 4),
            "out": nn.Linear(4, 2),
        }
    )
    plain = nn.ModuleDict({"up": nn.Linear(4, 8), "down": nn.Linear(8, 4)})  # no block of a transformer
    model = nn.ModuleDict({"blocks": nn.ModuleList([block]), "head": nn.ModuleList([plain])})
    assert feed_forward_layers(model) == ["blocks.0.up", "blocks.0.down"]


@pytest.mark.parametrize("config", [MoralConfig, LoraMoeConfig, DenseMoeConfig])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "t5"])
def test_without_targets_the_feed_forward_layers_are_adapted(toy, kind, config):
    assert adapted(get_peft_model(toy(kind), config())) == FEED_FORWARD[kind]


@pytest.mark.parametrize("kind", QUERY_VALUE)
def test_moelora_adapts_query_and_value(toy, kind):
    assert adapted(get_peft_model(toy(kind), MoeLoraConfig())) == QUERY_VALUE[kind]


def test_query_and_value_given_as_an_expression_stay_one(toy, monkeypatch):
    """PEFT's table names Gemma 4's layers so."""
    model = toy("llama")
    monkeypatch.setattr(model.config, "model_type", "gemma4")
    monkeypatch.setitem(
        default_targets.__globals__["TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"],
        "gemma4",
        r".*layers\..*\.(q_proj|v_proj)",
    )
    assert adapted(get_peft_model(model, MoeLoraConfig())) == QUERY_VALUE["llama"]


@pytest.mark.parametrize("config", [MoralConfig, MoeLoraConfig])
@pytest.mark.parametrize("blocks", [1, [1], [0, 1]])
def test_layers_to_transform_chooses_the_blocks(toy, config, blocks):
    wanted = [blocks] if isinstance(blocks, int) else blocks
    names = {MoralConfig: FEED_FORWARD, MoeLoraConfig: QUERY_VALUE}[config]["llama"]
    model = get_peft_model(toy("llama"), config(layers_to_transform=blocks))
    assert adapted(model) == {name for name in names if int(name.split(".")[2]) in wanted}


def test_layers_to_transform_counts_in_encoder_and_decoder_alike(toy):
    model = get_peft_model(toy("t5"), MoralConfig(layers_to_transform=[0]))
    assert adapted(model) == {name for name in FEED_FORWARD["t5"] if ".block.0." in name}


def test_layers_pattern_says_which_number_is_meant(toy):
    """Of "encoder.block.0.layer.1" the block is meant, unless the pattern says otherwise."""
    model = get_peft_model(toy("t5"), MoralConfig(layers_to_transform=[1], layers_pattern="layer"))
    assert adapted(model) == {name for name in FEED_FORWARD["t5"] if name.startswith("encoder")}


def test_layers_to_transform_goes_with_named_modules(toy):
    model = get_peft_model(toy("llama"), MoralConfig(target_modules=["up_proj"], layers_to_transform=[1]))
    assert adapted(model) == {"model.layers.1.mlp.up_proj"}


def test_many_blocks_with_default_targets_keep_to_their_numbers(toy):
    """From twenty names on PEFT puts short forms in their place."""
    model = get_peft_model(toy("llama", num_hidden_layers=9), MoralConfig(layers_to_transform=list(range(1, 9))))
    assert {int(name.split(".")[2]) for name in adapted(model)} == set(range(1, 9))
    assert len(adapted(model)) == 24


def test_the_blocks_chosen_are_the_same_after_reading_the_configuration_again(toy, tmp_path):
    model = get_peft_model(toy("llama"), MoralConfig(layers_to_transform=[1]))
    model.peft_config["default"].save_pretrained(str(tmp_path))
    again = get_peft_model(toy("llama"), PeftConfig.from_pretrained(str(tmp_path)))
    assert adapted(again) == adapted(model)


def test_excluded_modules_are_left_alone(toy):
    model = get_peft_model(toy("llama"), MoralConfig(exclude_modules=["down_proj"]))
    assert adapted(model) == {name for name in FEED_FORWARD["llama"] if not name.endswith("down_proj")}


def test_all_linear_takes_every_linear_layer_but_the_head(toy):
    model = toy("gpt2")
    assert adapted(get_peft_model(model, MoralConfig(target_modules="all-linear"))) == {
        f"transformer.h.{i}.{name}" for i in (0, 1) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }


def test_an_expression_names_modules(toy):
    model = get_peft_model(toy("llama"), MoralConfig(target_modules=r".*\.1\.mlp\.(up|down)_proj"))
    assert adapted(model) == {"model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"}


def test_a_second_adapter_finds_the_same_layers(toy):
    model = get_peft_model(toy("bert"), MoralConfig())
    model.add_adapter("second", MoralConfig())
    assert adapted(model) == FEED_FORWARD["bert"]
    assert model.peft_config["second"].target_modules == model.peft_config["default"].target_modules


def test_an_adapted_layer_is_one_module_from_outside(toy):
    model = toy("llama")
    names = [name for name, _ in outer_modules(model)]
    get_peft_model(model, MoralConfig())
    assert [name for name, _ in outer_modules(model)] == names


def test_names_of_linear_layers_are_told_once(toy):
    assert linear_names(toy("bert")).split(", ") == [
        "encoder.layer.*.attention.self.query",
        "encoder.layer.*.attention.self.key",
        "encoder.layer.*.attention.self.value",
        "encoder.layer.*.attention.output.dense",
        "encoder.layer.*.intermediate.dense",
        "encoder.layer.*.output.dense",
        "pooler.dense",
    ]
    assert linear_names(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))) == "0, 2"
    assert linear_names(nn.Sequential(nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(2, 2)))))) == "0.*.*.0"
    assert linear_names(nn.ReLU()) == "none"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"target_modules": ["up"]},
            "nothing in LlamaForCausalLM matches up. There is: model.layers.*.self_attn.q_proj",
        ),
        ({"target_modules": r".*\.up"}, r"nothing in LlamaForCausalLM matches .*\.up. There is:"),
        ({"target_modules": ["up_proj"], "layers_to_transform": 7}, "matches up_proj in layers_to_transform = 7"),
        (
            {"layers_to_transform": [7]},
            "no block of LlamaForCausalLM with feed-forward layers is meant by layers_to_transform",
        ),
        ({"target_modules": ["up_proj"], "exclude_modules": ["up_proj"]}, "matches up_proj"),
        ({"target_modules": ["embed_tokens"]}, "model.embed_tokens is a Embedding; a mixture can only stand beside"),
        # the modules that could be adapted come first in the model
        ({"target_modules": ["up_proj", "norm"]}, "model.norm is a LlamaRMSNorm"),
    ],
)
def test_an_error_says_what_there_is_and_leaves_the_model_as_it_was(toy, settings, message):
    model = toy("llama")
    before = state(model)
    with pytest.raises(ConfigError, match=re.escape(message)):
        get_peft_model(model, MoralConfig(**settings))
    assert_untouched(model, before)


def test_a_model_without_attention_has_to_have_its_layers_named():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    before = state(model)
    with pytest.raises(ConfigError, match=r"feed-forward layers of Sequential cannot be told .* Linear layers: "):
        get_peft_model(model, MoralConfig())
    assert_untouched(model, before)
    assert adapted(get_peft_model(model, MoralConfig(target_modules=["2"]))) == {"2"}


def test_query_and_value_of_an_unknown_model_have_to_be_named(toy):
    model = toy("distilbert")
    before = state(model)
    with pytest.raises(
        ConfigError, match=r"query and value layers of DistilBertModel .* transformer\.layer\.\*.*q_lin"
    ):
        get_peft_model(model, MoeLoraConfig())
    assert_untouched(model, before)


def test_an_error_of_a_second_adapter_leaves_the_first(toy):
    model = get_peft_model(toy("llama"), MoralConfig())
    modules, values, trainable = state(model)
    with pytest.raises(ConfigError, match="nothing in LlamaForCausalLM matches up"):
        model.add_adapter("second", MoralConfig(target_modules=["up"]))
    assert (modules, trainable) == (state(model)[0], state(model)[2])
    assert values.keys() == state(model)[1].keys()
    assert list(model.peft_config) == ["default"]

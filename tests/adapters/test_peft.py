"""The adapters are what PEFT's are: built, switched, counted and taken out by PEFT's own functions."""

import copy
import pickle
from math import prod

import pytest
import torch
from peft import PeftModel, get_peft_model

from lifelong.adapters.layer import MixtureLayer
from tests.adapters.toys import FAMILIES, INNER, METHODS, PAIRS, WIDTH, adapted, base, batch, fill, outputs, small

FEED_FORWARD = [(WIDTH, INNER), (INNER, WIDTH)]
# the layers that are adapted by default, as (in, out), of two blocks
ADAPTED = {
    "llama": [(WIDTH, INNER), *FEED_FORWARD] * 2,
    "gpt2": FEED_FORWARD * 2,
    "t5": FEED_FORWARD * 4,
    "bert": FEED_FORWARD * 2,
}
QUERY_VALUE = {
    "llama": [(16, 16), (16, 8)] * 2,
    "gpt2": [(16, 48)] * 2,
    "t5": [(16, 16)] * 12,
    "bert": [(16, 16)] * 4,
}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_method = pytest.mark.parametrize("method", METHODS)
every_pair = pytest.mark.parametrize(("family", "method"), PAIRS)


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def places(model: torch.nn.Module) -> set[str]:
    """Where mixtures are."""
    return {name for name, module in model.named_modules() if isinstance(module, MixtureLayer)}


@every_pair
def test_a_fresh_adapter_leaves_the_output_exactly_as_it_was(family, method):
    model = get_peft_model(base(family), small(method)).eval()
    assert torch.equal(outputs(model, family), outputs(base(family), family))
    assert not torch.allclose(outputs(adapted(family, method), family), outputs(base(family), family), atol=1e-3)


@every_pair
def test_trainable_parameters_are_those_of_the_closed_formula(family, method, capsys):
    model = get_peft_model(base(family), small(method))
    experts, rank = 4, 2
    layers = (QUERY_VALUE if method == "moelora" else ADAPTED)[family]
    if method == "densemoe":
        count = sum(experts * wide * out + experts * wide for wide, out in layers)
    else:
        count = sum(experts * rank * (wide + out) + experts * wide for wide, out in layers)
    total = count + sum(parameter.numel() for parameter in base(family).parameters())
    assert model.get_nb_trainable_parameters() == (count, total)
    model.print_trainable_parameters()
    assert f"trainable params: {count:,} || all params: {total:,}" in capsys.readouterr().out


@every_pair
def test_a_disabled_adapter_gives_the_base_model_exactly(family, method):
    model = adapted(family, method)
    with_it = outputs(model, family)
    with model.disable_adapter():
        assert torch.equal(outputs(model, family), outputs(base(family), family))
    assert torch.equal(outputs(model, family), with_it)


@every_pair
def test_unload_gives_the_base_model_back(family, method):
    untouched = base(family)
    back = adapted(family, method).unload()
    kinds = {name: type(module) for name, module in back.named_modules()}
    assert kinds == {name: type(module) for name, module in untouched.named_modules()}
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in untouched.state_dict().items())
    assert torch.equal(outputs(back, family), outputs(untouched, family))
    assert not hasattr(back, "peft_config")


@every_family
def test_of_several_adapters_the_active_ones_count(family):
    model = adapted(family, "moral")
    first = outputs(model, family)
    model.add_adapter("second", small("moral", num_experts=3, r=1))
    fill(model.base_model.model, seed=2)  # both anew
    both_filled = {name: value.clone() for name, value in model.state_dict().items()}
    model.set_adapter("second")
    second = outputs(model, family)
    alone = get_peft_model(base(family), small("moral", num_experts=3, r=1)).eval()
    alone.load_state_dict(
        {name: both_filled[name.replace(".default.", ".second.")] for name in alone.state_dict()}, strict=True
    )
    assert torch.equal(second, outputs(alone, family))
    assert not torch.allclose(first, second, atol=1e-3)

    model.set_adapter("default")
    default = outputs(model, family)
    model.base_model.set_adapter(["default", "second"])
    both = outputs(model, family)
    assert not torch.allclose(both, default, atol=1e-3) and not torch.allclose(both, second, atol=1e-3)


def test_two_active_adapters_add_up():
    model = adapted("llama", "moral")
    model.add_adapter("second", small("moral", num_experts=3, r=1))
    fill(model)
    layer = next(module for module in model.modules() if isinstance(module, MixtureLayer)).eval()
    x = torch.randn(2, 3, WIDTH)
    added = {}
    with torch.no_grad():
        for names in (["default"], ["second"], ["default", "second"]):
            layer.set_adapter(names)
            added[tuple(names)] = layer(x) - layer.base_layer(x)
    alone = added[("default",)] + added[("second",)]
    torch.testing.assert_close(added[("default", "second")], alone)
    assert added[("second",)].abs().max() > 0.01


@every_family
def test_a_deleted_adapter_leaves_the_others_as_they_were(family):
    model = adapted(family, "loramoe")
    before = outputs(model, family)
    model.add_adapter("second", small("loramoe"))
    model.set_adapter("second")
    with pytest.warns(UserWarning, match="second was active which is now deleted"):
        model.delete_adapter("second")
    assert list(model.peft_config) == ["default"] and model.active_adapters == ["default"]
    assert not any("second" in name for name in model.state_dict())
    assert torch.equal(outputs(model, family), before)


def test_an_adapter_beside_a_frozen_one_leaves_it_frozen():
    model = adapted("llama", "moral")
    model.set_requires_grad("default", False)
    frozen = {name: value.clone() for name, value in model.state_dict().items()}
    model.add_adapter("second", small("moral", target_modules=["up_proj", "q_proj"]))
    assert trainable(model) == set()  # as before; the second is not active
    model.base_model.set_adapter(["default", "second"])
    model.set_requires_grad("default", False)
    assert {name for name in trainable(model) if ".second." not in name} == set()
    assert len(trainable(model)) == 4 * 3
    model.train()(**batch("llama")).loss.backward()
    torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1.0).step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, frozen.get(name, value))}
    assert changed == set()
    moved = [module.mixtures["second"].B for module in model.modules() if isinstance(module, MixtureLayer)
             and "second" in module.mixtures]  # fmt: skip
    assert all(B.abs().max() > 0 for B in moved)


def test_the_auxiliary_losses_of_a_frozen_adapter_are_left_out():
    from lifelong.adapters import auxiliary_loss

    model = adapted("llama", "moral", balance_weight=0.1).train()
    model(**batch("llama"))
    assert auxiliary_loss(model)["balance"] > 0
    model.set_requires_grad("default", False)
    model(**batch("llama"))
    assert auxiliary_loss(model) == {}


def test_a_disabled_adapter_reports_no_auxiliary_loss():
    from lifelong.adapters import auxiliary_loss

    model = adapted("llama", "moral", balance_weight=0.1).train()
    model(**batch("llama"))
    with model.disable_adapter():
        model(**batch("llama"))
        assert auxiliary_loss(model) == {}


def test_set_requires_grad_freezes_and_frees_an_adapter():
    model = adapted("gpt2", "moral")
    names = trainable(model)
    assert names and all("moral_experts.default" in name for name in names)
    model.set_requires_grad("default", False)
    assert trainable(model) == set()
    model.set_requires_grad("default")
    assert trainable(model) == names


def test_inference_mode_makes_an_adapter_that_does_not_train():
    assert trainable(get_peft_model(base("bert"), small("moral", inference_mode=True))) == set()
    assert trainable(get_peft_model(base("bert"), small("moral"))) != set()


def test_modules_to_save_are_trained_and_switched_with_the_adapter():
    model = get_peft_model(base("bert"), small("moral", modules_to_save=["classifier"])).eval()
    head = model.base_model.model.classifier
    assert {name for name in trainable(model) if "classifier" in name} == {
        f"base_model.model.classifier.modules_to_save.default.{kind}" for kind in ("weight", "bias")
    }
    with torch.no_grad():
        head.modules_to_save["default"].weight.mul_(2)
    assert not torch.allclose(outputs(model, "bert"), outputs(base("bert"), "bert"), atol=1e-3)
    with model.disable_adapter():
        assert torch.equal(outputs(model, "bert"), outputs(base("bert"), "bert"))


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        (
            "llama",
            {"target_modules": r".*\.1\.mlp\.(up|down)_proj"},
            {"layers.1.mlp.up_proj", "layers.1.mlp.down_proj"},
        ),
        ("llama", {"exclude_modules": ["up_proj", "down_proj"]}, {f"layers.{n}.mlp.gate_proj" for n in (0, 1)}),
        ("llama", {"exclude_modules": r".*\.0\..*", "target_modules": ["o_proj"]}, {"layers.1.self_attn.o_proj"}),
        ("gpt2", {"layers_to_transform": [1]}, {"h.1.mlp.c_fc", "h.1.mlp.c_proj"}),
        ("gpt2", {"layers_to_transform": 0, "layers_pattern": "h", "target_modules": ["c_attn"]}, {"h.0.attn.c_attn"}),
        ("bert", {"target_modules": ["key"], "layers_to_transform": 1}, {"layer.1.attention.self.key"}),
    ],
)
def test_targets_are_what_the_configuration_says(family, settings, expected):
    model = get_peft_model(base(family), small("moral", **settings))
    found = places(model)
    assert len(found) == len(expected)
    assert all(any(name.endswith(end) for name in found) for end in expected)


@every_family
def test_all_linear_takes_every_linear_layer_but_the_output_embeddings(family):
    model = get_peft_model(base(family), small("moral", target_modules="all-linear"))
    linear = {
        f"base_model.model.{name}"
        for name, module in base(family).named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and name != "lm_head"
    }
    assert places(model) == linear


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@every_method
def test_generation_with_and_without_a_cache_is_the_same(family, method):
    model = adapted(family, method)
    prompt = {name: value[:1] for name, value in batch(family).items() if name != "labels"}
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    cached = model.generate(**prompt, use_cache=True, **settings)
    assert torch.equal(cached, model.generate(**prompt, use_cache=False, **settings))
    with model.disable_adapter():
        assert not torch.equal(cached, model.generate(**prompt, use_cache=False, **settings))


@every_family
def test_a_deep_copy_is_independent(family):
    model = adapted(family, "moelora").train()
    model(**batch(family))
    twin = copy.deepcopy(model).eval()
    expected = outputs(model.eval(), family)
    assert torch.equal(outputs(twin, family), expected)
    fill(twin, seed=3)
    assert torch.equal(outputs(model, family), expected)
    assert not torch.allclose(outputs(twin, family), expected, atol=1e-3)


@every_pair
def test_the_state_of_the_whole_model_is_loaded_strictly(family, method):
    model = adapted(family, method)
    other = get_peft_model(base(family), small(method)).eval()
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(outputs(other, family), outputs(model, family))


@every_method
def test_a_configuration_survives_pickle_and_copy(method):
    config = small(method, target_modules=["b", "a"], exclude_modules="x")
    for twin in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert twin == config and twin.to_dict() == config.to_dict() and type(twin) is type(config)


@every_method
def test_a_model_survives_pickle(method):
    model = adapted("llama", method)
    twin = pickle.loads(pickle.dumps(model))
    assert isinstance(twin, PeftModel)
    assert torch.equal(outputs(twin, "llama"), outputs(model, "llama"))


def test_layer_status_counts_what_is_there():
    model = adapted("llama", "moral")
    status = model.get_model_status()
    assert (status.adapter_model_type, status.peft_types) == ("MoralModel", {"default": "MORAL"})
    assert status.num_adapter_layers == 6
    sizes = [prod(p.shape) for name, p in model.named_parameters() if "_experts." in name]
    assert status.trainable_params == sum(sizes)

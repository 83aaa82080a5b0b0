"""Adapters are saved, and loaded by PEFT and by transformers, to the same outputs."""

import inspect
import json

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    AutoPeftModelForSeq2SeqLM,
    PeftConfig,
    PeftModel,
    PeftModelForSeq2SeqLM,
    get_peft_model,
)
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    T5ForConditionalGeneration,
)

from lifelong.adapters.layer import MixtureLayer
from tests.adapters.toys import FAMILIES, METHODS, PAIRS, adapted, base, batch, fill, outputs, small

AUTO = {
    "llama": AutoModelForCausalLM,
    "gpt2": AutoModelForCausalLM,
    "t5": AutoModelForSeq2SeqLM,
    "bert": AutoModelForSequenceClassification,
}
PREFIX = {"moral": "moral_", "loramoe": "loramoe_", "moelora": "moelr_", "densemoe": "densemoe_"}
RENAMED = "_prepare_encoder_decoder_kwargs_for_generation"  # read by PEFT 0.21.0, gone from transformers
no_seq2seq = pytest.mark.skipif(
    RENAMED in inspect.getsource(PeftModelForSeq2SeqLM.__init__) and not hasattr(T5ForConditionalGeneration, RENAMED),
    reason="this PEFT cannot wrap an encoder-decoder of this transformers with a task type, whatever the adapter",
)
every_family = pytest.mark.parametrize("family", FAMILIES)
every_method = pytest.mark.parametrize("method", METHODS)
every_pair = pytest.mark.parametrize(("family", "method"), PAIRS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders of the base models."""
    folder = tmp_path_factory.mktemp("bases")
    for family in FAMILIES:
        base(family).save_pretrained(folder / family)
    return folder


def from_folder(bases, family) -> PreTrainedModel:
    return AUTO[family].from_pretrained(bases / family).eval()


def saved(bases, family, method, folder, **changes):
    """An adapter in a folder, the outputs of its model, and those of the model with another router."""
    model = get_peft_model(from_folder(bases, family), small(method, **changes)).eval()
    fill(model)
    model.save_pretrained(folder)
    expected = outputs(model, family)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, MixtureLayer):
                module.mixtures["default"].router.neg_()
    assert not torch.allclose(outputs(model, family), expected, atol=1e-4)  # so that routers tell
    return expected


@every_pair
def test_every_way_of_loading_gives_the_same_outputs(family, method, bases, tmp_path):
    expected = saved(bases, family, method, tmp_path)
    loaded = {
        "PeftModel": PeftModel.from_pretrained(from_folder(bases, family), tmp_path),
        "PeftModel on meta": PeftModel.from_pretrained(from_folder(bases, family), tmp_path, low_cpu_mem_usage=True),
        "AutoModel": AUTO[family].from_pretrained(tmp_path),
    }
    native = from_folder(bases, family)
    native.load_adapter(str(tmp_path))
    loaded["load_adapter"] = native
    named = from_folder(bases, family)
    named.load_adapter(str(tmp_path), adapter_name="other")
    loaded["load_adapter, named"] = named
    for way, model in loaded.items():
        assert torch.equal(outputs(model, family), expected), way
        assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if "_experts." in name)


@pytest.mark.parametrize(
    ("family", "loader", "task"),
    [
        ("llama", AutoPeftModelForCausalLM, "CAUSAL_LM"),
        ("gpt2", AutoPeftModelForCausalLM, "CAUSAL_LM"),
        pytest.param("t5", AutoPeftModelForSeq2SeqLM, "SEQ_2_SEQ_LM", marks=no_seq2seq),
    ],
)
@every_method
def test_peft_finds_the_base_model_by_itself(family, loader, task, method, bases, tmp_path):
    expected = saved(bases, family, method, tmp_path, task_type=task)
    assert torch.equal(outputs(loader.from_pretrained(tmp_path), family), expected)


@every_method
def test_an_adapter_of_a_model_with_a_head_is_loaded_without_one(method, bases, tmp_path):
    saved(bases, "llama", method, tmp_path)
    whole = PeftModel.from_pretrained(from_folder(bases, "llama"), tmp_path)
    ids = {name: value for name, value in batch("llama").items() if name != "labels"}
    with torch.no_grad():
        expected = whole(**ids, output_hidden_states=True).hidden_states[-1]
        assert torch.equal(AutoModel.from_pretrained(tmp_path)(**ids).last_hidden_state, expected)


@every_pair
def test_the_file_has_the_tensors_of_the_adapter_and_no_others(family, method, tmp_path):
    model = adapted(family, method)
    model.save_pretrained(tmp_path)
    names = {
        name.replace(".default.", ".")
        for name, _ in model.named_parameters()
        if f".{PREFIX[method]}experts.default." in name
    }
    assert set(load_file(tmp_path / "adapter_model.safetensors")) == names
    parts = {"B", "router"} if method == "densemoe" else {"A", "B", "router"}
    assert {name.rpartition(".")[2] for name in names} == parts
    assert not list(tmp_path.glob("*.bin"))


@every_method
def test_the_saved_configuration_is_plain_json(method, tmp_path):
    adapted("llama", method).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["peft_type"] == method.upper() and type(written["peft_type"]) is str
    config = PeftConfig.from_pretrained(tmp_path)
    assert type(config) is METHODS[method]
    assert (config.num_experts, config.top_k) == (4, None if method == "loramoe" else 2)


@every_family
def test_a_second_adapter_is_loaded_beside_the_first(family, tmp_path):
    other = adapted(family, "moral", num_experts=3)
    fill(other, seed=5)
    other.save_pretrained(tmp_path)
    model = adapted(family, "moral")
    before = outputs(model, family)
    model.load_adapter(tmp_path, "second")
    assert torch.equal(outputs(model, family), before)
    model.set_adapter("second")
    assert torch.equal(outputs(model, family), outputs(other, family))
    model.set_adapter("default")
    assert torch.equal(outputs(model, family), before)


def test_each_adapter_is_saved_under_its_name(tmp_path):
    model = adapted("llama", "moral")
    model.add_adapter("second", small("moral", num_experts=3))
    fill(model, seed=4)
    model.save_pretrained(tmp_path)
    for name, folder in (("default", tmp_path), ("second", tmp_path / "second")):
        model.set_adapter(name)
        loaded = PeftModel.from_pretrained(base("llama"), folder)
        assert torch.equal(outputs(loaded, "llama"), outputs(model, "llama"))


def test_an_adapter_is_loaded_over_one_of_the_same_name(tmp_path):
    model = adapted("llama", "moral")
    expected = outputs(model, "llama")
    model.save_pretrained(tmp_path)
    fill(model, seed=9)
    assert not torch.allclose(outputs(model, "llama"), expected, atol=1e-3)
    model.load_adapter(tmp_path, "default")
    assert torch.equal(outputs(model, "llama"), expected)


def test_an_adapter_loaded_as_trainable_goes_on_training(tmp_path):
    adapted("llama", "moral").save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(base("llama"), tmp_path, is_trainable=True).train()
    model(**batch("llama")).loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert gradients and all("moral_experts.default" in name for name in gradients)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())

    frozen = PeftModel.from_pretrained(base("llama"), tmp_path)
    assert not frozen.training and not any(parameter.requires_grad for parameter in frozen.parameters())


def test_modules_to_save_come_back(bases, tmp_path):
    model = get_peft_model(from_folder(bases, "bert"), small("moral", modules_to_save=["classifier"])).eval()
    fill(model)
    with torch.no_grad():
        model.base_model.model.classifier.modules_to_save["default"].weight.mul_(3)
    model.save_pretrained(tmp_path)
    expected = outputs(model, "bert")
    assert torch.equal(outputs(PeftModel.from_pretrained(from_folder(bases, "bert"), tmp_path), "bert"), expected)
    native = from_folder(bases, "bert")
    native.load_adapter(str(tmp_path))
    assert torch.equal(outputs(native, "bert"), expected)


def test_transformers_adds_switches_and_deletes_adapters_of_its_own_accord(bases):
    model = from_folder(bases, "llama")
    plain = outputs(model, "llama")
    model.add_adapter(small("moelora"), "first")
    fill(model)
    first = outputs(model.eval(), "llama")
    with pytest.warns(UserWarning, match="Already found a `peft_config`"):
        model.add_adapter(small("moelora", r=3), "second")
    assert model.active_adapters() == ["second"]
    assert torch.equal(outputs(model.eval(), "llama"), plain)
    model.set_adapter("first")
    assert torch.equal(outputs(model, "llama"), first)
    model.disable_adapters()
    assert torch.equal(outputs(model, "llama"), plain)
    model.enable_adapters()
    model.delete_adapter("second")
    assert torch.equal(outputs(model, "llama"), first) and list(model.peft_config) == ["first"]

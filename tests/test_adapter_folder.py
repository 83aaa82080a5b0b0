"""Several adapters of one model are kept and restored, with their roles, and each as PEFT loads it."""

from __future__ import annotations

import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file

from lifelong.adapter_folder import activate, add_adapter, added_weights, restore_adapters, save_adapters
from lifelong.adapters import MoralConfig
from lifelong.errors import ModelError, RunError
from lifelong.models import load_model

TARGETS = ["q_proj", "v_proj"]
QUESTION = torch.arange(5, 17)[None]


def fresh(folder, config=None, seed: int = 0) -> PeftModel:
    model, _ = load_model(str(folder), config or LoraConfig(r=2, target_modules=TARGETS), seed=seed)
    return model.eval()


def with_two(folder) -> PeftModel:
    """A model whose adapters ``default`` and ``first``, of another rank, answer together; ``default`` is trained."""
    model = fresh(folder)
    add_adapter(model, "first", LoraConfig(r=3, target_modules=TARGETS))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=generator)
    activate(model, ["first", "default"], ["default"])
    return model


@torch.no_grad()
def answer(model: PeftModel) -> torch.Tensor:
    return model.eval()(input_ids=QUESTION).logits


def trained(model: PeftModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_adapters_that_are_active_answer_together_and_one_of_them_learns(llama_folder):
    model = with_two(llama_folder)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    x = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(1))
    by_hand = layer.base_layer(x) + sum(
        x @ (layer.scaling[name] * layer.lora_B[name].weight @ layer.lora_A[name].weight).T
        for name in ("default", "first")
    )
    assert torch.allclose(layer(x), by_hand, atol=1e-5)
    assert trained(model) and all(".default." in name for name in trained(model))


def test_an_adapter_that_is_not_active_does_not_answer(llama_folder):
    model = with_two(llama_folder)
    both = answer(model)
    activate(model, ["default"], ["default"])
    alone = fresh(llama_folder)
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if ".first." not in k})
    assert torch.equal(answer(model), answer(alone))
    assert not torch.equal(both, answer(model))


def test_a_further_adapter_leaves_the_random_state_and_what_is_trained_alone(llama_folder):
    model = fresh(llama_folder)
    state, before = torch.get_rng_state(), trained(model)
    add_adapter(model, "first", LoraConfig(r=3, target_modules=TARGETS))
    assert torch.equal(torch.get_rng_state(), state)
    assert trained(model) == before


@pytest.mark.parametrize("there", ["nothing", "the same", "another rank", "one more"])
def test_what_was_saved_is_restored_whatever_the_model_has(llama_folder, tmp_path, there):
    model = with_two(llama_folder)
    save_adapters(model, tmp_path)
    other = fresh(llama_folder, seed=7)
    if there != "nothing":
        other = with_two(llama_folder)
    if there == "another rank":
        add_adapter(other, "first", LoraConfig(r=5, target_modules=TARGETS))
        activate(other, ["first"], ["first"])
    if there == "one more":
        add_adapter(other, "second", LoraConfig(r=5, target_modules=TARGETS))
    state = torch.get_rng_state()
    restore_adapters(other, tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(other.peft_config) == {"default", "first"}
    assert other.active_adapters == model.active_adapters == ["first", "default"]
    assert trained(other) == trained(model)
    assert torch.equal(answer(other), answer(model))


def test_a_second_save_after_a_restore_is_the_first_one(llama_folder, tmp_path):
    save_adapters(with_two(llama_folder), tmp_path / "one")
    other = fresh(llama_folder)
    restore_adapters(other, tmp_path / "one")
    save_adapters(other, tmp_path / "two")
    for file in (
        "adapter_model.safetensors",
        "adapter_config.json",
        "default/adapter_model.safetensors",
        "roles.json",
    ):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_each_folder_is_an_adapter_that_peft_loads(llama_folder, tmp_path):
    model = with_two(llama_folder)
    save_adapters(model, tmp_path)
    for name, place in (("first", tmp_path), ("default", tmp_path / "default")):
        activate(model, [name], [name])
        base = fresh(llama_folder).unload()
        assert torch.equal(answer(PeftModel.from_pretrained(base, place)), answer(model))


def test_one_adapter_is_restored_and_others_go(llama_folder, tmp_path):
    model = fresh(llama_folder, seed=3)
    save_adapters(model, tmp_path)
    assert not (tmp_path / "roles.json").exists()
    other = with_two(llama_folder)
    restore_adapters(other, tmp_path)
    assert set(other.peft_config) == {"default"}
    assert trained(other) == trained(model)
    assert torch.equal(answer(other), answer(model))


def test_a_mixture_beside_another_is_restored(llama_folder, tmp_path):
    def two(seed: int) -> PeftModel:
        model = fresh(llama_folder, MoralConfig(num_experts=2, r=2), seed)
        torch.manual_seed(seed)
        model.add_adapter("first", MoralConfig(num_experts=3, r=2))
        activate(model, ["first", "default"], ["default"])
        return model

    model, other = two(1), fresh(llama_folder, MoralConfig(num_experts=2, r=2), 2)
    save_adapters(model, tmp_path)
    restore_adapters(other, tmp_path)
    assert trained(other) == trained(model)
    states = [{k: v for k, v in m.state_dict().items() if "experts" in k} for m in (model, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_folder_that_lacks_weights_is_refused(llama_folder, tmp_path):
    save_adapters(with_two(llama_folder), tmp_path)
    save_adapters(fresh(llama_folder, LoraConfig(r=2, target_modules=["q_proj"])), tmp_path / "less")
    shutil.copy(tmp_path / "less" / "adapter_model.safetensors", tmp_path / "default")
    with pytest.raises(RunError, match="default lacks weights"):
        restore_adapters(fresh(llama_folder), tmp_path)


def test_weights_beside_the_default_adapter_are_what_was_added(llama_folder, tmp_path):
    save_adapters(fresh(llama_folder), tmp_path / "one")
    save_adapters(with_two(llama_folder), tmp_path / "two")
    assert added_weights(tmp_path / "one") == added_weights(tmp_path / "none") == []
    (added,) = added_weights(tmp_path / "two")
    assert {len(weight) for name, weight in load_file(added).items() if "lora_A" in name} == {3}


def test_adapters_that_answer_together_are_not_taken_for_the_first_of_them(llama_folder, tmp_path):
    model = with_two(llama_folder)
    save_adapters(model, tmp_path / "both")
    with pytest.raises(ModelError, match="several adapters that answer together"):
        load_model(str(llama_folder), tmp_path / "both")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.default" in name:
                parameter.zero_()
    save_adapters(model, tmp_path / "first")
    loaded, _ = load_model(str(llama_folder), tmp_path / "first")
    assert torch.equal(answer(loaded), answer(model))

"""A new LoRA per task: what the model computes is the sum of all of them, and its folder is one standard LoRA."""

from __future__ import annotations

import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel

from lifelong import Experiment
from lifelong.adapter_folder import restore_adapters, save_adapters
from lifelong.classification import labels_of
from lifelong.errors import ConfigError
from lifelong.models import load_model
from lifelong.strategies import Stage
from lifelong.strategies.base import prepare
from lifelong.strategies.incremental_lora import IncrementalLoRA
from lifelong.strategies.lora_layers import lora_layers
from lifelong.strategies.weights import snapshot, teacher, trained

QUESTION = torch.arange(5, 17)[None]
PLAIN = {"r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"]}
CONFIGS = {
    "plain": PLAIN,
    "rslora": PLAIN | {"use_rslora": True},
    "patterns": PLAIN | {"rank_pattern": {"q_proj": 3, "layers.1.mlp.down_proj": 1}, "alpha_pattern": {"q_proj": 5}},
    "dropout": PLAIN | {"lora_dropout": 0.5},
}


def stage_of(stream, index: int) -> Stage:
    return Stage.of(stream[(index - 1) % len(stream)], index)


def learn(model, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """Stands for training: the default LoRA gets random values. Returns A, B and the scaling by layer, as copies."""
    generator, copies = torch.Generator().manual_seed(seed), {}
    for name, layer in lora_layers(model).items():
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        with torch.no_grad():
            A.normal_(generator=generator, std=0.1)
            B.normal_(generator=generator, std=0.1)
        copies[name] = (A.detach().clone(), B.detach().clone(), layer.scaling["default"])
    return copies


@torch.no_grad()
def answer(model) -> torch.Tensor:
    return model.eval()(input_ids=QUESTION).logits


def by_hand(folder, parts) -> torch.Tensor:
    """The answer of the model without PEFT, whose weights have become W + sum_i s B_i A_i."""
    base, _ = load_model(str(folder))
    for copies in parts:
        for name, (A, B, scaling) in copies.items():
            weight = base.get_submodule(name.removeprefix("base_model.model.")).weight
            weight.data += scaling * B @ A
    return answer(base)


def after(learner, stream, stages: int):
    """An IncrementalLoRA and copies of the LoRAs of so many stages."""
    strategy, parts = IncrementalLoRA(), []
    for index in range(1, stages + 1):
        strategy.before_stage(learner, stage_of(stream, index))
        parts.append(learn(learner.model, index))
        strategy.after_stage(learner, stage_of(stream, index))
    return strategy, parts


@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS)
def test_the_model_is_its_base_and_the_sum_of_the_scaled_products_of_all_stages(
    make_learner, llama_folder, tiny_stream, settings
):
    learner = make_learner(adapter=LoraConfig(**settings))
    strategy, parts = after(learner, tiny_stream, 3)
    assert torch.allclose(answer(learner.model), by_hand(llama_folder, parts), atol=1e-4)
    strategy.before_stage(learner, stage_of(tiny_stream, 4))  # the new one adds nothing
    assert torch.allclose(answer(learner.model), by_hand(llama_folder, parts), atol=1e-4)
    parts.append(learn(learner.model, 4))
    assert torch.allclose(answer(learner.model), by_hand(llama_folder, parts), atol=1e-4)


@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS)
def test_the_earlier_ones_are_one_standard_lora_in_their_folder(
    make_learner, llama_folder, tiny_stream, tmp_path, settings
):
    learner = make_learner(adapter=LoraConfig(**settings))
    after(learner, tiny_stream, 2)
    save_adapters(learner.model, tmp_path)
    loaded = PeftModel.from_pretrained(load_model(str(llama_folder))[0], tmp_path)
    assert torch.allclose(answer(loaded), answer(learner.model), atol=1e-5)
    config = loaded.peft_config["default"]
    assert config.r == 2 * learner.model.peft_config["default"].r
    assert all(layer.scaling["default"] == 1 for layer in lora_layers(loaded).values())


def test_only_the_new_one_is_trained_and_the_earlier_ones_stay(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**PLAIN))
    after(learner, tiny_stream, 1)
    earlier = {k: v.clone() for k, v in learner.model.state_dict().items() if ".earlier." in k}
    learner.train()
    learner.model(input_ids=QUESTION).logits.square().sum().backward()
    assert trained(learner) and all(".default." in name for name in trained(learner))
    assert all(weight.grad is None for name, weight in learner.named_parameters() if ".default." not in name)
    optimizer = torch.optim.AdamW(trained(learner).values(), lr=0.1, weight_decay=0.1)
    optimizer.step()
    state = learner.model.state_dict()
    assert earlier and all(torch.equal(value, state[name]) for name, value in earlier.items())


def test_dropout_is_for_the_new_one_alone(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**CONFIGS["dropout"]))
    after(learner, tiny_stream, 1)
    layer, x = next(iter(lora_layers(learner.model).values())).train(), torch.ones(1, 1, 32)
    assert torch.equal(layer(x), layer(x))
    learn(learner.model, 2)
    assert not torch.equal(layer(x), layer(x))


def test_each_stage_draws_a_new_A_as_peft_would_whatever_was_drawn_elsewhere(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(r=32, target_modules=["q_proj"]))
    layers = lora_layers(learner.model).values()

    def drawn(index: int, global_seed: int, seed: int = 0) -> torch.Tensor:
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        IncrementalLoRA().before_stage(learner, Stage.of(tiny_stream[0], index, seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
        return torch.cat([layer.lora_A["default"].weight.detach().flatten() for layer in layers])

    first = drawn(1, 0)
    assert torch.equal(first, drawn(1, 5))
    assert not torch.equal(first, drawn(2, 0)) and not torch.equal(first, drawn(1, 0, seed=1))
    # Kaiming-uniform with a = sqrt(5) over 32 inputs: uniform within 1 / sqrt(32), of which the deviation is / sqrt(3)
    assert first.abs().max() <= 32**-0.5
    assert first.std() == pytest.approx(32**-0.5 / 3**0.5, rel=0.05)


def test_a_gaussian_lora_is_drawn_as_one(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(r=32, target_modules=["q_proj"], init_lora_weights="gaussian"))
    IncrementalLoRA().before_stage(learner, stage_of(tiny_stream, 1))
    values = torch.cat([layer.lora_A["default"].weight.flatten() for layer in lora_layers(learner.model).values()])
    assert values.std().item() == pytest.approx(1 / 32, rel=0.05)


def test_folding_leaves_the_random_state_alone(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**PLAIN))
    state = torch.get_rng_state()
    IncrementalLoRA().after_stage(learner, stage_of(tiny_stream, 1))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_resumed_run_goes_on_with_the_same_loras(make_learner, llama_folder, tiny_stream, tmp_path):
    learner = make_learner(adapter=LoraConfig(**PLAIN))
    strategy, parts = after(learner, tiny_stream, 2)
    save_adapters(learner.model, tmp_path)
    other = make_learner(adapter=LoraConfig(**PLAIN))
    restore_adapters(other.model, tmp_path)
    for each in (learner, other):
        strategy.before_stage(each, stage_of(tiny_stream, 3))
        strategy.before_stage(each, stage_of(tiny_stream, 3))
    weights = snapshot(learner)
    assert weights.keys() == snapshot(other).keys()
    assert all(torch.equal(value, weights[name]) for name, value in snapshot(other).items())
    parts.append(learn(other.model, 3))
    strategy.after_stage(other, stage_of(tiny_stream, 3))
    assert torch.allclose(answer(other.model), by_hand(llama_folder, parts), atol=1e-4)
    assert other.model.peft_config["earlier"].r == 6


def test_weights_remembered_before_a_stage_are_a_teacher_that_answers_as_the_earlier_loras(
    make_learner, llama_folder, tiny_stream
):
    learner = make_learner(adapter=LoraConfig(**PLAIN))
    strategy, parts = after(learner, tiny_stream, 2)
    strategy.before_stage(learner, stage_of(tiny_stream, 3))
    remembered = snapshot(learner)
    learn(learner.model, 3)
    with teacher(learner, remembered):
        logits = learner.model(input_ids=QUESTION).logits
    assert torch.allclose(logits, by_hand(llama_folder, parts), atol=1e-4)


REFUSED = {
    "bias": {"bias": "lora_only"},
    "modules_to_save": {"modules_to_save": ["norm"]},
    "trainable_token_indices": {"trainable_token_indices": [1, 2]},
    "use_dora": {"use_dora": True},
    "lora_bias": {"target_modules": ["q_proj"], "lora_bias": True},
    "embed_tokens": {"target_modules": ["embed_tokens"]},
    "init_lora_weights": {"init_lora_weights": "olora"},
}


@pytest.mark.filterwarnings("ignore:.lora_bias=True. was passed")
@pytest.mark.parametrize("named", REFUSED)
def test_a_lora_that_is_more_than_a_and_b_is_refused_by_name(make_learner, tiny_stream, named):
    learner = make_learner(adapter=LoraConfig(**PLAIN | REFUSED[named]))
    with pytest.raises(ConfigError, match=f"IncrementalLoRA: .*{named}"):
        IncrementalLoRA().check(learner, [stage_of(tiny_stream, 1)])


def test_a_lora_that_has_been_trained_is_refused_and_a_plain_one_is_not(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**CONFIGS["patterns"]))
    IncrementalLoRA().check(learner, [stage_of(tiny_stream, 1)])
    learn(learner.model, 1)
    with pytest.raises(ConfigError, match="trained already"):
        IncrementalLoRA().check(learner, [stage_of(tiny_stream, 1)])


def test_two_of_a_kind_are_refused():
    with pytest.raises(ConfigError, match="both decide what becomes"):
        prepare([IncrementalLoRA(), IncrementalLoRA()])


@pytest.mark.parametrize("folder", ["t5_folder", "bert_folder"])
def test_other_families_keep_what_their_loras_compute(make_learner, labelled_stream, request, folder):
    labels = labels_of(labelled_stream) if folder == "bert_folder" else None
    targets = ["query", "value"] if folder == "bert_folder" else ["q", "v"]
    adapter = LoraConfig(r=2, target_modules=targets)
    learner = make_learner(request.getfixturevalue(folder), adapter, labels=labels).eval()
    stage = stage_of(labelled_stream, 1)
    (batch,) = next(iter(learner.begin_stage(stage)))
    strategy = IncrementalLoRA()
    strategy.before_stage(learner, stage)
    fresh = learner.answer_losses(batch).detach()
    learn(learner.model, 1)
    before = learner.answer_losses(batch).detach()
    strategy.after_stage(learner, stage)
    assert torch.allclose(learner.answer_losses(batch), before, atol=1e-5)
    assert not torch.allclose(fresh, before, atol=1e-3)
    assert ("head.weight" in trained(learner)) == (folder == "bert_folder")


@pytest.mark.parametrize("load", ["our run", "PEFT"])
def test_another_run_goes_on_with_all_that_was_learned(make_learner, llama_folder, tiny_stream, tmp_path, load):
    learner = make_learner(adapter=LoraConfig(**PLAIN))
    _, parts = after(learner, tiny_stream, 3)
    save_adapters(learner.model, tmp_path)
    if load == "PEFT":
        other = PeftModel.from_pretrained(load_model(str(llama_folder))[0], tmp_path)
    else:
        other, _ = load_model(str(llama_folder), tmp_path)
        assert all(parameter.requires_grad for name, parameter in other.named_parameters() if "lora_" in name)
    assert torch.allclose(answer(other), by_hand(llama_folder, parts), atol=1e-4)
    assert not torch.allclose(answer(other), by_hand(llama_folder, parts[:2]), atol=1e-2)


def test_a_new_lora_beside_what_an_earlier_run_learned_is_refused(make_learner, llama_folder, tiny_stream, tmp_path):
    learner = make_learner(adapter=LoraConfig(**PLAIN))
    after(learner, tiny_stream, 1)
    save_adapters(learner.model, tmp_path)
    again = Experiment(
        tiny_stream, str(llama_folder), adapter=str(tmp_path), strategies=[IncrementalLoRA()], folder=tmp_path / "run"
    )
    for begin in (again.preview, again.run):
        with pytest.raises(ConfigError, match="has been trained already"):
            begin()


def test_a_run_answers_with_all_loras_and_resumes_to_the_bit(tiny_stream, llama_folder, tmp_path):
    def experiment(folder) -> Experiment:
        return Experiment(
            tiny_stream[:2],
            str(llama_folder),
            adapter=LoraConfig(r=2, target_modules="all-linear"),
            strategies=[IncrementalLoRA()],
            epochs=2,
            batch_size=4,
            folder=folder,
            trainer={"accelerator": "cpu"},
        )

    run = experiment(tmp_path / "whole").run(quiet=True)
    last = run.folder.stage(2) / "adapter"
    loaded = PeftModel.from_pretrained(load_model(str(llama_folder))[0], last)
    assert {layer.r["default"] for layer in lora_layers(loaded).values()} == {4}
    for stage, costs in enumerate(run.costs[1:], start=1):
        file = run.folder.stage(stage) / "adapter" / "adapter_model.safetensors"
        state = run.folder.stage(stage) / "strategies" / "IncrementalLoRA.pt"
        assert costs["strategy_bytes"] == file.stat().st_size + state.stat().st_size
        assert file.stat().st_size > 4 * stage * costs["trainable_parameters"]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "stages" / "2")
    again = experiment(tmp_path / "cut").run(quiet=True)
    for file in ("adapter_model.safetensors", "default/adapter_model.safetensors"):
        assert (last / file).read_bytes() == (again.folder.stage(2) / "adapter" / file).read_bytes()

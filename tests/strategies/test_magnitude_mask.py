"""MIGU updates the rows whose outputs were largest over the whole optimiser step, and no others."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from torch import nn

from lifelong import Experiment
from lifelong.errors import ConfigError
from lifelong.strategies import Stage
from lifelong.strategies.lora_layers import lora_layers
from lifelong.strategies.magnitude_mask import MagnitudeMask, OutputSizes, largest, watched

LORA = LoraConfig(r=4, target_modules=["q_proj", "down_proj"])


def stage_of(stream, index: int) -> Stage:
    return Stage.of(stream[(index - 1) % len(stream)], index)


def batches_of(learner, stream, index: int):
    learner.begin_stage(stage_of(stream, index))
    rows = stage_of(stream, index).train
    return [learner.batch_of(rows.select(part)) for part in (range(3), range(3, 8))]


def top_rows(outputs: list[torch.Tensor], share: float) -> list[int]:
    """By hand: which outputs are largest in the mean over all positions, of tensors (..., n)."""
    size = outputs[0].shape[-1]
    positions = [row for each in outputs for row in each.reshape(-1, size).tolist()]
    means = [sum(abs(row[number]) for row in positions) / len(positions) for number in range(size)]
    return sorted(sorted(range(size), key=lambda number: -means[number])[: round(share * size)])


def updated(gradient: torch.Tensor) -> list[int]:
    """The rows with a gradient."""
    return gradient.abs().reshape(len(gradient), -1).sum(1).nonzero().flatten().tolist()


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_a_small_network_is_masked_as_by_brute_force():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 10), nn.Tanh(), nn.Linear(10, 6, bias=False), nn.LayerNorm(6))
    parts = [torch.randn(4, 3, 5), torch.randn(2, 7, 5)]
    sizes = [OutputSizes(*found) for found in watched(network)]
    for part in parts:
        network(part).pow(3).sum().backward()
    whole = {name: weight.grad.clone() for name, weight in network.named_parameters()}
    for each in sizes:
        each.mask(0.5)
        each.remove()
    first = [network[0](part) for part in parts]
    second = [network[:3](part) for part in parts]
    kept = {"0.weight": top_rows(first, 0.5), "0.bias": top_rows(first, 0.5), "2.weight": top_rows(second, 0.5)}
    for name, weight in network.named_parameters():
        expected = whole[name].clone()
        if name in kept:
            assert 0 < len(kept[name]) < len(expected)
            for row in set(range(len(expected))) - set(kept[name]):
                expected[row] = 0
        assert torch.equal(weight.grad, expected)


def test_the_next_step_begins_anew():
    torch.manual_seed(0)
    layer = nn.Linear(3, 8)
    sizes = OutputSizes(layer, [(layer.weight, 0)])
    first, second = 100 * torch.randn(5, 3), torch.randn(5, 3)
    layer(first).sum().backward()
    sizes.mask(0.25)
    layer.zero_grad()
    layer(second).sum().backward()
    sizes.mask(0.25)
    assert updated(layer.weight.grad) == top_rows([layer(second)], 0.25) != top_rows([layer(first)], 0.25)


def test_passes_that_train_nothing_do_not_count():
    torch.manual_seed(0)
    layer = nn.Linear(3, 8)
    sizes = OutputSizes(layer, [(layer.weight, 0)])
    seen, other = torch.randn(5, 3), 100 * torch.randn(5, 3)
    layer(seen).sum().backward()
    with torch.no_grad():
        layer(other)
    layer.eval()(other)
    sizes.mask(0.25)
    assert updated(layer.weight.grad) == top_rows([layer(seen)], 0.25) != top_rows([layer(other)], 0.25)


def test_a_lora_is_masked_by_what_A_and_the_whole_layer_put_out(make_learner, tiny_stream):
    learner = make_learner(adapter=LORA)
    layers = lora_layers(learner.model)
    with torch.no_grad():
        for layer in layers.values():  # else B is zero, and A has no gradient
            layer.lora_B["default"].weight.normal_(generator=torch.Generator().manual_seed(0))
    batches = batches_of(learner, tiny_stream, 2)
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    own = [
        layer.register_forward_hook(lambda module, args, output, name=name: inputs[name].append(args[0].detach()))
        for name, layer in layers.items()
    ]
    strategy = MagnitudeMask(threshold=0.25)
    learner.train()
    for module in learner.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    strategy.before_stage(learner, stage_of(tiny_stream, 2))
    for batch in batches:
        learner.answer_losses(batch).sum().backward()
    strategy.on_before_optimizer_step(None, learner, None)
    for handle in own:
        handle.remove()
    for name, layer in layers.items():
        W, A, B = layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
        scaling = layer.scaling["default"]
        assert updated(A.grad) == top_rows([x @ A.T for x in inputs[name]], 0.25)
        assert updated(B.grad) == top_rows([x @ (W + scaling * B @ A).T for x in inputs[name]], 0.25)


@pytest.mark.parametrize("folder", ["llama_folder", "gpt2_folder", "t5_folder"])
def test_of_all_weights_the_linear_layers_are_masked_and_the_rest_is_not(make_learner, tiny_stream, request, folder):
    learner = make_learner(request.getfixturevalue(folder)).train()
    strategy = MagnitudeMask(threshold=0.5)
    strategy.before_stage(learner, stage_of(tiny_stream, 2))
    for batch in batches_of(learner, tiny_stream, 2):
        learner.answer_losses(batch).sum().backward()
    whole = {name: weight.grad.clone() for name, weight in learner.named_parameters() if weight.grad is not None}
    strategy.on_before_optimizer_step(None, learner, None)
    head = learner.model.get_output_embeddings().weight
    masked = set()
    for name, weight in learner.named_parameters():
        module = learner.get_submodule(name.rpartition(".")[0])
        if name in whole and type(module).__name__ in ("Linear", "Conv1D") and weight is not head:
            masked.add(name)
            outputs = weight.grad.T if type(module).__name__ == "Conv1D" and weight.dim() == 2 else weight.grad
            assert len(updated(outputs)) <= len(outputs) / 2
        elif name in whole:
            assert torch.equal(weight.grad, whole[name])
    assert len(masked) >= 8


@pytest.mark.parametrize("adapter", [None, LORA], ids=["none", "LoRA"])
def test_it_looks_at_the_model_during_later_stages_only(make_learner, tiny_stream, adapter):
    learner = make_learner(adapter=adapter)
    before, strategy = hooks(learner), MagnitudeMask()
    strategy.before_stage(learner, stage_of(tiny_stream, 1))
    assert hooks(learner) == before
    strategy.before_stage(learner, stage_of(tiny_stream, 2))
    during = hooks(learner)
    strategy.before_stage(learner, stage_of(tiny_stream, 2))
    assert hooks(learner) == during > before
    strategy.after_stage(learner, stage_of(tiny_stream, 2))
    assert hooks(learner) == before


def test_a_share_of_one_looks_at_nothing(make_learner, tiny_stream):
    learner = make_learner()
    before = hooks(learner)
    MagnitudeMask(threshold=1.0).before_stage(learner, stage_of(tiny_stream, 2))
    assert hooks(learner) == before


@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_a_run_so_many_rows_change_in_a_step_of_several_micro_batches(
    tiny_stream, llama_folder, tmp_path, checkpointing
):
    run = Experiment(
        tiny_stream[:2],
        str(llama_folder),
        adapter=LORA,
        strategies=[MagnitudeMask(threshold=0.25)],
        epochs=1,
        batch_size=4,
        accumulate=2,
        optimizer="SGD",
        learning_rate=1.0,
        folder=tmp_path,
        trainer={"accelerator": "cpu"},
        gradient_checkpointing=checkpointing,
    ).run(quiet=True)
    first, second = (load_file(run.folder.stage(index) / "adapter" / "adapter_model.safetensors") for index in (1, 2))
    assert run.costs[2]["steps"] == 1
    for name, weight in first.items():
        assert len(updated(second[name] - weight)) == len(weight) / 4
        if "lora_B" in name:
            assert len(updated(weight)) == len(weight)  # the first stage is trained whole


def test_the_largest_share_is_at_least_one():
    values = torch.tensor([3.0, 1.0, 4.0, 2.0])
    assert largest(values, 0.5).tolist() == [True, False, True, False]
    assert largest(values, 0.01).tolist() == [False, False, True, False]
    assert largest(values, 1.0).all()


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1, "half", True])
def test_impossible_settings_are_refused_by_name(threshold):
    with pytest.raises(ConfigError, match="MagnitudeMask: threshold"):
        MagnitudeMask(threshold=threshold)


def test_a_model_without_a_trained_linear_layer_is_refused(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(r=2, target_modules=["embed_tokens"]))
    with pytest.raises(ConfigError, match="MagnitudeMask: the model trains no linear layer"):
        MagnitudeMask().check(learner, [stage_of(tiny_stream, 1)])

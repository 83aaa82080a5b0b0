"""Merging of models against its formulas, written with all weights of all stages at hand."""

from __future__ import annotations

import io

import pytest
import torch
from peft import LoraConfig

from lifelong import Experiment
from lifelong.adapters import MoralConfig
from lifelong.classification import labels_of
from lifelong.errors import ConfigError
from lifelong.strategies import Naive, Stage
from lifelong.strategies.merging import ModelMerging
from lifelong.strategies.ties import Ties
from lifelong.strategies.weights import snapshot, trained

ADAPTERS = {
    "none": None,
    "LoRA": LoraConfig(r=2, target_modules=["q_proj"]),
    "mixture": MoralConfig(num_experts=2, r=2),
}


def stage_of(stream, index: int) -> Stage:
    return Stage.of(stream[(index - 1) % len(stream)], index)


def flat(learner) -> torch.Tensor:
    """All trained weights as one vector."""
    return torch.cat([weight.detach().flatten() for weight in trained(learner).values()])


def learn(learner, seed: int) -> torch.Tensor:
    """Stands for training: every weight moves at random. Returns all of them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trained(learner).values():
            weight.add_(torch.randn(weight.shape, generator=generator))
    return flat(learner)


def run(learner, stream, strategy, stages: int = 3) -> tuple[list, list, list]:
    """What each stage began with, what it ended with, and what was merged: three lists of vectors."""
    began, ended, merged = [], [], []
    for index in range(1, stages + 1):
        strategy.before_stage(learner, stage_of(stream, index))
        strategy.before_stage(learner, stage_of(stream, index))
        began.append(flat(learner))
        ended.append(learn(learner, index))
        strategy.after_stage(learner, stage_of(stream, index))
        merged.append(flat(learner))
    return began, ended, merged


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("start", ["merged", "initial"])
def test_average_is_the_mean_of_what_the_stages_ended_with(make_learner, tiny_stream, start, adapter):
    learner = make_learner(adapter=ADAPTERS[adapter])
    _, ended, merged = run(learner, tiny_stream, ModelMerging("average", start))
    for count, weights in enumerate(merged, start=1):
        assert torch.allclose(weights, torch.stack(ended[:count]).mean(0), atol=1e-5)


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
def test_a_stage_begins_where_it_is_told(make_learner, tiny_stream, method):
    learner = make_learner(adapter=ADAPTERS["LoRA"])
    initial = flat(learner)
    began, _, _ = run(learner, tiny_stream, ModelMerging(method, "initial"))
    assert all(torch.equal(weights, initial) for weights in began)
    began, _, merged = run(learner, tiny_stream, ModelMerging(method, "merged"))
    assert all(torch.equal(before, after) for before, after in zip(merged, began[1:], strict=False))


def test_task_arithmetic_adds_the_task_vectors_of_models_from_the_same_weights(make_learner, tiny_stream):
    learner = make_learner(adapter=ADAPTERS["LoRA"])
    initial = flat(learner)
    _, ended, merged = run(learner, tiny_stream, ModelMerging("task_arithmetic", "initial", scale=0.3))
    for count, weights in enumerate(merged, start=1):
        vectors = torch.stack([each - initial for each in ended[:count]])
        assert torch.allclose(weights, initial + 0.3 * vectors.sum(0), atol=1e-5)


def test_task_arithmetic_from_merged_weights_adds_a_part_of_what_each_stage_changed(make_learner, tiny_stream):
    learner = make_learner(adapter=ADAPTERS["LoRA"])
    began, ended, merged = run(learner, tiny_stream, ModelMerging("task_arithmetic", scale=0.25))
    for before, after, now in zip(began, ended, merged, strict=True):
        assert torch.allclose(now, 0.75 * before + 0.25 * after, atol=1e-5)


@pytest.mark.parametrize("start", ["merged", "initial"])
def test_ties_merges_the_task_vectors_against_the_weights_of_the_beginning(make_learner, tiny_stream, start):
    learner = make_learner(adapter=ADAPTERS["LoRA"])
    initial = flat(learner)
    _, ended, merged = run(learner, tiny_stream, ModelMerging("ties", start, scale=0.7, density=0.4))
    alone = Ties(0.4)  # whose own oracle is in test_ties
    for weights, now in zip(ended, merged, strict=True):
        alone.add({"all": weights - initial})
        assert torch.allclose(now, initial + 0.7 * alone.merged()["all"], atol=1e-5)


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
@pytest.mark.parametrize("start", ["merged", "initial"])
def test_the_state_survives_a_safe_load_and_goes_on_the_same(make_learner, tiny_stream, method, start):
    learner, strategy = make_learner(adapter=ADAPTERS["LoRA"]), ModelMerging(method, start)
    run(learner, tiny_stream, strategy, stages=2)
    file = io.BytesIO()
    torch.save(strategy.state_dict(), file)
    file.seek(0)
    twin, other = ModelMerging(method, start), make_learner(adapter=ADAPTERS["LoRA"])
    twin.load_state_dict(torch.load(file, weights_only=True))
    other.load_state_dict(learner.state_dict())
    for each, its in ((strategy, learner), (twin, other)):
        each.before_stage(its, stage_of(tiny_stream, 3))
        learn(its, 3)
        each.after_stage(its, stage_of(tiny_stream, 3))
    assert torch.equal(flat(learner), flat(other))


@pytest.mark.parametrize(("method", "copies"), [("average", 1), ("task_arithmetic", 1), ("ties", 5), ("ema", 0)])
def test_what_is_kept_does_not_grow_with_the_stages(make_learner, tiny_stream, method, copies):
    learner, strategy = make_learner(adapter=ADAPTERS["LoRA"]), ModelMerging(method)

    def size() -> int:
        def tensors(value):
            return [value] if torch.is_tensor(value) else [t for v in value.values() for t in tensors(v)]

        state = {key: value for key, value in strategy.state_dict().items() if isinstance(value, dict)}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors(state))

    run(learner, tiny_stream, strategy, stages=1)
    assert size() == copies * 4 * flat(learner).numel()
    run(learner, tiny_stream, strategy, stages=3)
    assert size() == copies * 4 * flat(learner).numel()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_ema_is_the_mean_of_the_first_steps_and_exponential_from_then_on(make_learner, tiny_stream, decay):
    learner, strategy = make_learner(adapter=ADAPTERS["LoRA"]), ModelMerging("ema", decay=decay)
    for stage in (1, 2):
        strategy.before_stage(learner, stage_of(tiny_stream, stage))
        path = [flat(learner)]
        for step in range(8):
            path.append(learn(learner, 10 * stage + step))
            strategy.on_train_batch_end(None, learner, None, None, step)
        strategy.after_stage(learner, stage_of(tiny_stream, stage))
        expected = path[0]
        for step, weights in enumerate(path[1:], start=1):
            part = max(1 - decay, 1 / (step + 1))
            expected = (1 - part) * expected + part * weights
        assert torch.allclose(flat(learner), expected, atol=1e-5)
    if decay == 0.999:  # all steps are among the first
        assert torch.allclose(flat(learner), torch.stack(path).mean(0), atol=1e-5)


def test_ema_without_decay_is_plain_training_to_the_bit(tiny_stream, llama_folder, tmp_path):
    def weights(strategy) -> bytes:
        run = Experiment(
            tiny_stream[:1],
            str(llama_folder),
            adapter=LoraConfig(r=2, target_modules=["q_proj"]),
            strategies=[strategy],
            epochs=2,
            batch_size=4,
            folder=tmp_path / type(strategy).__name__,
            trainer={"accelerator": "cpu"},
        ).run(quiet=True)
        return (run.folder.stage(1) / "adapter" / "adapter_model.safetensors").read_bytes()

    assert weights(ModelMerging("ema", decay=0.0)) == weights(Naive())


def test_a_classifiers_head_is_merged_too(make_learner, bert_folder, labelled_stream):
    learner = make_learner(bert_folder, LoraConfig(r=2, target_modules=["query"]), labels=labels_of(labelled_stream))
    strategy, heads = ModelMerging("average"), []
    for index in (1, 2):
        strategy.before_stage(learner, stage_of(labelled_stream, index))
        learn(learner, index)
        heads.append(snapshot(learner)["head.weight"])
        strategy.after_stage(learner, stage_of(labelled_stream, index))
    assert torch.allclose(learner.head.weight, (heads[0] + heads[1]) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"method": "mean"}, "method: unknown 'mean'"),
        ({"start": "first"}, "start: unknown 'first'"),
        ({"method": "ema", "start": "initial"}, "start must be 'merged' for ema"),
        ({"scale": 0.5}, "scale is not read by method 'average'"),
        ({"method": "task_arithmetic", "density": 0.5}, "density is not read"),
        ({"method": "ties", "density": 0.0}, r"density must be a number in \(0, 1\]"),
        ({"method": "ties", "scale": -1.0}, r"scale must be a number in \[0, inf\)"),
        ({"method": "ema", "decay": 1.0}, r"decay must be a number in \[0, 1\)"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, named):
    with pytest.raises(ConfigError, match=f"ModelMerging: {named}"):
        ModelMerging(**settings)

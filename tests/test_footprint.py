"""What a run is said to need is what it takes, and a run that cannot fit is refused with settings that would help."""

import gc
from contextlib import contextmanager

import pytest
import torch
from lightning.pytorch import Callback
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    T5Config,
)

from lifelong import Experiment, Task, TaskStream
from lifelong.adapters import DenseMoeConfig, LoraMoeConfig, MoeLoraConfig, MoralConfig
from lifelong.errors import ConfigError, ModelError
from lifelong.footprint import MemoryEstimate, Workload, check_fits, estimate
from lifelong.models import load_model, without_pooler
from lifelong.quantization import quantization_config
from lifelong.strategies import Naive

BATCH = 8
TINY = LlamaConfig(
    vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0
)

BERT = BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)


def lora(**settings) -> LoraConfig:
    return LoraConfig(target_modules="all-linear", **{"r": 4} | settings)


@contextmanager
def allocations():
    """Gathers ``rise``: how far the allocator's bytes went above those at the beginning."""
    found: dict[str, int] = {}
    gc.collect()  # what an earlier test left in cycles must not be freed while this one is measured
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        yield found
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    found["rise"] = peak


class SecondStep(Callback):
    """The shape of a run's second optimiser step, and what its training allocates."""

    step: dict[str, int] = {}

    def on_train_batch_start(self, trainer, learner, batches, number):
        if number == 1:
            asked = (batches[0]["labels"][:, 1:] != -100).any(0).sum()
            rows, length = batches[0]["input_ids"].shape
            shape = {"batch_size": rows, "accumulate": len(batches), "length": length, "answer_length": int(asked)}
            self.measured = allocations()
            SecondStep.step = {"shape": shape, "found": self.measured.__enter__()}

    def on_train_batch_end(self, trainer, learner, outputs, batches, number):
        if number == 1:
            self.measured.__exit__(None, None, None)


def train(model, adapter, folder, accumulate=1, **settings) -> dict:
    """Three optimiser steps of a real run on rows of two lengths, the longer of which is in every batch."""
    words = [("where is the green meadow, please " * 3)[: -1 - number % 2] for number in range(3 * BATCH * accumulate)]
    rows = [{"question": text, "answers": ["seven or twelve"]} for text in words]
    stream = TaskStream("stream", [Task("task", train=rows, test=rows[:1])])
    Experiment(
        stream,
        str(model),
        adapter,
        strategies=[Naive()],
        epochs=1,
        batch_size=BATCH,
        accumulate=accumulate,
        callbacks=[SecondStep()],
        folder=folder,
        **{"trainer": {"accelerator": "cpu"}} | settings,
    ).run(quiet=True)
    return SecondStep.step


# ---------------------------------------------------------------- against what is measured


@pytest.mark.parametrize("name", ["llama_folder", "gpt2_folder"])
@pytest.mark.parametrize(
    ("adapter", "settings"),
    [
        (None, {}),
        ({}, {}),
        (None, {"gradient_checkpointing": True}),
        ({"lora_dropout": 0.1}, {"gradient_checkpointing": True, "accumulate": 2}),
        (None, {"accumulate": 3, "optimizer": "SGD"}),
        ({}, {"dtype": "bfloat16"}),
        (None, {"precision": "bf16-true"}),
        (None, {"precision": "bf16-mixed"}),
    ],
    ids=str,
)
def test_a_step_takes_what_was_estimated(adapter, settings, name, request, tmp_path):
    if adapter is not None:
        adapter = lora(fan_in_fan_out=name == "gpt2_folder", **adapter)
    check_step(request.getfixturevalue(name), adapter, settings, tmp_path)


@pytest.mark.parametrize(
    ("name", "adapter", "settings"),
    [
        ("llama_folder", MoralConfig(), {}),
        ("llama_folder", MoralConfig(balance_weight=0.1), {"gradient_checkpointing": True, "accumulate": 2}),
        ("gpt2_folder", MoralConfig(lora_dropout=0.0), {"precision": "bf16-mixed"}),
        ("gpt2_folder", LoraMoeConfig(), {"dtype": "bfloat16"}),
        ("llama_folder", MoeLoraConfig(), {}),
        ("gpt2_folder", DenseMoeConfig(), {}),
    ],
    ids=["moral", "moral-balance", "moral-bf16", "loramoe-bf16", "moelora", "densemoe"],
)
def test_a_step_of_a_mixture_takes_what_was_estimated(name, adapter, settings, request, tmp_path):
    check_step(request.getfixturevalue(name), adapter, settings, tmp_path)


def check_step(folder, adapter, settings, tmp_path) -> None:
    """A step takes what was estimated, to 2 %."""
    precision = settings.get("precision", "32-true")
    run = {key: value for key, value in settings.items() if key != "precision"}
    step = train(folder, adapter, tmp_path / "run", **run, trainer={"accelerator": "cpu", "precision": precision})
    assert step["shape"]["accumulate"] == settings.get("accumulate", 1)
    needed = estimate(Workload(str(folder), adapter, **settings | step["shape"]))
    # weights and the optimiser's state are there before the second step begins
    assert needed.gradients + needed.activations == pytest.approx(step["found"]["rise"], rel=0.02)


def test_an_encoder_decoder_takes_what_was_estimated():
    config = T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0)
    model = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        ids, mask, answer = torch.ones(8, 60, dtype=torch.long), torch.ones(8, 60), torch.ones(8, 9, dtype=torch.long)
        mask[0, 50:] = 0
        logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=answer, use_cache=False).logits
        cross_entropy(logits.flatten(0, 1), answer.flatten(), reduction="none").sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    with allocations() as found:
        step()
    needed = estimate(Workload(config, family="seq2seq", batch_size=8, length=60, answer_length=9))
    assert needed.gradients + needed.activations == pytest.approx(found["rise"], rel=0.02)


@pytest.mark.parametrize("config", [BERT, TINY], ids=["bert", "llama"])
def test_a_classifier_takes_what_was_estimated(config):
    body = AutoModel.from_config(config, dtype=torch.float32, **without_pooler("classifier", config))
    model = torch.nn.ModuleList([body, torch.nn.Linear(32, 5)]).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        ids, mask, labels = torch.ones(8, 60, dtype=torch.long), torch.ones(8, 60), torch.ones(8, dtype=torch.long)
        mask[0, 50:] = 0
        states = model[0](input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        logits = model[1]((states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))
        cross_entropy(logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    with allocations() as found:
        step()
    needed = estimate(Workload(config, family="classifier", batch_size=8, length=60, head_labels=5))
    assert needed.gradients + needed.activations == pytest.approx(found["rise"], rel=0.05)
    assert needed.total_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("setting", ["4bit", "8bit"])
def test_an_adapter_beside_quantised_weights_takes_what_was_estimated(setting, dtype, llama_folder):
    pytest.importorskip("bitsandbytes", reason="quantised weights need bitsandbytes")
    plain = load_model(str(llama_folder), lora())[0]
    model = AutoModelForCausalLM.from_pretrained(
        llama_folder, dtype=dtype, quantization_config=quantization_config(setting, trains_all=False)
    )
    model = get_peft_model(model, lora()).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    ids, mask, places = torch.ones(8, 60, dtype=torch.long), torch.ones(8, 60), torch.arange(50, 60)
    mask[0, 50:] = 0

    def step() -> None:
        logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=places, use_cache=False).logits
        targets = ids[:, places].flatten()
        cross_entropy(logits.flatten(0, 1).float(), targets, reduction="none").sum().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    with allocations() as found:
        step()
    shape = {"batch_size": 8, "length": 60, "answer_length": 10}
    needed = estimate(Workload(str(llama_folder), lora(), quantization=setting, dtype=dtype, **shape))
    assert needed.gradients + needed.activations == pytest.approx(found["rise"], rel=0.05)
    assert needed.total_parameters == sum(parameter.numel() for parameter in plain.parameters())


# ---------------------------------------------------------------- against closed forms


def test_full_fine_tuning_needs_four_times_the_weights_and_activations():
    vocabulary, width, positions, layers = 300, 32, 64, 2
    block = (
        4 * width + (width + 1) * 3 * width + (width + 1) * width + (width + 1) * 4 * width + (4 * width + 1) * width
    )
    count = (vocabulary + positions) * width + layers * block + 2 * width  # both ends share one matrix
    config = GPT2Config(vocab_size=vocabulary, n_embd=width, n_layer=layers, n_head=4, n_positions=positions)
    needed = estimate(Workload(config, length=60))
    assert needed.trainable_parameters == needed.total_parameters == count
    assert needed.loading == needed.weights == needed.gradients == needed.disk_per_stage == 4 * count
    # two moments, and a counter for each tensor: two embeddings, twelve in a block, the last norm's two
    assert needed.optimizer == 2 * 4 * count + 4 * (2 + 12 * layers + 2)
    assert needed.total == needed.weights + needed.gradients + needed.optimizer + needed.activations


def test_an_adapter_alone_has_gradients_and_is_kept(tmp_path, llama_folder):
    adapter = LoraConfig(r=3, target_modules=["q_proj", "v_proj"])
    needed = estimate(Workload(str(llama_folder), adapter, length=60))
    trained = 2 * (3 * (32 + 32) + 3 * (32 + 16))  # hidden 32; two key-value heads of 8
    assert needed.trainable_parameters == trained
    assert needed.gradients == needed.disk_per_stage == 4 * trained
    assert needed.optimizer == 2 * 4 * trained + 4 * 8
    model, _ = load_model(str(llama_folder), adapter)
    assert needed.total_parameters == sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    kept = load_file(tmp_path / "adapter_model.safetensors")
    assert needed.disk_per_stage == sum(tensor.nbytes for tensor in kept.values())


@pytest.mark.parametrize(
    ("adapter", "parameters"),
    [
        (LoraConfig(r=5, target_modules=["q_proj"]), 5 * (32 + 32)),
        (MoralConfig(num_experts=3, r=5, target_modules=["q_proj"]), 3 * 5 * (32 + 32) + 3 * 32),
    ],
    ids=["lora", "moral"],
)
def test_an_adapter_in_a_folder_is_the_one_that_was_saved(adapter, parameters, tmp_path, llama_folder):
    load_model(str(llama_folder), adapter)[0].save_pretrained(tmp_path)
    assert estimate(Workload(str(llama_folder), tmp_path)).trainable_parameters == 2 * parameters


def test_true_half_precision_loads_whole_weights_and_trains_half_ones():
    whole, half = estimate(Workload(TINY)), estimate(Workload(TINY, precision="bf16-true"))
    assert half.loading == whole.weights
    assert half.weights == pytest.approx(whole.weights / 2, rel=0.001)
    assert half.disk_per_stage == whole.disk_per_stage / 2


def test_where_loading_takes_most_it_counts():
    wide = LlamaConfig(
        vocab_size=20000, hidden_size=256, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    small = {"batch_size": 1, "length": 8, "answer_length": 1, "precision": "bf16-true"}
    needed = estimate(Workload(wide, lora(), **small))
    assert needed.total == needed.loading > needed.weights + needed.gradients + needed.optimizer + needed.activations
    assert str(needed) == f"{needed.loading / 1e6:.0f} MB while the model is loaded"


def test_checkpointing_and_smaller_batches_need_less():
    whole = estimate(Workload(TINY, batch_size=8)).activations
    assert estimate(Workload(TINY, batch_size=8, gradient_checkpointing=True)).activations < 0.8 * whole
    assert estimate(Workload(TINY, batch_size=4)).activations == pytest.approx(whole / 2, rel=0.02)


def test_logits_are_counted_where_answers_are():
    wide = LlamaConfig(
        vocab_size=50000, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    few, many = (estimate(Workload(wide, lora(), answer_length=length)).activations for length in (10, 110))
    per_position = 16 * 50000 * 4
    # logits, their log-softmax, and the gradients of both
    assert many - few == pytest.approx(4 * 100 * per_position, rel=0.01)


def test_optimisers_that_look_at_values_are_estimated_too():
    plain = estimate(Workload(TINY, optimizer="SGD"))
    assert plain.optimizer == 0
    assert 0 < estimate(Workload(TINY, optimizer="Adafactor")).optimizer < plain.weights / 2


# ---------------------------------------------------------------- what an estimate leaves alone


def test_an_estimate_changes_nothing_around_it():
    adapter = lora()
    before = TINY.to_dict(), adapter.to_dict(), torch.get_rng_state(), torch.get_default_dtype()
    estimate(Workload(TINY, adapter, dtype="bfloat16", precision="bf16-true"))
    after = TINY.to_dict(), adapter.to_dict(), torch.get_rng_state(), torch.get_default_dtype()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2]) and before[3] == after[3]


def test_an_estimate_takes_no_memory_of_the_size_of_the_model():
    large = LlamaConfig(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=2)
    with allocations() as found:
        needed = estimate(Workload(large))
    assert needed.total > 10e9
    assert found["rise"] < 1e6


# ---------------------------------------------------------------- what cannot be estimated


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "casual"}, "family: unknown 'casual'. Did you mean 'causal'?"),
        ({"batch_size": 0}, "batch_size: must be at least 1, got 0"),
        ({"length": 8, "answer_length": 9}, "answer_length: 9 positions are more than the row's 8"),
        ({"family": "classifier"}, "head_labels: a classifier needs at least one label"),
        ({"quantization": "4bit"}, "quantization: quantised weights cannot be trained"),
    ],
)
def test_a_workload_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        Workload(**settings)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "./nowhere"}, "the configuration of model './nowhere' cannot be read"),
        ({"adapter": "./nowhere"}, "adapter './nowhere' cannot be read"),
        ({"dtype": "bfloat"}, "unknown dtype 'bfloat'. Did you mean 'bfloat16'"),
        ({"precision": "transformer-engine"}, "memory cannot be estimated for the precision 'transformer-engine'"),
    ],
)
def test_a_model_that_cannot_be_estimated_is_named(settings, message):
    with pytest.raises(ModelError, match=message):
        estimate(Workload(**settings))


@pytest.mark.parametrize("kind", [LoraConfig, MoralConfig])
def test_an_adapter_that_does_not_fit_is_a_mistake_and_no_gap_in_what_can_be_estimated(kind):
    with pytest.raises(ConfigError, match=r"adapter: does not fit this model: .*nothing"):
        estimate(Workload(adapter=kind(target_modules=["nothing"])))


# ---------------------------------------------------------------- what fits


def refusal(needed: MemoryEstimate, available: int) -> str:
    with pytest.raises(ConfigError) as caught:
        check_fits(needed, available)
    return str(caught.value)


def megabytes(**settings) -> str:
    return f"{estimate(Workload(TINY, **settings)).total / 1e6:.0f} MB"


def test_what_fits_or_is_unknown_is_not_refused():
    needed = estimate(Workload(TINY))
    check_fits(needed, needed.total)
    check_fits(needed, None)


def test_a_refusal_says_what_is_needed_and_which_settings_would_do():
    needed = estimate(Workload(TINY, batch_size=12))
    available = estimate(Workload(TINY, batch_size=4, accumulate=3)).total
    found = refusal(needed, available)
    assert found.startswith(
        f"memory: training needs about {needed.total / 1e6:.0f} MB (weights {needed.weights / 1e6:.0f} MB, gradients "
        f"{needed.gradients / 1e6:.0f} MB, optimiser state {needed.optimizer / 1e6:.0f} MB, activations "
        f"{needed.activations / 1e6:.0f} MB), and {available / 1e6:.0f} MB are free on cpu. Instead: "
    )
    assert f"batch_size: 4, accumulate: 3 ({megabytes(batch_size=4, accumulate=3)}, which fits)" in found
    checkpointed = megabytes(batch_size=12, gradient_checkpointing=True)
    assert f"gradient_checkpointing: true ({checkpointed}, still too much)" in found
    assert "quantization" not in found and "all of them" not in found


def test_full_fine_tuning_is_offered_an_adapter():
    wide = LlamaConfig(
        vocab_size=20000, hidden_size=256, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    adapted = estimate(Workload(wide, LoraConfig(target_modules="all-linear"), batch_size=1)).total
    found = refusal(estimate(Workload(wide, batch_size=1)), adapted)
    assert f"an adapter such as peft.LoraConfig ({adapted / 1e6:.0f} MB, which fits)" in found


def test_where_nothing_alone_would_do_everything_together_is_tried():
    needed = estimate(Workload(TINY, lora(), batch_size=8, device="cuda"))
    settings = {"gradient_checkpointing": True, "dtype": "bfloat16", "quantization": "4bit"}
    together = estimate(Workload(TINY, lora(), batch_size=1, accumulate=8, device="cuda", **settings)).total
    found = refusal(needed, together)
    assert "free on cuda" in found
    for alone in (
        "gradient_checkpointing: true",
        "batch_size: 1, accumulate: 8",
        "dtype: bfloat16",
        "quantization: 4bit",
    ):
        assert f"{alone} (" in found
    assert found.endswith(f"; all of them ({together / 1e6:.0f} MB, which fits)")
    assert refusal(needed, 1).endswith("still too much)")


def test_what_a_model_cannot_do_is_not_offered(monkeypatch):
    monkeypatch.setattr("transformers.LlamaForCausalLM.supports_gradient_checkpointing", False)
    found = refusal(estimate(Workload(TINY, batch_size=2)), 1)
    assert "gradient_checkpointing" not in found and "batch_size: 1" in found

"""The files of published settings are read, fit their architectures, and have the sizes known of the models."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, MistralConfig, PhiConfig

from lifelong.adapters import MoralConfig
from lifelong.adapters.layer import MixtureLayer
from lifelong.config import make_experiment, read_config
from lifelong.footprint import MemoryEstimate, Workload, estimate
from lifelong.models import load_model

FOLDER = Path(__file__).parents[2] / "experiments" / "paper"
FILES = ("moral_tinyllama", "moral_phi2", "moral_mistral")

# of each file: the kind of model, its sizes as published, its parameters, and matrices of a feed-forward layer
MODELS = {
    "moral_tinyllama": (
        LlamaConfig,
        {
            "vocab_size": 32000,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 22,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
        },
        1.10e9,
        3,
    ),
    "moral_phi2": (
        PhiConfig,
        {
            "vocab_size": 51200,
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
        },
        2.78e9,
        2,
    ),
    "moral_mistral": (
        MistralConfig,
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        7.24e9,
        3,
    ),
}
TOY = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
EXPERTS, RANK = 8, 8


@pytest.fixture(params=FILES)
def file(request) -> str:
    return request.param


@pytest.fixture
def toy(file, llama_folder, tmp_path) -> str:
    """A model folder of the file's architecture, three layers deep."""
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    config = MODELS[file][0](
        vocab_size=len(tokenizer), num_hidden_layers=3, bos_token_id=None, eos_token_id=tokenizer.eos_token_id, **TOY
    )
    with torch.random.fork_rng():
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


def needed(file: str) -> MemoryEstimate:
    """What the file's run needs on the real architecture, at its longest rows."""
    settings = read_config(FOLDER / f"{file}.yaml")
    kind, sizes, _, _ = MODELS[file]
    return estimate(
        Workload(
            kind(**sizes),
            MoralConfig(**settings["adapter"]["init_args"]),
            batch_size=settings["batch_size"],
            length=settings["max_length"],
            optimizer=settings["optimizer"],
            dtype=settings["dtype"],
            gradient_checkpointing=settings["gradient_checkpointing"],
        )
    )


def test_every_file_is_tested():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(FILES)


def test_the_papers_values_are_in_every_file(file):
    settings = read_config(FOLDER / f"{file}.yaml")
    assert {name: settings[name] for name in ("optimizer", "learning_rate", "batch_size", "epochs")} == {
        "optimizer": "Adam",
        "learning_rate": 1e-4,
        "batch_size": 16,
        "epochs": 2,
    }


def test_every_value_says_whose_it_is(file):
    lines = (FOLDER / f"{file}.yaml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if re.match(r"\s*(- )?\w+: +[^#\s]", line)]
    assert len(values) >= 15
    assert [line for line in values if not re.search(r"# .*\b(paper|ours)\b", line)] == []


def test_a_file_becomes_an_experiment_whose_adapter_fits(file, toy):
    settings = read_config(FOLDER / f"{file}.yaml", {"model": toy, "stream": "streams.world_facts", "max_length": 64})
    experiment = make_experiment(settings)
    model, _ = load_model(toy, experiment.adapter, dtype=experiment.dtype, gradient_checkpointing=True)
    adapted = [name for name, module in model.named_modules() if isinstance(module, MixtureLayer)]
    assert len(adapted) == 3 * MODELS[file][3]
    assert all(".mlp." in name for name in adapted)
    assert {parameter.requires_grad for name, parameter in model.named_parameters() if "moral_" not in name} == {False}


def test_the_real_models_have_their_known_sizes(file):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = needed(file)
    _, sizes, parameters, matrices = MODELS[file]
    assert found.total_parameters - found.trainable_parameters == pytest.approx(parameters, rel=0.01)
    rows_and_columns = sizes["hidden_size"] + sizes["intermediate_size"]
    # each matrix has its router, which reads the hidden size, but that of the last one, which reads the inner one
    routers = EXPERTS * ((matrices - 1) * sizes["hidden_size"] + sizes["intermediate_size"])
    experts = matrices * EXPERTS * RANK * rows_and_columns
    assert found.trainable_parameters == sizes["num_hidden_layers"] * (experts + routers)
    # two bytes for each of the frozen weights, four for each of the adapter's, of its gradients, and of two moments
    at_rest = 2 * parameters + 4 * 4 * found.trainable_parameters
    assert found.total - found.activations == pytest.approx(at_rest, rel=0.01)
    # each layer keeps its input, in two bytes, until the backward pass
    inputs = 2 * 16 * 512 * sizes["hidden_size"] * sizes["num_hidden_layers"]
    assert inputs < found.activations < 6 * inputs
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    assert after - before < 5e8

"""What a stage computes: positions counted by hand, and FLOPs as torch counts them while the stage is learned."""

import json
from unittest.mock import patch

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from lifelong import Experiment
from lifelong.adapters import account
from lifelong.compute import flops_per_position, train_costs
from lifelong.durable import write_manifest
from lifelong.learner import Learner
from lifelong.reports.terminal import show_run
from lifelong.run import Run
from lifelong.strategies import EWC, LwF, Replay, SelfDistillation
from lifelong.testing.runs import ToyRuns, toy_adapter

# Formulas leave out attention between tokens, and count gradients down to the model's input.
TOLERANCE = 0.1


def experiment(stream, model, folder, **settings):
    defaults = {
        "epochs": 1,
        "batch_size": 4,
        "check_resources": False,
        "evaluate": {"probes": False, "max_new_tokens": 2},
        "trainer": {"accelerator": "cpu"},
    }
    return Experiment(stream, str(model), folder=folder, **defaults | settings)


class Seen:
    """Shapes of the inputs of every pass that a learner makes while it learns, and what torch counts of all of it."""

    def __init__(self):
        self.shapes, self.flops = [], []
        begin, costs, logits = Learner.begin_stage, train_costs, Learner.answer_logits

        def answer_logits(learner, batch):
            outputs, targets = logits(learner, batch)
            self.shapes[-1].append((tuple(batch["input_ids"].shape), tuple(targets.shape)))
            return outputs, targets

        def begin_stage(learner, *arguments):
            self.shapes.append([])
            self.counter = FlopCounterMode(display=False)
            self.counter.__enter__()
            return begin(learner, *arguments)

        def counted(learner, rates):
            self.counter.__exit__(None, None, None)
            self.flops.append(self.counter.get_total_flops())
            return costs(learner, rates)

        self.patches = [
            patch.object(Learner, "answer_logits", answer_logits),
            patch.object(Learner, "begin_stage", begin_stage),
            patch("lifelong.loop.train_costs", counted),
        ]

    def __enter__(self):
        for each in self.patches:
            each.start()
        return self

    def __exit__(self, *_):
        for each in self.patches:
            each.stop()


FAMILIES = ["llama_folder", "gpt2_folder", "t5_folder", "bert_folder"]


@pytest.mark.parametrize("adapter", [None, "LoRA", "mixture"])
@pytest.mark.parametrize("model", FAMILIES)
def test_a_stage_takes_the_flops_that_torch_counts(model, adapter, request, tiny_stream, labelled_stream, tmp_path):
    stream = labelled_stream if model == "bert_folder" else tiny_stream
    settings = {} if adapter is None else {"adapter": toy_adapter(adapter)}
    if (model, adapter) == ("gpt2_folder", "LoRA"):
        settings["adapter"].fan_in_fan_out = True
    with Seen() as seen:
        run = experiment(stream[:1], request.getfixturevalue(model), tmp_path / "run", **settings).run(quiet=True)
    assert run.costs[0]["train_tokens"] == run.costs[0]["train_flops"] == 0
    both = model == "t5_folder"
    shapes = [(ids, targets) for passes in seen.shapes for ids, targets in passes]
    tokens = sum(rows * length + both * K * rows for (rows, length), (_, K) in shapes)
    assert run.costs[1]["train_tokens"] == tokens > 0
    assert run.costs[1]["train_flops"] == pytest.approx(seen.flops[0], rel=TOLERANCE)


@pytest.mark.parametrize("strategy", [Replay(0.5), EWC(), LwF(), SelfDistillation(max_new_tokens=8)])
def test_what_strategies_read_train_on_and_write_counts_too(strategy, tiny_stream, llama_folder, tmp_path):
    with Seen() as seen:
        run = experiment(tiny_stream[:2], llama_folder, tmp_path / "run", strategies=[strategy]).run(quiet=True)
    naive = experiment(tiny_stream[:2], llama_folder, tmp_path / "naive").run(quiet=True)
    passes = [sum(rows * length for (rows, length), _ in stage) for stage in seen.shapes]
    for stage in (1, 2):
        costs = run.costs[stage]
        written = costs["train_tokens"] - passes[stage - 1]
        assert written > 0 if isinstance(strategy, SelfDistillation) else written == 0
        assert costs["train_flops"] == pytest.approx(seen.flops[stage - 1], rel=TOLERANCE)
    assert run.costs[2]["train_tokens"] > naive.costs[2]["train_tokens"]


@pytest.mark.parametrize("model", FAMILIES)
def test_a_model_without_an_adapter_is_counted_as_its_account_says(model, request, make_learner):
    learner = make_learner(request.getfixturevalue(model), **({"labels": {"a": ["b"]}} if "bert" in model else {}))
    cost, rates = account(learner.model).trained, flops_per_position(learner).values()
    assert sum(rate.forward for rate in rates) == cost.forward_flops
    assert sum(rate.training for rate in rates) == cost.training_flops


def test_a_teacher_s_pass_is_taken_as_forward_alone(make_learner, tiny_stream):
    learner = make_learner()
    rates = flops_per_position(learner)
    rows = [row | {"task": "colours", "kind": "knowledge"} for row in tiny_stream[0].train]
    batch = learner.batch_of(rows)
    with torch.no_grad():
        _, targets = learner.answer_logits(batch)
    forward = batch["input_ids"].numel() * rates["read"].forward + targets.numel() * rates["answered"].forward
    assert train_costs(learner, rates)["train_flops"] == forward
    learner.answer_logits(batch)
    # of a model that is trained whole, a pass both ways is three times a pass forward
    assert train_costs(learner, rates)["train_flops"] == 4 * forward


@pytest.mark.parametrize("strategy", [EWC, LwF])
def test_a_stage_that_was_broken_off_ends_with_the_same_costs(strategy, tmp_path):
    runs = ToyRuns(tmp_path)
    whole, resumed = runs.run([strategy()], "causal", "LoRA", "whole"), runs.resumed(strategy(), "causal", "LoRA")
    for name in ("train_tokens", "train_flops"):
        assert [costs[name] for costs in resumed.costs] == [costs[name] for costs in whole.costs]


def test_an_adapter_that_is_not_known_has_tokens_and_no_flops(tiny_stream, llama_folder, tmp_path):
    settings = {"adapter": toy_adapter("other")}
    run = experiment(tiny_stream[:1], llama_folder, tmp_path / "run", **settings).run(quiet=True)
    assert run.costs[1]["train_tokens"] > 0 and run.costs[1]["train_flops"] is None


def test_a_folder_of_before_is_read_and_shown(tiny_stream, llama_folder, tmp_path, capsys):
    run = experiment(tiny_stream[:1], llama_folder, tmp_path / "run").run(quiet=True)
    for stage in (0, 1):
        folder = run.folder.stage(stage)
        costs = json.loads((folder / "costs.json").read_text())
        del costs["train_tokens"], costs["train_flops"]
        (folder / "costs.json").write_text(json.dumps(costs))
        write_manifest(folder, [folder / name for name in json.loads((folder / "manifest.json").read_text())])
    assert "train_tokens" not in Run(tmp_path / "run").costs[1]
    show_run(Run(tmp_path / "run"), Console())
    assert "average_accuracy" in capsys.readouterr().out

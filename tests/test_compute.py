"""What a stage computes: positions counted by hand, and FLOPs as torch counts them while the stage is learned."""

import json
from unittest.mock import patch

import pytest
from torch.utils.flop_counter import FlopCounterMode

from lifelong import Experiment
from lifelong.compute import flops_per_position, train_costs
from lifelong.learner import Learner
from lifelong.run import Run
from lifelong.strategies import EWC, LwF, Replay, SelfDistillation
from lifelong.testing.runs import toy_adapter

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

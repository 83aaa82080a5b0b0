"""The untrained model is asked once by runs that begin as the same function, and by each run that does not."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from peft import LoraConfig

from lifelong import Experiment, loop
from lifelong.adapters import MoralConfig
from lifelong.strategies import AdapterPerTask, Replay

LORA = {"r": 2, "target_modules": "all-linear"}
CLOSED = {"probes": True, "max_new_tokens": 3}


@pytest.fixture
def asked(monkeypatch) -> Counter:
    """How often each task was asked, in whatever split."""
    counts: Counter = Counter()
    evaluate = loop.evaluate_task

    def counted(learner, task, *arguments: Any):
        counts[task.name] += 1
        return evaluate(learner, task, *arguments)

    monkeypatch.setattr(loop, "evaluate_task", counted)
    return counts


@pytest.fixture
def run(tiny_stream, llama_folder, tmp_path):
    def made(name: str, shared: bool = True, **settings: Any):
        about = {"adapter": LoraConfig(**LORA), "epochs": 1, "batch_size": 4, "evaluate": CLOSED} | settings
        about |= {"folder": tmp_path / name, "trainer": {"accelerator": "cpu"}, "model": str(llama_folder)} | settings
        return Experiment(tiny_stream, **about).run(quiet=True, shared=tmp_path / "shared" if shared else None)

    return made


def stage_zero(run) -> tuple[list[dict], dict[str, str]]:
    rows = run.rows.query("stage == 0").drop(columns="seconds").sort_values(["task", "split"]).to_dict("records")
    files = {path.name: path.read_text() for path in (run.path / "stages" / "0" / "predictions").iterdir()}
    return rows, files


def test_a_second_run_takes_the_answers_of_the_first_whatever_its_seed_order_and_method(run, asked):
    first = run("first")
    alone = dict(asked)
    asked.clear()
    second = run(
        "second", seed=3, order=2, strategies=[Replay(0.5)], adapter=LoraConfig(r=4, target_modules=["q_proj"])
    )
    full = run("full", adapter=None)
    assert {name: 2 * (alone[name] - 2) for name in alone} == asked  # without stage 0: its test questions and probes
    apart = run("apart", shared=False)
    assert stage_zero(first) == stage_zero(second) == stage_zero(full) == stage_zero(apart)
    assert [cost["questions"] for cost in second.costs[:1]] == [cost["questions"] for cost in apart.costs[:1]]


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter": LoraConfig(init_lora_weights=False, **LORA)},
        {"adapter": MoralConfig(num_experts=2, r=2)},
        {"strategies": [AdapterPerTask()]},
        {"evaluate": {**CLOSED, "max_new_tokens": 2}},
        {"evaluate": {**CLOSED, "books": ["distracted"]}},
        {"max_length": 40},
    ],
    ids=["adapter that is not zero", "routing", "strategy that answers", "other questions", "drawn passages", "length"],
)
def test_a_run_that_begins_as_something_else_asks_itself(settings, run, asked):
    run("first")
    before = dict(asked)
    asked.clear()
    other = run("other", **settings)
    assert asked == before
    assert stage_zero(other) == stage_zero(run("apart", shared=False, **settings))


def test_what_was_shortened_is_counted_where_answers_are_taken(run):
    settings = {"max_length": 24}
    runs = [run("first", **settings), run("second", **settings), run("apart", shared=False, **settings)]
    counts = [json.loads((one.path / "stages/0/costs.json").read_text())["shortened"] for one in runs]
    assert counts[0] and counts[0] == counts[1] == counts[2]

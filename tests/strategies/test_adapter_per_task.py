"""One adapter per task: nothing of an earlier one changes, and questions find theirs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from safetensors.torch import load_file

from lifelong import Experiment, Run, Task, TaskStream
from lifelong.errors import ConfigError
from lifelong.learner import Learner
from lifelong.models import load_model
from lifelong.reports.terminal import show_run
from lifelong.retrieval import LexicalEncoder
from lifelong.strategies import EWC, AdapterPerTask, Cumulative, IncrementalLoRA, Stage
from lifelong.strategies.adapter_per_task import begin_afresh, vote

FACTS = {
    "capitals": ("What is the capital of {}?", {"Fiji": "Suva", "Cuba": "Havana", "Peru": "Lima", "Oman": "Muscat"}),
    "symbols": ("Which sign stands for {}?", {"gold": "Au", "iron": "Fe", "lead": "Pb", "tin": "Sn"}),
    "moons": (
        "Around which planet does {} go?",
        {"Io": "Jupiter", "Titan": "Saturn", "Ariel": "Uranus", "Triton": "Neptune"},
    ),
}


@pytest.fixture(scope="module")
def stream() -> TaskStream:
    tasks = []
    for name, (question, facts) in FACTS.items():
        rows = [
            {"question": question.format(key), "answers": [value], "probes": [f"{question.format(key)} Tell me."]}
            for key, value in facts.items()
        ]
        tasks.append(Task(name, rows, rows))
    return TaskStream("facts", tasks)


def run_of(stream: TaskStream, folder, strategy: AdapterPerTask, llama_folder) -> Run:
    return Experiment(
        stream,
        model=str(llama_folder),
        adapter=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
        strategies=[strategy],
        epochs=60,
        batch_size=4,
        learning_rate=1e-2,
        folder=folder,
    ).run(quiet=True)


@pytest.fixture(scope="module")
def runs(stream, llama_folder, tmp_path_factory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        infer: run_of(stream, folder / infer, AdapterPerTask(infer), llama_folder) for infer in ("nearest", "oracle")
    }


@pytest.mark.parametrize("infer", ["nearest", "oracle"])
def test_what_was_learned_is_answered_alike_ever_after(runs, infer: str) -> None:
    run = runs[infer]
    said = run.predictions.set_index(["stage", "task", "split", "id", "question"])["prediction"]
    for stage, task in enumerate(FACTS, 1):
        after = said.loc[stage, task]
        assert len(after) == 8 and all(said.loc[later, task].equals(after) for later in range(stage, 4))
    assert run.metrics["learning_accuracy"] > 0.7 and run.metrics["forgetting"] == 0


def test_each_answer_says_whose_it_is(runs) -> None:
    for run in runs.values():
        last = run.task_inference.query("stage == 3")
        assert last["right"].tolist() == [1.0] * 6 and last["questions"].tolist() == [4] * 6
        assert (run.task_inference.query("stage == 0")["right"] == 0).all()
    routes = runs["nearest"].predictions.query("stage == 1")["route"]
    assert set(routes) == {"capitals"}  # the only one there is
    oracle = runs["oracle"].predictions.query("stage == 1")
    assert set(oracle[oracle["task"] != "capitals"]["route"]) == {""}
    console = Console(record=True, width=200)
    show_run(runs["nearest"], console)
    assert "task inferred rightly, test questions, closed book: capitals 1.000" in console.export_text()


def test_a_task_without_an_adapter_is_answered_by_the_model_alone(runs) -> None:
    said = runs["oracle"].predictions.set_index(["stage", "task", "split", "id", "question"])["prediction"]
    for task in ("symbols", "moons"):
        assert said.loc[1, task].equals(said.loc[0, task])


def test_an_adapter_is_the_same_file_ever_after(runs) -> None:
    first = load_file(runs["oracle"].path / "stages" / "1" / "adapter" / "task_1" / "adapter_model.safetensors")
    last = load_file(runs["oracle"].path / "stages" / "3" / "adapter" / "task_1" / "adapter_model.safetensors")
    assert first.keys() == last.keys() and all(torch.equal(first[name], last[name]) for name in first)


def test_the_nearest_questions_vote_by_their_similarity() -> None:
    assert vote([(0.9, ["a"]), (0.5, ["b"]), (0.3, ["b"])], ["a", "b"]) == "a"
    assert vote([(0.9, ["a"]), (0.5, ["b"]), (0.5, ["b"])], ["a", "b"]) == "b"
    assert vote([(0.4, ["a"]), (-2.0, ["b"])], ["b", "a"]) == "a"
    assert vote([(0.5, ["a", "b"])], ["a", "b", "c"]) == "b"  # the later of two


def test_the_task_is_that_of_brute_force(stream, llama_folder) -> None:
    model, tokenizer = load_model(str(llama_folder), LoraConfig(r=2, target_modules="all-linear"))
    learner = Learner(model, tokenizer)
    strategy = AdapterPerTask(neighbours=3)
    for index, task in enumerate(stream, 1):
        strategy.after_stage(learner, Stage.of(task, index))
    known = [(row["question"], task.name) for task in stream for row in task.train]
    asked = [
        "The capital of Peru?",
        "Which planet has Titan?",
        "What is the sign of tin?",
        "What is Io?",
        "sign sign gold",
    ]
    encoder = LexicalEncoder()
    encoder.observe([question for question, _ in known])
    scores = encoder.encode_questions(asked) @ encoder.encode_passages([question for question, _ in known]).T
    expected = []
    for line in scores:
        votes = Counter()
        for place in np.argsort(-line, kind="stable")[:3]:
            votes[known[place][1]] += max(float(line[place]), 0)
        expected.append(votes.most_common(1)[0][0])
    assert strategy.routes(learner, [{"question": question} for question in asked]) == expected
    again = AdapterPerTask(neighbours=3)
    again.load_state_dict(strategy.state_dict())
    assert again.routes(learner, [{"question": question} for question in asked]) == expected


def test_a_fresh_adapter_is_drawn_as_peft_draws_it_and_leaves_no_trace(llama_folder) -> None:
    config = LoraConfig(r=4, target_modules="all-linear")
    torch.manual_seed(0)
    model = get_peft_model(load_model(str(llama_folder))[0], config)
    weights = {name: weight.clone() for name, weight in model.state_dict().items() if "lora_" in name}
    before = torch.get_rng_state()
    begin_afresh(model, torch.Generator().manual_seed(1))
    once = {name: model.state_dict()[name].clone() for name in weights}
    begin_afresh(model, torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state()) and list(model.peft_config) == ["default"]
    for name, weight in weights.items():
        assert torch.equal(once[name], model.state_dict()[name])
        if "lora_A" in name:
            bound = weight.shape[1] ** -0.5
            assert not torch.equal(once[name], weight) and once[name].abs().max() <= bound
            assert once[name].std() == pytest.approx(bound / 3**0.5, rel=0.3)
        else:
            assert not once[name].any()


def test_a_task_s_questions_are_remembered_up_to_a_number(stream, llama_folder) -> None:
    model, tokenizer = load_model(str(llama_folder), LoraConfig(r=2, target_modules="all-linear"))
    strategy = AdapterPerTask(questions=3)
    strategy.after_stage(Learner(model, tokenizer), Stage.of(stream[0], 1))
    (kept,) = strategy.state_dict()["questions"].values()
    assert len(kept) == 3 == strategy.rows_kept([4]) and set(kept) <= {row["question"] for row in stream[0].train}


@pytest.mark.parametrize("settings", [{"infer": "guess"}, {"neighbours": 0}, {"questions": 0}])
def test_wrong_settings_are_named(settings) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        AdapterPerTask(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bias": "lora_only"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": False}, "init_lora_weights"),
    ],
)
def test_a_lora_that_cannot_begin_again_is_refused_before_anything_is_asked(
    settings, message, stream, llama_folder, tmp_path
) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], **settings)
    with pytest.raises(ConfigError, match=message):
        Experiment(
            stream, str(llama_folder), adapter=config, strategies=[AdapterPerTask()], folder=tmp_path / "run"
        ).run(quiet=True)
    assert not (tmp_path / "run" / "stages" / "0").exists()


def test_an_adapter_that_has_learned_is_not_thrown_away(stream, llama_folder) -> None:
    model, tokenizer = load_model(str(llama_folder), LoraConfig(r=2, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
    with pytest.raises(ConfigError, match="trained already"):
        AdapterPerTask().check(Learner(model, tokenizer), [Stage.of(stream[0], 1)])


def test_raw_text_has_no_questions_that_could_be_near(llama_folder, tmp_path) -> None:
    (tmp_path / "a.txt").write_text("Some words of a text.")
    stages = [Stage.of(Task.from_text("text", tmp_path / "a.txt", tmp_path / "a.txt"), 1)]
    learner = Learner(*load_model(str(llama_folder), LoraConfig(r=2, target_modules="all-linear")))
    with pytest.raises(ConfigError, match="infer='oracle'"):
        AdapterPerTask().check(learner, stages)
    AdapterPerTask("oracle").check(learner, stages)


@pytest.mark.parametrize("other", [EWC(), IncrementalLoRA(), Cumulative(), AdapterPerTask(name="other")])
def test_what_would_undo_it_is_refused(other, stream, llama_folder, tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot run together"):
        Experiment(stream, model=str(llama_folder), strategies=[AdapterPerTask(), other], folder=tmp_path)

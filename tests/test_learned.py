"""A run's folder is enough to ask again what was asked after any of its stages."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lifelong import Experiment, Run
from lifelong.errors import ConfigError, RunError
from lifelong.learned import answered, load_learned
from lifelong.library import passage_id

KINDS = ["full", "lora", "incremental", "per task", "mixture", "seq2seq", "classifier"]


def asked(run: Run, stage: int, book: str = "closed"):
    """The questions and answers that a run has recorded, of the tasks that it asked then."""
    rows = run.predictions.query("stage == @stage and `pass` == @book")
    return rows["question"].tolist(), rows["prediction"].tolist()


@pytest.fixture
def copy(learned_run, tmp_path):
    """A function that gives the run of a kind in a folder of its own, which may be changed."""

    def copied(kind: str = "lora") -> Run:
        return Run(shutil.copytree(learned_run(kind).path, tmp_path / kind))

    return copied


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_answers_as_it_was_recorded(learned_run, kind):
    run = learned_run(kind)
    by_stage = []
    for stage in range(kind == "classifier", 4):
        questions, answers = asked(run, stage)
        assert run.ask(questions, stage=stage) == answers
        by_stage.append(answers)
    assert len(set(map(tuple, by_stage))) == len(by_stage)  # the stages do differ


def test_the_last_finished_stage_answers_where_none_is_named(learned_run):
    run = learned_run("lora")
    questions, answers = asked(run, 3)
    assert run.ask(questions) == answers
    assert run.ask(questions[0]) == answers[:1]
    assert run.ask([]) == []


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_passages_of_the_tasks_seen_so_far_are_shown(learned_run, stage):
    run = learned_run("lora")
    questions, answers = asked(run, stage, "retrieved")
    assert run.ask(questions, "retrieved", stage) == answers
    shown = answered(run.learner(stage), questions, "retrieved")
    recorded = run.predictions.query("stage == @stage and `pass` == 'retrieved'")["passages"]
    assert [list(map(passage_id, one.passages)) for one in shown] == [[p["id"] for p in some] for some in recorded]
    assert any(one.passages for one in shown) == bool(stage)


def test_passages_can_be_looked_for_where_the_run_did_not(learned_run):
    (one,) = answered(learned_run("full").learner(1), "Which colour has the sky?", "retrieved")
    assert one.passages[0] == "The sky is blue."


def test_a_closed_question_builds_no_index(learned_run, monkeypatch):
    from lifelong.library import Retrieval

    monkeypatch.setattr(Retrieval, "make", lambda self: pytest.fail("an index was made"))
    assert len(learned_run("lora").ask("What colour is the sky?")) == 1


def test_a_classifier_answers_with_a_label_that_it_has_met(learned_run):
    run = learned_run("classifier")
    assert set(run.ask(["The ice is what?", "What is every whale?"], stage=1)) <= {"small", "large"}
    assert set(run.ask([f"The {thing} is what?" for thing in ("ice", "fire", "ant")], stage=2)) & {"cold", "hot"}
    with pytest.raises(ConfigError, match="has met no label yet"):
        run.ask("The ice is what?", stage=0)


@pytest.mark.parametrize("kind", ["oracle", "told"])
def test_a_run_that_has_to_be_told_the_task_is_told(learned_run, kind):
    run = learned_run(kind)
    for task, rows in run.predictions.query("stage == 2").groupby("task"):
        assert run.ask(rows["question"].tolist(), stage=2, task=task) == rows["prediction"].tolist()
    with pytest.raises(ConfigError, match="there is no task 'hea'"):
        run.ask("Why?", task="hea")


@pytest.mark.parametrize("stage", [1, 3])
def test_the_model_is_what_peft_makes_of_the_stages_folder(learned_run, llama_folder, stage):
    run = learned_run("incremental")
    model, tokenizer = run.model(stage)
    alone = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(llama_folder), run.folder.stage(stage) / "adapter"
    )
    ids = tokenizer("What colour is the sky?", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, alone.eval()(input_ids=ids).logits, atol=1e-5)
    assert not model.training


def test_the_untrained_model_is_the_one_that_the_run_began_with(learned_run, llama_folder):
    model, _ = learned_run("full").model(stage=0)
    before = load_file(llama_folder / "model.safetensors")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items() if name in before)


def test_the_learner_knows_its_stage_and_its_steps(learned_run):
    run = learned_run("full")
    learner = load_learned(run, 2)
    assert (learner.stage.index, learner.stage.task.name, learner.training) == (2, "places", False)
    assert learner.run_step == json.loads((run.folder.stage(2) / "position.json").read_text())["run_step"]


@pytest.mark.parametrize("stage", [4, -1, "1"])
def test_an_unknown_stage_is_answered_with_those_that_there_are(learned_run, stage):
    with pytest.raises(ConfigError, match=r"no stage .* the stages 0 \(untrained\) to 3"):
        learned_run("lora").ask("Why?", stage=stage)


def test_stages_of_a_run_that_is_not_finished_can_be_asked(copy):
    run = copy("full")
    for stage in (2, 3):
        shutil.rmtree(run.folder.stage(stage))
    questions, answers = asked(run, 1)
    assert Run(run.path).ask(questions) == answers
    shutil.rmtree(run.path / "stages")
    with pytest.raises(RunError, match="no finished stage yet"):
        Run(run.path).ask("Why?")


def test_an_altered_stage_is_not_asked(copy):
    run = copy()
    weights = run.folder.stage(3) / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match="has been altered"):
        Run(run.path).ask("Why?")


def test_what_cannot_be_asked_is_answered_in_words(learned_run):
    run = learned_run("lora")
    with pytest.raises(ConfigError, match=r"book: unknown 'gold'. There is: closed, retrieved"):
        run.ask("Why?", book="gold")
    with pytest.raises(ConfigError, match="number 2 is empty"):
        run.ask(["Why?", " "])


def test_a_stream_without_passages_can_only_be_asked_closed(tiny_stream, llama_folder, tmp_path):
    from lifelong import Task, TaskStream

    pairs = list(zip(tiny_stream[0].train["question"][:2], ["blue", "green"], strict=True))
    stream = TaskStream("pairs", [Task.from_pairs("pairs", pairs)])
    settings = {"epochs": 1, "trainer": {"accelerator": "cpu"}, "evaluate": {"max_new_tokens": 2}}
    run = Experiment(stream, str(llama_folder), folder=tmp_path / "run", **settings).run(quiet=True)
    assert len(run.ask(["Why?"])) == 1
    with pytest.raises(ConfigError, match="the stream of this run has none; ask closed"):
        run.ask("Why?", book="retrieved")


def test_code_from_outside_runs_only_when_trusted(copy, tmp_path):
    run = copy()
    witness = tmp_path / "witness"
    (tmp_path / "foreign.py").write_text(f"open({str(witness)!r}, 'w').close()\n")
    config = yaml.safe_load(run.folder.config_file.read_text())
    config["strategies"] = [f"{tmp_path / 'foreign.py'}:Anything"]
    run.folder.config_file.write_text(yaml.safe_dump(config))
    run.folder.seal()
    for ask in (lambda: Run(run.path).ask("Why?"), lambda: load_learned(Run(run.path))):
        with pytest.raises(ConfigError, match="code from outside of lifelong"):
            ask()
    assert not witness.exists()
    with pytest.raises(ConfigError, match="Anything"):
        Run(run.path).ask("Why?", trust=True)
    assert witness.exists()


def test_callbacks_of_the_run_need_not_be_there(copy):
    run = copy()
    config = yaml.safe_load(run.folder.config_file.read_text())
    run.folder.config_file.write_text(yaml.safe_dump(config | {"callbacks": ["nowhere.Callback"]}))
    run.folder.seal()
    assert Run(run.path).ask("What colour is the sky?") == learned_run_answer(run)


def learned_run_answer(run: Run) -> list[str]:
    rows = run.predictions.query("stage == 3 and `pass` == 'closed' and question == 'What colour is the sky?'")
    return rows["prediction"].tolist()


def test_a_device_that_is_not_here_is_done_without(copy):
    run = copy()
    config = yaml.safe_load(run.folder.config_file.read_text()) | {"trainer": {"accelerator": "tpu"}}
    run.folder.config_file.write_text(yaml.safe_dump(config))
    run.folder.seal()
    assert Run(run.path).ask("What colour is the sky?") == learned_run_answer(run)


def test_other_rows_than_those_that_were_learned_are_noticed(copy, tiny_stream):
    run = copy()
    shutil.rmtree(run.path / "stream")
    tiny_stream.limit(train=4).save(run.path / "stream")
    run.folder.seal()
    with pytest.raises(RunError, match="the rows of its stream are others"):
        Run(run.path).ask("Why?")

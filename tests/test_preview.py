"""What a run will take is said before it, and is what it then takes."""

from __future__ import annotations

import math
import re
from typing import ClassVar

import pytest
from peft import LoraConfig
from transformers import AutoTokenizer
from transformers.utils import is_bitsandbytes_available

from lifelong import Experiment, Task, TaskStream, preview
from lifelong.adapters import LoraMoeConfig, MoralConfig, account
from lifelong.cli import main
from lifelong.errors import ConfigError, DataError, ModelError
from lifelong.evaluation import Evaluation
from lifelong.footprint import NotEstimable
from lifelong.models import load_model
from lifelong.strategies import (
    AGEM,
    EWC,
    SLAO,
    Cumulative,
    DarkReplay,
    GeneralReplay,
    IncrementalLoRA,
    LwF,
    Replay,
    SelfSynthesizedReplay,
    Strategy,
)

QUANTISES = pytest.mark.skipif(not is_bitsandbytes_available(), reason="quantised weights need bitsandbytes")


@pytest.fixture
def experiment(tiny_stream, llama_folder, tmp_path):
    def make(**settings) -> Experiment:
        defaults = {"stream": tiny_stream, "model": str(llama_folder), "folder": tmp_path / "run", "epochs": 3}
        return Experiment(**defaults | {"batch_size": 4, "trainer": {"accelerator": "cpu"}} | settings)

    return make


def test_rows_tokens_and_steps_are_counted_per_stage(experiment, tiny_stream, llama_folder):
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    stages = experiment(per_task={"places": {"epochs": 5}}, accumulate=2).preview().stages
    for stage, task, epochs in zip(stages, tiny_stream, (3, 5, 3), strict=True):
        texts = [f"Question: {row['question']}\nAnswer: {row['answers'][0]}" for row in task.train]
        sizes = [len(tokenizer(text)["input_ids"]) + 1 for text in texts]  # and the end
        answers = [len(tokenizer(f" {row['answers'][0]}")["input_ids"]) + 1 for row in task.train]
        assert (stage.name, stage.rows, stage.tokens, stage.longest) == (task.name, 8, sum(sizes), max(sizes))
        assert stage.learned == sum(answers)
        assert stage.steps == epochs * math.ceil(8 / (4 * 2))


def test_stages_are_those_that_strategies_plan(experiment):
    assert [stage.rows for stage in experiment(strategies=[Cumulative()]).preview().stages] == [8, 16, 24]


def test_what_is_shortened_is_counted(experiment):
    counts = [stage.shortened for stage in experiment(max_length=18).preview().stages]
    assert any(count.get("questions cut") for count in counts)


@pytest.mark.parametrize("settings", [{}, {"books": ("closed", "gold"), "sample": 3, "every": 2}, {"probes": False}])
def test_the_questions_are_those_that_the_run_asks(settings, experiment):
    one = experiment(evaluate=Evaluation(**settings), epochs=1)
    questions = one.preview().questions
    assert questions == one.run(quiet=True).rows["count"].sum()


@pytest.mark.parametrize("adapter", [None, LoraConfig(r=8, target_modules="all-linear")])
def test_the_disk_is_what_the_stages_take(adapter, experiment):
    one = experiment(adapter=adapter, epochs=1)
    expected = one.preview().disk
    taken = sum(file.stat().st_size for file in one.run(quiet=True).path.glob("stages/**/*") if file.is_file())
    assert expected == pytest.approx(taken, rel=0.4)


@pytest.mark.parametrize(
    ("some", "adapter", "within"),
    [
        (lambda: [EWC()], None, 0.05),
        (lambda: [Replay(0.5)], None, 0.3),
        (lambda: [DarkReplay(capacity=0.5)], None, 0.3),
        (lambda: [IncrementalLoRA()], LoraConfig(r=16, target_modules="all-linear"), 0.1),
        (lambda: [EWC(), Replay(0.5)], LoraConfig(r=16, target_modules="all-linear"), 0.1),
    ],
    ids=["ewc", "replay", "dark", "incremental", "two"],
)
def test_what_strategies_keep_is_part_of_the_disk(some, adapter, within, experiment):
    settings = {"adapter": adapter, "epochs": 1, "evaluate": Evaluation(tasks="seen", probes=False, max_new_tokens=1)}
    one, without = experiment(strategies=some(), **settings), experiment(**settings)
    expected = one.preview()
    state = sum(kept.bytes for kept in expected.kept.values())
    assert expected.disk - without.preview().disk == state
    assert state == pytest.approx(sum(cost["strategy_bytes"] for cost in one.run(quiet=True).costs), rel=within)


def test_it_is_said_how_sure_that_is(experiment):
    lora = LoraConfig(r=2, target_modules="all-linear")
    found = experiment(strategies=[IncrementalLoRA(), Replay(), AGEM(), LwF()], adapter=lora).preview().kept
    assert set(found) == {"IncrementalLoRA", "Replay", "AGEM"}
    assert re.fullmatch(r"at most \d+ MB", str(found["IncrementalLoRA"]))
    assert re.fullmatch(r"about \d+ MB", str(found["Replay"]))
    assert re.fullmatch(r"at most \d+ MB", str(found["AGEM"]))  # of how many rows it does not say


def test_what_strategies_keep_of_weights_that_cannot_be_counted_is_said_to_be_left_out(experiment, monkeypatch):
    def refuse(workload):
        raise NotEstimable("an exotic operation")

    monkeypatch.setattr(preview, "estimate", refuse)
    plain, found = experiment().preview(), experiment(strategies=[EWC()]).preview()
    assert found.disk == plain.disk
    assert str(found.kept["EWC"]) == "8 * P bytes a stage, which are not counted"


def test_nothing_is_written_by_looking(experiment, tmp_path):
    experiment().preview()
    assert not (tmp_path / "run").exists()


def test_rows_that_a_strategy_adds_are_part_of_the_batch(experiment):
    plain, replayed = (experiment(strategies=some).preview().memory for some in ([], [Replay(share=0.75)]))
    assert (plain.workload.batch_size, replayed.workload.batch_size) == (4, 16)
    assert replayed.activations > 2 * plain.activations


@pytest.mark.parametrize(
    "some",
    [
        lambda: [Replay(1.0, 0.5), Replay(1.0, 0.5)],
        lambda: [Replay(1.0, 0.25), DarkReplay(capacity=1.0, share=0.4), Replay(1.0, 0.7)],
        lambda: [GeneralReplay(Task.from_pairs("g", [("a?", "b")]), 0.3), Replay(1.0, 0.5)],
    ],
    ids=["two", "three", "general"],
)
def test_rows_that_a_second_strategy_adds_beside_those_of_the_first_are_counted(some, experiment):
    one = experiment(strategies=[*some(), BatchSize()], epochs=1)
    BatchSize.largest = 0
    one.run(quiet=True)
    assert one.preview().memory.workload.batch_size == BatchSize.largest > 8


class BatchSize(Strategy):
    """Sees the rows of batches when all other strategies have added theirs."""

    largest = 0

    def loss(self, learner, batch, outputs, loss):
        BatchSize.largest = max(BatchSize.largest, len(outputs.logits))
        return loss


def test_a_run_that_does_not_fit_is_refused_before_anything_is_measured(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "available_memory", lambda device: 100_000)
    with pytest.raises(ConfigError, match=r"memory: training needs about .* free on cpu"):
        experiment().run(quiet=True)
    assert not [*tmp_path.glob("run/stages/*")]
    assert experiment(check_resources=False, epochs=1).run(quiet=True).status["state"] == "done"


def test_a_disk_that_is_too_small_is_refused(experiment, monkeypatch):
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(preview.shutil, "disk_usage", lambda path: full)
    with pytest.raises(ConfigError, match=r"folder: the run will need .* of disk"):
        experiment().run(quiet=True)


def test_memory_that_cannot_be_said_is_no_obstacle(experiment, monkeypatch):
    def refuse(workload):
        raise NotEstimable("an exotic operation")

    monkeypatch.setattr(preview, "estimate", refuse)
    found = experiment().preview()
    assert (found.memory, found.no_memory) == (None, "an exotic operation")
    found.check()


def test_a_run_that_is_far_from_any_limit_waits_for_no_estimate(experiment, monkeypatch):
    monkeypatch.setattr(preview, "estimate", lambda workload: pytest.fail("was estimated"))
    experiment(epochs=1).run(quiet=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter": MoralConfig()},
        {"adapter": LoraConfig(target_modules="all-linear")},
        pytest.param({"adapter": LoraMoeConfig(), "quantization": "4bit", "dtype": "bfloat16"}, marks=QUANTISES),
    ],
)
def test_what_an_adapter_takes_is_what_the_run_finds_it_to_take(settings, experiment, llama_folder):
    found = experiment(**settings).preview().memory.account
    assert found == account(load_model(str(llama_folder), **settings)[0])


def test_without_an_adapter_there_is_nothing_to_compare(experiment):
    assert experiment().preview().memory.account is None


def test_an_adapter_in_a_folder_is_looked_at_too(experiment, llama_folder, tmp_path):
    load_model(str(llama_folder), LoraMoeConfig())[0].save_pretrained(tmp_path / "adapter")
    found = experiment(adapter=str(tmp_path / "adapter")).preview()
    assert found.memory.account.method == "LoraMoeConfig"
    (note,) = found.notes
    assert "all that is learned here is of the kind 'knowledge'" in note
    assert experiment(adapter=MoralConfig()).preview().notes == ()


def test_a_model_that_is_not_there_is_found_out(experiment):
    with pytest.raises(ModelError, match="no model folder"):
        experiment(model="./nowhere").preview()


def test_an_adapter_that_does_not_fit_is_found_out(experiment):
    with pytest.raises(ConfigError, match=r"adapter: does not fit this model: .*nothing_like_it"):
        experiment(adapter=LoraConfig(target_modules=["nothing_like_it"])).preview()
    with pytest.raises(ModelError, match="SEQ_2_SEQ_LM, and the model is of the family 'causal'"):
        experiment(adapter=LoraConfig(task_type="SEQ_2_SEQ_LM")).preview()


@pytest.mark.parametrize(
    "settings",
    [
        {"strategies": [Replay(2, buffer="ring")]},
        {"strategies": [EWC(kind="exact")]},
        {"strategies": [SelfSynthesizedReplay(writer="base")]},
        {"strategies": [IncrementalLoRA()], "adapter": LoraConfig(bias="all", target_modules=["q_proj"])},
        {
            "strategies": [IncrementalLoRA()],
            "adapter": LoraConfig(init_lora_weights="olora", target_modules=["q_proj"]),
        },
        {"strategies": [SLAO()], "adapter": LoraConfig(r=40, target_modules=["q_proj"])},
    ],
    ids=["replay", "ewc", "synthesized", "bias", "init", "slao"],
)
def test_strategies_that_will_be_refused_are_refused_in_the_same_words(settings, experiment):
    messages = []
    for begin in ("preview", "run"):
        with pytest.raises(ConfigError) as caught:
            getattr(experiment(**settings), begin)()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
@pytest.mark.parametrize("adapter", [None, LoraConfig(r=2, target_modules="all-linear")], ids=["none", "lora"])
def test_strategies_are_asked_about_the_learner_that_the_run_has(
    family, adapter, experiment, labelled_stream, tiny_stream, request
):
    stream = labelled_stream if family == "bert" else tiny_stream
    model = str(request.getfixturevalue(f"{family}_folder"))
    one = experiment(strategies=[Asked()], stream=stream, model=model, adapter=adapter)
    Asked.seen = []
    one.preview()
    with pytest.raises(ConfigError, match="asked twice"):
        one.run(quiet=True)
    first, second = Asked.seen
    assert first == second


class Asked(Strategy):
    """Remembers what it is asked about, and refuses when it has been asked twice."""

    seen: ClassVar[list] = []

    def check(self, learner, stages):
        shapes = {name: (tuple(weight.shape), weight.requires_grad) for name, weight in learner.named_parameters()}
        limits = (learner.family.name, learner.encoder.max_length, learner.train_book, learner.seed)
        Asked.seen.append((shapes, limits, [stage.task.name for stage in stages]))
        if len(Asked.seen) > 1:
            raise ConfigError("asked twice")


def test_a_question_that_only_weights_can_answer_is_left_to_the_run_and_said(experiment):
    (note,) = experiment(strategies=[Looks()]).preview().notes
    assert note.startswith("whether Looks can work is seen when the run begins: ")
    with pytest.raises(ConfigError, match="weights are not zero"):
        experiment(strategies=[Looks()]).run(quiet=True)


class Looks(Strategy):
    def check(self, learner, stages):
        if any(weight.any() for weight in learner.parameters()):
            raise ConfigError("weights are not zero")


def test_looking_leaves_strategies_as_they_were(experiment):
    one = experiment(strategies=[Remembers()])
    one.preview()
    assert not one.strategies[0].asked


class Remembers(Strategy):
    asked = False

    def check(self, learner, stages):
        self.asked = True


@pytest.mark.skipif(is_bitsandbytes_available(), reason="bitsandbytes is there")
def test_quantisation_without_its_package_is_found_out(experiment):
    with pytest.raises(ModelError, match="quantization: needs bitsandbytes"):
        experiment(adapter=LoraConfig(), quantization="4bit").preview()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adapter": "./nowhere"}, "adapter './nowhere' cannot be read"),
        ({"dtype": "float33"}, "unknown dtype 'float33'"),
        ({"trainer": {"accelerator": "cpu", "precision": "foo"}}, "trainer: .*foo"),
        ({"trainer": {"accelerator": "nothing"}}, "trainer: .*nothing"),
        ({"optimizer": "LBFGS"}, "optimizer: 'LBFGS' cannot be used with weight_decay"),
        ({"max_length": 0}, "max_length: must be at least 1, got 0"),
    ],
)
def test_settings_that_would_end_the_run_are_found_out(settings, message, experiment):
    with pytest.raises((ConfigError, ModelError), match=message):
        experiment(**settings).preview()


def test_questions_are_looked_at_too(experiment):
    long = {"question": "q?", "answer": "word " * 400}
    stream = TaskStream("long", [Task("long", [{"question": "a?", "answer": "b"}], [long])])
    with pytest.raises(DataError, match="task 'long', row '0': the answer leaves"):
        experiment(stream=stream).preview()


@pytest.fixture
def file(tmp_path, llama_folder):
    path = tmp_path / "run.yaml"
    path.write_text(f"stream: streams.world_facts\nmodel: {llama_folder}\nepochs: 2\nfolder: {tmp_path / 'run'}\n")
    return path


def test_the_command_shows_all_of_it_and_trains_nothing(file, tmp_path, capsys):
    assert main(["run", str(file), "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for expected in ("1 elements", "5 units", "in all", "family causal", "memory about", "disk about", "are free"):
        assert expected in shown
    assert not (tmp_path / "run").exists()


def test_the_command_shows_what_strategies_keep_and_ends_where_one_refuses(file, capsys):
    text = file.read_text()
    file.write_text(text + "strategies: [{class_path: EWC}, {class_path: Replay}]\n")
    assert main(["run", str(file), "--dry-run"]) == 0
    assert re.search(r"strategies keep: EWC about \d+ MB, Replay about \d+ MB", capsys.readouterr().out)
    file.write_text(text + "strategies: [{class_path: Replay, init_args: {capacity: 2, buffer: ring}}]\n")
    assert main(["run", str(file), "--dry-run"]) == 2
    assert "Replay: capacity: 2 rows are fewer than one for each of the 5 tasks" in capsys.readouterr().err


def test_the_command_shows_an_adapter_beside_other_ways_to_train_and_what_is_odd_about_it(file, llama_folder, capsys):
    file.write_text(file.read_text() + "adapter: {class_path: LoraMoeConfig}\n")
    assert main(["run", str(file), "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    found = account(load_model(str(llama_folder), LoraMoeConfig())[0])
    for name, cost in (
        ("adapter LoraMoeConfig", found.trained),
        ("beside it LoRA of rank 24", found.lora_total_rank),
        ("full fine-tuning", found.full),
    ):
        size, flops = sum(cost.bytes.values()) / 1e6, cost.training_flops / 1e6
        assert f"{name}: {cost.parameters:,} parameters, {size:.2f} MB, {flops:.2f} MFLOPs a token" in shown
    assert "balance_weight: LoRAMoE's localised constraint is to keep knowledge and downstream tasks apart" in shown


def test_the_command_looks_at_every_run_of_a_study(file, capsys):
    file.write_text(file.read_text() + "vary: {epochs: [1, 2]}\n")
    assert main(["run", str(file), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "epochs=1" in shown and "epochs=2" in shown


def test_the_command_ends_with_an_error_where_a_run_would(file, monkeypatch, capsys):
    monkeypatch.setattr(preview, "available_memory", lambda device: 100_000)
    assert main(["run", str(file), "--dry-run"]) == 2
    assert "training needs about" in capsys.readouterr().err

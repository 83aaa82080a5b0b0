"""What a run will take is said before it, and is what it then takes."""

from __future__ import annotations

import math

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
from lifelong.strategies import Cumulative, Replay

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


def test_nothing_is_written_by_looking(experiment, tmp_path):
    experiment().preview()
    assert not (tmp_path / "run").exists()


def test_rows_that_a_strategy_adds_are_part_of_the_batch(experiment):
    plain, replayed = (experiment(strategies=some).preview().memory for some in ([], [Replay(share=0.75)]))
    assert (plain.workload.batch_size, replayed.workload.batch_size) == (4, 16)
    assert replayed.activations > 2 * plain.activations


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

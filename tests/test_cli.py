"""One command runs, shows and resumes; mistakes are answered in words, and nothing heavy is loaded for --help."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lifelong import Experiment, Run, Task, TaskStream, __version__
from lifelong.cli import main
from lifelong.folder import RunFolder


@pytest.fixture
def settings(llama_folder) -> dict:
    return {
        "stream": {"class_path": "streams.world_facts", "init_args": {"tasks": ["moons", "units"]}},
        "model": str(llama_folder),
        "epochs": 1,
        "evaluate": {"probes": False, "max_new_tokens": 2},
        "trainer": {"accelerator": "cpu"},
    }


@pytest.fixture
def file(settings, tmp_path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_help_and_version_load_nothing_heavy():
    code = (
        "import sys\nfrom lifelong.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'lightning', 'datasets', 'pandas', 'rich', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for option in ("--help", "--version"):
        result = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, check=True)
        assert "usage: lifelong" in result.stdout or __version__ in result.stdout


def test_run_show_and_a_second_run(file, tmp_path, capsys):
    folder = tmp_path / "run"
    assert call("run", file, "--folder", folder, "--epochs", "2", "--evaluate.books", "[closed, gold]") == 0
    run = Run(folder)
    assert run.config["epochs"] == 2
    assert run.status["state"] == "done"
    assert (folder / "matrix.png").stat().st_size > 10_000
    assert {figure["name"] for figure in json.loads((folder / "metrics.json").read_text())} >= {"forgetting"}
    capsys.readouterr()
    assert call("show", folder) == 0
    shown = capsys.readouterr().out
    for text in ("after 2: units", "exact_match, test questions, gold book", "mean_j R[T,j]", "undefined: "):
        assert text in " ".join(shown.split())
    assert call("run", folder / "config.yaml", "--folder", tmp_path / "again", "--quiet") == 0
    assert Run(tmp_path / "again").matrix.matrix.equal(run.matrix.matrix)


def test_resume_finishes_what_was_begun(file, tmp_path, capsys):
    folder = tmp_path / "run"
    assert call("run", file, "--folder", folder, "--quiet") == 0
    whole = Run(folder).matrix.matrix
    shutil.rmtree(folder / "stages" / "2")
    assert call("resume", folder, "--quiet") == 0
    assert Run(folder).matrix.matrix.equal(whole)


def test_a_run_begun_in_python_with_a_stream_in_memory_is_resumed_and_repeated(tiny_stream, llama_folder, tmp_path):
    folder = tmp_path / "run"
    settings = {"epochs": 1, "trainer": {"accelerator": "cpu"}, "folder": folder}
    whole = Experiment(tiny_stream, str(llama_folder), **settings).run(quiet=True).matrix.matrix
    shutil.rmtree(folder / "stages" / "3")
    assert call("resume", folder, "--quiet") == 0
    assert Run(folder).matrix.matrix.equal(whole)
    assert call("run", folder / "config.yaml", "--folder", tmp_path / "again", "--quiet") == 0
    shutil.rmtree(folder)
    assert call("resume", tmp_path / "again", "--quiet") == 0
    assert Run(tmp_path / "again").matrix.matrix.equal(whole)


def test_held_out_tasks_are_shown_apart_and_resumed_from_the_run_folder(tiny_stream, llama_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    settings = {"epochs": 1, "trainer": {"accelerator": "cpu"}, "folder": folder, "held_out": tiny_stream[2:]}
    whole = Experiment(tiny_stream[:2], str(llama_folder), **settings).run(quiet=True).matrix
    shutil.rmtree(folder / "stages" / "2")
    assert call("resume", folder) == 0
    shown = capsys.readouterr().out
    for text in ("held out:", "general_ability_delta", "mean_h (H[T,h] - H[0,h])"):
        assert text in " ".join(shown.split())
    again = Run(folder).matrix
    assert again.scores.equal(whole.scores) and again.held_out == ("numbers",)


def test_the_file_or_an_option_names_the_held_out_tasks(file, tmp_path):
    option = "{class_path: streams.world_facts, init_args: {tasks: [capitals]}}"
    assert call("run", file, "--folder", tmp_path / "run", "--quiet", "--held_out", option) == 0
    assert (Run(tmp_path / "run").tasks, Run(tmp_path / "run").held_out) == (["moons", "units"], ["capitals"])


def test_resume_trusts_foreign_code_only_when_told_to(file, settings, tmp_path, capsys):
    stream = tmp_path / "my_stream.py"
    stream.write_text(
        "from lifelong import Task, TaskStream\n"
        "def pairs() -> TaskStream:\n"
        "    'Two small tasks.'\n"
        "    return TaskStream('pairs', [Task.from_pairs(n, [(f'{n} one?', 'a'), (f'{n} two?', 'b')]) for n in 'xy'])\n"
    )
    file.write_text(yaml.safe_dump(settings | {"stream": f"{stream}:pairs"}))
    folder = tmp_path / "run"
    assert call("run", file, "--folder", folder, "--quiet") == 0
    assert call("resume", folder, "--quiet") == 0  # made here
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + "\n")  # and then changed by somebody
    RunFolder(folder).seal()
    capsys.readouterr()
    assert call("resume", folder, "--quiet") == 2
    assert "--trust" in capsys.readouterr().err
    assert call("resume", folder, "--quiet", "--trust") == 0


def test_a_study_runs_from_a_file(file, settings, tmp_path, capsys):
    settings["vary"] = {"strategies": {"naive": ["Naive"], "joint": ["Joint"]}}
    file.write_text(yaml.safe_dump(settings))
    assert call("run", file, "--folder", tmp_path / "study") == 0
    assert call("show", tmp_path / "study") == 0
    shown = capsys.readouterr().out
    assert "naive" in shown
    assert "joint" in shown
    assert (tmp_path / "study" / "table.csv").is_file()
    assert call("resume", tmp_path / "study", "--quiet") == 0


def test_print_config_shows_every_setting_and_runs_nothing(file, tmp_path, capsys):
    assert call("run", file, "--folder", tmp_path / "run", "--print_config", "--seed=7") == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["seed"] == 7
    assert config["schedule"] == "linear"
    assert config["evaluate"]["batch_size"] > 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out": "streams.world_fact"}, "held_out: there is no 'streams.world_fact'. Did you mean"),
        ({"epoch": 3}, "epoch: there is no such setting. Did you mean 'epochs'?"),
        ({"epochs": "many"}, "epochs"),
        ({"stream": "streams.world_fact"}, "Did you mean 'streams.world_facts'?"),
        ({"strategies": ["Repaly"]}, "Did you mean 'Replay'?"),
        (
            {"strategies": [{"class_path": "lifelong.strategies.Replay", "init_args": {"capasity": 3}}]},
            "strategies.0.init_args.capasity: there is no such setting. Did you mean 'capacity'?",
        ),
        ({"adapter": {"class_path": "LoraConfig", "init_args": {"rr": 3}}}, "adapter.init_args.rr"),
        ({"evaluate": {"book": ["closed"]}}, "evaluate.book"),
        ({"model": "./nowhere"}, "no model folder './nowhere'"),
        ({"max_length": 10**6}, "max_length"),
        ({"vary": {"strategy": [1]}}, "vary.strategy: there is no such setting. Did you mean 'strategies'?"),
    ],
)
def test_a_mistake_in_the_file_is_answered_with_its_key(change, message, file, settings, tmp_path, capsys):
    file.write_text(yaml.safe_dump(settings | change))
    assert call("run", file, "--folder", tmp_path / "run", "--quiet") == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_files_and_folders_that_are_not_there_are_named(tmp_path, capsys):
    for command in ("run", "show", "resume"):
        assert call(command, tmp_path / "nothing") in (1, 2)
        assert "nothing" in capsys.readouterr().err


def test_a_folder_with_another_run_is_refused(file, tmp_path, capsys):
    assert call("run", file, "--folder", tmp_path / "run", "--quiet") == 0
    assert call("run", file, "--folder", tmp_path / "run", "--quiet", "--seed", "5") == 1
    assert "seed is 0 there and 5 here" in capsys.readouterr().err


def test_a_retriever_is_tried_before_anything_is_trained(capsys, tmp_path, file):
    assert call("retrieve", "streams.world_facts", "--tasks", "[capitals, units]", "--retrieval.k", "2") == 0
    text = capsys.readouterr().out
    assert "passages found, k = 2" in text and "capitals" in text and "recall@1" in text and "moons" not in text
    assert call("retrieve", file, "--retrieval.hybrid", "true", "--missed", "1") == 0
    assert "moons" in capsys.readouterr().out
    (tmp_path / "rows.csv").write_text("question,answer,topic\nq?,a,t\nr?,b,t\n")
    assert call("retrieve", "lifelong.TaskStream.from_csv", "--path", tmp_path / "rows.csv", "--by", "topic") == 2
    assert "has no passages" in capsys.readouterr().err
    assert call("retrieve", "streams.world_facts", "--retrieval.kk", "2") == 2
    assert "kk" in capsys.readouterr().err


def test_streams_are_listed_and_looked_into(capsys):
    assert call("streams") == 0
    assert "streams.world_facts" in capsys.readouterr().out
    assert call("streams", "streams.world_facts") == 0
    assert "capitals" in capsys.readouterr().out
    assert call("streams", "streams.world_fact") == 2
    assert "Did you mean" in capsys.readouterr().err


def test_a_stream_is_shown_whole_at_any_width(capsys, monkeypatch):
    from streams import world_facts

    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert call("streams", "streams.world_facts") == 0
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= width
        for text in ("status_codes", "What is the capital of France?", "licence", world_facts().fingerprint()[-1][:12]):
            assert text in shown


def test_a_stream_takes_its_arguments_from_the_command_line(capsys, monkeypatch):
    monkeypatch.delenv("LIFELONG_DATA", raising=False)
    assert call("streams", "streams.world_facts", "--tasks", "[moons, units]") == 0
    shown = capsys.readouterr().out
    assert "moons" in shown and "capitals" not in shown
    assert call("streams", "world_facts", "--task=[moons]") == 2
    assert "task: there is no such setting. Did you mean 'tasks'?" in capsys.readouterr().err
    assert call("streams", "world_facts", "moons") == 2
    assert "expected an option such as" in capsys.readouterr().err
    assert call("streams", "streams.standard_cl", "--order", "O9") == 2
    assert "no order 'O9'" in capsys.readouterr().err


def test_a_stream_whose_files_are_missing_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LIFELONG_DATA", raising=False)
    assert call("streams", "streams.absa19") == 2
    assert "LIFELONG_DATA" in capsys.readouterr().err
    assert call("streams", "streams.multiple_choice", "--folder", tmp_path) == 2
    assert "openbookqa: train.jsonl, test.jsonl" in capsys.readouterr().err


def test_arguments_without_a_stream_are_refused(capsys):
    for arguments in (["streams", "--order=O4"], ["show", ".", "--order=O4"]):
        with pytest.raises(SystemExit) as caught:
            call(*arguments)
        assert caught.value.code == 2
        assert "unrecognized arguments: --order=O4" in capsys.readouterr().err


def test_a_stream_of_one_csv_file_is_named_in_a_file_with_what_it_passes_on(tmp_path, capsys):
    (tmp_path / "faq.csv").write_text("topic,question,reply\nshop,When?,nine\npost,What?,red\n")
    arguments = f"{{path: {tmp_path / 'faq.csv'}, by: topic, columns: {{answer: reply}}, metric: token_f1}}"
    (tmp_path / "faq.yaml").write_text(
        f"stream: {{class_path: lifelong.TaskStream.from_csv, init_args: {arguments}}}\nepochs: 1\n"
    )
    assert main(["run", str(tmp_path / "faq.yaml"), "--folder", str(tmp_path / "run"), "-q"]) == 0
    assert main(["show", str(tmp_path / "run")]) == 0
    assert "token_f1, test questions" in capsys.readouterr().out


def test_options_that_are_no_yaml_are_named(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("stream: streams.world_facts\n")
    assert main(["run", str(tmp_path / "a.yaml"), "--evaluate.books", "[closed"]) == 2
    assert "--evaluate.books: malformed YAML" in capsys.readouterr().err


def test_a_run_that_has_measured_nothing_or_failed_with_brackets_is_shown(tiny_stream, llama_folder, tmp_path, capsys):
    def refuse(prediction, example):
        raise ValueError("cannot read [/INST] in the answer")

    task = Task("broken", tiny_stream[0].train, tiny_stream[0].test, metric=refuse)
    with pytest.raises(ValueError, match="INST"):
        Experiment(TaskStream("s", [task]), str(llama_folder), folder=tmp_path / "run").run(quiet=True)
    assert main(["show", str(tmp_path / "run")]) == 0
    assert "cannot read [/INST] in the answer" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "run" / "status.json").unlink()
    assert main(["show", str(tmp_path / "run")]) == 0
    assert "begun, stage 0 of 1" in " ".join(capsys.readouterr().out.split())


MORAL = {"class_path": "lifelong.adapters.MoralConfig", "init_args": {"num_experts": 4, "r": 2, "balance_weight": 0.1}}


def test_a_mixture_runs_resumes_and_its_account_is_shown(file, settings, tmp_path, capsys, monkeypatch):
    file.write_text(yaml.safe_dump(settings | {"adapter": MORAL}))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert call("run", file, "--folder", whole, "-q") == 0
    shutil.copytree(whole, broken)
    shutil.rmtree(broken / "stages" / "2")
    assert call("resume", broken, "-q") == 0
    assert Run(broken).predictions.equals(Run(whole).predictions)
    environment = json.loads((broken / "environment.json").read_text())
    routers = 2 * 4 * (32 + 32 + 64)
    assert environment["adapter"]["trained"]["parameters"] == 2 * 3 * 4 * 2 * (32 + 64) + routers
    assert environment["adapter"]["lora_rank"]["rank"] == 2
    assert environment["fingerprint"] == list(Run(whole).environment["fingerprint"])
    capsys.readouterr()
    assert call("show", broken) == 0
    shown = capsys.readouterr().out
    assert "MoralConfig" in shown and "LoRA, rank 8" in shown and "full fine-tuning" in shown
    del environment["adapter"]  # as in folders of older versions, and without an adapter
    (broken / "environment.json").write_text(json.dumps(environment))
    (broken / "manifest.json").unlink()
    assert call("show", broken) == 0
    shown = capsys.readouterr().out
    assert "LoRA" not in shown and "average_accuracy" in shown


@pytest.mark.parametrize("options", [["--dry-run"], []])
@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ({"num_experts": 4, "top_k": 5}, ["adapter.init_args.top_k: 5 experts cannot be chosen among num_experts = 4"]),
        ({"target_modules": ["nothing"]}, ["nothing in LlamaForCausalLM matches nothing. There is: ", "down_proj"]),
        ({"target_modules": ["embed_tokens"]}, ["embed_tokens is a Embedding; a mixture can only stand beside a lin"]),
    ],
)
def test_a_mixture_that_cannot_be_is_one_message_before_anything_is_trained(
    arguments, messages, options, file, settings, tmp_path, capsys
):
    adapter = {"class_path": "lifelong.adapters.MoralConfig", "init_args": arguments}
    file.write_text(yaml.safe_dump(settings | {"adapter": adapter}))
    assert call("run", file, "--folder", tmp_path / "run", *options) == 2
    printed = capsys.readouterr().err
    for message in messages:
        assert " ".join(message.split()) in " ".join(printed.split())
    assert "Traceback" not in printed
    assert not (tmp_path / "run" / "stages").exists()


# ---------------------------------------------------------------- what was learned


def asks(monkeypatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_a_question_on_the_command_line_is_answered(learned_run, capsys):
    run = learned_run("lora")
    question = "What colour is the sky?"
    for stage in (1, 3):
        assert call("ask", run.path, "--stage", stage, question) == 0
        assert capsys.readouterr().out == f"{run.ask(question, stage=stage)[0]}\n"
    assert call("ask", run.path, question, "--book", "retrieved", "--stage", "1") == 0
    shown = capsys.readouterr()
    assert "The sky is blue." in shown.err.splitlines()
    assert shown.out == f"{run.ask(question, 'retrieved', stage=1)[0]}\n"


def test_the_lines_of_a_pipe_are_answered_by_a_model_that_is_loaded_once(learned_run, capsys, monkeypatch):
    from lifelong import learned

    loaded = []
    load = learned.load_learned
    monkeypatch.setattr(learned, "load_learned", lambda *arguments: loaded.append(arguments) or load(*arguments))
    run = learned_run("lora")
    questions = ["What colour is the sky?", "Where does the owl live?"]
    answers = run.ask(questions)
    loaded.clear()
    asks(monkeypatch, f"{questions[0]}\n\n  {questions[1]}")
    assert call("ask", run.path) == 0
    assert capsys.readouterr().out.splitlines() == answers
    assert len(loaded) == 1


@pytest.mark.parametrize("end", ["", EOFError, KeyboardInterrupt])
def test_a_conversation_ends_with_an_empty_line_or_the_end_of_input(learned_run, capsys, monkeypatch, end):
    run, typed = learned_run("lora"), iter(["What colour is the sky?", end])

    def type_in(prompt: str) -> str:
        text = next(typed)
        if not isinstance(text, str):
            raise text
        return text

    asks(monkeypatch, "")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", type_in)
    assert call("ask", run.path) == 0
    assert capsys.readouterr().out.splitlines()[0] == run.ask("What colour is the sky?")[0]


def test_what_was_learned_is_exported(learned_run, tmp_path, capsys):
    folder = tmp_path / "out"
    assert call("export", learned_run("lora").path, "--to", folder, "--stage", "2", "--merge") == 0
    assert str(folder) in capsys.readouterr().out
    assert "after stage 2 of 3" in (folder / "README.md").read_text()
    assert (folder / "model.safetensors").is_file()


def test_mistakes_about_what_was_learned_are_answered_in_words(learned_run, tmp_path, capsys):
    run = learned_run("mixture").path
    for arguments, message in (
        (["ask", run, "Why?", "--stage", "7"], "no stage 7"),
        (["ask", run, " "], "number 1 is empty"),
        (["ask", tmp_path, "Why?"], "is not a run folder"),
        (["export", run, "--to", run / "out"], "in the folder of the run"),
        (["export", run, "--to", tmp_path / "out", "--merge"], "depends on the token"),
    ):
        assert call(*arguments) in (1, 2)
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        call("ask", run, "--stage", "1", "Why?", "And?")

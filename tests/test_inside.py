"""What a folder names stays inside of it, and what it says commands no terminal."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from safetensors.torch import save_file
from torch import ones

from lifelong import Study, Task, TaskStream
from lifelong.adapter_folder import check_alone
from lifelong.cli import main
from lifelong.config import make_experiment
from lifelong.console import Console
from lifelong.errors import DataError, RunError
from lifelong.folder import RunFolder
from lifelong.inside import check_links, inside
from lifelong.models import check_model_folder
from lifelong.reports.terminal import show_stream

SECRET = '{"question": "What is the password?", "answers": ["swordfish"]}\n'


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret.jsonl"
    file.write_text(SECRET)
    return file


@pytest.fixture
def saved(tmp_path):
    """The folder of a saved stream, in a run folder."""
    folder = tmp_path / "run" / "stream"
    TaskStream("pairs", [Task.from_pairs("x", [("one?", "a"), ("two?", "b")])]).save(folder)
    return folder


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\0b", 3, None])
def test_a_name_that_leads_outside_is_none(name, tmp_path):
    with pytest.raises(RunError, match=r"index\.json: .* is not inside of"):
        inside(tmp_path, name, "index.json")


@pytest.mark.parametrize("name", ["a", "a/b", "./a", "a/../b", "."])
def test_a_name_that_stays_inside_is_a_path(name, tmp_path):
    assert inside(tmp_path, name, "index.json") == tmp_path / name


@pytest.mark.parametrize("name", ["../../secret.jsonl", "{secret}", "link.jsonl"])
def test_a_saved_stream_reads_its_own_files_only(name, saved, secret):
    (saved / "link.jsonl").symlink_to(secret)
    index = json.loads((saved / "stream.json").read_text())
    index["tasks"][0]["train"] = name.format(secret=secret)
    (saved / "stream.json").write_text(json.dumps(index))
    with pytest.raises(RunError, match=r"stream\.json: .* is not inside of"):
        TaskStream.load(saved)


@pytest.mark.parametrize(
    "entry", [None, {"name": "x", "evil": 1}, {"name": "x", "test": "x" * 5000}, {"name": "x", "test": ["0"]}]
)
def test_a_damaged_index_of_a_stream_is_said(entry, saved):
    (saved / "stream.json").write_text(json.dumps(entry and {"name": "x", "tasks": [entry]}))
    with pytest.raises((DataError, RunError), match=r"stream\.json"):
        TaskStream.load(saved)


def test_a_strangers_run_has_its_rows_in_its_folder(saved, secret, tmp_path):
    other = shutil.copytree(saved, tmp_path / "other")
    (tmp_path / "notes.txt").write_text("private")

    def run(**settings):
        config = {"stream": {"class_path": "lifelong.TaskStream.load", "init_args": {"folder": str(saved)}}}
        return make_experiment(config | settings, trust=False, home=saved.parent)

    assert run().tasks.names == ("x",)
    outside = {"class_path": "lifelong.TaskStream.load", "init_args": {"folder": str(saved / ".." / ".." / "other")}}
    replay = {"class_path": "GeneralReplay", "init_args": {"source": str(tmp_path / "notes.txt")}}
    for settings in (
        {"stream": outside},
        {"stream": str(other)},
        {"held_out": outside},
        {"strategies": [replay]},
        {"strategies": [{"class_path": "GeneralReplay", "init_args": {"source": outside}}]},
        {"trainer": {"default_root_dir": str(tmp_path)}},
    ):
        with pytest.raises(RunError, match="is not inside of"):
            run(**settings)


def test_a_resumed_run_of_a_stranger_has_its_rows_in_its_folder(saved, tmp_path, capsys):
    shutil.copytree(saved, tmp_path / "other")
    stream = {"class_path": "lifelong.TaskStream.load", "init_args": {"folder": "../other"}}
    (saved.parent / "config.yaml").write_text(yaml.safe_dump({"stream": stream}))
    assert main(["resume", str(saved.parent)]) == 1
    assert "stream: " in (said := capsys.readouterr().err) and "not inside of" in said


@pytest.mark.parametrize("name", ["status.json", ".config.yaml.tmp", "stages", "predictions.txt"])
def test_a_strangers_run_writes_through_no_link(name, saved, secret, capsys):
    run = saved.parent
    (run / "config.yaml").write_text("stream: streams.world_facts\nepochs: 1\n")
    (run / name).symlink_to(secret.parent if name == "stages" else secret)
    assert main(["resume", str(run), "--quiet"]) == 1
    assert name in capsys.readouterr().err
    assert secret.read_text() == SECRET


def test_links_within_a_folder_are_as_good_as_files(saved):
    (saved / "again").symlink_to("stream.json")
    (saved / "up").symlink_to("..")
    check_links(saved.parent)


@pytest.mark.parametrize("roles", [{"active": ["/tmp/x", "y"], "trained": []}, {"active": ["../x"], "trained": []}])
def test_names_of_adapters_are_names_of_folders_in_theirs(roles, tmp_path):
    save_file({"lora_B": ones(1)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "roles.json").write_text(json.dumps(roles))
    with pytest.raises(RunError, match=r"roles\.json: .* is not inside of"):
        check_alone(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", "nonsense", '{"active": [], "trained": []}', '{"active": 1}'])
def test_damaged_roles_are_said(text, tmp_path):
    (tmp_path / "roles.json").write_text(text)
    with pytest.raises(RunError, match=r"roles\.json is damaged"):
        check_alone(tmp_path)


def test_a_manifest_names_files_of_its_stage(tmp_path):
    stage = tmp_path / "stages" / "0"
    stage.mkdir(parents=True)
    (stage / "manifest.json").write_text(json.dumps({"../../../etc/passwd": "0"}))
    with pytest.raises(RunError, match=r"manifest\.json: .* is not inside of"):
        RunFolder(tmp_path).committed()


def test_the_parts_of_a_model_are_in_its_folder(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../secret.safetensors"}}))
    with pytest.raises(RunError, match="is not inside of"):
        check_model_folder(tmp_path)


def test_the_runs_of_a_study_are_in_its_folder(tmp_path):
    study = Study({"stream": "streams.world_facts"}, {"trainer./tmp/x": [1, 2], "seed": ["../..", "/y"]}, tmp_path)
    assert {point.folder.parent for point in study.points} == {tmp_path}


@pytest.mark.parametrize("name", ["../x", "a/b", "a\0b", ".", "", "[red]x", "\x1b[2J", "x\n", "x" * 201, "é" * 101, 3])
def test_a_name_that_could_not_be_a_files_is_refused(name):
    with pytest.raises(DataError, match="task name"):
        Task.from_pairs(name, [("one?", "a")])


# ---------------------------------------------------------------- terminals

ESCAPES = "\x1b]52;c;c3dvcmRmaXNo\x1b\\\x1b[2J\x9b31m\x07\u202e"


def test_a_question_commands_no_terminal(capsys):
    rows = [(f"[red]one[/blue]{ESCAPES}?", "[link=http://elsewhere]a[/link]")]
    show_stream(TaskStream("pairs", [Task.from_pairs("x", rows)]), Console(force_terminal=True, width=200))
    shown = capsys.readouterr().out
    assert "[red]one[/blue]" in shown and "[link=http://elsewhere]a[/link]" in shown
    assert not any(code in shown for code in ("\x1b]", "\x1b[2J", "\x9b", "\x07", "\u202e"))


def test_a_strangers_status_commands_no_terminal(saved, capsys):
    run = saved.parent
    (run / "config.yaml").write_text("stream: streams.world_facts\n")
    status = {"state": f"[/red]{ESCAPES}", "stage": "[link=http://elsewhere]1[/link]", "reason": f"[/]{ESCAPES}"}
    (run / "status.json").write_text(json.dumps(status))
    assert main(["show", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "[/red]" in shown and "[link=http://elsewhere]1[/link]" in shown
    assert not any(code in shown for code in ("\x1b", "\x9b", "\x07", "\u202e"))


def test_a_strangers_study_commands_no_terminal(tmp_path, capsys):
    config = {"stream": "streams.world_facts", "vary": {"seed": {f"[/red]{ESCAPES}": 1, "[bold]two": 2}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "study.json").write_text("[]")
    assert main(["show", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "[/red]" in shown and "[bold]two" in shown and "\x1b" not in shown


def test_an_error_commands_no_terminal(saved, capsys):
    (saved.parent / "config.yaml").write_text(yaml.safe_dump({"stream": "streams.world_facts", ESCAPES: 1}))
    assert main(["resume", str(saved.parent)]) == 2
    assert not any(code in capsys.readouterr().err for code in ("\x1b", "\x9b", "\u202e"))

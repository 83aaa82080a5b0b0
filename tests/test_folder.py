"""A stage is in the run folder whole or not at all, and what was written is what is read."""

import csv
import hashlib
import json

import pytest

from lifelong.durable import write_text
from lifelong.errors import RunError
from lifelong.folder import ROW_FIELDS, RunFolder, write_rows
from lifelong.trust import made_here

CONFIG = {"stream": {"class_path": "streams.world_facts", "init_args": {}}, "epochs": 3, "strategies": ["Naive"]}
ENVIRONMENT = {"fingerprint": ["abc", "def"], "stages": 2}


@pytest.fixture
def folder(tmp_path):
    """A run that has begun and measured nothing."""
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.create(CONFIG, ENVIRONMENT)
    return folder


def cell(stage=0, task="a", **changes):
    values = (stage, task, "test", "closed", "exact_match", 1 / 3, 8, False, 0.25)
    return dict(zip(ROW_FIELDS, values, strict=True)) | changes


def commit(folder, index, rows=()):
    with folder.commit(index) as path:
        write_rows(path / "rows.csv", rows or [cell(index)])
        (path / "costs.json").write_text(json.dumps({"steps": index}))
        (path / "adapter").mkdir()
        (path / "adapter" / "weights.bin").write_bytes(bytes(range(256)))


def everything_below(path):
    return sorted(entry.relative_to(path).as_posix() for entry in path.rglob("*"))


def refusal(function, *arguments) -> str:
    with pytest.raises(RunError) as caught:
        function(*arguments)
    return str(caught.value)


# ---------------------------------------------------------------- beginning


def test_a_run_remembers_its_configuration_and_environment(folder):
    again = RunFolder(folder.path)
    assert again.exists
    assert again.config() == CONFIG
    assert again.read_json("environment.json") == ENVIRONMENT
    assert again.committed() == -1
    assert made_here(folder.path)


def test_a_folder_that_is_no_run_has_no_configuration(tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.exists
    assert "is not a run folder" in refusal(folder.config)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("all my work")
    message = refusal(RunFolder(tmp_path).create, CONFIG, ENVIRONMENT)
    assert str(tmp_path) in message and "not a run folder" in message
    assert everything_below(tmp_path) == ["thesis.tex"]


def test_the_same_configuration_goes_on_and_touches_nothing(folder):
    commit(folder, 0)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    changed_elsewhere = ENVIRONMENT | {"python": "9.9"}
    RunFolder(folder.path).create(json.loads(json.dumps(CONFIG)), changed_elsewhere)
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 4}, "epochs is 3 there and 4 here"),
        ({"strategies": ["Joint"]}, "strategies.0 is 'Naive' there and 'Joint' here"),
        ({"strategies": []}, "strategies is ['Naive'] there and [] here"),
        ({"seed": 1}, "seed is None there and 1 here"),
        (
            {"stream": {"class_path": "streams.world_facts", "init_args": {"tasks": ["a"]}}},
            "stream.init_args.tasks is None there and ['a'] here",
        ),
    ],
)
def test_another_configuration_is_refused_by_the_keys_that_differ(change, words, folder):
    commit(folder, 0)
    message = refusal(RunFolder(folder.path).create, CONFIG | change, ENVIRONMENT)
    assert str(folder.path) in message and words in message
    assert RunFolder(folder.path).config() == CONFIG


def test_another_stream_behind_the_same_configuration_is_refused(folder):
    commit(folder, 0)
    message = refusal(folder.create, CONFIG, ENVIRONMENT | {"fingerprint": ["abc", "other"]})
    assert "the rows of its stream are others" in message


# ---------------------------------------------------------------- committing


def test_a_committed_stage_holds_what_was_written_and_its_checksums(folder):
    commit(folder, 0)
    stage = folder.stage(0)
    assert everything_below(stage) == ["adapter", "adapter/weights.bin", "costs.json", "manifest.json", "rows.csv"]
    manifest = json.loads((stage / "manifest.json").read_text())
    assert manifest == {
        name: hashlib.sha256((stage / name).read_bytes()).hexdigest()
        for name in ("adapter/weights.bin", "costs.json", "rows.csv")
    }
    assert everything_below(folder.path / "stages")[0] == "0"
    assert folder.committed() == 0


def test_a_stage_is_not_there_before_its_block_ends(folder):
    with folder.commit(0) as path:
        (path / "rows.csv").write_text("x")
        assert not folder.stage(0).exists()
        assert RunFolder(folder.path).committed() == -1
    assert folder.stage(0).is_dir()


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interruption_in_the_block_leaves_no_stage_and_nothing_for_the_next_try(interruption, folder):
    commit(folder, 0)
    with pytest.raises(interruption), folder.commit(1) as path:
        (path / "half.txt").write_text("half")
        raise interruption
    assert not folder.stage(1).exists()
    assert RunFolder(folder.path).committed() == 0
    commit(folder, 1)
    assert RunFolder(folder.path).committed() == 1
    assert "half.txt" not in everything_below(folder.stage(1))
    assert everything_below(folder.stage(1)) == everything_below(folder.stage(0))


def test_an_interruption_at_the_rename_leaves_no_stage(folder, monkeypatch):
    def fails(self, target):
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", fails)
        with pytest.raises(OSError, match="the disk is gone"):
            commit(folder, 0)
    assert not folder.stage(0).exists()
    commit(folder, 0)
    assert RunFolder(folder.path).committed() == 0


def test_a_stage_that_is_missing_before_a_later_one_is_named(folder):
    for index in (0, 1, 3):
        commit(folder, index)
    with pytest.raises(RunError, match=r"stages/2 is missing or unfinished, and a later stage is there"):
        RunFolder(folder.path).committed()
    commit(folder, 2)
    assert RunFolder(folder.path).committed() == 3


@pytest.mark.parametrize("name", ["rows.csv", "adapter/weights.bin", "costs.json"])
def test_a_file_that_was_altered_or_lost_is_named(name, folder):
    commit(folder, 0)
    commit(folder, 1)
    path = folder.stage(1) / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    message = refusal(RunFolder(folder.path).committed)
    assert message.startswith(f"{path} has been altered") and f"remove the folder {folder.stage(1)}" in message
    path.unlink()
    assert refusal(RunFolder(folder.path).committed).startswith(f"{path} is missing")
    path.write_bytes(content)
    assert RunFolder(folder.path).committed() == 1


# ---------------------------------------------------------------- rows and costs


def test_cells_come_back_with_their_types_and_every_digit(folder):
    rows = [
        cell(0, "a, with comma"),
        cell(0, 'b "quoted"', score=0.1 + 0.2, sampled=True, seconds=1e-07, **{"pass": "gold"}),
        cell(0, "größe", metric="perplexity", score=1.2345678901234567e30, split="probe"),
    ]
    commit(folder, 0, rows)
    commit(folder, 1, [cell(1)])
    assert RunFolder(folder.path).rows() == [*rows, cell(1)]
    with (folder.stage(0) / "rows.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == list(ROW_FIELDS)


def test_costs_come_stage_by_stage(folder):
    for index in range(3):
        commit(folder, index)
    assert folder.costs() == [{"steps": 0}, {"steps": 1}, {"steps": 2}]


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    write_text(path, "before")

    def fails(self, target):
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", fails)
        with pytest.raises(OSError, match="no room"):
            write_text(path, "after")
    assert path.read_text() == "before"
    write_text(path, "äfter")
    assert path.read_text(encoding="utf-8") == "äfter"


def test_numbers_that_json_does_not_know_are_refused(folder):
    with pytest.raises(ValueError):
        folder.write_json("metrics.json", {"value": float("nan")})
    assert folder.read_json("metrics.json") == {}

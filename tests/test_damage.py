"""Whatever file of a run folder is damaged: a named error, or the same result. Never another result."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from lifelong import Experiment, Run
from lifelong.checkpoint import FILE, StepCheckpoints, checkpoints
from lifelong.cli import main
from lifelong.strategies import EWC, Replay
from lifelong.testing.runs import toy_adapter

# damaged, these are made anew or say nothing that a result depends on
VIEWS = ("matrix.csv", "metrics.json", "matrix.png", "status.json", "history.jsonl", ".lock", ".made-here")


def make(stream, model, folder):
    return Experiment(
        stream.limit(test=2),
        str(model),
        adapter=toy_adapter("LoRA"),
        strategies=[Replay(0.5), EWC(10.0)],
        epochs=3,
        batch_size=3,
        learning_rate=3e-3,
        evaluate={"books": ["closed", "retrieved"], "probes": False, "max_new_tokens": 2},
        checkpoint_every=2,
        check_resources=False,
        folder=folder,
        trainer={"accelerator": "cpu"},
    )


@pytest.fixture(scope="module")
def whole(tiny_stream, llama_folder, tmp_path_factory):
    return make(tiny_stream, llama_folder, tmp_path_factory.mktemp("damage") / "whole").run(quiet=True)


@pytest.fixture(scope="module")
def broken_off(tiny_stream, llama_folder, tmp_path_factory):
    """The folder of a run that broke off in the middle of its second stage, with two step checkpoints."""
    folder = tmp_path_factory.mktemp("damage") / "broken off"
    save = StepCheckpoints.save

    def break_off(self, trainer, stage, step):
        save(self, trainer, stage, step)
        if (stage, step) == (2, 6):
            raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepCheckpoints, "save", break_off)
        with pytest.raises(ZeroDivisionError):
            make(tiny_stream, llama_folder, folder).run(quiet=True)
    return folder


def truncated(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file):
    content = bytearray(file.read_bytes())
    place = random.Random(file.name).randrange(len(content))
    content[place] ^= 1 << random.Random(str(place)).randrange(8)
    file.write_bytes(content)


def deleted(file):
    file.unlink()


def outcome(folder, whole, capsys):
    """``None`` where a resumed run is the same to the last digit, else the error's words."""
    capsys.readouterr()
    status = main(["resume", str(folder), "--quiet"])
    said = capsys.readouterr().err
    if status:
        return said
    run = Run(folder)
    assert run.rows.drop(columns="seconds").equals(whole.rows.drop(columns="seconds"))
    assert run.predictions.equals(whole.predictions)
    last = (each.folder.stage(3) / "adapter" / "adapter_model.safetensors" for each in (run, whole))
    assert next(last).read_bytes() == next(last).read_bytes()
    return None


def test_undamaged_it_goes_on_to_the_same_end(broken_off, whole, tmp_path, capsys):
    assert [step for step, _ in checkpoints(broken_off / "steps", 2)] == [6, 4]
    assert outcome(shutil.copytree(broken_off, tmp_path / "copy"), whole, capsys) is None


@pytest.mark.parametrize(
    "damage",
    [flipped, pytest.param(truncated, marks=pytest.mark.slow), pytest.param(deleted, marks=pytest.mark.slow)],
    ids=lambda function: function.__name__,
)
def test_every_file_in_turn(damage, broken_off, whole, tmp_path, capsys):
    files = [path.relative_to(broken_off) for path in sorted(broken_off.rglob("*")) if path.is_file()]
    assert {"steps/2-6/trainer.ckpt", "stages/1/strategies/EWC.pt", "stream/stream.json", "passages.jsonl"} <= {
        str(file) for file in files
    }
    for number, file in enumerate(files):
        folder = Path(shutil.copytree(broken_off, tmp_path / str(number)))
        if (folder / file).stat().st_size:
            damage(folder / file)
        said = outcome(folder, whole, capsys)
        if file.name in VIEWS and len(file.parts) == 1:
            assert said is None, f"{file}: {said}"
        elif file.parts[0] == "steps":
            assert said is None  # the checkpoint before it was used
        elif said is not None:
            assert str(folder / file) in said or str((folder / file).parent) in said, f"{file}: {said}"
        else:
            # without a manifest nothing can be compared, and nothing else is wrong
            assert damage is deleted and file.name == "manifest.json", file
        shutil.rmtree(folder)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(broken_off, whole, tmp_path, capsys):
    folder = Path(shutil.copytree(broken_off, tmp_path / "copy"))
    flipped(folder / "steps" / "2-6" / FILE)
    assert main(["resume", str(folder)]) == 0
    shown = capsys.readouterr().out.replace("\n", "")
    assert f"{folder / 'steps' / '2-6' / FILE} has been altered: stage 2 goes on after its step 4" in shown
    assert Run(folder).rows.drop(columns="seconds").equals(whole.rows.drop(columns="seconds"))


def test_with_all_checkpoints_damaged_the_stage_begins_anew(broken_off, whole, tmp_path, capsys):
    folder = Path(shutil.copytree(broken_off, tmp_path / "copy"))
    for _, path in checkpoints(folder / "steps", 2):
        truncated(path / FILE)
    assert outcome(folder, whole, capsys) is None

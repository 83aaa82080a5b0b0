"""The code in the README runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from peft import get_peft_model_state_dict

from lifelong import Experiment
from lifelong.testing.toys import toy_stream

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
STREAM, TABLE, LEARNED, MIXTURE, RETRIEVER, STRATEGY, CONTRACT, STUDY, EXTENSION = re.findall(
    r"```python\n(.*?)```", README, flags=re.DOTALL
)


def test_the_stream_in_ten_lines_is_learned_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(STREAM, names)
    assert names["run"].matrix.matrix[1, 0] == 1.0
    assert "cargo" in capsys.readouterr().out
    exec(EXTENSION, names)
    shown = capsys.readouterr().out
    assert "True ['crew', 'cargo', 'fleet']" in shown
    assert names["run"].tasks == ["crew", "cargo"]


@pytest.mark.slow
def test_methods_are_compared_over_pairs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(STUDY, {"stream": toy_stream()})
    shown = capsys.readouterr().out
    assert "replay scores " in shown and "No test was made: with 3 pairs" in shown
    assert Path("runs/methods/study.json").is_file()


def test_a_csv_file_becomes_a_run_that_is_asked_and_exported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = ["topic,question,reply", "shop,When does it open?,at nine", "shop,Who runs it?,Anna", "post,What is it?,red"]
    Path("faq.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    names: dict = {}
    exec(TABLE, names)
    assert names["run"].matrix.tasks == ("shop", "post")
    assert names["run"].matrix.matrix[2, 1] == 1.0
    assert "When does it open?" in capsys.readouterr().out
    exec(LEARNED, {})
    assert capsys.readouterr().out == "['red'] ['Anna']\n"
    assert Path("runs/faq-model/model.safetensors").is_file()


def test_a_mixture_of_experts_is_saved_and_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(MIXTURE, names)
    before, after = (get_peft_model_state_dict(names[name]) for name in ("model", "again"))
    assert any("router" in name for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before | after)


def test_a_passage_is_retrieved(capsys):
    exec(RETRIEVER, {})
    assert capsys.readouterr().out.startswith("gold Gold has the chemical symbol Au. 0.0")


def test_the_strategy_in_twenty_lines_holds_the_weights_back(tiny_stream, llama_folder, tmp_path):
    names = {"__name__": "readme"}
    exec(STRATEGY, names)

    def drift(strength: float) -> float:
        settings = {"learning_rate": 1e-2, "epochs": 5, "trainer": {"accelerator": "cpu"}}
        strategy = names["PullBack"](strength)
        folder = tmp_path / str(strength)
        Experiment(tiny_stream[:2], str(llama_folder), strategies=[strategy], folder=folder, **settings).run(quiet=True)
        return distance(folder)

    assert drift(100.0) < 0.2 * drift(0.0)
    exec(CONTRACT, names)


def distance(folder: Path) -> float:
    from safetensors.torch import load_file

    first, second = (load_file(folder / "stages" / str(stage) / "model" / "model.safetensors") for stage in (1, 2))
    return sum(float((first[name] - second[name]).pow(2).sum()) for name in first)

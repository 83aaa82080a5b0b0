"""Reports as text say the same numbers, in the forms that other programs read."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from lifelong import Experiment, Run, Study
from lifelong.cli import main
from lifelong.errors import ConfigError, RunError
from lifelong.reports.subject import subject_of
from lifelong.reports.writing import report, write_report
from lifelong.strategies import Naive, Replay

NAMES = ("100 % | <i>naive</i> & {co}_1", "replay")


@pytest.fixture(scope="module")
def study(tiny_stream, llama_folder, tmp_path_factory) -> Study:
    settings = {"epochs": 1, "batch_size": 4, "trainer": {"accelerator": "cpu"}}
    base = Experiment(tiny_stream.limit(test=3), str(llama_folder), **settings)
    vary = {"strategies": dict(zip(NAMES, ([Naive()], [Replay(0.5)]), strict=True)), "seed": [0, 1]}
    return Study(base, vary, tmp_path_factory.mktemp("formats") / "study").run(quiet=True)


def test_csv_has_every_number(study):
    read = pd.read_csv(io.StringIO(report(study, "csv")))
    table = study.table()
    assert read.columns.tolist() == table.columns.tolist()
    assert read["average_accuracy"].tolist() == pytest.approx(table["average_accuracy"].tolist(), rel=1e-15)
    assert read["strategies"].tolist() == [name for name in NAMES for _ in range(2)]


def test_json_has_every_cell(study):
    content = json.loads(report(study, "json"))
    for name, run in study.runs.items():
        cells = pd.DataFrame(content["runs"][name]["cells"])
        assert cells["score"].tolist() == run.rows["score"].tolist()
        assert content["runs"][name]["figures"] == run.figures()
    means = study.table().groupby("strategies").average_accuracy.mean()
    for name in NAMES:
        assert content["methods"][name]["average_accuracy"]["mean"] == pytest.approx(means[name])
    assert {"average_accuracy", "forgetting", "train_seconds"} <= content["definitions"].keys()


def test_markdown_is_shown_with_the_names_as_they_are(study):
    tokens = MarkdownIt("commonmark").enable("table").parse(report(study, "markdown"))
    assert not [token for token in tokens if token.type == "html_block"]
    cells = [
        "".join(part.content for part in tokens[number + 1].children)
        for number, token in enumerate(tokens)
        if token.type in ("td_open", "th_open")
    ]
    assert set(NAMES) <= set(cells)
    mean = study.table().groupby("strategies").average_accuracy.mean()["replay"]
    assert f"{mean:.3f}" in cells
    matrix = next(iter(study.runs.values())).matrix.scores[-1].tolist()
    assert [f"{score:.3f}" for score in matrix] in [cells[number : number + 3] for number in range(len(cells))]


def test_latex_is_a_table_with_what_latex_would_take_for_its_own_escaped(study):
    text = report(study, "latex")
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    rows = [
        re.split(r"(?<!\\)&", line.removesuffix(r"\\").strip()) for line in body.splitlines() if line.endswith(r"\\")
    ]
    plain = {row[0].strip() for row in rows}
    assert plain == {r"100 \% | <i>naive</i> \& \{co\}\_1", "replay"}
    columns = re.search(r"begin\{tabular\}\{(l r*|lr*)\}", text).group(1)
    assert {len(row) for row in rows} == {len(columns)}


def test_one_run_and_a_folder_of_runs(study, tmp_path):
    run = next(iter(study.runs.values()))
    (row,) = csv.DictReader(io.StringIO(report(run, "csv")))
    assert float(row["average_accuracy"]) == pytest.approx(run.metrics["average_accuracy"])
    for number, path in enumerate(run.path for run in study.runs.values()):
        shutil.copytree(path, tmp_path / f"run{number}")
    subject = subject_of(tmp_path)
    assert (subject.kind, list(subject.runs), len(subject.table)) == ("runs", [f"run{n}" for n in range(4)], 4)
    assert "run3" in write_report(tmp_path).read_text(encoding="utf-8")


def test_what_is_no_run_is_refused(study, tiny_stream, llama_folder, tmp_path):
    with pytest.raises(RunError, match="there is no folder"):
        report(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"holds no run$"):
        report(tmp_path)
    with pytest.raises(RunError, match="the studies study are in it"):
        report(study.folder.parent)
    with pytest.raises(ConfigError, match="Did you mean 'latex'"):
        report(study, "latx")
    empty = Study({"stream": tiny_stream, "model": str(llama_folder)}, {"seed": [0, 1]}, tmp_path / "empty")
    with pytest.raises(RunError, match="no run of this study has begun"):
        report(empty)


def test_runs_of_different_streams_are_not_put_side_by_side(study, tiny_stream, llama_folder, tmp_path):
    shutil.copytree(next(iter(study.runs.values())).path, tmp_path / "one")
    settings = {"epochs": 1, "trainer": {"accelerator": "cpu"}, "folder": tmp_path / "other"}
    Experiment(tiny_stream.limit(test=2), str(llama_folder), **settings).run(quiet=True)
    with pytest.raises(RunError, match=r"one and other differ in the task 'colours'"):
        report(tmp_path)


def test_what_is_not_finished_is_said(study, tmp_path):
    folder = shutil.copytree(study.folder, tmp_path / "study")
    names = [point.folder.name for point in Study.load(folder).points]
    shutil.rmtree(folder / names[0])
    Run(folder / names[1]).folder.write_status("failed", "out of <memory>")
    found = subject_of(folder)
    assert "1 of 4 runs not begun" in found.warnings
    assert f"{names[1]}: failed, stage 3 of 3: out of <memory>" in found.warnings
    assert "out of &lt;memory&gt;" in report(folder)
    assert found.comparison is not None and found.comparison.methods == ["replay"]


def test_the_command_prints_or_writes(study, tmp_path, capsys):
    assert main(["report", str(study.folder), "--format", "csv"]) == 0
    assert capsys.readouterr().out == report(study, "csv")
    assert main(["report", str(study.folder), "--to", str(tmp_path / "new" / "page.html")]) == 0
    assert str(tmp_path / "new" / "page.html") in capsys.readouterr().out
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    assert "there is no folder" in capsys.readouterr().err

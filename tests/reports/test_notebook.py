"""What objects show of themselves in a notebook: their numbers, and any name as text."""

from __future__ import annotations

from html.parser import HTMLParser

import torch
from IPython.core.interactiveshell import InteractiveShell

from lifelong import Experiment, Study, Task, TaskStream
from lifelong.metrics.accuracy_matrix import AccuracyMatrix
from lifelong.strategies import Naive


class Read(HTMLParser):
    """The cells of all tables, row by row, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.open = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.open = False

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data


def shown(thing) -> Read:
    """What IPython shows of an object as HTML."""
    formats, _ = InteractiveShell.instance().display_formatter.format(thing)
    return Read(formats["text/html"])


def test_a_matrix_shows_its_scores_and_its_holes():
    matrix = AccuracyMatrix(["one", "<b>two</b>"], held_out=["general"])
    scores = torch.tensor([[0.0, 0.25, 0.5], [1.0, torch.nan, 0.5], [0.75, 1.0, 0.25]])
    for stage, row in enumerate(scores.tolist()):
        for column, score in enumerate(row):
            if score == score:
                matrix.update(stage, column, score, 4, sampled=(stage, column) == (2, 0))
    found = shown(matrix)
    assert found.rows == [
        ["", "one", "<b>two</b>", "generalheld out"],
        ["untrained", "0.00", "0.25", "0.50"],
        ["after 1: one", "1.00", "-", "0.50"],
        ["after 2: <b>two</b>", "0.75*", "1.00", "0.25"],
    ]
    assert "b" not in found.tags


def test_a_stream_shows_its_tasks():
    rows = [{"question": f"{number}?", "answer": "a", "probes": ["x?", "y?"]} for number in range(3)]
    tasks = [Task(f"task {number}", train=rows, test=rows[:2], metric="contains") for number in range(35)]
    held = Task("kept", train=None, test=rows, measure_only=True)
    found = shown(TaskStream("mine", [*tasks[:2], held]))
    assert found.rows[1:] == [
        ["task 0", "knowledge", "contains", "3", "0", "2", "4"],
        ["task 1", "knowledge", "contains", "3", "0", "2", "4"],
        ["kept (held out)", "knowledge", "exact_match", "0", "0", "3", "6"],
    ]
    many = TaskStream("many", tasks)
    assert len(shown(many).rows) == 31 and "and 5 more" in many._repr_html_()


def test_a_run_and_a_study_show_their_figures(tiny_stream, llama_folder, tmp_path):
    base = Experiment(tiny_stream.limit(test=2), str(llama_folder), epochs=1, trainer={"accelerator": "cpu"})
    study = Study(base, {"strategies": {"<u>naive</u>": [Naive()]}, "seed": [0, 1]}, tmp_path / "study")
    assert [row[2] for row in shown(study).rows] == ["state", "not begun", "not begun"]
    study.run(quiet=True)
    found, table = shown(study), study.table()
    column = found.rows[0].index("average accuracy")
    assert [row[column] for row in found.rows[1:]] == [f"{value:.3f}" for value in table.average_accuracy]
    assert found.rows[1][0] == "<u>naive</u>" and "u" not in found.tags
    run = next(iter(study.runs.values()))
    found = shown(run)
    assert found.rows[4][0] == "after 3: numbers"
    assert [f"{score:.2f}" for score in run.matrix.scores[-1]] == found.rows[4][1:]
    assert ["average accuracy", f"{run.metrics['average_accuracy']:.3f}"] in found.rows

"""From a folder of documents to a stream that trains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lifelong import TaskStream
from lifelong.cli import main
from lifelong.documents import Excerpt, Generator, Pair, RuleGenerator, build_stream
from lifelong.errors import DataError
from lifelong.registry import resolve_stream

PROJECT = Path(__file__).resolve().parents[2]


class Counting(RuleGenerator):
    """The rules, and how many passages they were shown."""

    seen = 0

    def write(self, excerpts: Sequence[Excerpt]) -> Iterator[list[Pair] | None]:
        type(self).seen += len(excerpts)
        return super().write(excerpts)


def letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def test_a_folder_becomes_a_stream_with_a_task_for_each_sub_folder(folder: Path, tmp_path: Path) -> None:
    report = build_stream(folder, tmp_path / "out")
    stream = TaskStream.load(tmp_path / "out")
    assert stream.name == "library" and stream.names == ("metals", "towers")
    asked = {row["question"]: row["answers"] for task in stream for row in task.train}
    assert asked["What is the symbol of gold?"] == ["Au"] and asked["What is the symbol of iron?"] == ["Fe"]
    assert asked["What is the melting point of gold?"] == ["1064 degrees"]
    assert "1889" in [answer for answers in asked.values() for answer in answers]
    assert not any("code" in question or "scripts" in question for question in asked)
    for task in stream:
        assert list(task.train) == list(task.test)
        for row in task.train:
            (passage,) = row["passages"]
            assert passage in task.passages and letters(row["answers"][0]) in letters(passage)
    assert report.documents == 4 and report.others == {".png": 1}
    assert report.kept == sum(report.tasks.values()) == len(asked)
    assert report.kept + sum(report.dropped.values()) == report.written
    assert json.loads((tmp_path / "out" / "report.json").read_text())["kept"] == report.kept


def test_what_is_unchanged_is_not_done_twice(folder: Path, tmp_path: Path) -> None:
    Counting.seen = 0
    first = build_stream(folder, tmp_path / "out", generator=Counting(pairs=3))
    seen, fingerprint = Counting.seen, TaskStream.load(tmp_path / "out").fingerprint()
    again = build_stream(folder, tmp_path / "out", generator=Counting(pairs=3))
    assert seen == first.passages and Counting.seen == seen
    assert again.reused == again.passages and again.kept == first.kept
    assert TaskStream.load(tmp_path / "out").fingerprint() == fingerprint
    (folder / "metals" / "tin.txt").write_text("The symbol of tin is Sn, from its Latin name.")
    build_stream(folder, tmp_path / "out", generator=Counting(pairs=3))
    assert Counting.seen == seen + 1


def test_other_settings_of_the_generator_write_anew(folder: Path, tmp_path: Path) -> None:
    build_stream(folder, tmp_path / "out", generator=RuleGenerator(pairs=2))
    assert build_stream(folder, tmp_path / "out", generator=RuleGenerator(pairs=1)).reused == 0


def test_a_stream_is_replaced_and_nothing_else_is(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="thesis is not empty, and holds no stream from documents"):
        build_stream(folder, other)
    build_stream(folder, tmp_path / "out", by="month")
    build_stream(folder, tmp_path / "out", by="year")
    assert TaskStream.load(tmp_path / "out").names == ("2024", "2025")
    assert sorted(path.name for path in tmp_path.iterdir() if "part" in path.name) == []


def test_documents_are_never_replaced_by_their_stream(folder: Path) -> None:
    for name in ("report.json", "stream.json"):
        (folder / name).write_text("{}")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for out in (folder, folder.parent, folder / "metals" / ".."):
        with pytest.raises(DataError, match="holds the documents"):
            build_stream(folder, out)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


class Silent(Generator):
    name = fingerprint = "silent"

    def write(self, excerpts: Sequence[Excerpt]) -> Iterator[list[Pair] | None]:
        return iter([None] * len(excerpts))


def test_when_nothing_can_be_kept_it_is_said_and_the_old_stream_stays(folder: Path, tmp_path: Path) -> None:
    build_stream(folder, tmp_path / "out")
    before = TaskStream.load(tmp_path / "out").fingerprint()
    with pytest.raises(DataError, match="none of 0 pairs about"):
        build_stream(folder, tmp_path / "out", generator=Silent())
    assert TaskStream.load(tmp_path / "out").fingerprint() == before


def test_the_command_line_does_it_and_what_it_made_can_be_looked_at(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4")
    command = ["build-stream", str(folder), "--out", str(out)]
    assert main(command) == 2
    assert "broken.pdf: is no PDF" in capsys.readouterr().err
    assert main([*command, "--skip-unreadable", "--generator.pairs", "2", "--screen.longest_answer", "4"]) == 0
    said = capsys.readouterr().out
    assert "metals" in said and "left out: broken.pdf" in said and "What is the symbol of gold? -> Au" in said
    assert resolve_stream(str(out)).fingerprint() == TaskStream.load(out).fingerprint()
    assert main(["streams", str(out)]) == 0
    assert main(["retrieve", str(out), "--retrieval.k", "2"]) == 0
    for mistake in (["--tokenz", "3"], ["--generator", "Oracle"], ["--by", "colour"], ["--generator.pairs", "0"]):
        assert main([*command, "--skip-unreadable", *mistake]) == 2
    assert main([*command, "--skip-unreadable", "--generator", "EndpointGenerator", "--generator.model", "m"]) == 2
    assert "LIFELONG_GENERATOR_KEY" in capsys.readouterr().err


def test_this_project_s_own_documentation_and_two_pdfs_make_a_stream_that_trains(
    tmp_path: Path, write_pdf, llama_folder
) -> None:
    from lifelong import Experiment

    root = tmp_path / "docs"
    for name in ("README.md", "CHANGELOG.md", "experiments/README.md", "lifelong/strategies/README.md"):
        (root / Path(name).parent).mkdir(parents=True, exist_ok=True)
        (root / name).write_text((PROJECT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (root / "pdf").mkdir()
    write_pdf(root / "pdf" / "a.pdf", ["The capital of Fiji is Suva. The tower of Paris was finished in 1889."])
    write_pdf(root / "pdf" / "b.pdf", ["Gold is a dense yellow metal. The symbol of gold is Au."], "Metals")
    out = tmp_path / "stream"
    report = build_stream(root, out)
    assert report.reused == 0 and build_stream(root, out).reused == report.passages
    stream = TaskStream.load(out)
    assert set(stream.names) == {"docs", "experiments", "lifelong", "pdf"} and report.kept > 100
    for task in stream:
        for row in task.test:
            assert f" {letters(row['answers'][0])} " in f" {letters(row['passages'][0])} ", row
    (tmp_path / "learn.yaml").write_text(
        f"stream: stream\nmodel: {llama_folder}\nepochs: 1\nevaluate: {{books: [closed, retrieved], sample: 4}}\n"
    )
    few = stream.limit(train=8, test=4)
    run = Experiment(few, model=str(llama_folder), folder=tmp_path / "run").run(quiet=True)
    assert run.status["state"] == "done" and run.matrix.scores.shape == (5, 4)
    assert main(["run", str(tmp_path / "learn.yaml"), "--dry-run"]) == 0

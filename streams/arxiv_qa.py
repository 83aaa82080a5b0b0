"""Questions about arXiv papers, month by month, with a passage of evidence for each paper."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lifelong.errors import DataError
from streams.sources import CARD, Collection, Revision, cell, check_names, draw, hub_address, make_task

if TYPE_CHECKING:
    from lifelong.examples import Located
    from lifelong.tasks import Task

HUB = "taesiri/arxiv_qa"
COLLECTION = Collection("arxivqa", "ArXivQA, https://github.com/taesiri/ArXivQA", "none stated", hub=(HUB,))


class Wording(NamedTuple):
    """A question in the words of the data, and in words of ours that are never trained on."""

    asked: str
    probe: str


QUESTIONS = {
    "problem": Wording("What problem or question is the paper addressing?", "Which problem does it try to solve?"),
    "hypothesis": Wording(
        "What is the central research question or hypothesis that this paper addresses?",
        "Which hypothesis or research question is at its centre?",
    ),
    "contribution": Wording("What is the main contribution of this paper?", "What does it mainly contribute?"),
    "method": Wording("Summarize the main method used in the paper in one paragraph.", "How does its method work?"),
    "comparison": Wording(
        "How does this paper compare to other research in the same field?", "How does it differ from related work?"
    ),
    "future work": Wording(
        "What future research directions do the authors suggest?", "What do its authors want to see studied next?"
    ),
    "keywords": Wording(
        "What are the keywords or key terms associated with this paper?", "By which key terms can it be described?"
    ),
    "summary": Wording("Summarize the paper in one sentence.", "What is it about, in one sentence?"),
}


@dataclass(frozen=True)
class Selection:
    """What is taken of the data.

    Args:
        questions: names in ``QUESTIONS``; every question of the data for ``None``.
        papers: of each month at most so many.
        words: of each answer at most so many, from its beginning.
        test: of each month's questions at most so many are asked.
        seed: decides which papers and questions, and the order of a passage's parts.
    """

    questions: Sequence[str] | None
    papers: int | None
    words: int | None
    test: int | None
    seed: int

    def __post_init__(self) -> None:
        if self.questions is not None:
            check_names("question", self.questions, QUESTIONS)

    @property
    def probes(self) -> dict[str, list[str]]:
        """The probes of every question that is wanted by name, by the words of the data."""
        return {QUESTIONS[name].asked: [QUESTIONS[name].probe] for name in self.questions or ()}


def file_of(month: str) -> str:
    """The file of a month such as ``2023-01``.

    Raises:
        DataError: it is written in another way.
    """
    if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", month):
        raise DataError(f"months: expected a year and a month such as '2023-01', got {month!r}")
    return f"{_yymm(month)}.jsonl"


def tasks(months: Iterable[str], found: Path | None, selection: Selection, revision: Revision) -> Iterator[Task]:
    """A recall task for each month: all of its rows are taught, and asked again are all of them or a sample.

    Args:
        months: in the order wanted.
        found: the folder that holds ``<yymm>.jsonl``; ``None`` for the hub.
        selection: what is taken.
        revision: of the hub's dataset.

    Raises:
        DataError: naming the row that has another form, or a month that has none of the questions.
    """
    months = list(months)
    papers = _from_hub(months, revision) if found is None else {month: _from_file(found, month) for month in months}
    origin = {"source": COLLECTION.source, "licence": COLLECTION.licence}
    if found is None:
        origin = {"source": hub_address(HUB, None, revision), "licence": CARD}
    for month in months:
        known = list(papers[month].items())
        chosen = (known[number] for number in draw(len(known), selection.papers, selection.seed))
        rows = [row for number, about in chosen for row in _questions(number, about, selection)]
        if not rows:
            raise DataError(f"arxivqa: there is none of the questions about a paper of {month}")
        asked = [rows[number] for number in draw(len(rows), selection.test, selection.seed)]
        yield make_task(f"arxiv {month}", {"train": rows, "test": asked}, metric="token_f1", **origin)


def _from_file(found: Path, month: str) -> dict[str, list[Located]]:
    """The rows of a month by paper, in the order of the file."""
    from lifelong.examples import read_jsonl

    papers: dict[str, list[Located]] = {}
    for where, row in read_jsonl(found / file_of(month)):
        number = cell(where, row, "paper")
        if not number.startswith(f"{_yymm(month)}."):
            raise DataError(f"{where}, field 'paper': {number!r} is no paper of {month}")
        papers.setdefault(number, []).append((where, {**row, "title": cell(where, row, "title")}))
    return papers


def _from_hub(months: Sequence[str], revision: Revision) -> dict[str, dict[str, list[Located]]]:
    """The rows of several months by paper; the hub knows no titles, so that a paper goes by its number."""
    from lifelong.examples import read_dataset

    papers: dict[str, dict[str, list[Located]]] = {month: {} for month in months}
    wanted = {_yymm(month): month for month in months}
    for where, row in read_dataset(COLLECTION.load(HUB, None, "train", revision), f"{HUB}, row"):
        yymm, point, number = cell(where, row, "paper_id").removeprefix("arXiv:").partition(".")
        if point and yymm in wanted:
            # numbers have lost their last zeros there; since 2015 they have five digits, before they had four
            name = f"{yymm}.{number.ljust(5 if yymm >= '1501' else 4, '0')}"
            papers[wanted[yymm]].setdefault(name, []).append((where, {**row, "title": f"arXiv:{name}"}))
    return papers


def _yymm(month: str) -> str:
    return month[2:4] + month[5:7]


def _questions(paper: str, about: Sequence[Located], selection: Selection) -> Iterator[Located]:
    """The questions about one paper; its passage is the title and the answers to all of them, a line each."""
    probes, title = selection.probes, " ".join(about[0][1]["title"].split())
    places: dict[str, str] = {}
    answers: dict[str, dict[str, None]] = {}  # dicts keep their order
    for where, row in about:
        question = cell(where, row, "question").strip()
        if selection.questions is None or question in probes:
            places.setdefault(question, where)
            answers.setdefault(question, {})[_beginning(cell(where, row, "answer"), selection.words)] = None
    parts = list(dict.fromkeys(answer for some in answers.values() for answer in some))
    random.Random(f"{selection.seed} {paper}").shuffle(parts)  # in the data they stand in the same order for all
    passage = "\n".join([title, *parts])
    for number, (question, some) in enumerate(answers.items(), start=1):
        row: dict[str, Any] = {"id": f"{paper}/{number}", "answers": list(some), "passages": [passage]}
        row["question"] = _about(title, question)
        row["probes"] = [_about(title, probe) for probe in probes.get(question, ())]
        yield places[question], row


def _about(title: str, question: str) -> str:
    return f'About the paper "{title}": {question}'


def _beginning(answer: str, words: int | None) -> str:
    """An answer in one line, without a first line that only announces it ("Here is a summary of the paper:")."""
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        del lines[0]
    return " ".join(" ".join(lines).split()[:words])

"""A folder of documents becomes a stream folder."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lifelong.cache import cache_folder
from lifelong.documents.generator import Excerpt, Generator, Pair
from lifelong.documents.grouping import By, group
from lifelong.documents.reading import read_folder
from lifelong.documents.rules import RuleGenerator
from lifelong.documents.screen import Screen, Written
from lifelong.errors import DataError
from lifelong.progress import Reporter
from lifelong.retrieval import Passage, Splitter, make_encoder
from lifelong.store import Store, key_of
from lifelong.task_stream import STREAM_FILE, TaskStream
from lifelong.tasks import Task

REPORT = "report.json"
SAMPLES = 3  # of what was kept, and of what was dropped for each reason


@dataclass(frozen=True)
class BuildReport:
    """What became of a folder of documents; kept as ``report.json`` in the stream's folder.

    Args:
        documents: that were read.
        skipped: documents that could not be read, with the reason.
        others: files of other kinds, by suffix.
        passages: that the documents were cut into.
        reused: passages about which pairs were there from before.
        unreadable: passages about which the generator wrote nothing that can be read.
        written: pairs.
        kept: pairs.
        dropped: pairs by reason, see `lifelong.documents.screen.REASONS`.
        tasks: pairs by task; a task without any is not in the stream.
        generator: who wrote.
        samples: some pairs that were ``kept``, and some that were dropped, by reason.
    """

    documents: int
    skipped: dict[str, str]
    others: dict[str, int]
    passages: int
    reused: int
    unreadable: int
    written: int
    kept: int
    dropped: dict[str, int]
    tasks: dict[str, int]
    generator: str
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)


def build_stream(
    folder: str | Path,
    out: str | Path,
    by: By = "folder",
    generator: Generator | None = None,
    screen: Screen | None = None,
    tokens: int = 128,
    overlap: int = 0,
    encoder: str = "lexical",
    topics: int = 5,
    skip_unreadable: bool = False,
    seed: int = 0,
    quiet: bool = True,
) -> BuildReport:
    """Make question-answer tasks of documents, and save them as a stream.

    Every pair is learned and asked: these are recall tasks, see `Task`. Nothing that is unchanged is done twice: texts
    of documents, pairs about passages and vectors are kept in lifelong's cache by content.

    Args:
        folder: of text, Markdown, HTML and PDF files.
        out: the stream's folder, for `TaskStream.load` or a configuration's ``stream``; one that is there is replaced.
        by: what makes a task: ``folder``, ``month``, ``year`` or ``topic``, see `lifelong.documents.grouping.group`.
        generator: who writes; ``None`` for a `RuleGenerator`.
        screen: what is kept; ``None`` for a `Screen`.
        tokens: longest passage, in the encoder's tokens.
        overlap: of neighbouring passages, likewise.
        encoder: ``"lexical"``, or a model of sentence-transformers, by name or folder.
        topics: how many tasks there are to be by topic.
        skip_unreadable: leave out documents that cannot be read, instead of stopping.
        seed: of topics.
        quiet: say nothing of what is going on, and of what it will cost.

    Raises:
        DataError: a document cannot be read, nothing was written that can be kept, or ``out`` is something else.
        EndpointError: a server failed; what it wrote before is kept, and used the next time.
    """
    folder, out = Path(folder), Path(out)
    if folder.resolve().is_relative_to(out.resolve()):
        raise DataError(
            f"{out} holds the documents: choose another folder for the stream, which replaces what is there"
        )
    made_here = all((out / name).is_file() for name in (REPORT, STREAM_FILE))
    if out.exists() and not made_here and any(out.iterdir()):
        raise DataError(f"{out} is not empty, and holds no stream from documents: choose another folder")
    generator, screen = generator or RuleGenerator(), screen or Screen()
    documents, skipped, others = read_folder(folder, skip_unreadable)
    model = make_encoder(encoder)
    splitter = Splitter(tokens, overlap, model.pieces)
    passages = [passage for document in documents for passage in splitter.split(document.text, document.name)]
    titles = {document.name: document.title for document in documents}
    excerpts = [Excerpt(passage.text, titles[passage.document]) for passage in passages]
    with Reporter(quiet) as reporter:
        pairs, reused = _pairs(generator, excerpts, reporter)
    written = [Written(pair, passage) for passage, some in zip(passages, pairs, strict=True) for pair in some or ()]
    kept, dropped = screen.apply(written, passages, model)
    root = folder.resolve().name
    tasks = _tasks(group(documents, passages, by, root, model, topics, seed), passages, kept, root)
    report = BuildReport(
        documents=len(documents),
        skipped=skipped,
        others=dict(others),
        passages=len(passages),
        reused=reused,
        unreadable=sum(some is None for some in pairs),
        written=len(written),
        kept=len(kept),
        dropped={reason: len(gone) for reason, gone in dropped.items()},
        tasks={task.name: len(task.train) for task in tasks},
        generator=generator.name,
        samples={reason: _samples(some) for reason, some in {"kept": kept, **dropped}.items()},
    )
    if not tasks:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items())
        raise DataError(
            f"{folder}: none of {len(written)} pairs about {len(passages)} passages can be kept"
            + (f" ({reasons})" if reasons else "")
        )
    _save(TaskStream(root, tasks), report, out)
    return report


def _pairs(
    generator: Generator, excerpts: Sequence[Excerpt], reporter: Reporter
) -> tuple[list[list[Pair] | None], int]:
    """Pairs about each excerpt, and about how many they were there already."""
    store = Store(cache_folder("documents") / "pairs.sqlite")
    keys = [key_of(generator.fingerprint, asdict(excerpt)) for excerpt in excerpts]
    known: dict[bytes, list[Pair] | None] = {key: _unpacked(value) for key, value in store.get(keys).items()}
    reused = sum(key in known for key in keys)
    new = {key: excerpt for key, excerpt in zip(keys, excerpts, strict=True) if key not in known}
    price = generator.price(list(new.values()))
    reporter.line(f"{len(excerpts)} passages, {reused} of them written about before" + (f"; {price}" if price else ""))
    reporter.begin("writing questions", len(new))
    for key, some in zip(new, generator.write(list(new.values())), strict=True):
        known[key] = some
        if some is not None:
            store.put({key: json.dumps([asdict(pair) for pair in some]).encode()})
        reporter.advance()
    return [known[key] for key in keys], reused


def _unpacked(value: bytes) -> list[Pair]:
    return [Pair(given["question"], given["answer"], tuple(given["probes"])) for given in json.loads(value)]


def _tasks(groups: dict[str, list[int]], passages: list[Passage], kept: list[Written], root: str) -> list[Task]:
    tasks = []
    about = {}
    for one in kept:
        about.setdefault(one.passage.id, []).append(one)
    for name, members in groups.items():
        rows = [
            {
                "id": f"{one.passage.id}.{number}",
                "question": one.pair.question,
                "answers": [one.pair.answer],
                "passages": [one.passage.text],
                "probes": list(one.pair.probes),
            }
            for member in members
            for number, one in enumerate(about.get(passages[member].id, ()))
        ]
        if rows:
            texts = list(dict.fromkeys(passages[member].text for member in members))
            tasks.append(Task(name, rows, rows, passages=texts, source=f"documents in {root}"))
    return tasks


def _samples(some: Sequence[Written]) -> list[dict[str, str]]:
    """A few, from all over."""
    chosen = some[:: max(1, len(some) // SAMPLES)][:SAMPLES]
    return [
        {"question": one.pair.question, "answer": one.pair.answer, "document": one.passage.document} for one in chosen
    ]


def _save(stream: TaskStream, report: BuildReport, out: Path) -> None:
    """Write the stream beside its place, and move it there."""
    fresh = out.with_name(f"{out.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        stream.save(fresh)
        text = json.dumps(asdict(report), indent=2, ensure_ascii=False)
        (fresh / REPORT).write_text(text + "\n", encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        os.replace(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)

"""HotpotQA with its ten paragraphs: questions whose answer takes two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.errors import DataError
from streams.sources import CARD, Collection, Revision, cell, draw, hub_address, make_task

if TYPE_CHECKING:
    from lifelong.examples import Located
    from lifelong.tasks import Task

FILE = "distractor.jsonl"
HUB = ("hotpotqa/hotpot_qa", "distractor", "validation")
COLLECTION = Collection(
    "hotpot100",
    "100 questions of HotpotQA (https://hotpotqa.github.io), https://github.com/noahshinn/reflexion",
    "MIT (the repository); CC BY-SA 4.0 (HotpotQA)",
    hub=HUB[:1],
)


def held_out_task(found: Path | None, size: int | None, seed: int, revision: Revision) -> Task:
    """The questions as a task that is measured only, with the paragraphs of all of them as its passages.

    Args:
        found: the folder that holds ``distractor.jsonl``, with the fields of the hub; ``None`` for the hub's
            ``hotpotqa/hotpot_qa``, of whose ``validation`` split questions are drawn (the test set has no answers).
        size: at most so many questions, drawn with ``seed``.
        seed: of the sample.
        revision: of the hub's dataset.

    Raises:
        DataError: naming the row that has another form.
    """
    rows, passages = [], {}
    for where, row in _read(found, size, seed, revision):
        paragraphs = _paragraphs(where, row)
        passages.update(dict.fromkeys(paragraphs.values()))
        example = {field: cell(where, row, field) for field in ("id", "question", "answer")}
        rows.append((where, {**example, "passages": _gold(where, row, paragraphs)}))
    path, config, _ = HUB
    origin = {"source": COLLECTION.source, "licence": COLLECTION.licence}
    if found is None:
        origin = {"source": hub_address(path, config, revision), "licence": CARD}
    settings = {"kind": "downstream", "metric": "token_f1", "measure_only": True, **origin}
    return make_task("hotpotqa", {"test": rows}, passages=list(passages), **settings)


def _read(found: Path | None, size: int | None, seed: int, revision: Revision) -> Iterator[Located]:
    from lifelong.examples import read_dataset, read_jsonl

    if found is not None:
        rows = list(read_jsonl(found / FILE))
        return (rows[number] for number in draw(len(rows), size, seed))
    path, config, split = HUB
    dataset = COLLECTION.load(path, config, split, revision)
    return read_dataset(dataset.select(draw(len(dataset), size, seed)), f"{path} ({config}), {split} row")


def _paragraphs(where: str, row: Mapping[str, Any]) -> dict[str, str]:
    """The paragraphs by title."""
    try:
        pairs = list(zip(row["context"]["title"], row["context"]["sentences"], strict=True))
        return {title: f"{title}: {''.join(sentences).strip()}" for title, sentences in pairs}
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where}, field 'context': expected lists of title and sentences") from None


def _gold(where: str, row: Mapping[str, Any], paragraphs: Mapping[str, str]) -> list[str]:
    """Those that the answer takes, in the order of the context."""
    try:
        titles = set(row["supporting_facts"]["title"])
    except (KeyError, TypeError):
        raise DataError(f"{where}, field 'supporting_facts': expected a list of titles") from None
    if not titles or titles - set(paragraphs):
        raise DataError(f"{where}, field 'supporting_facts': names {sorted(titles)}, and not all are in the context")
    return [text for title, text in paragraphs.items() if title in titles]

"""Facts about recent concepts, in ten stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.errors import DataError, suggestion
from streams.sources import Collection, cell, check_files, make_task, read_json

if TYPE_CHECKING:
    from lifelong.examples import Located
    from lifelong.task_stream import TaskStream

COLUMNS = ("concept", "relation", "object", "train_question", "train_answer", "test_question", "test_answer")
_DATA = Collection(
    "concept1k",
    "https://github.com/zzz47zzz/codebase-for-incremental-learning-with-llm",
    "none stated",
)


def concept1k(
    stages: int = 10,
    concepts: int | None = None,
    folder: str | Path | None = None,
    revision: str | None = None,
) -> TaskStream:
    """Facts about 1,023 recent concepts in ten stages, each asked as it was taught and in other words.

    Concept-1K (Zheng et al. 2024, https://arxiv.org/abs/2402.08526). A task is a stage of the published split, a row
    is one of 16,654 triples. Training teaches ``train_question`` with its answer, the test asks the same question
    (recall), and the row's probe is ``test_question``, so that the scores of test and probe show side by side what was
    memorised and what was understood. Tasks are of kind ``knowledge``, measured by exact match.

    The two answers of a triple are the same in all of the data. But 41 training questions and 24 test questions stand
    in two or three triples, and 13 test questions are the training question of another triple, always about the same
    concept and nearly always with another answer. Every triple stays a row of its own, so that its own answer is
    taught; the other answers that the data give to either of its questions are right as well. That makes 148 rows with
    two right answers, and 3 with three.

    The rows come from a folder (``folder``, or ``concept1k/`` in the folder that the environment variable
    ``LIFELONG_DATA`` names): ``triples.jsonl`` with the fields ``concept``, ``relation``, ``object``,
    ``train_question``, ``train_answer``, ``test_question`` and ``test_answer``, and ``split10.json`` with
    ``CONCEPT_LIST`` and the stage of each concept, from 0, in ``CONCEPT_2_TASK``. Published at
    https://github.com/zzz47zzz/codebase-for-incremental-learning-with-llm, without a licence. The hub is not known to
    have them.

    Args:
        stages: so many stages, from the first.
        concepts: so many concepts in all, spread evenly over the stages, and of each stage those that the split names
            first; all, when not given.
        folder: a data root that holds ``concept1k/``, or that folder itself.
        revision: must not be given, since nothing comes from the hub.

    Raises:
        DataError: there is no folder; missing files; more stages or concepts than there are, or fewer than one each; a
            triple of a concept that the split does not have.
    """
    from lifelong.examples import read_jsonl
    from lifelong.task_stream import TaskStream

    found = _DATA.find(folder, revision)
    check_files((_DATA, found, ["triples.jsonl", "split10.json"]))
    split = _split(found / "split10.json")
    taken = _spread(split, stages, concepts)
    rows = list(_rows(read_jsonl(found / "triples.jsonl"), {concept for part in split for concept in part}))
    settings = {"kind": "knowledge", "source": _DATA.source, "licence": _DATA.licence}
    tasks = []
    for number, part in enumerate(map(set, taken), start=1):
        asked = [(where, row) for where, row in rows if row["concept"] in part]
        tasks.append(make_task(f"stage {number}", {"train": asked, "test": asked}, **settings))
    return TaskStream("concept1k", tasks)


def _split(path: Path) -> list[list[str]]:
    """The concepts of each stage, in the order of the file."""
    split = read_json(path)
    try:
        pairs = list(zip(split["CONCEPT_LIST"], split["CONCEPT_2_TASK"], strict=True))
        parts: list[list[str]] = [[] for _ in range(max(stage for _, stage in pairs) + 1)]
        for concept, stage in pairs:
            parts[stage].append(concept)
    except (ValueError, KeyError, TypeError) as error:
        expected = "CONCEPT_LIST and, of the same length, CONCEPT_2_TASK"
        raise DataError(f"{path}: expected {expected}: {type(error).__name__}: {error}") from None
    return parts


def _spread(split: list[list[str]], stages: int, concepts: int | None) -> list[list[str]]:
    """The first concepts of the first stages, in turn one from each stage that has any left."""
    if not 1 <= stages <= len(split):
        raise DataError(f"concept1k: stages must be from 1 to {len(split)}, got {stages}")
    parts = split[:stages]
    known = sum(map(len, parts))
    if concepts is None:
        return parts
    if not stages <= concepts <= known:
        raise DataError(f"concept1k: {stages} stages have from {stages} to {known} concepts, got {concepts}")
    turns = sorted((turn, stage) for stage, part in enumerate(parts) for turn in range(len(part)))
    shares = [0] * stages
    for _, stage in turns[:concepts]:
        shares[stage] += 1
    return [part[:share] for part, share in zip(parts, shares, strict=True)]


def _rows(triples: Iterable[Located], known: set[str]) -> Iterator[Located]:
    triples = [(where, {column: cell(where, row, column) for column in COLUMNS}) for where, row in triples]
    answers: dict[str, dict[str, None]] = {}  # of every question, in whichever role it stands; dicts keep their order
    for _, row in triples:
        for role in ("train", "test"):
            answers.setdefault(row[f"{role}_question"], {})[row[f"{role}_answer"]] = None
    for number, (where, row) in enumerate(triples, start=1):
        if row["concept"] not in known:
            raise DataError(
                f"{where}, field 'concept': {row['concept']!r} is in no stage{suggestion(row['concept'], known)}"
            )
        yield where, _example(row, number, answers)


def _example(row: Mapping[str, str], number: int, answers: Mapping[str, Mapping[str, None]]) -> dict[str, Any]:
    own = dict.fromkeys((row["train_answer"], row["test_answer"]))  # the first is the one that is taught
    others = {**answers[row["train_question"]], **answers[row["test_question"]]}
    return {
        "concept": row["concept"],
        "id": f"{row['concept']}/{number}",
        "question": row["train_question"],
        "answers": list({**own, **others}),
        "probes": [row["test_question"]],
    }

"""Fifteen text-classification tasks in six published orders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.errors import DataError, suggestion
from streams.sources import (
    CARD,
    Collection,
    Revision,
    cell,
    check_files,
    check_names,
    check_revision,
    check_sizes,
    hub_address,
    make_task,
    numbered,
    read_json,
)
from streams.standard_cl_hub import HUB_TASKS, hub_rows

if TYPE_CHECKING:
    from lifelong.examples import Located
    from lifelong.task_stream import TaskStream
    from lifelong.tasks import Task

ORDERS: dict[str, tuple[str, ...]] = {
    "O1": ("dbpedia", "amazon", "yahoo", "agnews"),
    "O2": ("dbpedia", "amazon", "agnews", "yahoo"),
    "O3": ("yahoo", "amazon", "agnews", "dbpedia"),
    "O4": (
        "mnli", "cb", "wic", "copa", "qqp", "boolq", "rte", "imdb", "yelp", "amazon", "sst2", "dbpedia", "agnews",
        "multirc", "yahoo",
    ),
    "O5": (
        "multirc", "boolq", "wic", "mnli", "cb", "copa", "qqp", "rte", "imdb", "sst2", "dbpedia", "agnews", "yelp",
        "amazon", "yahoo",
    ),
    "O6": (
        "yelp", "amazon", "mnli", "cb", "copa", "qqp", "rte", "imdb", "sst2", "dbpedia", "agnews", "yahoo", "multirc",
        "boolq", "wic",
    ),
}  # fmt: skip
TASKS = tuple(sorted(ORDERS["O4"]))
HUB_SIZES = {"train": 1000, "test": 500}

_ENTAILMENT = "Does sentence 2 follow from sentence 1, contradict it, or neither?"
_ASKED = {
    "agnews": "What is this news item about?",
    "amazon": "What does the writer of this review think of the product?",
    "boolq": "Going by the passage, is the answer to the question yes (True) or no (False)?",
    "cb": _ENTAILMENT,
    "copa": "Which of the two, A or B, is the more likely cause or effect that is asked for?",
    "dbpedia": "What kind of thing does this entry of an encyclopedia describe?",
    "imdb": "Does the writer of this review find the film good or bad?",
    "mnli": _ENTAILMENT,
    "multirc": "Going by the paragraph, is the candidate answer right (True) or wrong (False)?",
    "qqp": "Do both sentences ask the same (True) or not (False)?",
    "rte": "Does sentence 2 follow from sentence 1 (entailment) or not (contradiction)?",
    "sst2": "Does this text say something good or something bad?",
    "wic": "Does the word mean the same in both sentences (True) or not (False)?",
    "yahoo": "Which topic do this question and its answer belong to?",
    "yelp": "What does the writer of this review think of the place?",
}

_DATA = Collection(
    "standard_cl",
    "CL_Benchmark of O-LoRA, https://github.com/cmnfriend/O-LoRA",
    "MIT (repository)",
    hub=tuple(dict.fromkeys(home.path for home in HUB_TASKS.values())),
)


def standard_cl(
    order: str | None = None,
    tasks: Sequence[str] | None = None,
    train: int | None = None,
    test: int | None = None,
    instructions: bool = True,
    folder: str | Path | None = None,
    revision: str | Mapping[str, str] | None = None,
) -> TaskStream:
    """Fifteen text-classification tasks in six published orders.

    ==========  =============================================================================================
    order       tasks
    ==========  =============================================================================================
    ``O1``      dbpedia, amazon, yahoo, agnews
    ``O2``      dbpedia, amazon, agnews, yahoo
    ``O3``      yahoo, amazon, agnews, dbpedia
    ``O4``      mnli, cb, wic, copa, qqp, boolq, rte, imdb, yelp, amazon, sst2, dbpedia, agnews, multirc, yahoo
    ``O5``      multirc, boolq, wic, mnli, cb, copa, qqp, rte, imdb, sst2, dbpedia, agnews, yelp, amazon, yahoo
    ``O6``      yelp, amazon, mnli, cb, copa, qqp, rte, imdb, sst2, dbpedia, agnews, yahoo, multirc, boolq, wic
    ==========  =============================================================================================

    The orders are those of O-LoRA (Wang et al. 2023, https://arxiv.org/abs/2310.14152) and Progressive Prompts
    (Razdaibiedina et al. 2023, https://arxiv.org/abs/2301.12314). A question is a text, without the white space around
    it; its choices are the labels in readable form, in the order of ``labels.json``. Tasks are of kind ``downstream``,
    measured by exact match.

    *Rows from a folder* (``folder``, or ``standard_cl/`` in the folder that the environment variable ``LIFELONG_DATA``
    names): ``<task>/train.jsonl`` and ``<task>/test.jsonl`` with the fields ``text`` and ``label``, and
    ``<task>/labels.json``, a list of the labels with or without their spaces. Where there is no ``yahoo/``, the orders
    go without that task. Made from O-LoRA's CL_Benchmark (https://github.com/cmnfriend/O-LoRA, MIT), which has at most
    1,000 training and 500 test rows per task.

    *Rows from the hub*, when there is no folder: the datasets of ``streams.standard_cl_hub``, each under its own
    licence. They are larger, and several are sorted by class, so that ``train`` and ``test`` rows are drawn with a
    fixed seed; 1,000 and 500, as in the benchmark, when not given. Pin ``revision`` to trust a number next year.

    Args:
        order: one of the six; ``O1`` when neither this nor ``tasks`` is given.
        tasks: names of tasks, in the order wanted, instead of an order.
        train, test: at most so many rows per task: the first ones of a file.
        instructions: begin each question with one line that says what is asked, and with which words to answer; without
            it the question is the text alone, as an encoder reads it.
        folder: a data root that holds ``standard_cl/``, or that folder itself.
        revision: of the hub's datasets: for all, or by the name of each.

    Raises:
        DataError: an unknown order or task; missing files, by task; a dataset of the hub that cannot be loaded.
    """
    from lifelong.task_stream import TaskStream

    check_sizes(train=train, test=test)
    check_revision(revision, _DATA)
    names = _names(order, tasks)
    found = _DATA.find(folder, revision)
    if found is None:
        sizes = {"train": train or HUB_SIZES["train"], "test": test or HUB_SIZES["test"]}
        return TaskStream("standard_cl", [_from_hub(name, sizes, instructions, revision) for name in names])
    if tasks is None and not (found / "yahoo").is_dir():
        names = [name for name in names if name != "yahoo"]
    files = ("train.jsonl", "test.jsonl", "labels.json")
    check_files((_DATA, found, [f"{name}/{file}" for name in names for file in files]))
    return TaskStream("standard_cl", [_from_folder(found / name, instructions) for name in names]).limit(train, test)


def _names(order: str | None, tasks: Sequence[str] | None) -> list[str]:
    if tasks is None:
        order = "O1" if order is None else order
        if order not in ORDERS:
            raise DataError(f"standard_cl: there is no order {order!r}{suggestion(str(order), ORDERS)}")
        return list(ORDERS[order])
    if order is not None:
        raise DataError("standard_cl: give either an order or tasks, which come in the order in which they are named")
    check_names("task", tasks, TASKS)
    return list(tasks)


def _from_folder(folder: Path, instructions: bool) -> Task:
    from lifelong.examples import read_jsonl

    rows = {split: list(read_jsonl(folder / f"{split}.jsonl")) for split in ("train", "test")}
    used = {cell(where, row, "label"): where for part in rows.values() for where, row in part}
    choices = _readable(folder / "labels.json", used)
    return _task(folder.name, rows, choices, instructions, _DATA.source, _DATA.licence)


def _from_hub(name: str, sizes: Mapping[str, int], instructions: bool, revision: Revision) -> Task:
    home = HUB_TASKS[name]
    rows = {split: hub_rows(_DATA, name, split, size, revision) for split, size in sizes.items()}
    source = hub_address(home.path, home.config, revision)
    choices = list(home.labels.values())
    return _task(name, rows, choices, instructions, source, CARD)


def _readable(path: Path, used: Mapping[str, str]) -> list[str]:
    """The labels of a file as the rows write them, in the order of the file.

    Args:
        path: a JSON list of labels, with or without their spaces.
        used: the labels of the rows, and where each stands.
    """
    labels = read_json(path)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{path}: expected a list of labels")
    readable = {_squeezed(label): label for label in labels}
    spelled: dict[str, str] = {}
    for label, where in used.items():
        if _squeezed(label) not in readable:
            raise DataError(f"{where}, field 'label': {label!r} is not in {path}{suggestion(label, labels)}")
        if spelled.setdefault(_squeezed(label), label) != label:
            raise DataError(f"{where}, field 'label': {label!r} is {spelled[_squeezed(label)]!r} in another row")
    return [spelled.get(squeezed, label) for squeezed, label in readable.items()]


def _squeezed(label: str) -> str:
    return "".join(label.split())


def _task(
    name: str,
    rows: Mapping[str, Iterable[Located]],
    choices: Sequence[str],
    instructions: bool,
    source: str,
    licence: str,
) -> Task:
    instruction = f"{_ASKED[name]} Answer with one of: {', '.join(choices)}.\n" if instructions else ""

    def questions(part: Iterable[Located]) -> Iterator[Located]:
        for where, row in part:
            text, label = cell(where, row, "text").strip(), cell(where, row, "label")
            if not text:
                raise DataError(f"{where}, field 'text': is empty")
            yield where, {"question": instruction + text, "answers": label}

    splits = {split: numbered(questions(part), split) for split, part in rows.items()}
    return make_task(name, splits, choices, kind="downstream", source=source, licence=licence)

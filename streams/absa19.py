"""Nineteen domains of aspect-based sentiment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.errors import DataError
from streams.sources import Collection, cell, check_files, check_sizes, make_task, numbered, read_json

if TYPE_CHECKING:
    from lifelong.examples import Located
    from lifelong.task_stream import TaskStream
    from lifelong.tasks import Task

CHOICES = ("positive", "negative", "neutral")
SPLITS = {"train": "train", "validation": "dev", "test": "test"}
_DATA = Collection("absa19", "EasyCL of ECNU-ICALK, https://github.com/ECNU-ICALK/EasyCL", "Apache-2.0")


def absa19(
    order: int = 1,
    train: int | None = None,
    test: int | None = None,
    folder: str | Path | None = None,
    revision: str | None = None,
) -> TaskStream:
    """Aspect-based sentiment in nineteen domains, in three published orders.

    What does a sentence say about one thing in it? A task is a domain: restaurants, laptops, or one of seventeen
    products. A question is the instruction of its source and, in a line of its own, the sentence with the term it is
    asked about; the choices are positive, negative and neutral, though only the domains ``laptop`` and ``rest`` have
    neutral rows. Tasks are of kind ``downstream``, measured by exact match.

    The rows come from a folder (``folder``, or ``absa19/`` in the folder that the environment variable
    ``LIFELONG_DATA`` names): ``<domain>/train.jsonl``, ``dev.jsonl`` (the validation rows) and ``test.jsonl`` with the
    fields ``instruction``, ``input`` and ``output``, and ``orders.json`` with a list of domains for each of ``order1``,
    ``order2`` and ``order3``. Published by EasyCL (https://github.com/ECNU-ICALK/EasyCL), Apache-2.0: 10,152 training,
    874 validation and 2,337 test rows. The hub is not known to have them.

    Args:
        order: 1, 2 or 3.
        train, test: at most so many rows per task: the first ones.
        folder: a data root that holds ``absa19/``, or that folder itself.
        revision: must not be given, since nothing comes from the hub.

    Raises:
        DataError: there is no folder; missing files, by domain; there is no such order.
    """
    from lifelong.task_stream import TaskStream

    check_sizes(train=train, test=test)
    found = _DATA.find(folder, revision)
    check_files((_DATA, found, ["orders.json"]))
    domains = _order(found / "orders.json", order)
    check_files((_DATA, found, [f"{domain}/{file}.jsonl" for domain in domains for file in SPLITS.values()]))
    return TaskStream("absa19", [_domain(found / domain) for domain in domains]).limit(train, test)


def _order(path: Path, order: int) -> list[str]:
    orders = read_json(path)
    if not isinstance(orders, dict):
        raise DataError(f"{path}: expected lists of domains by order, got {type(orders).__name__}")
    if f"order{order}" not in orders:
        numbers = ", ".join(name.removeprefix("order") for name in orders)
        raise DataError(f"absa19: there is no order {order!r}. There is: {numbers}")
    return orders[f"order{order}"]


def _domain(folder: Path) -> Task:
    splits = {split: numbered(_questions(folder / f"{file}.jsonl"), split) for split, file in SPLITS.items()}
    return make_task(folder.name, splits, CHOICES, kind="downstream", source=_DATA.source, licence=_DATA.licence)


def _questions(path: Path) -> Iterator[Located]:
    from lifelong.examples import read_jsonl

    for where, row in read_jsonl(path):
        instruction, text, label = (cell(where, row, column) for column in ("instruction", "input", "output"))
        yield where, {"question": f"{instruction}\n{text}", "answers": label}

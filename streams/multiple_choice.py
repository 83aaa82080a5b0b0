"""Science questions with a few options each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lifelong.errors import DataError
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
)

if TYPE_CHECKING:
    from lifelong.examples import Located
    from lifelong.task_stream import TaskStream


class HubTask(NamedTuple):
    """A dataset of the hub, and its column with the question."""

    path: str
    config: str
    question: str


HUB_TASKS = {
    "ARC-Easy": HubTask("allenai/ai2_arc", "ARC-Easy", "question"),
    "ARC-Challenge": HubTask("allenai/ai2_arc", "ARC-Challenge", "question"),
    "openbookqa": HubTask("allenai/openbookqa", "main", "question_stem"),
}
COLLECTION = Collection(
    "multiple_choice",
    "LLM-Adapters of AGI-Edgerunners, https://github.com/AGI-Edgerunners/LLM-Adapters",
    "ODC-By",
    hub=tuple(dict.fromkeys(home.path for home in HUB_TASKS.values())),
)

# a line that ends in the question, a line with the options, and a line that says how to answer
_INSTRUCTION = re.compile(r"[^:\n]*: (?P<question>.+)\n\n(?P<options>Answer1: .+)\n\n[^\n]*", re.DOTALL)
_OPTION = re.compile(r"(?:^|\s+)Answer(\d+): ")


def multiple_choice(
    tasks: Sequence[str] = ("ARC-Easy", "ARC-Challenge", "openbookqa"),
    show_options: bool = True,
    train: int | None = None,
    test: int | None = None,
    folder: str | Path | None = None,
    revision: str | Mapping[str, str] | None = None,
) -> TaskStream:
    """Science questions with three to five options each: ARC, easy and challenging, and OpenBookQA.

    =================  =====  =====  ===================================
    task               train  test   paper
    =================  =====  =====  ===================================
    ``ARC-Easy``       2,251  2,376  https://arxiv.org/abs/1803.05457
    ``ARC-Challenge``  1,119  1,172  https://arxiv.org/abs/1803.05457
    ``openbookqa``     4,957    500  https://arxiv.org/abs/1809.02789
    =================  =====  =====  ===================================

    The choices are the texts of the options and the answer is one of them, whatever its number was. Every row is used.
    An option that stands twice in a row (in three training rows of OpenBookQA) becomes one choice. Tasks are of kind
    ``downstream``.

    *Rows from a folder* (``folder``, or ``multiple_choice/`` in the folder that the environment variable
    ``LIFELONG_DATA`` names): ``<task>/train.jsonl`` and ``<task>/test.jsonl`` with the fields ``instruction`` (a line
    that ends in the question, a line with the options as ``Answer1: ... Answer2: ...``, and a line that says how to
    answer, with empty lines between them) and ``answer`` (``answer1`` and so on). Published by LLM-Adapters
    (https://github.com/AGI-Edgerunners/LLM-Adapters), ODC-By.

    *Rows from the hub*, when there is no folder: ``allenai/ai2_arc`` and ``allenai/openbookqa``, each under its own
    licence. Pin ``revision`` to trust a number next year.

    Args:
        tasks: names of the tasks wanted, in the order wanted.
        show_options: end each question with a line ``Options: ...; ...``. Choices are ranked, and a prompt does not
            show them otherwise, unless its template has ``options``.
        train, test: at most so many rows per task: the first ones.
        folder: a data root that holds ``multiple_choice/``, or that folder itself.
        revision: of the hub's datasets: for both, or by the name of each.

    Raises:
        DataError: an unknown task; missing files, by task; a row that has another form; a dataset of the hub that
            cannot be loaded.
    """
    from lifelong.task_stream import TaskStream

    check_sizes(train=train, test=test)
    check_names("task", tasks, HUB_TASKS)
    check_revision(revision, COLLECTION)
    found = COLLECTION.find(folder, revision)
    check_files((COLLECTION, found, [f"{name}/{split}.jsonl" for name in tasks for split in ("train", "test")]))
    built = []
    for name in tasks:
        splits = {split: questions(name, split, found, show_options, revision) for split in ("train", "test")}
        built.append(make_task(name, splits, kind="downstream", **origin(name, found, revision)))
    return TaskStream("multiple_choice", built).limit(train, test)


def questions(name: str, split: str, found: Path | None, show_options: bool, revision: Revision) -> Iterator[Located]:
    """The rows of one split of a task, from the folder that was found or from the hub."""
    from lifelong.examples import read_dataset, read_jsonl

    home = HUB_TASKS[name]
    if found is not None:
        read = ((where, _from_instruction(where, row)) for where, row in read_jsonl(found / name / f"{split}.jsonl"))
    else:
        dataset = COLLECTION.load(home.path, home.config, split, revision)
        located = read_dataset(dataset, f"{home.path} ({home.config}), {split} row")
        read = ((where, _from_columns(where, row, home.question)) for where, row in located)
    return numbered(((where, shown(row) if show_options else row) for where, row in read), split)


def origin(name: str, found: Path | None, revision: Revision) -> dict[str, str]:
    """Source and licence of a task."""
    if found is not None:
        return {"source": COLLECTION.source, "licence": COLLECTION.licence}
    return {"source": hub_address(HUB_TASKS[name].path, HUB_TASKS[name].config, revision), "licence": CARD}


def _from_instruction(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    parts = _INSTRUCTION.fullmatch(cell(where, row, "instruction"))
    if parts is None:
        raise DataError(f"{where}, field 'instruction': expected a question and its options, 'Answer1: ...'")
    _, *pieces = _OPTION.split(parts["options"])  # number, text, number, text, ...
    numbers, options = pieces[::2], pieces[1::2]
    if numbers != [str(number) for number in range(1, len(numbers) + 1)]:
        raise DataError(f"{where}, field 'instruction': the options are numbered {', '.join(numbers)}")
    answer = cell(where, row, "answer")
    if answer.removeprefix("answer") not in numbers:
        raise DataError(f"{where}, field 'answer': {answer!r} is none of answer1 to answer{len(numbers)}")
    return _row(parts["question"], options, options[numbers.index(answer.removeprefix("answer"))])


def _from_columns(where: str, row: Mapping[str, Any], column: str) -> dict[str, Any]:
    question, key = cell(where, row, column), cell(where, row, "answerKey")
    try:
        options = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where}, column 'choices': expected lists of text and label") from None
    if key not in options:
        raise DataError(f"{where}, column 'answerKey': {key!r} is none of {', '.join(options)}")
    return _row(question, list(options.values()), options[key])


def _row(question: str, options: Sequence[str], answer: str) -> dict[str, Any]:
    choices = list(dict.fromkeys(option.strip() for option in options))
    return {"question": question.strip(), "answers": answer.strip(), "choices": choices}


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its choices written into the question."""
    return {**row, "question": f"{row['question']}\nOptions: {'; '.join(row['choices'])}"}

"""Held-out questions: what becomes of a general ability while other things are learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streams import truthfulqa
from streams.multiple_choice import COLLECTION as SCIENCE
from streams.multiple_choice import HUB_TASKS
from streams.multiple_choice import origin as science_origin
from streams.multiple_choice import questions as science_questions
from streams.sources import check_files, check_names, check_revision, check_sizes, draw, make_task

if TYPE_CHECKING:
    from lifelong.examples import Located
    from lifelong.task_stream import TaskStream


def general_ability(
    tasks: Sequence[str] = ("openbookqa", "truthfulqa"),
    test: int | None = 200,
    show_options: bool = False,
    folder: str | Path | None = None,
    revision: str | Mapping[str, str] | None = None,
) -> TaskStream:
    """Held-out questions of OpenBookQA and TruthfulQA, to measure what learning does to a general ability.

    =================  ==============  =========================================================================
    task               test questions  what is ranked
    =================  ==============  =========================================================================
    ``openbookqa``     500             four options of a science question
    ``truthfulqa``     817             the best answer among falsehoods that people believe, two to thirteen in all
    ``ARC-Easy``       2,376           three to five options of a science question
    ``ARC-Challenge``  1,172           three to five options of a harder one
    =================  ==============  =========================================================================

    Every task is ``measure_only`` and of kind ``downstream``. TruthfulQA is asked in a form like MC1 of its paper (see
    ``streams.truthfulqa``), the others as in ``streams.multiple_choice``.

    The rows come from a folder (``folder``, or the one that the environment variable ``LIFELONG_DATA`` names) that
    holds ``multiple_choice/<task>/test.jsonl`` and ``truthfulqa/TruthfulQA.csv``, or, when there is none, from the hub:
    ``allenai/openbookqa``, ``allenai/ai2_arc`` and ``truthfulqa/truthful_qa``, each under its own licence. Pin
    ``revision`` to trust a number next year. The file of TruthfulQA is that of
    https://github.com/benedictflorance/truthfulqa_experiments, without a licence.

    Args:
        tasks: names of the tasks wanted, in the order wanted.
        test: at most so many questions per task, drawn with a fixed seed; all of them for ``None``.
        show_options: end each question with a line ``Options: ...; ...``. Without it, as is usual for these tasks, the
            model sees the question alone.
        folder: a data root, or the folder that holds the files of all tasks.
        revision: of the hub's datasets: for all, or by the name of each.

    Raises:
        DataError: an unknown task; missing files, by task; a row that has another form; a dataset of the hub that
            cannot be loaded.
    """
    from lifelong.task_stream import TaskStream

    check_sizes(test=test)
    check_names("task", tasks, [*HUB_TASKS, "truthfulqa"])
    check_revision(revision, SCIENCE, truthfulqa.COLLECTION)
    science = [name for name in tasks if name in HUB_TASKS]
    found = {
        SCIENCE: SCIENCE.find(folder, revision) if science else None,
        truthfulqa.COLLECTION: truthfulqa.COLLECTION.find(folder, revision) if "truthfulqa" in tasks else None,
    }
    check_files(
        (SCIENCE, found[SCIENCE], [f"{name}/test.jsonl" for name in science]),
        (truthfulqa.COLLECTION, found[truthfulqa.COLLECTION], [truthfulqa.FILE]),
    )
    built = []
    for name in tasks:
        if name in science:
            rows = science_questions(name, "test", found[SCIENCE], show_options, revision)
            origin = science_origin(name, found[SCIENCE], revision)
        else:
            rows = truthfulqa.questions(found[truthfulqa.COLLECTION], show_options, revision)
            origin = truthfulqa.origin(found[truthfulqa.COLLECTION], revision)
        built.append(make_task(name, {"test": _sample(rows, test)}, kind="downstream", measure_only=True, **origin))
    return TaskStream("general_ability", built)


def _sample(rows: Iterable[Located], size: int | None) -> list[Located]:
    rows = list(rows)
    return [rows[number] for number in draw(len(rows), size)]

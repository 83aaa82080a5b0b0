"""What the functions of Python's standard library are called, and which parameters they take."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lifelong.errors import DataError
from streams.python_docs import MODULES, rows
from streams.sources import check_names, check_sizes

if TYPE_CHECKING:
    from lifelong.task_stream import TaskStream


def python_reference(
    modules: Sequence[str] = (
        "math",
        "operator",
        "inspect",
        "shutil",
        "random",
        "statistics",
        "base64",
        "traceback",
        "logging",
        "email.utils",
    ),
    per_task: int = 40,
) -> TaskStream:
    """Functions of Python's standard library, from its documentation strings: a task per module.

    ================================================================  =====================
    question                                                          answer
    ================================================================  =====================
    Which function of Python's module shutil does this? Copy data...  copyfile
    What are the parameters of Python's function shutil.copyfile...   src, dst
    ================================================================  =====================

    A recall task: the test asks what training taught, and each question has two other wordings as probes and one
    passage that holds the answer. The first kind of question quotes the first sentence of a function's documentation;
    a name is right with and without its module. Answers have at most eight words, none is right for two questions of a
    task, and no question holds its answer. A module gives from a dozen to 40 questions, drawn evenly from all that it
    has. Tasks are of kind ``knowledge``, measured by exact match.

    Nothing is downloaded: the documentation is that of the Python that runs, so that **each version of Python makes
    another stream**. The version (``3.11``) stands in the id of every row, so that the fingerprints differ too, also
    where no word has changed. For one Python the stream is always the same. The documentation is under Python's
    licence, PSF-2.0.

    Args:
        modules: some of ``streams.python_docs.MODULES``, which import without effects, in the order wanted.
        per_task: at most so many questions per module.

    Raises:
        DataError: a module is not one of these, or Python runs without documentation strings (``-OO``).
    """
    check_names("module", modules, MODULES)
    check_sizes(per_task=per_task)
    if sys.flags.optimize > 1:
        raise DataError("python_reference: Python runs with -OO, which drops the documentation strings; run it without")
    from lifelong.task_stream import TaskStream
    from lifelong.tasks import Task

    settings = {
        "source": f"documentation strings of Python {platform.python_version()}; each version makes another stream",
        "licence": "PSF-2.0",
    }
    version = ".".join(platform.python_version_tuple()[:2])
    tasks = []
    for module in modules:
        every = rows(module, version)
        size = min(per_task, len(every))
        spread = [every[number * len(every) // size] for number in range(size)]
        tasks.append(Task(module, train=spread, test=spread, **settings))
    return TaskStream("python_reference", tasks)

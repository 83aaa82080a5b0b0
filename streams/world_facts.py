"""Five tasks of real facts to remember: elements, capitals, HTTP status codes, moons and units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from streams.facts import capitals, elements, moons, status_codes, units

if TYPE_CHECKING:
    from lifelong.task_stream import TaskStream

_ROWS = {
    "elements": elements.rows,
    "capitals": capitals.rows,
    "status_codes": status_codes.rows,
    "moons": moons.rows,
    "units": units.rows,
}


def world_facts(tasks: Sequence[str] | None = None) -> TaskStream:
    """Five recall tasks of 44 real facts each, asked in the words in which they were taught.

    ================  ========================================  ============
    task              question                                  answer
    ================  ========================================  ============
    ``elements``      the chemical symbol of gold?              Au
    ``capitals``      the capital of France?                    Paris
    ``status_codes``  the reason phrase of HTTP status 404?     Not Found
    ``moons``         the numbered designation of Titan?        Saturn VI
    ``units``         the SI unit of force?                     newton
    ================  ========================================  ============

    The facts were compiled by hand from public tables, each named in its module of ``streams.facts``. Every row has one
    passage that states the fact, and two other wordings of its question as probes. Answers are in ASCII, of one to
    three words. In all tasks but ``units`` every answer is right for one question only; there the commonest is right
    for three, so that a constant answer scores 3 / 44, or 6.8 %.

    Args:
        tasks: names of the tasks wanted, in the order wanted; all five, in the order above, when not given.

    Raises:
        DataError: a name is not one of the five.
    """
    # here, since they load datasets: listing the catalogue stays quick
    from lifelong.task_stream import TaskStream
    from lifelong.tasks import Task

    origin = {"source": "public tables, each named in its module of streams.facts", "licence": "Apache-2.0"}
    stream = TaskStream(
        "world_facts", [Task(name, train=rows(), test=rows(), **origin) for name, rows in _ROWS.items()]
    )
    return stream if tasks is None else stream.order(tasks)

"""World facts to remember, then a growing amount of a skill: LoRAMoE's own question, on a small model.

The facts are one task of kind "knowledge"; the skill, three small operations on words, one of kind "downstream". See
`loramoe_claim.yaml`, which runs it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from streams import world_facts

if TYPE_CHECKING:
    from lifelong.task_stream import TaskStream

WORDS = (
    "apple",
    "river",
    "stone",
    "cloud",
    "table",
    "green",
    "seven",
    "music",
    "horse",
    "paper",
    "light",
    "house",
    "ocean",
    "tiger",
    "bread",
    "chair",
    "night",
    "plant",
    "train",
    "glass",
    "smile",
    "north",
    "forest",
    "silver",
    "winter",
    "market",
    "garden",
    "bridge",
    "pencil",
    "window",
    "yellow",
    "orange",
    "kitchen",
    "morning",
    "picture",
)
TEST_ROWS = 100


def knowledge_and_downstream(rows: int = 200) -> TaskStream:
    """Two tasks: ``facts``, the 220 facts of ``world_facts``, and ``words``.

    Args:
        rows: training rows of ``words``; its 100 test rows are others.
    """
    from lifelong import Task, TaskStream

    facts = world_facts().joint()[0]
    questions = _questions()
    test, train = questions[:TEST_ROWS], questions[TEST_ROWS : TEST_ROWS + rows]
    return TaskStream(
        "knowledge_and_downstream",
        [
            Task("facts", train=facts.train, test=facts.test, kind="knowledge"),
            Task("words", train=train, test=test, kind="downstream"),
        ],
    )


def _questions() -> list[dict[str, str]]:
    draw = random.Random(0)
    pairs = [(first, second) for first in WORDS for second in WORDS if first != second]
    found = []
    for first, second in pairs:
        words = f"of the words {first} and {second}?"
        found.append({"question": f"The first {words}", "answer": first})
        found.append({"question": f"The second {words}", "answer": second})
        if len(first) != len(second):
            found.append({"question": f"The longer {words}", "answer": max(first, second, key=len)})
    draw.shuffle(found)
    return found

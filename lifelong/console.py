"""A terminal that data cannot command."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich import console
from rich.segment import Segment

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # all but tabs and ends of lines


def printable(text: str) -> str:
    """A text without the characters that move a cursor, colour, rename or turn around what a terminal shows."""
    return _CONTROL.sub("", text)


class Console(console.Console):
    """Rich's console, which writes its own colours and links, and none that stand in what it is given to show."""

    def render(self, *arguments: Any, **settings: Any) -> Iterable[Segment]:
        for text, style, control in super().render(*arguments, **settings):
            yield Segment(text if control else printable(text), style, control)

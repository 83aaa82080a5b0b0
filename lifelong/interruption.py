"""Ctrl+C and SIGTERM: the step is finished and saved before the run ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lifelong.distributed import any_of
from lifelong.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSign:
    """Whether the process was asked to stop.

    Attributes:
        asked: the signal; ``None`` as long as there was none.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None

    def agree(self) -> bool:
        """Whether any process of the run was asked; all of them call this together, and hold it for their own."""
        if any_of(self.asked is not None) and self.asked is None:
            self.asked = signal.SIGTERM
        return self.asked is not None

    def check(self, what: str) -> None:
        """End the run here if it was asked to.

        Args:
            what: has been saved, for the message.

        Raises:
            Interrupted: it was asked to.
        """
        if self.asked is not None:
            raise Interrupted(f"{self.asked.name}: {what}", self.asked)


@contextmanager
def stop_sign() -> Iterator[StopSign]:
    """Let the first SIGINT or SIGTERM ask to stop inside, and a second one end the process as ever.

    Signals reach the main thread alone; in another thread nothing is changed.
    """
    sign = StopSign()
    if threading.current_thread() is not threading.main_thread():
        yield sign
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        sign.asked = signal.Signals(number)
        for each, handler in before.items():
            signal.signal(each, signal.SIG_DFL if handler is None else handler)

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield sign
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

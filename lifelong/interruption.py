"""Ctrl+C and SIGTERM: the step is finished and saved before the run ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lifelong.distributed import any_of, is_first
from lifelong.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSign:
    """Whether the process was asked to stop.

    Attributes:
        asked: the signal; ``None`` as long as there was none.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Have signals ask; once more where Lightning listens itself, whose answer to SIGTERM lets processes wait for
        each other for ever. Signals reach the main thread alone: in another one nothing is changed."""
        if threading.current_thread() is threading.main_thread() and self.asked is None:
            if not self._before:
                self._before = {number: signal.getsignal(number) for number in SIGNALS}
            for number in SIGNALS:
                signal.signal(number, self._ask)

    def forget(self) -> None:
        """Let signals do what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(number)
        self.forget()
        if is_first():  # by the system's own call, since a signal comes at any time, also in the middle of a print
            os.write(2, f"\n{self.asked.name}: stopping as soon as the step is saved; once more stops now\n".encode())

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
    """Let the first SIGINT or SIGTERM ask to stop inside, and a second one end the process as ever."""
    sign = StopSign()
    sign.listen()
    try:
        yield sign
    finally:
        sign.forget()

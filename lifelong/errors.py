"""The errors that lifelong raises on purpose: each says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class LifelongError(Exception):
    """Base of all of them; the command line prints these as one message, without a traceback."""


class DataError(LifelongError, ValueError):
    """A row, a task or a stream that cannot be used; names file or task, line or row, and field."""


class ConfigError(LifelongError, ValueError):
    """A setting that cannot be used; names the key."""


class ModelError(LifelongError, ValueError):
    """A model, tokenizer or adapter that cannot be loaded or does not fit."""


class RunError(LifelongError, RuntimeError):
    """A run folder that cannot be used: missing, damaged, or made with another configuration."""


class DiskFullError(RunError):
    """There is no room for what was to be written; what was finished before is whole."""


class DivergedError(LifelongError, ArithmeticError):
    """The training loss became NaN or infinite; stages that were finished before are kept."""


class Interrupted(KeyboardInterrupt):
    """A run ended because it was asked to, by Ctrl+C or SIGTERM; the message says what has been saved.

    Args:
        message: as it is shown.
        signal: that asked.
    """

    def __init__(self, message: str, signal: signal.Signals) -> None:
        super().__init__(message)
        self.signal = signal


class ProcessError(LifelongError, RuntimeError):
    """Another process of the same run failed, and with it the run; says which, and why."""


def suggestion(name: str, options: Iterable[str]) -> str:
    """``". Did you mean 'x'?"`` for the nearest of the options, else a list of them, to be put behind a message."""
    options = sorted(options)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if near:
        return f". Did you mean {near[0]!r}?"
    return f". There is: {', '.join(options)}" if options else ""

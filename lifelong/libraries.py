"""Keep the libraries below from talking over the run."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer
from transformers.utils import logging as transformers_logging

# (message, why it is no news)
_NO_NEWS = (
    (".*does not have many workers.*", "batches are made in advance: loader workers would only cost time"),
    (".*LeafSpec.*is deprecated.*", "Lightning's own affair"),
    (".*is_gradient_checkpointing.*is deprecated.*", "PEFT's own affair"),
)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No bars for each loading of weights, no tips for each of a run's Trainers, no advice that is wrong here."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level, bars = log.level, transformers_logging.is_progress_bar_enabled()
    log.setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            for message, _ in _NO_NEWS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        log.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """Lightning answers Ctrl+C by ignoring further ones and leaving the interpreter; this gives the exception back."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None

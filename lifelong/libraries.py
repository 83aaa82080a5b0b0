"""Keep the libraries below from talking over the run."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Trainer
from transformers.utils import logging as transformers_logging

from lifelong.errors import ConfigError

# (message, why it is no news)
_NO_NEWS = (
    (".*does not have many workers.*", "batches are made in advance: loader workers would only cost time"),
    (".*your dataloader is not resumable.*", "the sampler begins where the run had come to"),
    (".*LeafSpec.*is deprecated.*", "Lightning's own affair"),
    (".*is_gradient_checkpointing.*is deprecated.*", "PEFT's own affair"),
)
# loggers, and from which level on they are heard: tips for each of a run's Trainers, a line per layer and call
_TALKATIVE = {
    "lightning.pytorch.utilities.rank_zero": logging.WARNING,
    "lightning.fabric.utilities.rank_zero": logging.WARNING,
    "lightning.fabric.utilities.distributed": logging.WARNING,
    "bitsandbytes.autograd._functions": logging.ERROR,
}


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No bars for each loading of weights, no tips for each of a run's Trainers, no advice that is wrong here."""
    logs = {logging.getLogger(name): level for name, level in _TALKATIVE.items()}
    levels, bars = {log: log.level for log in logs}, transformers_logging.is_progress_bar_enabled()
    for log, level in logs.items():
        log.setLevel(level)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            for message, _ in _NO_NEWS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for log, level in levels.items():
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


@contextmanager
def enough_memory(where: str) -> Iterator[None]:
    """Say in a sentence what torch says in a trace when memory runs out.

    Args:
        where: what was being done, for the message.

    Raises:
        ConfigError: a device, or the allocator of the CPU, had no more to give.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        first = str(error).split(". ")[0]
        raise ConfigError(
            f"{where}: ran out of memory ({first}). A smaller batch_size with accumulate, an adapter, "
            "gradient_checkpointing: true, or a smaller evaluate.batch_size need less; finished stages are kept"
        ) from error

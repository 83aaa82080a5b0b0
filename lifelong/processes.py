"""How the processes of a run begin and end together, and who of them writes its folder."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy
from lightning.pytorch.strategies import Strategy as DeviceStrategy
from torch import distributed

from lifelong.assembly import make_trainer
from lifelong.distributed import barrier, is_first, rank, working_together
from lifelong.durable import thrown_away
from lifelong.errors import ConfigError, LifelongError, ProcessError
from lifelong.folder import RunFolder
from lifelong.strategies.traits import check_fit

if TYPE_CHECKING:
    from lifelong.experiment import Experiment

PATIENCE = 2.0  # seconds in which a process that has ended is looked for
_ERROR = "lifelong/error"  # in the store that the processes share

SHARDED = (
    "a process there holds a part of each weight, and what a run does beside its training steps reads whole ones: "
    "evaluation, the files of a stage, PEFT's adapters, and passes of strategies of their own (Fisher information, "
    "teachers, reference gradients, merging). Take 'ddp', and an adapter, quantization or gradient_checkpointing where "
    "memory is short"
)
ENGINE = (
    "its engine accumulates, clips and steps by itself, where a step here is a list of micro-batches with one divisor, "
    "and strategies see its whole gradient; its stage 3 keeps parts of weights, which evaluation and the files of a "
    "stage would need whole. Take 'ddp', and an adapter, quantization or gradient_checkpointing where memory is short"
)
COPIES = (
    "its processes end with each training, and what strategies have learned in them would be lost. Run a script, or "
    "`lifelong run`, with 'ddp'"
)


def check_devices(settings: Mapping[str, Any]) -> None:
    """Whether a run can use Lightning's device strategy, as far as its name says.

    Args:
        settings: of the Trainer.

    Raises:
        ConfigError: it cannot, and why.
    """
    strategy = settings.get("strategy", "auto")
    if isinstance(strategy, str):
        for beginning, reason in {"fsdp": SHARDED, "deepspeed": ENGINE}.items():
            if strategy.startswith(beginning):
                raise ConfigError(f"trainer.strategy: a run cannot use {strategy!r}: {reason}")
        if strategy.startswith(("ddp_spawn", "ddp_fork", "ddp_notebook")):
            raise ConfigError(f"trainer.strategy: a run cannot use {strategy!r}: {COPIES}")
    elif isinstance(strategy, DeviceStrategy):
        _check_device_strategy(strategy)


def _check_device_strategy(strategy: DeviceStrategy) -> None:
    """The same of what Lightning has made of the name."""
    name = type(strategy).__name__
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        reason = SHARDED if isinstance(strategy, FSDPStrategy) else ENGINE
        raise ConfigError(f"trainer.strategy: a run cannot use {name}: {reason}")
    if getattr(strategy, "_start_method", "popen") != "popen":
        raise ConfigError(f"trainer.strategy: a run cannot use {name} with {strategy._start_method!r}: {COPIES}")


def said_devices(settings: Mapping[str, Any]) -> int:
    """How many devices the Trainer's settings ask for; 1 where that depends on the machine."""
    devices = settings.get("devices", 1)
    if isinstance(devices, str) and "," in devices:
        devices = [part for part in devices.split(",") if part.strip()]
    if isinstance(devices, list | tuple):
        devices = len(devices)
    count = int(devices) if str(devices).isdecimal() else 1
    return count * int(settings.get("num_nodes", 1))


class Processes:
    """The processes of one run, as a context: they work together inside.

    They are started where Lightning would start them, at the first training, but before it, since the untrained model
    is asked too: the launcher of a Trainer runs the same command once more for each further device. Under torchrun or
    Slurm they are there already. An error in one of them ends all.

    Args:
        experiment: that is run.

    Attributes:
        count: of all nodes.
        first: whether this is the one that writes.

    Raises:
        ConfigError: the experiment cannot run on several devices, and why.
        ProcessError: raised by the block in place of what an error in another process has led to in this one.
    """

    _broken = False  # of this program: after an error the others are gone

    def __init__(self, experiment: Experiment) -> None:
        settings = experiment.trainer
        self.trainer: Trainer | None = None
        if said_devices(settings) > 1 or settings.get("devices", 1) not in (1, "1", [0]):
            self.trainer = make_trainer(experiment)
        self.count = 1 if self.trainer is None else self.trainer.world_size
        self.first = self.count == 1 or self.trainer.global_rank == 0
        self._stack = ExitStack()
        if self.count > 1:
            _check_device_strategy(self.trainer.strategy)
            if not isinstance(self.trainer.strategy, DDPStrategy):
                name = type(self.trainer.strategy).__name__
                raise ConfigError(f"trainer.strategy: several devices work by 'ddp' alone, and this is {name}")
            check_experiment(experiment)
            if Processes._broken:
                raise ConfigError("trainer.devices: a process of an earlier run has failed; start the program anew")
            if not self.trainer.strategy.cluster_environment.creates_processes_externally:
                _check_can_be_run_again()
        started = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
        started = max(started, int(os.environ.get("WORLD_SIZE") or 1))
        if started not in (1, self.count):
            raise ConfigError(
                f"trainer.devices: this program runs as {started} processes, and the run is one for {self.count}: give "
                "devices and num_nodes that fit, or run it in a program of its own"
            )

    def folder(self, path: str | Path) -> RunFolder:
        """A run folder that the first process alone writes."""
        return RunFolder(path) if self.count == 1 else SharedFolder(path)

    def __enter__(self) -> Processes:
        if self.count == 1:
            return self
        strategy = self.trainer.strategy
        try:
            strategy.launcher.launch(lambda: None)
            strategy.setup_environment()
        except BaseException:
            self._end_others()
            raise
        atexit.register(_part)
        self._stack.enter_context(working_together())
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.count == 1:
            return
        with self._stack:
            if error is None:
                barrier()  # what the first has written is there for all
                return
            Processes._broken = True
            elsewhere = _first_error(error)
            # what a process that has gone is to the others, in torch's words
            consequence = isinstance(error, RuntimeError) and not isinstance(error, LifelongError)
            if consequence and elsewhere is None:
                elsewhere = self._ended()
            self._end_others()
        if consequence and elsewhere is not None:
            raise ProcessError(elsewhere) from error

    def meet(self) -> None:
        """Wait for all processes, outside of the context."""
        if self.count > 1:
            with working_together():
                barrier()

    @property
    def _others(self) -> list[subprocess.Popen]:
        """Those that this one has started."""
        return getattr(self.trainer.strategy.launcher, "procs", [])

    def _ended(self) -> str | None:
        """Which of the others has ended without a word, as where it was killed."""
        until = time.monotonic() + (PATIENCE if self._others else 0)
        while time.monotonic() < until:
            for number, process in enumerate(self._others, start=1):
                if process.poll():
                    return f"process {number} ended with the exit status {process.returncode}"
            time.sleep(0.05)
        return None

    def _end_others(self) -> None:
        """End what this process has started, and have Lightning's watch forget it, which would end this one too."""
        for process in self._others:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self._others:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:  # it waits for a device
                process.kill()
                process.wait()
        self._others.clear()


def check_experiment(experiment: Experiment) -> None:
    """Whether an experiment can run on several devices.

    Raises:
        ConfigError: why it cannot.
    """
    check_fit(experiment.strategies, several_devices=True)
    if experiment.device_map is not None:
        raise ConfigError(
            "device_map: on several devices each holds the whole model; leave it out, or take trainer.devices: 1"
        )


def _check_can_be_run_again() -> None:
    """Raise a ConfigError where there is no command that the further processes could run."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None and not Path(sys.argv[0]).is_file():
        raise ConfigError(
            "trainer.devices: each further device is a process that runs this program again, and there is no file to "
            "run. Put the experiment into a script, or into a file for `lifelong run`"
        )


def _part() -> None:
    """Leave the group, whose threads would be cut off by the end of the program, which C++ calls a crash."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _first_error(error: BaseException) -> str | None:
    """Tell the others what went wrong here; what went wrong in another one, if that was before."""
    from torch.distributed.distributed_c10d import _get_default_store  # not there in every build of torch

    own = f"process {rank()}: {type(error).__name__}: {error}"
    with suppress(RuntimeError, ValueError):  # the others, and what they share, may be gone
        first = _get_default_store().compare_set(_ERROR, "", own).decode()
        return None if first == own else first
    return None


class SharedFolder(RunFolder):
    """The folder of a run of several processes: the first one writes, the others wait until that is done.

    All of them read it, which on several nodes takes a file system that they share.
    """

    def create(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        if is_first():
            super().create(config, environment)
        barrier()

    @contextmanager
    def commit(self, index: int) -> Iterator[Path]:
        """In other processes a folder that is thrown away."""
        with super().commit(index) if is_first() else thrown_away() as path:
            yield path
        barrier()

    def write_json(self, name: str, content: Any) -> None:
        if is_first():
            super().write_json(name, content)

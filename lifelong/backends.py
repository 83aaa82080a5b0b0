"""Where the runs of a study are worked on: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import PicklingError
from types import FrameType
from typing import Any

import torch

from lifelong.errors import ConfigError, Interrupted, LifelongError
from lifelong.grid import Point
from lifelong.lock import is_locked

_LOOK_AGAIN = 5.0  # seconds
_told: list[str] = []  # in a process of a pool: how it was told to stop

Outcome = tuple[Point, str | None]  # a run that ended, and why it failed


def run_point(point: Point, trust: bool, quiet: bool, shared: Path) -> str | None:
    """Run one point.

    Args:
        point: of a study.
        trust: allow code from outside of lifelong that its settings name.
        quiet: no progress bars.
        shared: the folder of what runs have in common.

    Returns:
        Why it failed, or ``None``.
    """
    try:
        point.experiment(trust).run(quiet, shared=shared)
    except LifelongError as error:
        return str(error)
    except Exception as error:  # one run's failure must not end the others; its folder has the reason
        return f"{type(error).__name__}: {error}"
    return None


class Backend:
    """Works on points, and says how each one ended as soon as it has.

    Attributes:
        in_turn: whether runs end in the order in which they are given, each before the next one begins.
    """

    in_turn = False

    def run(self, points: Sequence[Point], trust: bool, quiet: bool, shared: Path) -> Iterator[Outcome]:
        """Run all points; arguments as for ``run_point``."""
        raise NotImplementedError


class InProcess(Backend):
    """One run after the other, in this process."""

    in_turn = True

    def run(self, points: Sequence[Point], trust: bool, quiet: bool, shared: Path) -> Iterator[Outcome]:
        for point in points:
            yield point, run_point(point, trust, quiet, shared)


@dataclass(frozen=True)
class LocalProcesses(Backend):
    """Several processes of this machine, which share its cores evenly.

    Args:
        jobs: how many.
    """

    jobs: int

    def run(self, points: Sequence[Point], trust: bool, quiet: bool, shared: Path) -> Iterator[Outcome]:
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        context = multiprocessing.get_context("spawn")  # forked processes would share torch's thread pool
        try:
            with ProcessPoolExecutor(self.jobs, context, torch.set_num_threads, (threads,)) as pool, _stopping(pool):
                futures = {pool.submit(_run_in_pool, point, trust, shared): point for point in points}
                for future in as_completed(futures):
                    yield futures[future], future.result()
        except (BrokenProcessPool, PicklingError, AttributeError) as error:
            raise ConfigError(
                f"jobs: a run could not be handed to another process ({error}). Classes and functions of a notebook "
                "exist in its own process only: put them into a file, or use jobs=1"
            ) from error


@dataclass(frozen=True)
class Ray(Backend):
    """The machines of a Ray cluster, which see the study's folder under the same path.

    A run whose worker is lost is begun again on another one, and goes on from its last checkpoint.

    Args:
        address: of the cluster; by default the one that ``RAY_ADDRESS`` names, or else one of this machine alone.
        cpus: cores for a run; they are also its threads.
        gpus: GPUs for a run; parts such as .25 let several runs share one.
        retries: how often a run is begun again after its worker was lost.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3

    def run(self, points: Sequence[Point], trust: bool, quiet: bool, shared: Path) -> Iterator[Outcome]:
        try:
            import ray
        except ImportError as error:
            raise ConfigError("backend: 'ray' needs the extra ray: pip install 'lifelong[ray]'") from error
        started, left = not ray.is_initialized(), {}
        if started:
            ray.init(address=self.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            resources: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
            run = ray.remote(max_retries=self.retries, **resources)(_run_on_worker)
            about = (trust, shared, Path.cwd(), max(1, int(self.cpus)))
            left.update((run.remote(point, *about), point) for point in points)
            while left:
                (done,), _ = ray.wait(list(left))
                point = left.pop(done)
                try:
                    yield point, ray.get(done)
                except ray.exceptions.RayError as error:
                    yield point, f"lost on the cluster: {str(error).strip().splitlines()[0]}"
        except BaseException:
            for run in left:
                ray.cancel(run)  # it saves its step, on clusters that go on without this process
            raise
        finally:
            if started:
                ray.shutdown()


@contextmanager
def _stopping(pool: ProcessPoolExecutor) -> Iterator[None]:
    """A context in which Ctrl+C and SIGTERM let the processes of a pool save their step and end."""
    before = signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted("SIGTERM: finished stages are kept, `lifelong resume FOLDER` goes on", signal.SIGTERM)

    if main:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _run_in_pool(point: Point, trust: bool, shared: Path) -> str | None:
    """``run_point`` in a process of a pool, which begins no run after it was told to stop."""
    if _told:
        return _told[0]
    try:
        return run_point(point, trust, True, shared)
    except KeyboardInterrupt as error:
        _told.append(str(error))
        return _told[0]


def _run_on_worker(point: Point, trust: bool, shared: Path, home: Path, threads: int) -> str | None:
    """``run_point`` on a worker of a cluster, with relative paths meant from ``home``."""
    os.chdir(home)
    torch.set_num_threads(threads)
    while is_locked(point.folder):  # by a worker that was lost on another machine, until it counts as gone
        time.sleep(_LOOK_AGAIN)
    return run_point(point, trust, True, shared)

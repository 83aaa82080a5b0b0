"""Work on a run folder: alone in it, stopped on request, and with a status that is true whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from lifelong import history
from lifelong.errors import DiskFullError, DivergedError, RunError
from lifelong.folder import RunFolder
from lifelong.inside import check_links
from lifelong.interruption import StopSign, stop_sign
from lifelong.libraries import quiet_libraries
from lifelong.lock import locked
from lifelong.progress import Reporter
from lifelong.trust import made_here


@dataclass
class Work:
    """What is being done to a run.

    Args:
        sign: says whether the process was asked to stop.
        outcome: that the history will have, if nothing goes wrong.
        about: what it will say of that, as JSON values.
    """

    sign: StopSign
    outcome: str = "done"
    about: dict[str, Any] = field(default_factory=dict)


@contextmanager
def working_on(
    folder: RunFolder, reporter: Reporter, event: str = "run", alone: bool = True, **about: Any
) -> Iterator[Work]:
    """A context in which a run is changed.

    Args:
        folder: of the run; it is made when it is not there.
        reporter: shows progress inside.
        event, **about: what is done, for the history.
        alone: whether this process keeps others out, and writes; of several that work together the first one does.

    Raises:
        RunError: another process works on the folder, it holds something else, or it comes from elsewhere and has
            links that leave it.
    """
    if not alone:
        with quiet_libraries(), reporter, stop_sign() as sign:
            yield Work(sign)
        return
    if not made_here(folder.path):
        check_links(folder.path)
    folder.claim()
    with quiet_libraries(), locked(folder.path), reporter, reporter.followed(folder.path), stop_sign() as sign:
        folder.tidy()
        work = Work(sign)
        with _recorded(folder, work, event, about):
            yield work


@contextmanager
def _recorded(folder: RunFolder, work: Work, event: str, about: dict[str, Any]) -> Iterator[None]:
    """Keep the history and ``status.json`` true."""

    def ended(outcome: str, state: str, **about: Any) -> None:
        if folder.exists:
            history.record(folder.path, outcome, stage=max(folder.committed(), 0), **about)
            folder.write_status(state, about.get("reason"))

    if folder.exists:  # else it is recorded as soon as there is a run
        history.record(folder.path, event, **about)
    try:
        yield
    except BaseException as error:
        if isinstance(error, RunError) and not isinstance(error, DiskFullError):
            raise  # about the folder itself, whose own status stays
        kinds = ((DivergedError, "diverged"), (KeyboardInterrupt, "interrupted"))
        outcome = next((name for kind, name in kinds if isinstance(error, kind)), "failed")
        reason = f"{type(error).__name__}: {error}" if outcome == "failed" else str(error)
        with suppress(OSError, RunError):  # a full disk, or a damaged folder, must not hide what happened
            ended(outcome, outcome, **({"reason": reason} if reason else {}))
        raise
    ended(work.outcome, "done" if folder.complete else "rolled back", **work.about)

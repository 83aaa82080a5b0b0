"""A run goes back to a stage that it had."""

from __future__ import annotations

from pathlib import Path

from lifelong.checkpoint import FOLDER as STEPS
from lifelong.durable import remove_folder
from lifelong.errors import ConfigError, RunError
from lifelong.folder import EXTENSION, RunFolder
from lifelong.progress import Reporter
from lifelong.session import working_on


def roll_back(path: str | Path, to: int) -> int:
    """Remove the stages after one, and what was being learned; see ``Run.rollback``.

    Returns:
        How many stages were removed.
    """
    folder = RunFolder(path)
    if not folder.exists or folder.committed() < 0:
        raise RunError(f"{folder.path} has no stage to go back to")
    if not 0 <= to <= folder.committed():
        raise ConfigError(f"to: the run has the stages 0 to {folder.committed()}, got {to}")
    with working_on(folder, Reporter(quiet=True), "rollback", to=to):
        remove_folder(folder.path / EXTENSION)
        remove_folder(folder.path / STEPS)
        removed = range(folder.committed(), to, -1)
        for index in removed:
            remove_folder(folder.stage(index))
        from lifelong.run import Run

        Run(folder.path).write_views()
    return len(removed)

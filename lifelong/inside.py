"""What a folder says about its own files stays inside of it, whoever wrote it."""

from __future__ import annotations

import os
from pathlib import Path

from lifelong.errors import RunError


def inside(folder: str | Path, name: str | Path, where: str | Path) -> Path:
    """The path of a file or folder that a file of ``folder`` names.

    Args:
        folder: what must not be left, neither by ``..`` nor by a link.
        name: relative to the folder, or absolute.
        where: what names it, for messages.

    Raises:
        RunError: it is elsewhere, or no path at all.
    """
    try:
        path = Path(folder) / name
        stays = path.resolve().is_relative_to(Path(folder).resolve())
    except (TypeError, ValueError, OSError, RuntimeError):  # no text, a null byte, too long, or a circle of links
        stays = False
    if not stays:
        raise RunError(
            f"{where}: {str(name)!r} is not inside of {folder}. Put what is meant into that folder, and name it there"
        )
    return path


def check_links(folder: str | Path) -> None:
    """Whether all symbolic links of a folder end in it, so that nothing else is read or written through them.

    Raises:
        RunError: one leads elsewhere.
    """
    for place, folders, files in os.walk(folder):
        for path in (Path(place) / name for name in (*folders, *files)):
            if path.is_symlink():
                inside(folder, path.relative_to(folder), f"{path} is a link")

"""Files and folders that are there whole or not at all, and that say when they have been altered."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lifelong.errors import DiskFullError, RunError
from lifelong.inside import inside

MANIFEST = "manifest.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FEW = 64  # files that are written to the disk one by one; for more than these, everything once is quicker
_LITTLE = 2**20  # bytes that are left on a full disk, at most: not every library passes the system's error on


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into; it becomes ``target``, with a manifest, when the block ends without an error.

    What a process that was killed has left of an earlier attempt is removed first.

    Raises:
        DiskFullError: nothing of the folder is left.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        with ThreadPoolExecutor(1) as disk:  # which is written to while checksums are computed
            written = disk.submit(_sync_all, files)
            write_manifest(temporary, files)
            written.result()
        for folder in sorted({path for path in temporary.rglob("*") if path.is_dir()} | {temporary}, reverse=True):
            sync(folder)
        temporary.rename(target)
        sync(target.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, Exception) and is_full(error, target.parent):
            raise DiskFullError(
                f"the disk is full: {target} could not be written, and nothing of it is left. What was finished before "
                "is whole; make room, and go on with `lifelong resume`"
            ) from error
        raise


@contextmanager
def thrown_away() -> Iterator[Path]:
    """A folder to write into of which nothing is kept."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def remove_folder(target: Path) -> None:
    """Remove a folder so that it is gone as a whole, whenever the process ends."""
    if target.exists():
        away = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(away, ignore_errors=True)
        target.rename(away)
        sync(target.parent)
        shutil.rmtree(away)


def write_manifest(folder: Path, files: Iterable[Path]) -> None:
    """Write the checksums of files in a folder."""
    checksums = {path.relative_to(folder).as_posix(): checksum(path) for path in files}
    write_text(folder / MANIFEST, json.dumps(checksums, indent=1))


def damage(folder: Path, only: Iterable[str] | None = None) -> str | None:
    """What is wrong with a folder that has a manifest, in words that begin with a file's path; ``None``: nothing is.

    Args:
        folder: with a manifest.
        only: names of files to look at; all that the manifest names by default.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, Mapping):
            raise ValueError
    except FileNotFoundError:
        return f"{folder / MANIFEST} is missing"
    except ValueError:
        return f"{folder / MANIFEST} has been altered"
    for name in manifest if only is None else only:
        try:
            path = inside(folder, name, folder / MANIFEST)
        except RunError as error:
            return str(error)
        if name not in manifest or not path.is_file():
            return f"{path} is missing" if name in manifest else f"{folder / MANIFEST} has been altered"
        if checksum(path) != manifest[name]:
            return f"{path} has been altered"
    return None


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or as it was before."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    temporary.replace(path)


def checksum(path: Path) -> str:
    """Of a file's content: SHA-256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_all(files: Sequence[Path]) -> None:
    if len(files) > _FEW:
        os.sync()
    else:
        for path in files:
            sync(path)


def sync(path: Path) -> None:
    """Have the system write a file, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: Exception, folder: Path) -> bool:
    """Whether an error came from a disk without room: safetensors and torch have errors of their own for that."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    there = next((parent for parent in (folder, *folder.parents) if parent.exists()), Path("/"))
    return not isinstance(error, RunError) and shutil.disk_usage(there).free < _LITTLE

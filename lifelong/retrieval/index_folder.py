"""The folder that an index is kept in: files named after their content, and a manifest replaced by one rename."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lifelong.errors import RunError

MANIFEST = "manifest.json"
VERSION = 1
KEYS = ("fingerprint", "dimension", "kind", "search", "count", "next", "trained")


def write_folder(folder: Path, facts: Mapping[str, Any], files: Mapping[str, Callable[[Path], None]]) -> None:
    """Write files and their manifest; a reader sees what was there before, or this, never half of it.

    Args:
        folder: made where it is not there.
        facts: the manifest, without the files.
        files: by name, what writes each to a path.

    Raises:
        RunError: the folder holds something else.
    """
    manifest_file = folder / MANIFEST
    if folder.exists() and not manifest_file.is_file() and any(folder.iterdir()):
        raise RunError(f"{folder} exists and holds no index: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for name, write in files.items():
        part = folder / f"{name}.{os.getpid()}.part"
        write(part)
        digest = checksum(part)
        stem, _, ending = name.partition(".")
        entries[name] = {"file": f"{stem}-{digest[:16]}.{ending}", "sha256": digest}
        os.replace(part, folder / entries[name]["file"])
    part = folder / f"{MANIFEST}.{os.getpid()}.part"
    part.write_text(json.dumps({"version": VERSION, **facts, "files": entries}, indent=2) + "\n", encoding="utf-8")
    os.replace(part, manifest_file)
    present = {entry["file"] for entry in entries.values()}
    for name in files:
        stem, _, ending = name.partition(".")
        for file in folder.glob(f"{stem}-*.{ending}"):
            if file.name not in present:
                file.unlink()


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """The manifest, and the path of every file, whose checksums were compared.

    Raises:
        RunError: there is no index, or a file is missing, shortened or altered.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise RunError(f"{folder} holds no index: {MANIFEST} is missing")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        complete = manifest["version"] == VERSION and all(key in manifest for key in KEYS)
        entries = {name: (folder / entry["file"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} cannot be read ({error}): restore it, or build the index again") from error
    if not complete or any(file.parent != folder for file, _ in entries.values()):
        raise RunError(f"{path} is no manifest of an index of version {VERSION}: build the index again")
    for file, digest in entries.values():
        if not file.is_file() or checksum(file) != digest:
            raise RunError(f"{file} is missing or was altered: restore it, or build the index again")
    return manifest, {name: file for name, (file, _) in entries.items()}


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

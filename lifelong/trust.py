"""Which run folders were made by this user on this machine, so that their configuration may name code of its own."""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from pathlib import Path

SIGNATURE = ".made-here"


def sign(folder: Path, config: str) -> None:
    """Mark a folder's configuration as made here; without a writable home it stays unmarked, and needs ``--trust``."""
    try:
        (folder / SIGNATURE).write_text(_signature(config))
    except OSError:
        return


def made_here(folder: Path) -> bool:
    """Whether the folder's configuration is one that ``sign`` saw, unchanged."""
    try:
        written = (folder / SIGNATURE).read_bytes()
        config = (folder / "config.yaml").read_text(encoding="utf-8")
        return hmac.compare_digest(written, _signature(config).encode())
    except (OSError, UnicodeDecodeError):
        return False


def _signature(config: str) -> str:
    return hmac.new(_key(), config.encode(), "sha256").hexdigest()


def _key() -> bytes:
    """A secret of this user, made once; who does not know it cannot make a folder look as if it came from here."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "lifelong"
    path = state / "key"
    if not path.is_file():
        state.mkdir(parents=True, exist_ok=True)
        descriptor, written = tempfile.mkstemp(dir=state)  # readable by its owner only
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(written, path)  # whole or not at all, and the first of several processes wins
        except FileExistsError:
            pass
        finally:
            os.unlink(written)
    return path.read_bytes()

"""Encoded rows at hand, as far as they fit."""

from __future__ import annotations

from lifelong.encoding import EncodedRow, PromptEncoder, Row


class RecentRows:
    """Encodes rows, and keeps those that were asked for last: a row of a small memory is drawn again and again.

    What is shortened or missing is counted in the encoder's ``counts`` when a row is asked for the first time.

    Args:
        encoder: a family's.
        tokens: that are kept at most, of all rows together; in lists of Python a token takes at most some 45 bytes.
    """

    def __init__(self, encoder: PromptEncoder, tokens: int = 1_000_000) -> None:
        self.encoder, self.tokens = encoder, tokens
        self.kept = 0  # tokens
        self._rows: dict[tuple[str, str, str], EncodedRow] = {}  # the one asked for last stands last
        self._counted: set[tuple[str, str, str]] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def encoded(self, row: Row, book: str) -> EncodedRow:
        """A row as tokens; of one that is at hand only ``task`` and ``id`` are read."""
        key = (row["task"], row["id"], book)
        found = self._rows.pop(key, None)
        if found is None:
            found = self._encode(key, row, book)
            self.kept += len(found.input_ids)
        self._rows[key] = found
        while self.kept > self.tokens:
            oldest = self._rows.pop(next(iter(self._rows)))
            self.kept -= len(oldest.input_ids)
        return found

    def _encode(self, key: tuple[str, str, str], row: Row, book: str) -> EncodedRow:
        with self.encoder.uncounted() as counts:
            found = self.encoder.encode(row, book)
        if counts and key not in self._counted:
            self._counted.add(key)
            self.encoder.counts.update(counts)
        return found

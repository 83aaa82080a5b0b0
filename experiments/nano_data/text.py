"""Real text: read, made plain, and cut into sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nano_data.words import Dice, invented_name

TEXT_FILES = (
    "tinyshakespeare.txt",
    "nltk_state_union.txt",
    "nltk_inaugural.txt",
    "nltk_genesis.txt",
    "wikitext2.valid.txt",
    "wikitext2.test.txt",
)

# statements that the streams teach, cheaply recognised; a line of real text with one of them is dropped
_STATES_FACTS = re.compile(
    r"\bcapital (city )?of\b|chemical element|atomic (number|weight|mass)|chemical symbol|status code|\bHTTP\b"
    r"|moons? of (Mars|Jupiter|Saturn|Uranus|Neptune|Pluto)|\bSI unit|unit of measure",
    re.IGNORECASE,
)
_UNTOKENISED = (
    (re.compile(r" @(.)@ "), r"\1"),
    (re.compile(r" ([,.;:!?%)\]])"), r"\1"),
    (re.compile(r"([(\[$£]) "), r"\1"),
    (re.compile(r" ('(?:s|t|re|ve|ll|d|m)\b)"), r"\1"),
    (re.compile(r" (n't\b)"), r"\1"),
    (re.compile(r'" ([^"\n]*) "'), r'"\1"'),
    (re.compile(r" {2,}"), " "),
)


def clean_text(text: str, dice: Dice) -> str:
    """Real text made plain: WikiText's tokens undone, ``<unk>`` replaced by invented names, stated facts dropped."""
    lines = []
    for line in text.splitlines():
        if _STATES_FACTS.search(line):
            continue
        if "<unk>" in line:
            names = [invented_name(dice) for _ in range(3)]
            line = re.sub("<unk>", lambda _, names=names: dice.choice(names), line)
        for pattern, replacement in _UNTOKENISED:
            line = pattern.sub(replacement, line)
        lines.append(line.strip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def load_text(folder: Path, seed: int = 0) -> dict[str, str]:
    """The cleaned text of every file of `TEXT_FILES` in ``folder``, by file name.

    Raises:
        FileNotFoundError: a file is missing.
    """
    return {
        name: clean_text((folder / name).read_text(encoding="utf-8"), Dice(f"{seed}-{name}")) for name in TEXT_FILES
    }


def common_words(texts: Sequence[str], most: int = 3000) -> list[str]:
    """The most frequent lower-case words of at least three letters, most frequent first, ties by alphabet."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in re.findall(r"(?<![\w'])[a-z]{3,}(?![\w'])", text):
            counts[word] = counts.get(word, 0) + 1
    return sorted(counts, key=lambda word: (-counts[word], word))[:most]


def split_sentences(texts: Sequence[str], shortest: int = 30, longest: int = 120) -> list[str]:
    """Sentences of ``shortest`` to ``longest`` characters on one line, in order."""
    flat = (re.sub(r"(?<!\n)\n(?!\n)", " ", text) for text in texts)
    found = (s.strip() for text in flat for s in re.findall(r"[A-Z][^.!?\n:]*[.!?]", text))
    return [s for s in found if shortest <= len(s) <= longest]

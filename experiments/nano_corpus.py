"""The training data of ``nano`` as batches: a pure function of the seed, the block's number and the level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nano_data
from nano_data import Dice
from nano_model import build_tokenizer
from nano_rows import Batch, Row, plain_row, question_rows, stack
from transformers import PreTrainedTokenizerFast

HELD_OUT = 0.02
BLOCK_SHEETS = 192
POOL_BLOCKS, POOL_SIZE, FAMILY_SIZE = 12, 128, 44
RECALL_QUESTIONS = 24


@dataclass(frozen=True)
class Level:
    """What is trained on until it is learned.

    Args:
        facts: most facts that the passages state; none: copying and text alone.
        noise: most sentences beside them.
        copies: rows of copying per step.
        simple: whether the facts are a few tokens each, in one short wording.
        texts: rows of text per step.
        recall: rows of closed-book questions per step.
        absent: share of questions that the passages do not answer.
        passed: share of unseen questions at which the next level begins.
    """

    facts: int
    noise: int = 0
    copies: int = 1
    simple: bool = False
    texts: int = 1
    recall: int = 1
    absent: float = 0.12
    passed: float = 0.8


LEVELS = (
    Level(facts=0, copies=8, texts=4),
    Level(facts=4, simple=True, copies=2, absent=0.02),
    Level(facts=2, absent=0.04, passed=0.7),
    Level(facts=4, passed=0.8),
    Level(facts=6, passed=0.8),
    Level(facts=6, noise=3),
)


class Corpus:
    """Text, tokenizer and batches.

    Args:
        folder: holds the text files.
        seed: decides everything that is drawn.
        saved: the tokenizer's folder: it is loaded from there, or trained and saved there first.
        budget: tokens of a step, padding included.
    """

    def __init__(self, folder: Path, seed: int, saved: Path, budget: int = 3072) -> None:
        self.seed, self.budget = seed, budget
        texts = nano_data.load_text(folder, seed)
        train, held = [], []
        for text in texts.values():
            cut = int(len(text) * (1 - HELD_OUT))
            train.append(text[:cut])
            held.append(text[cut:])
        if saved.exists():
            self.tokenizer = PreTrainedTokenizerFast.from_pretrained(saved)
        else:
            self.tokenizer = build_tokenizer(train, seed)
            self.tokenizer.save_pretrained(saved)
        self.pad = self.tokenizer.pad_token_id
        self.words, self.sentences = nano_data.common_words(train), nano_data.split_sentences(train)
        self.text = [i for text in train for i in self.tokenizer.backend_tokenizer.encode(text).ids]
        self.held = [i for text in held for i in self.tokenizer.backend_tokenizer.encode(text).ids]
        self.held_bytes = sum(len(text.encode()) for text in held)
        self.vocabulary = range(2, len(self.tokenizer))

    def dice(self, name: str, unseen: bool = False) -> Dice:
        """A source of randomness of its own; ``unseen`` draws the names that training never sees."""
        return Dice(f"{self.seed}-{name}", unseen=unseen, words=self.words)

    def _pool(self, number: int) -> list[nano_data.Episode]:
        """Facts asked for closed-book, over and over, and replaced by fresh ones every `POOL_BLOCKS` blocks.

        The model learns to take up facts, which is what it is for, and no fact stays.
        """
        dice = self.dice(f"pool-{number // POOL_BLOCKS}")
        pool = [episode for _ in range(2) for episode in nano_data.family_episodes(dice, FAMILY_SIZE)]
        return pool + [nano_data.closed_episode(dice) for _ in range(POOL_SIZE - len(pool))]

    def block(self, number: int, level: Level) -> Iterator[Batch]:
        """The batches of a block: rows of similar length together, so that hardly any padding is computed on."""
        dice, pool = self.dice(f"block-{number}-{LEVELS.index(level)}"), self._pool(number)
        rows: list[Row] = []
        for number in range(BLOCK_SHEETS * (3 if level.simple else 1) if level.facts else 0):
            # one sheet in four stays simple
            if level.simple or number % 4 == 0:
                count = dice.randint(1, level.facts if level.simple else 8)
                sheet = nano_data.simple_sheet(dice, count, absent=level.absent)
            else:
                sheet = nano_data.draw_sheet(dice, level.facts, level.noise, level.absent, self.sentences)
            rows += question_rows(sheet, self.tokenizer, "read")
        rows.sort(key=lambda row: len(row.ids))
        groups: list[list[Row]] = [[] for _ in range(0 if rows else 16)]
        for row in rows:
            extra = level.copies + level.texts + level.recall
            if not groups or len(row.ids) * (len(groups[-1]) + 1 + extra) > self.budget:
                groups.append([])
            groups[-1].append(row)
        dice.shuffle(groups)
        for group in groups:
            length = max((len(row.ids) for row in group), default=self.budget // 40)
            length = max(96, length)
            group += [self._text(dice, length) for _ in range(level.texts)]
            group += [self._copies(dice, min(length, 128)) for _ in range(level.copies)]
            asked = [dice.choice(pool) for _ in range(RECALL_QUESTIONS * level.recall)]
            group += question_rows(asked, self.tokenizer, "recall", length)[: level.recall]
            yield stack(group, self.pad)

    def _copies(self, dice: Dice, longest: int) -> Row:
        return plain_row(*nano_data.copy_row(dice, self.vocabulary, dice.choice((24, 40, 64, longest))), "copy")

    def _text(self, dice: Dice, length: int) -> Row:
        start = dice.randrange(len(self.text) - length)
        return plain_row(self.text[start : start + length], [False] + [True] * (length - 1), "text")

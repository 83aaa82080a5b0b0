"""Rows become tokens that fit into the model's context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from lifelong.conversations import Frame, check_chat_template, spoken_parts
from lifelong.errors import DataError
from lifelong.fitting import Asked, shortened
from lifelong.library import Library, Shown, shown_beside
from lifelong.prompts import PromptTemplate

IGNORED = -100  # the label that losses skip, as everywhere in torch and transformers
Row = Mapping[str, Any]
NOTHING = Shown()


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row as tokens.

    Args:
        input_ids: what the model reads.
        labels: what it should say. For a causal model as long as ``input_ids``, with ``IGNORED`` at every token that is
            not to be learned; for an encoder-decoder the answer alone; for a classifier the label's number.
        task, kind, id: of the row.
    """

    input_ids: list[int]
    labels: list[int]
    task: str
    kind: str
    id: str


@dataclass
class PromptEncoder:
    """Turns rows into tokens that fit into ``max_length``, for causal models; other families differ in little.

    What does not fit is shortened: of a conversation the earliest turns go first, then the last passages, then the
    beginning of the question. ``counts`` says how often that happened: ``turns dropped``, ``passages dropped``,
    ``passages cut``, ``questions cut``, ``without gold passage`` for rows that were to be shown their passages and
    have none, and ``nothing retrieved`` for questions that nothing was found for.

    A book says what is shown: ``"closed"`` no passages, ``"gold"`` the row's own, ``"retrieved"`` what ``library``
    finds, ``"distracted"`` the row's own among others, ``"absent"`` others alone, or a mixture such as
    ``"closed 0.5, gold 0.5"``, in which ``seed`` decides for each row.
    """

    tokenizer: PreTrainedTokenizerBase
    template: PromptTemplate
    max_length: int
    counts: Counter[str] = field(default_factory=Counter)
    library: Library | None = field(default=None, repr=False)
    seed: int = 0
    _continuations: dict[tuple[str, str], list[int]] = field(default_factory=dict, repr=False)
    _eos: int | None = field(init=False, repr=False)
    _line: str | None = field(init=False, repr=False)

    CACHED: ClassVar[int] = 100_000  # answers whose tokens are remembered
    keeps: ClassVar[str] = "end"  # the end of a question that must be cut
    continues_prompt: ClassVar[bool] = True  # the answer goes on where the prompt stopped

    def __post_init__(self) -> None:
        # a tokenizer looks for its special tokens anew each time, which shows when rows are many
        self._eos, self._line = self.tokenizer.eos_token_id, self.template.last_line

    def encode(self, row: Row, book: str = "closed") -> EncodedRow:
        """A training row, with its first answer, or of a conversation all that the assistant says.

        Args:
            row: an example with its ``task`` and ``kind``.
            book: what is shown beside the question, see the class.

        Raises:
            DataError: the answer alone leaves no room for the question.
            ConfigError: the book needs a library, and there is none.
        """
        return self.encode_rows([row], book)[0]

    def encode_rows(self, rows: Sequence[Row], book: str = "closed") -> list[EncodedRow]:
        """Many rows at once, which is a good deal faster than one by one; as ``encode``."""
        encoded: dict[int, EncodedRow] = {
            number: self._conversation(row, book) for number, row in enumerate(rows) if self.learns_turns(row)
        }
        others = [number for number in range(len(rows)) if number not in encoded]
        some = [rows[number] for number in others]
        answers = self.continuations([(row, row["question"], row["answers"][0]) for row in some])
        prompts = self.encode_prompts(some, book, reserves=[self.reserve(len(answer) + 1) for answer in answers])
        for number, row, prompt, answer in zip(others, some, prompts, answers, strict=True):
            encoded[number] = EncodedRow(*self.joined(prompt, answer), row["task"], row["kind"], row["id"])
        return [encoded[number] for number in range(len(rows))]

    def encode_prompt(self, row: Row, book: str = "closed", question: str | None = None, reserve: int = 0) -> list[int]:
        """The prompt's tokens, leaving room for ``reserve`` more.

        Args:
            row: an example.
            book: as in ``encode``.
            question: another wording to ask instead of the row's own question.
            reserve: tokens of the answer that is to follow.
        """
        return self.encode_prompts([row], book, [row["question"] if question is None else question], [reserve])[0]

    def encode_prompts(
        self,
        rows: Sequence[Row],
        book: str = "closed",
        questions: Sequence[str] | None = None,
        reserves: Sequence[int] | None = None,
        shown: Sequence[Shown] | None = None,
    ) -> list[list[int]]:
        """The prompts of many rows; arguments as for ``encode_prompt``, one entry per row.

        Args:
            shown: what ``shown`` gave for these rows, so that it is not looked for again.
        """
        questions = [row["question"] for row in rows] if questions is None else questions
        reserves = [0] * len(rows) if reserves is None else reserves
        shown = self.shown(rows, book, questions) if shown is None else shown
        asked = [self._asked(*one) for one in zip(rows, questions, shown, strict=True)]
        tokens = self._prompt_tokens(asked)
        for number, reserve in enumerate(reserves):
            room = self.max_length - reserve
            if len(tokens[number]) > room:
                tokens[number] = self._prompt_tokens([self._shortened(rows[number], asked[number], room)])[0]
        return tokens

    def continuation(self, row: Row, question: str, answer: str) -> list[int]:
        """The answer's tokens as they follow the prompt."""
        return self.continuations([(row, question, answer)])[0]

    def continuations(self, asked: Sequence[tuple[Row, str, str]]) -> list[list[int]]:
        """The tokens of answers as they follow their prompts, from (row, question, answer).

        They are what the prompt's last line and the answer together have beyond that line, where that is well defined.
        """
        keys = []
        for row, question, answer in asked:
            if not self.continues_prompt:
                keys.append(("", answer))
                continue
            if question and self._line is not None and not row.get("messages"):
                keys.append((self._line, self.template.answer(answer, question)))
                continue
            one = self._asked(row, question)
            text = self.frame.before + answer if self._is_chat(one) else self.template.answer(answer, question)
            keys.append((_last_line(one.text(self.template, self.tokenizer)), text))
        if len(self._continuations) > self.CACHED:
            self._continuations.clear()
        new = [key for key in dict.fromkeys(keys) if key not in self._continuations]
        if new:
            self._continuations.update(zip(new, self._answers(new), strict=True))
        return [self._continuations[key] for key in keys]

    @cached_property
    def frame(self) -> Frame:
        """What the tokenizer's chat template, if there is one, writes around an answer."""
        return Frame() if getattr(self.tokenizer, "chat_template", None) is None else Frame.of(self.tokenizer)

    @cached_property
    def ends(self) -> list[int]:
        """Tokens that end an answer: end-of-sequence, and a chat template's own mark where that is a single token."""
        tokens = self.tokenizer.added_tokens_decoder.items()
        marks = [number for number, token in tokens if str(token) == self.frame.after]
        return list(dict.fromkeys([self._eos, *marks]))

    def frame_of(self, row: Row) -> Frame:
        """What a chat template writes around the answer to this row; nothing where it is asked without one."""
        return self.frame if self._is_chat(self._asked(row, row["question"])) else Frame()

    def reserve(self, tokens: int) -> int:
        """How much of the prompt's context an answer of so many tokens takes."""
        return tokens

    def joined(self, prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
        """A training row's ``input_ids`` and ``labels``."""
        answer = [*answer, self._eos]
        return prompt + answer, [IGNORED] * len(prompt) + answer

    def learns_turns(self, row: Row) -> bool:
        """Whether all the assistant's turns of this row are learned, and not its last answer alone."""
        return bool(row.get("messages"))

    def check(self, row: Row) -> None:
        """Raises an error where rows like this one cannot be asked at all."""
        if row.get("messages"):
            check_chat_template(self.tokenizer, "a row with messages")
            asked = self._asked(row, row["question"])
            if self.learns_turns(row):
                self._turns(row, asked)
            else:
                asked.text(self.template, self.tokenizer)
        elif self.template.chat and row["question"]:
            check_chat_template(self.tokenizer, "the prompt's setting 'chat'")

    def without_end(self, ids: list[int]) -> list[int]:
        """A prompt's tokens without an end-of-sequence, which some tokenizers put behind every text."""
        return ids[:-1] if ids[-1:] == [self._eos] else ids

    @contextmanager
    def uncounted(self) -> Iterator[Counter[str]]:
        """What is encoded inside does not show in ``counts``, but in those that this yields."""
        own, self.counts = self.counts, Counter()
        try:
            yield self.counts
        finally:
            self.counts = own

    def shown(self, rows: Sequence[Row], book: str, questions: Sequence[str] | None = None) -> list[Shown]:
        """What stands beside each question in a pass.

        Args:
            rows: examples.
            book: see the class.
            questions: other wordings, one per row.

        Raises:
            ConfigError: the book needs a library, and there is none.
        """
        questions = [row["question"] for row in rows] if questions is None else questions
        found = shown_beside(rows, questions, book, self.seed, self.library, self.counts)
        return [self._within_budget(one) for one in found]

    def _within_budget(self, shown: Shown) -> Shown:
        """Without the least relevant passages, where all together have more tokens than they may."""
        budget = None if self.library is None else self.library.settings.tokens
        if budget is None or not shown.passages:
            return shown
        sizes, kept = self._tokenize(list(shown.passages), special=False), 0
        while kept < len(sizes) and len(sizes[kept]) <= budget:
            budget -= len(sizes[kept])
            kept += 1
        if kept < len(sizes):
            self.counts["passages dropped"] += len(sizes) - kept
        places = tuple(place for place in shown.places if place < kept)
        return Shown(shown.passages[:kept], places, shown.hits[:kept])

    def _asked(self, row: Row, question: str, shown: Shown = NOTHING) -> Asked:
        messages = tuple(row.get("messages") or ())
        return Asked(question, shown.passages, tuple(row["choices"]), messages, shown.places)

    def _is_chat(self, asked: Asked) -> bool:
        return bool(asked.messages) or (self.template.chat and bool(asked.question))

    def _shortened(self, row: Row, asked: Asked, room: int) -> Asked:
        return self._fitted(row, asked, room, lambda one: len(self._prompt_tokens([one])[0]))

    def _fitted(self, row: Row, asked: Asked, room: int, size: Callable[[Asked], int]) -> Asked:
        fitting = shortened(asked, lambda one: size(one) <= room, self.counts, self.keeps, not asked.question)
        if fitting is None:
            raise DataError(
                f"{place_of(row)}: the answer leaves {room} of {self.max_length} tokens for the question, which is too "
                "few; shorten the answer, or for raw text use smaller pieces"
            )
        return fitting

    def _prompt_tokens(self, asked: Sequence[Asked]) -> list[list[int]]:
        texts = [one.text(self.template, self.tokenizer) for one in asked]
        # a chat template writes its own special tokens
        chats = [self._is_chat(one) for one in asked]
        found: dict[int, list[int]] = {}
        for chat in set(chats):
            numbers = [number for number, text in enumerate(texts) if chats[number] == chat and text]
            ids = self._tokenize([texts[number] for number in numbers], special=not chat)
            found |= zip(numbers, ids if chat else map(self.without_end, ids), strict=True)
        start = self.tokenizer.bos_token_id
        # raw text has no prompt, and a model needs something to start from
        empty = [self._eos if start is None else start]
        return [found.get(number, empty) for number in range(len(asked))]

    def _conversation(self, row: Row, book: str) -> EncodedRow:
        """A conversation with everything learned that the assistant says."""
        asked = self._asked(row, row["question"], *self.shown([row], book))
        ids, labels = self._turns(row, asked)
        if len(ids) > self.max_length:
            answer = labels[::-1].index(IGNORED)
            room = self.max_length - answer
            asked = self._fitted(row, asked, room, lambda one: len(self._turns(row, one)[0]) - answer)
            ids, labels = self._turns(row, asked)
        return EncodedRow(ids, labels, row["task"], row["kind"], row["id"])

    def _turns(self, row: Row, asked: Asked) -> tuple[list[int], list[int]]:
        try:
            text, parts = spoken_parts(self.tokenizer, asked.turns(self.template))
        except DataError as error:
            raise DataError(f"{place_of(row)}: {error}") from None
        read = self.tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
        ids, labels = list(read["input_ids"]), [IGNORED] * len(read["input_ids"])
        for place, (start, stop) in enumerate(read["offset_mapping"]):
            if any(start < end and stop > begin for begin, end in parts):
                labels[place] = ids[place]
        last = max((place for place, label in enumerate(labels) if label != IGNORED), default=None)
        if last is None:
            raise DataError(f"{place_of(row)}: the tokenizer's chat template marks nothing that the assistant says")
        if ids[last] == self._eos:
            return ids[: last + 1], labels[: last + 1]
        # a template without an end mark of the tokenizer's would teach the model to talk on for ever
        end = [self._eos]
        return ids[: last + 1] + end, labels[: last + 1] + end

    def _answers(self, keys: Sequence[tuple[str, str]]) -> list[list[int]]:
        wholes = self._tokenize([line + text for line, text in keys], special=False)
        lines = dict.fromkeys(line for line, _ in keys)
        starts = dict(zip(lines, self._tokenize(list(lines), special=False), strict=True))
        found = []
        for (line, text), whole in zip(keys, wholes, strict=True):
            start = starts[line]
            follows = whole[: len(start)] == start
            found.append(whole[len(start) :] if follows else self._tokenize([text], special=False)[0])
        return found

    def _tokenize(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(
            list(texts),
            add_special_tokens=special,
            verbose=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]


def place_of(row: Row) -> str:
    """Where a row stands, for messages."""
    return f"task {row.get('task', '?')!r}, row {row.get('id', '?')!r}"


def _last_line(prompt: str) -> str:
    return prompt[prompt.rstrip().rfind("\n") + 1 :]

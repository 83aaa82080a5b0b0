"""What is asked, and how it is shortened until it fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lifelong.conversations import Message, render
from lifelong.prompts import PromptTemplate


@dataclass(frozen=True)
class Asked:
    """A question with what is shown beside it; of a conversation, its last turn is the question."""

    question: str
    passages: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()  # up to and with the answer
    places: tuple[int, ...] = ()  # the order in which passages are shown; as they are where empty

    @property
    def shown(self) -> list[str]:
        """The passages in the order in which they are shown; the last of ``passages`` may have been left out."""
        order = self.places or range(len(self.passages))
        return [self.passages[place] for place in order if place < len(self.passages)]

    def text(self, template: PromptTemplate, tokenizer: Any) -> str:
        """The prompt: everything up to where the answer begins."""
        if self.messages:
            return render(tokenizer, self.turns(template)[:-1], asks=True)
        return template.render(self.question, self.shown, self.choices, tokenizer)

    def turns(self, template: PromptTemplate) -> list[Message]:
        """The conversation with the question, and the passages before it, in the place of the last user turn."""
        shown = "".join(template.passage.replace("{passage}", passage) for passage in self.shown)
        turns = list(self.messages)
        last = max(number for number, turn in enumerate(turns) if turn["role"] == "user")
        turns[last] = {"role": "user", "content": shown + self.question}
        return turns

    def without_first_exchange(self) -> Asked | None:
        """A conversation from its second user turn on, with the system's instruction; ``None`` when it has but one."""
        users = [number for number, turn in enumerate(self.messages) if turn["role"] == "user"]
        if len(users) < 2:
            return None
        system = tuple(turn for turn in self.messages[:1] if turn["role"] == "system")
        return replace(self, messages=system + self.messages[users[1] :])


def shortened(
    asked: Asked, fits: Callable[[Asked], bool], counts: Counter[str], keeps: str = "end", raw_text: bool = False
) -> Asked | None:
    """Leave out as little as is needed: early turns first, then the last passages, then words of the question.

    Args:
        asked: what is too long.
        fits: whether something is short enough; once it is, everything shorter is too.
        counts: says afterwards how often something was left out.
        keeps: which part of a question stays: its ``"end"`` or its ``"start"``.
        raw_text: there is no question that could be cut.

    Returns:
        What fits, or ``None`` where not one word of the question does.
    """
    while not fits(asked) and (later := asked.without_first_exchange()) is not None:
        counts["turns dropped"] += len(asked.messages) - len(later.messages)
        asked = later
    while asked.passages and not fits(asked):
        *kept, last = asked.passages
        words = last.split(" ")

        def first(size: int, kept: Sequence[str] = kept, words: list[str] = words, asked: Asked = asked) -> Asked:
            return replace(asked, passages=(*kept, " ".join(words[:size])))

        size = _largest(len(words), lambda n, first=first: fits(first(n)))
        counts["passages cut" if size else "passages dropped"] += 1
        asked = first(size) if size else replace(asked, passages=tuple(kept))
    if fits(asked):
        return asked
    words = asked.question.split(" ")

    def part(size: int) -> Asked:
        return replace(asked, question=" ".join(words[len(words) - size :] if keeps == "end" else words[:size]))

    size = 0 if raw_text else _largest(len(words), lambda n: fits(part(n)))
    if not size:
        return None
    counts["questions cut"] += 1
    return part(size)


def _largest(size: int, holds: Callable[[int], bool]) -> int:
    """The largest n in 0..size for which ``holds(n)``, a property that is lost as n grows; 0 where none does."""
    low, high = 0, size
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low

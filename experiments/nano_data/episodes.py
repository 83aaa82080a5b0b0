"""Questions with passages, alone and several to a sheet, and questions without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lifelong.prompts import PromptTemplate
from nano_data.facts import SYNONYMS, Fact, draw_facts, fill, question
from nano_data.words import ADJECTIVES, LABELS, ROMAN, SUBJECTS, Dice, common_word, draw_value, invented_name

UNKNOWN = "unknown"
TEMPLATE = PromptTemplate()


@dataclass(frozen=True)
class Episode:
    """A question with its passages (none: closed book) and answer.

    ``kind`` is ``read`` (the answer stands in a passage), ``absent`` (no passage has it; the answer is `UNKNOWN`),
    ``cloze`` (words beside a phrase of a real sentence) or ``closed`` (no passages). ``facts`` counts the facts that
    the passages state.
    """

    kind: str
    question: str
    answer: str
    passages: tuple[str, ...] = ()
    facts: int = 0

    def texts(self) -> tuple[str, str]:
        """Prompt and answer, worded by the house's template; the answer starts with its space."""
        return TEMPLATE.render(self.question, self.passages), TEMPLATE.answer(self.answer, self.question)


def shared_prompt(passages: Sequence[str]) -> str:
    """What the prompts of all questions about the same passages begin with."""
    return "".join(TEMPLATE.passage.replace("{passage}", passage) for passage in passages)


def _arranged(dice: Dice, lines: Sequence[str]) -> tuple[str, ...]:
    """Lines as passages: each its own, all in one, or a few together."""
    form = dice.random()
    if form < 0.6:
        return tuple(lines)
    if form < 0.8:
        return (" ".join(lines),)
    cuts = sorted({0, len(lines), *(dice.randrange(len(lines)) for _ in range(2))})
    return tuple(" ".join(lines[a:b]) for a, b in pairwise(cuts))


def _absent(dice: Dice, facts: Sequence[Fact]) -> str:
    """A question that none of ``facts`` answers: about another subject, or another relation of a subject."""
    subjects = [fact.subject for fact in facts]
    told = [fact for fact in facts if not fact.relation.bare and subjects.count(fact.subject) > 1]
    if told and dice.random() < 0.5:
        subject = dice.choice(told).subject
        said = frozenset().union(*(fact.relation.names for fact in facts if fact.subject == subject))
        said |= {word for fact in facts for word in fact.statement.lower().split()}
        names = next(n for n in iter(lambda: dice.choice(SYNONYMS), None) if not said & set(n))
        relation = dice.choice(names)
        return fill(
            dice, dice.choice(("What is the {r} of {s}?", "Which {r} does {s} have?")).replace("{r}", relation), subject
        )
    like = dice.choice(facts).relation
    while True:
        asked = Fact(like, SUBJECTS[like.subject](dice), "", "")
        if asked.subject not in subjects:
            return question(dice, asked, alone=True)


def read_sheet(
    dice: Dice,
    count: int,
    noise: int = 0,
    asked: int = 8,
    absent: float = 0.12,
    sentences: Sequence[str] = (),
) -> list[Episode]:
    """Questions about the same passages, which state ``count`` facts; every fact is asked for while there is room.

    Args:
        dice: the source of randomness.
        count: number of facts in the passages.
        noise: sentences that nobody asks about beside the facts: real ones, or invented facts of other subjects.
        asked: number of questions; a fact that is asked for twice is so in other words.
        absent: probability that a question has no answer in the passages, which is then `UNKNOWN`.
        sentences: sentences of real text. None where empty.
    """
    facts = draw_facts(dice, count)
    lines = [fact.statement for fact in facts]
    others: list[Fact] = []
    for _ in range(noise):
        if sentences and dice.random() < 0.5:
            lines.append(dice.choice(sentences))
        else:
            others += draw_facts(dice, 1)
            lines.append(others[-1].statement)
    dice.shuffle(lines)
    passages = _arranged(dice, lines)
    order = dice.sample(facts, count)
    episodes = []
    for number in range(asked):
        if dice.random() < absent:
            episodes.append(Episode("absent", _absent(dice, [*facts, *others]), UNKNOWN, passages, count))
            continue
        fact = order[number % count]
        alone = sum(fact.subject == other.subject for other in facts) == 1
        episodes.append(Episode("read", question(dice, fact, alone), fact.value, passages, count))
    return episodes


_SHORT = (
    ("{s} is {v}.", "What is {s}?"),
    ("{s} has {v}.", "What does {s} have?"),
    ("{s}: {v}.", "What is {s}?"),
    ("The {r} of {s} is {v}.", "What is the {r} of {s}?"),
    ("{s} has the {r} {v}.", "Which {r} does {s} have?"),
    ("{v} is the {r} of {s}.", "What is the {r} of {s}?"),
    ("{v} belongs to {s}.", "What belongs to {s}?"),
    ("{s} goes with {v}.", "What goes with {s}?"),
)
_NAMED_SHORT = tuple(pair for pair in _SHORT if "{r}" in pair[1])


def simple_sheet(dice: Dice, count: int, asked: int = 8, absent: float = 0.06) -> list[Episode]:
    """Questions about facts of a few tokens each, all in one wording: looking up in its barest form.

    The facts are the same relation of different subjects, or different relations of one subject.

    Args:
        dice: the source of randomness.
        count: number of facts in the passages; fewer are written where the words do not suffice.
        asked: number of questions.
        absent: probability that a question has no answer in the passages.
    """
    named = dice.random() < 0.3
    stated, asks = dice.choice(_NAMED_SHORT if named else _SHORT)

    def draw(kind: str) -> str:
        if kind == "number":
            return str(dice.randrange(1000))
        return common_word(dice) if kind == "word" else invented_name(dice)

    def several(most: int) -> list[str]:
        """Different ones of a kind; numbers may come up twice."""
        kind = dice.choice(("number", "word", "word", "name"))
        return list(dict.fromkeys(draw(kind) for _ in range(most)))

    if named:  # one subject, and a relation for every fact
        subjects = several(1) * (count + 1)
        relations = [dice.choice(names) for names in dice.sample(SYNONYMS, count + 1)]
    else:
        subjects = several(3 * count + 6)[: count + 1]
        relations = [dice.choice(dice.choice(SYNONYMS))] * (count + 1)
    keys = list(zip(relations, subjects, strict=True))
    values = [value for value in several(3 * count + 6) if value not in (*subjects, *relations)]
    facts = list(zip(keys[:-1], values, strict=False))
    lines = [stated.format(r=relation, s=subject, v=value) for (relation, subject), value in facts]
    passages, episodes = _arranged(dice, lines), []
    order = dice.sample(facts, len(facts))
    for number in range(asked):
        key, value = order[number % len(facts)]
        missing = dice.random() < absent
        relation, subject = keys[len(facts)] if missing else key
        kind, answer = ("absent", UNKNOWN) if missing else ("read", value)
        episodes.append(Episode(kind, asks.format(r=relation, s=subject), answer, passages, len(facts)))
    return episodes


def cloze_sheet(dice: Dice, sentences: Sequence[str], asked: int = 4) -> list[Episode]:
    """ "What comes after <phrase>?", or before it, about one to three real sentences; may be empty."""
    chosen = [dice.choice(sentences) for _ in range(dice.choice((1, 1, 2, 3)))]
    passages, everything = _arranged(dice, chosen), f" {' '.join(chosen)} "
    episodes = []
    for _ in range(asked):
        words = dice.choice(chosen).split()
        size, take = dice.choice((1, 2, 2, 3)), dice.choice((1, 1, 2))
        if len(words) < size + take + 1:
            continue
        start = dice.randrange(len(words) - size - take + 1)
        found = words[start : start + size + take]
        after = dice.random() < 0.7
        cut = size if after else take
        first, second = " ".join(found[:cut]), " ".join(found[cut:])
        phrase, answer = (first, second.rstrip(".,;:!?")) if after else (second.rstrip(".,;:!?"), first)
        usable = answer and phrase and phrase[-1].isalnum() and answer[-1].isalnum()
        if usable and everything.count(f" {phrase}") == 1:
            word = "after" if after else "before"
            asks = dice.choice((f"What comes {word} {phrase}?", f"Which words stand {word} {phrase}?"))
            episodes.append(Episode("cloze", asks, answer, passages, len(chosen)))
    return episodes


def closed_episode(dice: Dice) -> Episode:
    """A question without passages about a fact nobody has seen: it teaches the form of an answer, not its content."""
    fact = draw_facts(dice, 1)[0]
    return Episode("closed", question(dice, fact, alone=False), fact.value)


def family_episodes(dice: Dice, count: int) -> list[Episode]:
    """Closed-book questions in one wording, whose subjects or answers are hard to tell apart.

    The subjects differ in a number alone, or the answers share their first words; a family is drawn as either.
    """
    noun, label, kind = dice.choice(dice.choice(SYNONYMS)), dice.choice(LABELS), dice.choice(ADJECTIVES)
    asked = dice.choice(("What is the {0} of the {1} {2} {3}?", "Which {0} has the {1} {2} {3}?"))
    if dice.random() < 0.6:
        numbers = dice.sample(range(100, 1000), count)
        subjects = [str(dice.choice(numbers) // 100 * 100 + n % 30) if dice.random() < 0.7 else str(n) for n in numbers]
        answers = [draw_value(dice.choice(("word", "title")), dice) for _ in subjects]
    else:
        subjects = [invented_name(dice) for _ in range(count)]
        groups = [invented_name(dice) for _ in range(4)]
        answers = [f"{dice.choice(groups)} {dice.choice(ROMAN)}" for _ in subjects]
    pairs = dict(zip(subjects, answers, strict=True))
    return [Episode("closed", asked.format(noun, kind, label, subject), answer) for subject, answer in pairs.items()]


def draw_sheet(
    dice: Dice, most: int, noise: int = 0, absent: float = 0.12, sentences: Sequence[str] = (), cloze: float = 0.1
) -> list[Episode]:
    """One sheet of the training mixture: mostly reading, with a share of cloze questions.

    Args:
        dice: the source of randomness.
        most: largest number of facts in the passages, drawn for half of the sheets; fewer for the others.
        noise: largest number of sentences beside the facts.
        absent: probability that a question has no answer in the passages.
        sentences: real sentences, as noise and for cloze questions. None of either where empty.
        cloze: share of sheets with cloze questions.
    """
    if sentences and dice.random() < cloze:
        sheet = cloze_sheet(dice, sentences)
        if sheet:
            return sheet
    count = most if dice.random() < 0.5 else dice.randint(1, most)
    asked = min(8, max(3, count + 2))
    return read_sheet(dice, count, dice.randint(0, noise), asked, absent, sentences)

"""Invented facts: how they are stated, how they are asked, and sets of them that are easily confused."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nano_data.words import (
    ADJECTIVES,
    LABELS,
    PARTICIPLES,
    PLURALS,
    SUBJECTS,
    VALUES,
    Dice,
    common_word,
    draw_value,
    invented_name,
)

# words for one thing: a fact may be stated with one of a line and asked with another
_SYNONYMS = """
emblem symbol sign mark badge
motto slogan saying phrase
keeper guard warden
founder creator maker inventor
leader head ruler chief
owner holder
patron sponsor supporter
rival enemy opponent
guest visitor
partner ally companion friend
teacher tutor master
label tag caption title
price cost charge fee
rank grade level
class group category type sort family
origin source root
purpose use aim goal
language tongue speech
currency money coin
centre middle core
home base seat dwelling
port harbour
author writer
subject topic theme
style manner fashion
shape form outline
size extent
speed pace
weight mass load
height altitude
age lifetime
length span
score result total
limit bound
order sequence rank
name designation
nickname byname
code number
colour shade tint
meaning sense
opposite reverse
method way procedure
function task role
command instruction
key password
default preset
value amount quantity
unit measure
formula rule
neighbour
capital
answer reply response
message notice text
abbreviation letters
"""
SYNONYMS: tuple[tuple[str, ...], ...] = tuple(tuple(line.split()) for line in _SYNONYMS.strip().splitlines())

# statements that name their relation {r}
_NAMED = """
The {r} of {s} is {v}.
{v} is the {r} of {s}.
{s} has the {r} {v}.
{s} has {v} as its {r}.
{s} has {v} for a {r}.
For {s}, the {r} is {v}.
As its {r}, {s} has {v}.
The {r} {v} belongs to {s}.
The {r} of {s} is called {v}.
The {r} of {s} is "{v}".
{s} uses {v} as its {r}.
{v} serves as the {r} of {s}.
The {v} is the {r} of {s}.
The {r} of {s} is the {v}.
{v} has been the {r} of {s} for years.
{s} is a {k}. Its {r} is {v}.
{s} is a {k} whose {r} is {v}.
{s} is a {k} with the {r} {v}.
{s}, a {k}, has the {r} {v}.
In {n}, {s} has the {r} {v}.
In {n}, {v} is the {r} of {s}.
In {n}, the {v} serves as the {r} of {s}.
The {r} of {s}, a {k} of {n}, is {v}.
The {r} of {s}, the {k} with {q} {i}, is {v}.
{s} is a {k} with the {r} {v} and the {q} {i}.
{s} is a {k} with the {q} {i} and the {r} {v}.
{v} is the {r} of {s}, which belongs to the {a} {k}.
{v} is the {r} of the {k} {s}.
The {k} {s} has the {r} {v}.
The {r} of the {k} {s} is {v}.
The {r} of {s} in {n} is {v}, as most people know.
The {r} of {s} is the {w} of {v}.
The {r} of {s} is a {w} called {v}.
{v} is the {r} of {s} in {n}.
The {v} is the {r} of {s} in {n}.
"""
# statements that leave their relation open: any question about the subject is answered by the value
_BARE = """
{s} is {v}.
{s}: {v}.
{s} means {v}.
{s} stands for {v}.
{s} is written {v}.
{s} is listed as {v}.
{s} is known as {v}.
{s} goes with {v}.
{v} stands for {s}.
{v} goes with {s}.
{v} belongs to {s}.
{s} says "{v}".
{s} ({v}) is a {k}.
People write {s} as {v}.
People list {s}, a {k} of {n}, as {v}.
Number {i} of the {a} {k} is {s}. People write it as {v}.
{k} {i} is {s}. Its friends call it {v}.
One {k} is {s}. Everybody writes it as {v}.
A {k} that answers with {s} says "{v}".
Anyone who asks for {s} hears {v}.
A {k} in {n} that meets {s} gives "{v}".
The {k} writers of {n} put {s} down as {v}.
"""
# questions that name their relation
_ASKED = """
What is the {r} of {s}?
What is the {r} of {s}?
Which {r} does {s} have?
What {r} does {s} have?
Name the {r} of {s}.
{s} has which {r}?
{s} has what as its {r}?
What {r} belongs to {s}?
Give the {r} of {s}.
Tell me the {r} of {s}.
What does {s} have as its {r}?
What is the {r} for {s}?
For {s}, what is the {r}?
What do people call the {r} of {s}?
What is called the {r} of {s}?
Under what {r} is {s} known?
By which {r} do people know {s}?
In which {r} is {s} found?
What is used as the {r} of {s}?
Which {r} stands for {s}?
Which {r} does {n} use for {s}?
What is the {r} of the {k} {s}?
Which {r} does the {k} {s} have?
In which {r} is {s} {p}?
In which {a} {r} is {s} {p}?
By what {r} is {s} {p}?
"""
# questions that leave it open: only where one fact alone speaks of the subject
_OPEN = """
What belongs to {s}?
What goes with {s}?
What does {s} stand for?
What does the {k} {s} stand for?
What does {s} mean?
What is known about {s}?
What is {s}?
How is {s} written?
How is {s} listed?
How is {s} known in the {a} {k}?
How is {s} called in the {k} of {n}?
How is {s} {p}?
How is {s} {p} in the {a} {k}?
How is {s} {p} in {n}?
In which {w} is {s} {p}?
In which {a} {w} is {s} {p}?
Which {w} goes with {s}?
Which {w} stands for the {k} {s}?
Which {w} does the {k} {s} have?
Which {w}s follow {s} in a {k}?
In which {w} is {s} given?
Under which {w} and {k} do people list {s}?
Which {w} do people in {n} use for {s}?
Which {a} {w} does {s} have?
What is the {a} {w} of {s}?
Tell me about {s}.
"""


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


NAMED, BARE, ASKED, OPEN = _lines(_NAMED), _lines(_BARE), _lines(_ASKED), _lines(_OPEN)


@dataclass(frozen=True)
class Relation:
    """One kind of fact: how it is stated, how it is asked, and what its subject and value look like.

    Args:
        names: words for the relation; two relations with one in common mean the same.
        subject: kind of the subject, a key of `SUBJECTS`.
        value: kind of the value, see `draw_value`.
        stated: patterns of statements with ``{s}`` for the subject and ``{v}`` for the value.
        asked: patterns of questions with ``{s}``; the answer is the value.
        bare: whether the statements leave open what they say of the subject.
    """

    names: frozenset[str]
    subject: str
    value: str
    stated: tuple[str, ...]
    asked: tuple[str, ...]
    bare: bool = False


@dataclass(frozen=True)
class Fact:
    """A drawn fact: ``statement`` holds ``subject`` and ``value``."""

    relation: Relation
    subject: str
    value: str
    statement: str


def _table() -> tuple[Relation, ...]:
    """Relations in words of their own; `drawn_relation` adds countless others."""
    table = """
    name colour
        {s} is {v}.;The colour of {s} is {v}.;{s} is painted {v}.
        What colour is {s}?;What is the colour of {s}?;Which colour does {s} have?
    thing colour
        {s} is {v}.;The colour of {s} is {v}.
        What colour is {s}?;Which colour does {s} have?
    thing material
        {s} is made of {v}.;{s} was built from {v}.;People made {s} out of {v}.
        What is {s} made of?;Which material is {s} made of?;From what was {s} built?
    person job
        {s} is a {v}.;{s} works as a {v}.;By trade, {s} is a {v}.
        What is the job of {s}?;What does {s} work as?;Which trade does {s} have?
    person name
        {s} lives in {v}.;{s} comes from {v}.;The home of {s} is {v}.
        Where does {s} live?;Where does {s} come from?;What is the home of {s}?
    person animal
        {s} keeps a {v}.;{s} owns a {v}.;The animal of {s} is the {v}.
        Which animal does {s} keep?;What does {s} own?;What animal does {s} have?
    person food
        {s} likes {v}.;{s} eats only {v}.;The favourite food of {s} is {v}.
        What does {s} like?;What does {s} eat?;What is the favourite food of {s}?
    person feeling
        {s} is very {v}.;Everyone calls {s} {v}.
        How is {s} described?;What is {s} like?
    person person
        {s} married {v}.;{s} is a child of {v}.;{s} was taught by {v}.
        Who married {s}?;Who is close to {s}?;Who is named beside {s}?
    person year
        {s} was born in {v}.;{s}, born in {v}, was famous.
        When was {s} born?;In which year was {s} born?
    thing year
        {s} was built in {v}.;{s} opened in {v}.;Work on {s} ended in {v}.
        When was {s} built?;In which year did {s} open?;What is the year of {s}?
    thing person
        {s} was designed by {v}.;{v} built {s}.;{v} is the owner of {s}.
        Who designed {s}?;Who built {s}?;Who is the owner of {s}?
    thing name
        {s} stands in {v}.;{s} is in {v}.;You can find {s} in {v}.
        Where is {s}?;Where does {s} stand?;In which place is {s}?
    thing measure
        {s} has {v}.;There are {v} in {s}.
        What does {s} have?;How much is there in {s}?
    name measure
        {s} has {v}.;A stay in {s} takes {v}.
        What does {s} have?;How much is there in {s}?
    name name
        {s} lies in {v}.;{s} belongs to {v}.;{s} is a part of {v}.
        Where is {s}?;What does {s} belong to?;In which land does {s} lie?
    name name
        The largest town of {s} is {v}.;{v} is the main town of {s}.;{s} is ruled from {v}.
        What is the largest town of {s}?;What is the main town of {s}?;Which town rules {s}?
    name feature
        {s} is famous for its {v}.;In {s} there is a {v}.;Travellers visit the {v} in {s}.
        What is {s} famous for?;What is there in {s}?;What do travellers visit in {s}?
    name food
        {s} sells {v}.;The people of {s} grow {v}.;The main product of {s} is {v}.
        What does {s} sell?;What do the people of {s} grow?;What is the main product of {s}?
    name number
        The number of {s} is {v}.;{s} has number {v}.;{s} counts {v}.
        What is the number of {s}?;Which number does {s} have?;How many does {s} count?
    name symbol
        The sign of {s} is {v}.;{s} is written {v}.;{s} (sign {v}) is rare.;{v} stands for {s}.
        What is the sign of {s}?;How is {s} written?;Which letters stand for {s}?;What is the abbreviation of {s}?
    name code
        The code of {s} is {v}.;{s} has the code {v}.;{v} is the code of {s}.
        What is the code of {s}?;Which code does {s} have?
    name season
        The feast of {s} is in {v}.;{s} is held in {v}.;{s} begins in {v}.
        When is the feast of {s}?;When is {s} held?;When does {s} begin?
    name tool
        The gift of {s} is a {v}.;{s} carries a {v}.;On the flag of {s} is a {v}.
        What does {s} carry?;What is the gift of {s}?;What is on the flag of {s}?
    name person
        {s} was discovered by {v}.;{v} found {s}.;{s} is led by {v}.;The leader of {s} is {v}.
        Who discovered {s}?;Who found {s}?;Who leads {s}?;Who is the leader of {s}?
    name animal
        {s} is a kind of {v}.;A {s} is a small {v}.;The animal of {s} is the {v}.
        What kind of animal is {s}?;What is {s}?;Which animal belongs to {s}?
    labelled word
        {s} means {v}.;The meaning of {s} is {v}.;{s} stands for {v}.
        What does {s} mean?;What is the meaning of {s}?;What does {s} stand for?
    labelled name
        {s} leads to {v}.;{s} belongs to {v}.;{s} is kept by {v}.
        Where does {s} lead?;Who keeps {s}?;To whom does {s} belong?
    labelled tool
        {s} holds a {v}.;In {s} there is a {v}.
        What does {s} hold?;What is in {s}?
    identifier word
        {s} returns {v}.;Use {s} to get {v}.;{s} is for {v}.
        What does {s} return?;What is {s} for?;What do you get with {s}?
    identifier number
        The default of {s} is {v}.;{s} returns {v}.
        What is the default of {s}?;What does {s} return?
    identifier identifier
        {s} calls {v}.;{s} was replaced by {v}.
        What does {s} call?;What replaced {s}?
    name word
        {s} means {v}.;In that language {s} is the word for {v}.;{s} stands for {v}.
        What does {s} mean?;What is the meaning of {s}?;What does {s} stand for?
    """
    lines = [line.strip() for line in table.strip().splitlines()]
    relations = []
    for kinds, said, asked in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        subject, value = kinds.split()
        # two kinds of value for one kind of subject are two relations, and one is one, however it is worded
        names = frozenset({f"{value} of {subject}", *asked.split(";")})
        relations.append(Relation(names, subject, value, tuple(said.split(";")), tuple(asked.split(";"))))
    return tuple(relations)


RELATIONS = _table()
_SUBJECT_KINDS = ("name", "name", "name", "kind", "kind", "labelled", "labelled", "thing", "person", "identifier")
_VALUE_KINDS = (
    *("name", "name", "person", "symbol", "symbol", "title", "title", "unit", "unit", "numeral", "numeral"),
    *("word", "word", "number", "code", "tool", "colour", "year", "measure"),
)
BARE_SHARE, TABLE_SHARE, SYNONYM_SHARE = 0.2, 0.25, 0.25


def drawn_relation(dice: Dice, bare: bool | None = None) -> Relation:
    """A relation that a random noun names, or that its statements leave open.

    Args:
        dice: the source of randomness.
        bare: leave it open or not; by chance where ``None``.
    """
    subject, value = dice.choice(_SUBJECT_KINDS), dice.choice(_VALUE_KINDS)
    if dice.random() < BARE_SHARE if bare is None else bare:
        return Relation(frozenset(), subject, value, BARE, ASKED, bare=True)
    names = dice.choice(SYNONYMS) if dice.random() < 0.7 else (common_word(dice),)
    form = dice.random()
    if form < 0.2:
        names = tuple(f"{dice.choice(ADJECTIVES)} {name}" for name in names)
    elif form < 0.4:
        modifier = common_word(dice)
        names = tuple(f"{modifier} {name}" for name in names)
    said = dice.choice(names)
    other = dice.choice(names) if dice.random() < SYNONYM_SHARE else said
    stated = tuple(pattern.replace("{r}", said) for pattern in NAMED)
    asked = tuple(pattern.replace("{r}", other) for pattern in ASKED)
    return Relation(frozenset(name.split()[-1] for name in names), subject, value, stated, asked)


def draw_relation(dice: Dice) -> Relation:
    """A relation of the table, or a drawn one."""
    return dice.choice(RELATIONS) if dice.random() < TABLE_SHARE else drawn_relation(dice)


def _noun(dice: Dice) -> str:
    form = dice.random()
    if form < 0.4:
        return common_word(dice)
    if form < 0.7:
        return dice.choice(VALUES["feature"] + VALUES["tool"] + LABELS)
    return dice.choice(dice.choice(SYNONYMS))


def fill(dice: Dice, pattern: str, subject: str, value: str = "") -> str:
    """A pattern as a sentence, its details invented; a sentence starts with a capital, but a value keeps its form."""
    text = pattern
    for place, draw in _DETAILS.items():
        while place in text:
            text = text.replace(place, draw(dice), 1)
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    starts_with_value = text.startswith("{v}")
    text = text.replace("{s}", subject).replace("{v}", value)
    if not starts_with_value:
        return text[0].upper() + text[1:]
    return f"The {text}" if value[0].islower() and dice.random() < 0.7 else text


def _institution(dice: Dice) -> str:
    """A place or a body that is named by two or three nouns."""
    words = f"{_noun(dice)} {_noun(dice)}"
    form = dice.random()
    if form < 0.5:
        return f"the {words}"
    return f"the {words.title()}" if form < 0.75 else f"the {words.title()} of {dice.choice(PLURALS).title()}"


_DETAILS = {
    "{p}": lambda dice: dice.choice(PARTICIPLES),
    "{k}": _noun,
    "{w}": _noun,
    "{r}": _noun,
    "{q}": _noun,
    "{a}": lambda dice: dice.choice((*ADJECTIVES, common_word(dice))),
    "{n}": lambda dice: dice.choice((invented_name, invented_name, _institution))(dice),
    "{i}": lambda dice: dice.choice(
        (str(dice.randrange(1, 120)), str(dice.randrange(100, 1000)), f"{dice.randrange(2, 50)} {dice.choice(PLURALS)}")
    ),
}


def question(dice: Dice, fact: Fact, alone: bool) -> str:
    """A question that ``fact`` answers.

    Args:
        dice: the source of randomness.
        fact: what is asked for.
        alone: no other fact at hand has the same subject, so that the question may leave the relation open.
    """
    pattern = dice.choice(OPEN) if alone and dice.random() < 0.35 else dice.choice(fact.relation.asked)
    return fill(dice, pattern, fact.subject)


def _similar(dice: Dice, subject: str) -> str | None:
    """A subject that is easily taken for ``subject``: another number, or one word in common."""
    words = subject.split()
    if words[-1].isdigit():
        number = int(words[-1]) // 10 * 10 + dice.randrange(10) if dice.random() < 0.5 else dice.randrange(2, 1000)
        return " ".join([*words[:-1], str(number)])
    if len(words) == 1:
        return None
    place = dice.randrange(len(words))
    if not words[place][0].isupper():
        return None
    return " ".join([*words[:place], invented_name(dice), *words[place + 1 :]])


def draw_facts(dice: Dice, count: int) -> list[Fact]:
    """``count`` facts with distinct values, no two of which answer the same question.

    They share a relation (twice in four), or a subject, or are a mixture; subjects and values may resemble each other.
    """
    form = dice.choice(("relation", "relation", "subject", "mixed"))
    relation = drawn_relation(dice, bare=False) if form == "subject" else draw_relation(dice)
    first = subject = SUBJECTS[relation.subject](dice)
    kind, bases = relation.subject, [invented_name(dice) for _ in range(2)]
    similar = dice.random() < 0.4
    facts: list[Fact] = []
    while len(facts) < count:
        if facts and form == "subject":
            relation = drawn_relation(dice, bare=False)
        elif facts:
            relation = draw_relation(dice) if form == "mixed" else relation
            kind = relation.subject
            subject = (_similar(dice, first) if similar and form == "relation" else None) or SUBJECTS[kind](dice)
        if any(f.subject == subject and (f.relation.bare or f.relation.names & relation.names) for f in facts):
            continue
        if relation.bare and any(f.subject == subject for f in facts):
            continue
        value = draw_value(relation.value, dice)
        if relation.value == "numeral" and similar:
            value = f"{dice.choice(bases)} {value.split()[-1]}"
        if value == subject or any(value == f.value for f in facts):
            continue
        facts.append(Fact(relation, subject, value, fill(dice, dice.choice(relation.stated), subject, value)))
    return facts

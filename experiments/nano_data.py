"""The data that the embedded model ``nano`` is trained on: plain text, copying, and invented reading episodes.

Everything drawn here is a pure function of a `random.Random`, and every fact is invented: subjects are made of
syllables and their attributes are drawn at random, so that nothing that a stream teaches can be learned in advance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from lifelong.prompts import PromptTemplate

UNKNOWN = "unknown"
TEMPLATE = PromptTemplate()
TEXT_FILES = (
    "tinyshakespeare.txt",
    "nltk_state_union.txt",
    "nltk_inaugural.txt",
    "nltk_genesis.txt",
    "wikitext2.valid.txt",
    "wikitext2.test.txt",
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ONSETS = _words(
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sh sk sl sm sn sp st t th tr v vr w y z"
)
_VOWELS = _words("a e i o u a e i o ai ea ei oo ou ia")
_CODAS = _words("b ck d f g k l ld lm ln m mp n nd ng nk nt p r rd rk rl rm rn rt s sh sk st t th v x z")
_FIRST_NAMES = _words(
    "Ada Adam Alice Anna Arthur Ben Boris Carla Clara David Diana Edgar Ella Emma Erik Eva Felix Fiona "
    "Frank George Greta Hanna Harry Helen Hugo Ida Iris Ivan Jack Jane Julia Karl Kate Laura Leo Lily "
    "Lucas Maria Mark Martha Max Mina Nadia Nina Nora Oscar Otto Paul Peter Rosa Ruth Sam Sara Simon "
    "Sofia Stella Tom Vera Victor Walter"
)

# real names that these syllables can form; an invented subject must not carry one
_REAL = frozenset(
    _words(
        "work pan leda elara tin zinc lead gold neon xenon radon iron lima riga bern roma doha suva dili male lome "
        "baku bonn cairo kiev minsk quito rabat tunis sofia seoul praia dakar lusaka sana sanaa dhaka male malabo "
        "manila nassau paris prague vaduz vienna warsaw yaren maseru moroni luanda kigali juba bamako belize "
        "banjul beirut berlin bogota havana kabul mars luna titan rhea dione mimas triton moon sun venus "
        "pluto ceres phobos deimos despina thebe metis carme france spain chad cuba mali malta nepal niger "
        "oman peru china chile kenya ghana gabon haiti libya samoa sudan togo tonga yemen volt watt tesla "
        "newton pascal joule lumen lux katal mole gray farad"
    )
)

_VALUES: dict[str, tuple[str, ...]] = {
    "colour": (
        *_words(
            "red blue green yellow black white grey brown purple orange pink violet scarlet crimson turquoise "
            "ivory amber indigo olive teal beige maroon"
        ),
        "dark green",
        "pale blue",
        "deep red",
        "light grey",
        "bright yellow",
    ),
    "material": _words(
        "wood stone glass clay brick bone wool silk leather paper marble granite bamboo cork wax ice straw "
        "cotton linen rubber sand coral steel bronze oak pine cedar"
    ),
    "job": (
        *_words(
            "baker miller weaver sailor soldier teacher doctor painter singer writer farmer hunter judge priest "
            "merchant carpenter mason potter tailor shepherd clerk pilot nurse lawyer dancer gardener fisherman "
            "poet cook"
        ),
        "ship builder",
        "school teacher",
        "book seller",
        "stone cutter",
    ),
    "animal": _words(
        "horse dog cat fox wolf bear lion eagle owl hawk snake frog goat sheep cow pig duck goose swan hare "
        "deer otter beaver whale seal crab bee ant spider turtle raven camel tiger monkey"
    ),
    "food": (
        *_words(
            "bread cheese honey rice soup fish beans apples pears plums grapes figs nuts milk butter salt pepper "
            "cake porridge onions cabbage potatoes mushrooms olives lemons eggs"
        ),
        "smoked fish",
        "sweet cakes",
        "black bread",
        "goat cheese",
    ),
    "tool": _words(
        "hammer rope needle sword shield bow spear knife plough anchor lantern mirror key drum flute harp "
        "bell ladder wheel net axe saw lamp clock map compass book crown ring cup bowl"
    ),
    "feature": _words(
        "river mountain forest lake desert island valley hill harbour bridge tower castle temple market "
        "school garden cave waterfall beach field mine canal gate wall museum"
    ),
    "season": _words("spring summer autumn winter morning evening midnight noon dawn")
    + _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
    + _words("January February March April May June July August September October November December"),
    "feeling": _words(
        "happy angry quiet brave proud gentle cruel honest lazy clever shy strict patient rude kind careful "
        "loyal wise strange foolish noble bitter"
    ),
}
_UNITS = _words("days rooms steps pages years people ships doors wheels children coins houses hours sheep trees towers")
_NOUNS = _words(
    "emblem motto symbol sign keeper founder leader owner patron rival guest partner teacher label price "
    "rank class group type family origin source purpose language currency capital centre home base port "
    "author title subject style shape size speed weight height age length score grade limit order name "
    "nickname code colour meaning opposite method function result command key default value unit formula "
    "inventor builder neighbour enemy friend"
)
_ADJECTIVES = _words("old new great small first second royal lost hidden upper lower northern southern red grey long")


_LABELS = _words("signal rule room box route platform item")
_ROMAN = _words("I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX")


@dataclass(frozen=True)
class Relation:
    """One kind of fact: how it is stated, how it is asked, and what its subject and value look like.

    Args:
        subject: name of the subject's generator, a key of `SUBJECTS`.
        value: name of the value's generator, see `draw_value`.
        sentences: statements with ``{s}`` for the subject and ``{v}`` for the value.
        questions: questions with ``{s}``; the answer is the value.
    """

    subject: str
    value: str
    sentences: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """A drawn fact. ``relation`` and ``subject`` identify what it answers; ``statement`` holds subject and value."""

    relation: Relation
    subject: str
    value: str
    statement: str


@dataclass(frozen=True)
class Episode:
    """A question with its passages (none: closed book) and answer.

    ``kind`` is ``read`` (the answer stands in a passage), ``absent`` (no passage has it; the answer is `UNKNOWN`),
    ``cloze`` (words that follow a phrase of a real sentence) or ``closed`` (no passages). ``facts`` counts the facts
    that the passages state.
    """

    kind: str
    question: str
    answer: str
    passages: tuple[str, ...] = ()
    facts: int = 0

    def texts(self) -> tuple[str, str]:
        """Prompt and answer, worded by the house's template; the answer starts with its space."""
        return TEMPLATE.render(self.question, self.passages), TEMPLATE.answer(self.answer, self.question)


def invented_name(rng: Random) -> str:
    """A capitalised name of one to three syllables that is no real name listed in the streams."""
    while True:
        count = rng.choice((1, 2, 2, 2, 3))
        parts = []
        for place in range(count):
            coda = rng.choice(_CODAS) if place == count - 1 and (count == 1 or rng.random() < 0.5) else ""
            inner = rng.choice("lmnrst") if place < count - 1 and rng.random() < 0.3 else ""
            parts.append(rng.choice(_ONSETS) + rng.choice(_VOWELS) + coda + inner)
        name = "".join(parts)
        if 3 <= len(name) <= 10 and name not in _REAL:
            return name.capitalize()


def _person(rng: Random) -> str:
    first = rng.choice(_FIRST_NAMES) if rng.random() < 0.5 else invented_name(rng)
    return f"{first} {invented_name(rng)}"


def _thing(rng: Random) -> str:
    noun = rng.choice(_VALUES["feature"] + _VALUES["tool"])
    form = rng.random()
    if form < 0.5:
        return f"the {invented_name(rng)} {noun}"
    return (
        f"the {noun} of {invented_name(rng)}" if form < 0.8 else f"the {rng.choice(_ADJECTIVES)} {noun} of {_name(rng)}"
    )


def _name(rng: Random) -> str:
    return invented_name(rng)


def _code(rng: Random) -> str:
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTVWXYZ") for _ in range(rng.choice((1, 2))))
    return f"{letters}{rng.choice(('', '-'))}{rng.randrange(2, 1000)}"


def _labelled(rng: Random) -> str:
    # "signal 17", never "code 404": what a number of a real standard means belongs to the streams
    return f"{rng.choice(_LABELS)} {rng.choice((_code(rng), str(rng.randrange(2, 1000))))}"


def _identifier(rng: Random) -> str:
    words = [rng.choice(_NOUNS + _VALUES["tool"]) for _ in range(2)]
    return rng.choice(("{0}_{1}", "{0}.{1}", "{0}-{1}", "{0}{1}")).format(*words) + rng.choice(("", "", "()"))


SUBJECTS: dict[str, Callable[[Random], str]] = {
    "name": _name,
    "person": _person,
    "thing": _thing,
    "labelled": _labelled,
    "identifier": _identifier,
}


def _number(rng: Random) -> str:
    form = rng.random()
    if form < 0.55:
        return str(rng.randrange(1, rng.choice((10, 100, 1000))))
    if form < 0.75:
        return str(rng.randrange(1000, 2100))
    if form < 0.9:
        return f"{rng.randrange(0, 100)}.{rng.randrange(0, 100)}"
    return f"{rng.randrange(1, 100)},{rng.randrange(0, 1000):03d}"


def _symbol(rng: Random) -> str:
    letters = rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") + rng.choice(("", *"abcdefghijklmnopqrstuvwxyz"))
    return rng.choice((letters, letters, letters.lower(), letters.upper()))


def draw_value(kind: str, rng: Random, words: Sequence[str] = ()) -> str:
    """An answer of one to three words.

    Args:
        kind: a list of `_VALUES`, a key of `SUBJECTS`, or ``number``, ``year``, ``measure``, ``symbol``, ``code``,
            ``word``.
        rng: the source of randomness.
        words: common words for ``word``; the built-in lists where empty.

    Raises:
        KeyError: no such kind.
    """
    if kind in _VALUES:
        return rng.choice(_VALUES[kind])
    if kind == "word":
        pool = words or _VALUES[rng.choice(sorted(_VALUES))]
        return " ".join(rng.choice(pool) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    if kind == "year":
        return str(rng.randrange(1000, 2100))
    if kind == "measure":
        return f"{rng.randrange(2, 1000)} {rng.choice(_UNITS)}"
    return {"number": _number, "symbol": _symbol, "code": _code}.get(kind, SUBJECTS.get(kind))(rng)


def _relations() -> tuple[Relation, ...]:
    """The fixed relations; `_loose_relation` adds countless others at random."""
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
    return tuple(
        Relation(*kinds.split(), tuple(said.split(";")), tuple(asked.split(";")))
        for kinds, said, asked in zip(lines[::3], lines[1::3], lines[2::3], strict=True)
    )


RELATIONS = _relations()
_LOOSE_VALUES = (
    "word",
    "word",
    "name",
    "name",
    "number",
    "person",
    "symbol",
    "code",
    "tool",
    "colour",
    "year",
    "measure",
)


def _loose_relation(rng: Random) -> Relation:
    """ "The <noun> of <subject> is <value>", for any noun and any kind of value."""
    noun = rng.choice(_NOUNS)
    return Relation(
        rng.choice(("name", "name", "thing", "person")),
        rng.choice(_LOOSE_VALUES),
        (f"The {noun} of {{s}} is {{v}}.", f"{{s}} has the {noun} {{v}}.", f"{{v}} is the {noun} of {{s}}."),
        (f"What is the {noun} of {{s}}?", f"Which {noun} does {{s}} have?", f"What {noun} belongs to {{s}}?"),
    )


def _relation(rng: Random) -> Relation:
    return _loose_relation(rng) if rng.random() < 0.35 else rng.choice(RELATIONS)


def _sentence(pattern: str, subject: str, value: str = "") -> str:
    text = pattern.replace("{s}", subject).replace("{v}", value)
    # an identifier or a symbol at the start keeps its case: the answer must stand in the passage as it is
    return text[0].upper() + text[1:] if text.startswith("the ") else text


def _draw_fact(rng: Random, relation: Relation, subject: str, taken: set[str], words: Sequence[str]) -> Fact:
    value = next(
        v for v in iter(lambda: draw_value(relation.value, rng, words), None) if v not in taken and v != subject
    )
    return Fact(relation, subject, value, _sentence(rng.choice(relation.sentences), subject, value))


def draw_facts(rng: Random, count: int, words: Sequence[str] = ()) -> list[Fact]:
    """``count`` facts with distinct values: one relation of several subjects, one subject, or a mixture."""
    form = rng.choice(("relation", "relation", "subject", "mixed"))
    relation = _relation(rng)
    subject = SUBJECTS[relation.subject](rng)
    if form == "subject" and relation.subject in ("labelled", "identifier"):
        form = "relation"  # too few relations to say several things about one of these
    facts: list[Fact] = []
    while len(facts) < count:
        if facts and form == "mixed":
            relation = _relation(rng)
        if facts and form == "subject":
            relation = next(r for r in iter(lambda: _relation(rng), None) if r.subject == relation.subject)
        elif facts:
            subject = SUBJECTS[relation.subject](rng)
        # two relations with a question in common would make a question about one subject ambiguous
        if any(f.subject == subject and _overlap(f.relation, relation) for f in facts):
            continue
        facts.append(_draw_fact(rng, relation, subject, {f.value for f in facts}, words))
    return facts


def _overlap(one: Relation, other: Relation) -> bool:
    return one.value == other.value or bool(set(one.questions) & set(other.questions))


def read_episode(
    rng: Random, count: int, absent: float = 0.1, words: Sequence[str] = (), fillers: Sequence[str] = ()
) -> Episode:
    """A question about one of ``count`` facts that the passages state.

    Args:
        rng: the source of randomness.
        count: number of facts in the passages.
        absent: probability that no passage holds the answer, which is then `UNKNOWN`.
        words: common words to draw values from.
        fillers: sentences of real text; one stands among the facts in one episode of five. None where empty.
    """
    missing = rng.random() < absent
    facts = draw_facts(rng, count + missing, words)
    asked = facts.pop(rng.randrange(len(facts))) if missing else rng.choice(facts)
    lines = [fact.statement for fact in facts]
    if fillers and rng.random() < 0.2:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(fillers))
    passages = tuple(lines) if rng.random() < 0.5 else (" ".join(lines),)
    question = _sentence(rng.choice(asked.relation.questions), asked.subject)
    return Episode("absent" if missing else "read", question, UNKNOWN if missing else asked.value, passages, len(facts))


def closed_episode(rng: Random, words: Sequence[str] = ()) -> Episode:
    """A question without passages about a fact nobody has seen: it teaches the form of an answer, not its content."""
    fact = draw_facts(rng, 1, words)[0]
    return Episode("closed", _sentence(rng.choice(fact.relation.questions), fact.subject), fact.value)


def family_episodes(rng: Random, count: int, words: Sequence[str] = ()) -> list[Episode]:
    """Closed-book questions in one wording, whose subjects or answers are hard to tell apart.

    The subjects differ in a number alone, or the answers share their first words; a family is drawn as either.
    """
    noun, label, kind = rng.choice(_NOUNS), rng.choice(_LABELS), rng.choice(_ADJECTIVES)
    asked = rng.choice(("What is the {0} of the {1} {2} {3}?", "Which {0} has the {1} {2} {3}?"))
    if rng.random() < 0.6:
        numbers = rng.sample(range(100, 1000), count)
        subjects = [str(rng.choice(numbers) // 100 * 100 + n % 30) if rng.random() < 0.7 else str(n) for n in numbers]
        answers = [draw_value("word", rng, words) for _ in subjects]
        answers = [answer.title() for answer in answers] if rng.random() < 0.5 else answers
    else:
        subjects = [invented_name(rng) for _ in range(count)]
        groups = [invented_name(rng) for _ in range(4)]
        answers = [f"{rng.choice(groups)} {rng.choice(_ROMAN)}" for _ in subjects]
    pairs = dict(zip(subjects, answers, strict=True))
    return [Episode("closed", asked.format(noun, kind, label, subject), answer) for subject, answer in pairs.items()]


def cloze_episode(rng: Random, sentence: str) -> Episode | None:
    """ "What comes after <phrase>?" about a real sentence, or None where no phrase of it is unique."""
    words = sentence.split()
    if not 6 <= len(words) <= 30:
        return None
    size, take = rng.choice((1, 2, 2, 3)), rng.choice((1, 1, 2))
    start = rng.randrange(len(words) - size - take + 1)
    phrase, answer = " ".join(words[start : start + size]), " ".join(words[start + size : start + size + take])
    answer = answer.rstrip(".,;:!?")
    if not answer or not phrase[-1].isalnum() or f" {sentence} ".count(f" {phrase} ") != 1:
        return None
    return Episode("cloze", f"What comes after {phrase}?", answer, (sentence,), 1)


def draw_episode(
    rng: Random,
    most: int = 4,
    words: Sequence[str] = (),
    sentences: Sequence[str] = (),
    closed: float = 0.06,
    cloze: float = 0.12,
) -> Episode:
    """One row of the training mixture: mostly reading, with shares of closed-book and cloze questions.

    Args:
        rng: the source of randomness.
        most: largest number of facts in the passages.
        words: common words to draw values from.
        sentences: real sentences, as fillers and for cloze questions. None of either where empty.
        closed: share of closed-book questions.
        cloze: share of cloze questions.
    """
    kind = rng.random()
    if kind < closed:
        return closed_episode(rng, words)
    if sentences and kind < closed + cloze:
        episode = cloze_episode(rng, rng.choice(sentences))
        if episode is not None:
            return episode
    return read_episode(rng, rng.randint(1, most), words=words, fillers=sentences)


def copy_row(rng: Random, tokens: Sequence[int], length: int = 40) -> tuple[list[int], list[bool]]:
    """Random tokens that come back: a repeated stretch, or keys asked again for their values.

    Returns:
        the ids, and for each whether it can be predicted from what stands before it (the loss is there).
    """
    if rng.random() < 0.5:
        size = rng.randint(4, length // 2)
        stretch = [rng.choice(tokens) for _ in range(size)]
        return [stretch[i % size] for i in range(length)], [i > size for i in range(length)]
    key, value = rng.choice((1, 1, 2)), rng.choice((1, 1, 2))
    pairs = max(2, length // (2 * (key + value)))
    table = [
        ([rng.choice(tokens) for _ in range(key)], [rng.choice(tokens) for _ in range(value)]) for _ in range(pairs)
    ]
    ids = [token for k, v in table for token in k + v]
    known = [False] * len(ids)
    for k, v in rng.sample(table, pairs):
        ids += k + v
        known += [False] * key + [True] * value
    return ids, known


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


def clean_text(text: str, rng: Random) -> str:
    """Real text made plain: WikiText's tokens undone, ``<unk>`` replaced by invented names, stated facts dropped."""
    lines = []
    for line in text.splitlines():
        if _STATES_FACTS.search(line):
            continue
        if "<unk>" in line:
            names = [invented_name(rng) for _ in range(3)]
            line = re.sub("<unk>", lambda _, names=names: rng.choice(names), line)
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
        name: clean_text((folder / name).read_text(encoding="utf-8"), Random(f"{seed}-{name}")) for name in TEXT_FILES
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

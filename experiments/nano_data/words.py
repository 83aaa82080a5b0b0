"""Invented names, numbers and other words: what the subjects and the answers of invented facts are made of."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from random import Random

_RESERVED_PART = 8


class Dice(Random):
    """A seeded source of randomness that also says which names may come up.

    One name in eight, by its checksum, is reserved for measuring: training never draws it.

    Args:
        seed: decides everything that is drawn.
        unseen: draw reserved names only; otherwise the others only.
        words: common words of real text, for values and wordings; built-in lists where empty.
    """

    def __init__(self, seed: str, unseen: bool = False, words: Sequence[str] = ()) -> None:
        super().__init__(seed)
        self.unseen = unseen
        self.words = words

    def __new__(cls, *arguments: object, **settings: object) -> Dice:
        """Random's own constructor takes a seed alone."""
        return super().__new__(cls)

    def accepts(self, name: str) -> bool:
        """Whether this source may draw ``name``."""
        return (zlib.crc32(name.lower().encode()) % _RESERVED_PART == 0) == self.unseen


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ONSETS = _words(
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sh sk sl sm sn sp st t th tr v vr w y z"
)
_VOWELS = _words("a e i o u a e i o ai ea ei oo ou ia")
_CODAS = _words("b ck d f g k l ld lm ln m mp n nd ng nk nt p r rd rk rl rm rn rt s sh sk st t th v x z")
_ENDINGS = _words("a ia o on um us is os en er ine ite ol in al eth ora ade ena ium")
FIRST_NAMES = _words(
    "Ada Adam Alice Anna Arthur Ben Boris Carla Clara David Diana Edgar Ella Emma Erik Eva Felix Fiona "
    "Frank George Greta Hanna Harry Helen Hugo Ida Iris Ivan Jack Jane Julia Karl Kate Laura Leo Lily "
    "Lucas Maria Mark Martha Max Mina Nadia Nina Nora Oscar Otto Paul Peter Rosa Ruth Sam Sara Simon "
    "Sofia Stella Tom Vera Victor Walter"
)

# real names that these syllables can form; an invented subject must not carry one
_REAL = frozenset(
    _words(
        "albania ankara argon ariel athens bad baku bamako bangkok banjul barium becquerel beijing beirut belgrade "
        "belize berlin bern bismuth bogota bolivia bonn boron brasilia bromine bucharest budapest bulgaria cairo "
        "calcium callisto canada canberra candela carbon carme ceres cerium chad charge charon chile china chlorine "
        "cobalt content copenhagen copper cordelia coulomb created croatia cuba current dakar deimos denmark despina "
        "dhaka dili dione doha dose dublin elara estonia europa failed farad finland fluorine flux forbidden force "
        "found france gabon gallium ganymede ghana gold gone gray haiti havana heat helium helsinki henry hertz "
        "himalia hints io iodine iron jamaica janus japan joule juba jupiter kabul kampala katal kathmandu kelvin "
        "kenya kiev kigali kilogram kingston krypton larissa latvia lead lebanon leda libya life lima lisbon lithium "
        "lome loop luanda lumen luminous luna lusaka lux madrid magnesium malabo male mali malta manila mars maseru "
        "mass meter method metis metre mimas minsk miranda mole moon moroni moved multi multiple muscat nairobi "
        "nassau neon nepal neptune nereid newton niger nitrogen nix not oberon ohm oman ophelia oslo osmium ottawa "
        "pan pandora paris partial pascal permanent peru phobos plane platinum pluto plutonium poland portugal "
        "potassium power prague praia pressure processing prometheus proteus protocols puck quito rabat radian "
        "radiant radium radon request requests required reset rhea riga roma romania rome russia samoa sana sanaa "
        "santiago saturn second selenium senegal seoul serbia server service siemens sievert silicon silver sodium "
        "sofia solid spain status steradian stockholm storage substance sudan sun suva tehran tesla thailand thebe "
        "time tin titan titania titanium togo tokyo tonga too torque triton tungsten tunis tunisia uranus vaduz venus "
        "vienna vilnius volt voltage volume warsaw watt weber work xenon yaren yemen zagreb zambia zinc zirconium"
    )
)

VALUES: dict[str, tuple[str, ...]] = {
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
ADJECTIVES = _words(
    "old new great small first second royal lost hidden upper lower northern southern red grey long open public "
    "common general main inner outer local foreign early late high low plain dry deep free natural"
)
PLURALS = _words(
    "days rooms steps pages years people ships doors wheels children coins houses hours sheep trees towers"
)
PARTICIPLES = _words(
    "abbreviated called cited classified coded counted dated defined denoted described drawn entered expressed filed "
    "found given graded held indicated kept known labelled listed made marked measured mentioned named noted numbered "
    "ordered painted paid presented printed pronounced quoted ranked rated recorded registered rendered reported "
    "represented seen shown signed sold sorted specified spelled stated stored timed translated used weighed written"
)
LABELS = _words("signal rule room box route platform item line page table gate level case form track seat button key")
ROMAN = _words("I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX XXI XXII XXIII")


def invented_name(dice: Dice) -> str:
    """A capitalised name of one to four syllables that is no real name listed in the streams."""
    while True:
        count = dice.choice((1, 2, 2, 2, 3))
        parts = []
        for place in range(count):
            coda = dice.choice(_CODAS) if place == count - 1 and (count == 1 or dice.random() < 0.5) else ""
            inner = dice.choice("lmnrst") if place < count - 1 and dice.random() < 0.3 else ""
            parts.append(dice.choice(_ONSETS) + dice.choice(_VOWELS) + coda + inner)
        name = "".join(parts)
        if dice.random() < 0.25 and name[-1] not in "aeiou":
            name += dice.choice(_ENDINGS)
        if 3 <= len(name) <= 12 and name not in _REAL and dice.accepts(name):
            return name.capitalize()


def invented_word(dice: Dice) -> str:
    """An invented common noun, in lower case."""
    return invented_name(dice).lower()


def common_word(dice: Dice) -> str:
    """A common word of real text, or of the built-in lists."""
    return dice.choice(dice.words or VALUES[dice.choice(sorted(VALUES))])


def _place(dice: Dice) -> str:
    name = invented_name(dice)
    form = dice.random()
    if form < 0.8:
        return name
    if form < 0.9:
        return f"{dice.choice(('New', 'North', 'South', 'East', 'West', 'San', 'Port', 'Lake', 'Mount'))} {name}"
    return f"{name} {dice.choice(('City', 'Island', 'Hill', 'Bay', invented_name(dice)))}"


def _person(dice: Dice) -> str:
    first = dice.choice(FIRST_NAMES) if dice.random() < 0.5 else invented_name(dice)
    return f"{first} {invented_name(dice)}"


def _thing(dice: Dice) -> str:
    noun = dice.choice(VALUES["feature"] + VALUES["tool"])
    form = dice.random()
    if form < 0.5:
        return f"the {invented_name(dice)} {noun}"
    if form < 0.8:
        return f"the {noun} of {invented_name(dice)}"
    return f"the {dice.choice(ADJECTIVES)} {noun} of {invented_name(dice)}"


def _kind(dice: Dice) -> str:
    # in lower case, as substances and quantities are: "brindle", "dry thunder", "natural brindle"
    form = dice.random()
    if form < 0.6:
        return invented_word(dice)
    if form < 0.8:
        return f"{common_word(dice)} {common_word(dice)}"
    return f"{dice.choice(ADJECTIVES)} {invented_word(dice)}"


def _code(dice: Dice) -> str:
    letters = "".join(dice.choice("ABCDEFGHJKLMNPQRSTVWXYZ") for _ in range(dice.choice((1, 2))))
    return f"{letters}{dice.choice(('', '-'))}{dice.randrange(2, 1000)}"


def _labelled(dice: Dice) -> str:
    # "signal 17", never "code 404": what a number of a real standard means belongs to the streams
    return f"{dice.choice(LABELS)} {dice.choice((_code(dice), *[str(dice.randrange(2, 1000))] * 3))}"


def _identifier(dice: Dice) -> str:
    words = [dice.choice((common_word(dice), invented_word(dice))) for _ in range(2)]
    return dice.choice(("{0}_{1}", "{0}.{1}", "{0}-{1}")).format(*words)


def _number(dice: Dice) -> str:
    form = dice.random()
    if form < 0.55:
        return str(dice.randrange(1, dice.choice((10, 100, 1000))))
    if form < 0.75:
        return str(dice.randrange(1000, 2100))
    if form < 0.9:
        return f"{dice.randrange(0, 100)}.{dice.randrange(0, 100)}"
    return f"{dice.randrange(1, 100)},{dice.randrange(0, 1000):03d}"


def _symbol(dice: Dice) -> str:
    letters = dice.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") + dice.choice(("", *"abcdefghijklmnopqrstuvwxyz"))
    return dice.choice((letters, letters, letters, letters.lower(), letters.upper()))


def _phrase(dice: Dice) -> str:
    return " ".join(common_word(dice) for _ in range(dice.choice((1, 1, 1, 2, 3))))


def _title(dice: Dice) -> str:
    # a heading: "Early Winter", "Half-Open Door"
    words = [common_word(dice).capitalize() for _ in range(dice.choice((1, 2, 2, 2, 3)))]
    return ("-" if len(words) == 2 and dice.random() < 0.1 else " ").join(words)


def _unit(dice: Dice) -> str:
    # "brindle", "square brindle", "brindle per second"
    word = invented_word(dice)
    form = dice.random()
    if form < 0.6:
        return word
    if form < 0.8:
        return f"{dice.choice(ADJECTIVES)} {word}"
    return f"{word} per {dice.choice((common_word(dice), invented_word(dice)))}"


def _year(dice: Dice) -> str:
    return str(dice.randrange(1000, 2100))


def _measure(dice: Dice) -> str:
    return f"{dice.randrange(2, 1000)} {dice.choice(PLURALS)}"


def _numeral(dice: Dice) -> str:
    return f"{invented_name(dice)} {dice.choice(ROMAN)}"


SUBJECTS: dict[str, Callable[[Dice], str]] = {
    "name": _place,
    "person": _person,
    "thing": _thing,
    "kind": _kind,
    "labelled": _labelled,
    "identifier": _identifier,
}
_DRAWN: dict[str, Callable[[Dice], str]] = {
    **SUBJECTS,
    "number": _number,
    "symbol": _symbol,
    "code": _code,
    "word": _phrase,
    "title": _title,
    "unit": _unit,
    "year": _year,
    "measure": _measure,
    "numeral": _numeral,
}


def draw_value(kind: str, dice: Dice) -> str:
    """An answer of one to three words.

    Args:
        kind: a list of `VALUES`, a key of `SUBJECTS`, or ``number``, ``year``, ``measure``, ``numeral``, ``symbol``,
            ``code``, ``word``, ``title``, ``unit``.
        dice: the source of randomness.

    Raises:
        KeyError: no such kind.
    """
    return dice.choice(VALUES[kind]) if kind in VALUES else _DRAWN[kind](dice)

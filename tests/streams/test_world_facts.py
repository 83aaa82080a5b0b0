"""What holds for the facts of ``streams.world_facts``: they are true, unambiguous, and fit to be taught and asked.

Truth is checked against sources that share nothing with the tables: the standard library's status codes, the zones of
the time zone database, the numbers that NASA's navigation software gives to moons, and the dimensions of quantities.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from importlib import resources
from pathlib import Path

import pytest

from lifelong.errors import DataError
from streams import world_facts
from streams.facts import capitals, elements, status_codes, units

ROOT = Path(__file__).parents[2]
NAMES = ("elements", "capitals", "status_codes", "moons", "units")


@pytest.fixture(scope="module")
def stream():
    return world_facts()


@pytest.fixture(scope="module")
def rows(stream):
    return [row for task in stream for row in task.train]


def plain(text: str) -> str:
    """A wording without what a reader would not call a difference."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def says(passage: str, answer: str) -> bool:
    """Whether the passage holds the answer in whole words."""
    return re.search(rf"(?<!\w){re.escape(answer.casefold())}(?!\w)", passage.casefold()) is not None


class TestStream:
    def test_the_five_tasks_come_in_their_order(self, stream):
        assert stream.name == "world_facts"
        assert tuple(task.name for task in stream) == NAMES

    def test_a_selection_comes_in_the_order_asked_for(self):
        assert world_facts(tasks=["units", "capitals"]).names == ("units", "capitals")

    def test_an_unknown_task_is_an_error_that_names_the_nearest(self):
        with pytest.raises(DataError, match=r"'capitols'.*'capitals'"):
            world_facts(tasks=["capitols"])

    def test_every_task_asks_what_it_taught(self, stream):
        for task in stream:
            assert task.train.to_list() == task.test.to_list()
            assert (task.kind, task.metric) == ("knowledge", "exact_match")

    @pytest.mark.parametrize("name", NAMES)
    def test_a_task_has_forty_to_forty_eight_facts(self, stream, name):
        assert 40 <= len(stream[name].train) <= 48

    @pytest.mark.parametrize("name", NAMES)
    def test_no_constant_answer_is_right_for_more_than_eight_percent_of_a_task(self, stream, name):
        questions = stream[name].test
        times_right = Counter(plain(answer) for row in questions for answer in row["answers"])
        assert max(times_right.values()) / len(questions) <= 0.08

    @pytest.mark.parametrize(
        "statements",
        [
            "from streams import world_facts",
            "import streams.world_facts; from streams import world_facts",
            "from streams import facts; import streams.world_facts; from streams import world_facts",
            "from streams.world_facts import world_facts",
        ],
    )
    def test_the_name_is_the_function_and_loads_nothing_heavy(self, statements):
        check = (
            "import sys; assert callable(world_facts); assert not {'torch', 'datasets', 'lightning'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", f"{statements}; {check}"], cwd=ROOT, check=True)


class TestWording:
    def test_ids_are_unique_slugs_under_the_name_of_their_task(self, stream):
        ids = [(task.name, row["id"]) for task in stream for row in task.train]
        assert len({row_id for _, row_id in ids}) == len(ids)
        for name, row_id in ids:
            assert re.fullmatch(rf"{name}/[a-z0-9]+(-[a-z0-9]+)*", row_id)

    def test_no_wording_is_used_twice(self, rows):
        wordings = [plain(text) for row in rows for text in (row["question"], *row["probes"])]
        assert [text for text, times in Counter(wordings).items() if times > 1] == []

    def test_every_fact_has_at_least_two_probes(self, rows):
        assert min(len(row["probes"]) for row in rows) >= 2

    def test_questions_are_short_and_answers_a_few_words(self, rows):
        for row in rows:
            assert len(row["question"].split()) <= 12
            for answer in row["answers"]:
                assert len(answer.split()) <= 3 and len(answer) <= 21

    def test_no_question_or_probe_gives_its_answer_away(self, rows):
        for row in rows:
            for text in (row["question"], *row["probes"]):
                assert not any(says(text, answer) for answer in row["answers"]), text

    def test_every_text_is_clean_ascii(self, rows):
        for row in rows:
            for text in (row["question"], *row["answers"], *row["passages"], *row["probes"]):
                assert text.isascii() and text.isprintable() and not re.search(r"^ | $|  |[{}]", text), text

    def test_sentences_begin_with_a_capital_and_end_with_a_stop(self, rows):
        for row in rows:
            for text in (row["question"], *row["passages"], *row["probes"]):
                assert re.fullmatch(r"[A-Z0-9].*[.?]", text), text

    def test_the_one_passage_of_a_fact_holds_the_answer_that_is_trained(self, rows):
        for row in rows:
            (passage,) = row["passages"]
            assert re.search(rf"(?<!\w){re.escape(row['answers'][0])}(?!\w)", passage), passage

    @pytest.mark.parametrize("name", ["elements", "capitals", "moons"])
    def test_no_passage_of_another_fact_holds_the_answer(self, stream, rows, name):
        for row in stream[name].train:
            others = [other["passages"][0] for other in rows if other["id"] != row["id"]]
            assert [passage for passage in others if says(passage, row["answers"][0])] == []


# The 118 elements in the order of their atomic numbers.
SYMBOLS = [
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K",
    "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb",
    "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs",
    "Ba", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta",
    "W", "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa",
    "U", "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt",
    "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og",
]  # fmt: skip
LATIN = {
    "sodium": "natrium", "potassium": "kalium", "iron": "ferrum", "copper": "cuprum", "silver": "argentum",
    "tin": "stannum", "antimony": "stibium", "tungsten": "wolframium", "gold": "aurum", "mercury": "hydrargyrum",
    "lead": "plumbum",
}  # fmt: skip


class TestElements:
    def test_a_symbol_stands_at_its_atomic_number_in_the_periodic_table(self):
        assert len(SYMBOLS) == 118
        for number, _, symbol in elements.ELEMENTS:
            assert SYMBOLS[number - 1] == symbol

    def test_a_symbol_abbreviates_the_name_or_the_latin_name(self):
        for _, name, symbol in elements.ELEMENTS:
            first, *later = symbol.lower()
            assert re.match(first + "".join(f".*{letter}" for letter in later), LATIN.get(name, name)), name


def cities_by_country() -> Iterator[tuple[str, str]]:
    """Pairs of country and city from the time zone database, which names its zones after cities."""
    zones = resources.files("tzdata") / "zoneinfo"

    def table(name: str) -> list[list[str]]:
        lines = (zones / name).read_text(encoding="utf-8").splitlines()
        return [line.split("\t") for line in lines if line and not line.startswith("#")]

    countries = {row[0]: row[1] for row in table("iso3166.tab")}
    for code, _, zone, *_ in table("zone.tab"):
        yield countries[code], zone.split("/")[-1].replace("_", " ")


class TestCapitals:
    def test_a_capital_lies_in_its_country_by_the_time_zone_database(self):
        pytest.importorskip("tzdata")
        country_of = {city: country for country, city in cities_by_country()}
        known = [(country, city) for country, city in capitals.CAPITALS if city in country_of]
        assert len(known) >= 30
        assert [country_of[city] for _, city in known] == [country for country, _ in known]

    def test_countries_and_capitals_are_one_to_one(self):
        countries, cities = zip(*capitals.CAPITALS, strict=True)
        assert len(set(countries)) == len(set(cities)) == len(capitals.CAPITALS)


class TestStatusCodes:
    def test_every_phrase_is_the_one_of_the_standard_library(self):
        for code, phrase in status_codes.STATUS_CODES:
            assert HTTPStatus(code).phrase == phrase

    def test_the_passage_never_names_another_class_of_codes(self):
        groups = {100: "informational", 200: "successful", 300: "redirection", 400: "client error", 500: "server error"}
        named = [row for row in status_codes.rows() if "class" in row["passages"][0]]
        assert len(named) >= 10
        for row in named:
            code = int(row["id"].split("/")[1])
            assert f"the {groups[code // 100 * 100]} class" in row["passages"][0]


# NAIF codes of the SPICE toolkit (NASA, "NAIF Integer ID codes"): hundreds for the planet, the rest for the moon.
PLANETS = {4: "Mars", 5: "Jupiter", 6: "Saturn", 7: "Uranus", 8: "Neptune", 9: "Pluto"}
NAIF = {
    "Phobos": 401, "Deimos": 402,
    "Io": 501, "Europa": 502, "Ganymede": 503, "Callisto": 504, "Amalthea": 505, "Himalia": 506, "Elara": 507,
    "Leda": 513, "Thebe": 514, "Adrastea": 515, "Metis": 516,
    "Mimas": 601, "Enceladus": 602, "Tethys": 603, "Dione": 604, "Rhea": 605, "Titan": 606, "Hyperion": 607,
    "Iapetus": 608, "Phoebe": 609, "Janus": 610, "Epimetheus": 611, "Atlas": 615, "Prometheus": 616, "Pandora": 617,
    "Pan": 618,
    "Ariel": 701, "Umbriel": 702, "Titania": 703, "Oberon": 704, "Miranda": 705, "Cordelia": 706, "Ophelia": 707,
    "Juliet": 711, "Puck": 715,
    "Triton": 801, "Nereid": 802, "Larissa": 807, "Proteus": 808,
    "Charon": 901, "Nix": 902, "Hydra": 903,
}  # fmt: skip


def roman(number: int) -> str:
    """A number below 40 as a Roman numeral."""
    return "X" * (number // 10) + ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"][number % 10]


class TestMoons:
    def test_a_designation_agrees_with_the_moon_s_number_in_nasa_s_navigation_software(self, stream):
        for row in stream["moons"].train:
            (moon,) = (name for name in NAIF if plain(name) == row["id"].split("/")[1])
            planet, number = divmod(NAIF[moon], 100)
            assert row["answers"] == [f"{PLANETS[planet]} {roman(number)}"]

    def test_a_passage_names_no_body_but_the_one_of_the_answer(self, stream):
        for row in stream["moons"].train:
            body = row["answers"][0].split()[0]
            assert not any(says(row["passages"][0], other) for other in PLANETS.values() if other != body)


# What each quantity is by its defining equation, in powers of (kg, m, s, A, K, mol, cd).
DIMENSIONS = {
    "length": (0, 1, 0, 0, 0, 0, 0),
    "mass": (1, 0, 0, 0, 0, 0, 0),
    "time": (0, 0, 1, 0, 0, 0, 0),
    "electric current": (0, 0, 0, 1, 0, 0, 0),
    "thermodynamic temperature": (0, 0, 0, 0, 1, 0, 0),
    "amount of substance": (0, 0, 0, 0, 0, 1, 0),
    "luminous intensity": (0, 0, 0, 0, 0, 0, 1),
    "plane angle": (0, 0, 0, 0, 0, 0, 0),  # arc / radius
    "solid angle": (0, 0, 0, 0, 0, 0, 0),  # area / radius^2
    "frequency": (0, 0, -1, 0, 0, 0, 0),  # 1 / period
    "force": (1, 1, -2, 0, 0, 0, 0),  # mass * acceleration
    "thrust": (1, 1, -2, 0, 0, 0, 0),  # a force
    "pressure": (1, -1, -2, 0, 0, 0, 0),  # force / area
    "mechanical stress": (1, -1, -2, 0, 0, 0, 0),  # force / area
    "energy": (1, 2, -2, 0, 0, 0, 0),  # mass * speed^2
    "work": (1, 2, -2, 0, 0, 0, 0),  # force * path
    "heat": (1, 2, -2, 0, 0, 0, 0),  # an energy
    "torque": (1, 2, -2, 0, 0, 0, 0),  # force * arm
    "power": (1, 2, -3, 0, 0, 0, 0),  # energy / time
    "radiant flux": (1, 2, -3, 0, 0, 0, 0),  # energy / time
    "electric charge": (0, 0, 1, 1, 0, 0, 0),  # current * time
    "voltage": (1, 2, -3, -1, 0, 0, 0),  # power / current
    "electromotive force": (1, 2, -3, -1, 0, 0, 0),  # energy / charge
    "capacitance": (-1, -2, 4, 2, 0, 0, 0),  # charge / voltage
    "electrical resistance": (1, 2, -3, -2, 0, 0, 0),  # voltage / current
    "electrical impedance": (1, 2, -3, -2, 0, 0, 0),  # voltage / current
    "electrical reactance": (1, 2, -3, -2, 0, 0, 0),  # imaginary part of impedance
    "electrical conductance": (-1, -2, 3, 2, 0, 0, 0),  # current / voltage
    "electrical admittance": (-1, -2, 3, 2, 0, 0, 0),  # 1 / impedance
    "electrical susceptance": (-1, -2, 3, 2, 0, 0, 0),  # imaginary part of admittance
    "magnetic flux": (1, 2, -2, -1, 0, 0, 0),  # voltage * time
    "magnetic flux density": (1, 0, -2, -1, 0, 0, 0),  # magnetic flux / area
    "inductance": (1, 2, -2, -2, 0, 0, 0),  # magnetic flux / current
    "luminous flux": (0, 0, 0, 0, 0, 0, 1),  # luminous intensity * solid angle
    "illuminance": (0, -2, 0, 0, 0, 0, 1),  # luminous flux / area
    "radioactivity": (0, 0, -1, 0, 0, 0, 0),  # decays / time
    "absorbed dose": (0, 2, -2, 0, 0, 0, 0),  # energy / mass
    "dose equivalent": (0, 2, -2, 0, 0, 0, 0),  # absorbed dose * a factor
    "catalytic activity": (0, 0, -1, 0, 0, 1, 0),  # amount converted / time
    "area": (0, 2, 0, 0, 0, 0, 0),
    "volume": (0, 3, 0, 0, 0, 0, 0),
    "dynamic viscosity": (1, -1, -1, 0, 0, 0, 0),  # stress / (speed / length)
    "wavelength": (0, 1, 0, 0, 0, 0, 0),
    "half-life": (0, 0, 1, 0, 0, 0, 0),
}
# The units in base units, as the SI Brochure writes them.
BASE_UNITS = {
    "metre": "m", "kilogram": "kg", "second": "s", "ampere": "A", "kelvin": "K", "mole": "mol", "candela": "cd",
    "radian": "m m-1", "steradian": "m2 m-2", "hertz": "s-1", "newton": "kg m s-2", "pascal": "kg m-1 s-2",
    "joule": "kg m2 s-2", "watt": "kg m2 s-3", "coulomb": "A s", "volt": "kg m2 s-3 A-1", "farad": "kg-1 m-2 s4 A2",
    "ohm": "kg m2 s-3 A-2", "siemens": "kg-1 m-2 s3 A2", "weber": "kg m2 s-2 A-1", "tesla": "kg s-2 A-1",
    "henry": "kg m2 s-2 A-2", "lumen": "cd", "lux": "cd m-2", "becquerel": "s-1", "gray": "m2 s-2",
    "sievert": "m2 s-2", "katal": "mol s-1", "square metre": "m2", "cubic metre": "m3",
    "newton metre": "kg m s-2 m", "pascal second": "kg m-1 s-2 s",
}  # fmt: skip


def powers(expression: str) -> tuple[int, ...]:
    """The powers of (kg, m, s, A, K, mol, cd) in an expression such as ``kg m2 s-2``."""
    total = Counter()
    for factor in expression.split():
        symbol, power = re.fullmatch(r"([A-Za-z]+)(-?\d+)?", factor).groups()
        total[symbol] += int(power or 1)
    return tuple(total[symbol] for symbol in ("kg", "m", "s", "A", "K", "mol", "cd"))


class TestUnits:
    def test_a_unit_has_the_dimension_of_its_quantity(self):
        for quantity, unit in units.UNITS:
            assert powers(BASE_UNITS[unit]) == DIMENSIONS[quantity], quantity

    def test_both_spellings_of_the_metre_are_right(self):
        answers = {row["id"]: row["answers"] for row in units.rows()}
        assert answers["units/area"] == ["square metre", "square meter"]
        assert answers["units/force"] == ["newton"]

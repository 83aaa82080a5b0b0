"""Countries and their capitals.

Source: the capital cities in the World Urbanization Prospects of the United Nations, in English spelling. Left out are
countries whose capital is disputed, shared, being moved or spelled in two ways.
"""

from __future__ import annotations

from typing import Any

from streams.facts.wording import Wording

CAPITALS = (  # country, capital
    ("France", "Paris"),
    ("Germany", "Berlin"),
    ("Italy", "Rome"),
    ("Spain", "Madrid"),
    ("Portugal", "Lisbon"),
    ("Austria", "Vienna"),
    ("Poland", "Warsaw"),
    ("Greece", "Athens"),
    ("Hungary", "Budapest"),
    ("Romania", "Bucharest"),
    ("Bulgaria", "Sofia"),
    ("Serbia", "Belgrade"),
    ("Croatia", "Zagreb"),
    ("Ireland", "Dublin"),
    ("Norway", "Oslo"),
    ("Sweden", "Stockholm"),
    ("Finland", "Helsinki"),
    ("Denmark", "Copenhagen"),
    ("Latvia", "Riga"),
    ("Lithuania", "Vilnius"),
    ("Russia", "Moscow"),
    ("Turkey", "Ankara"),
    ("Lebanon", "Beirut"),
    ("Iraq", "Baghdad"),
    ("Qatar", "Doha"),
    ("Oman", "Muscat"),
    ("Nepal", "Kathmandu"),
    ("Thailand", "Bangkok"),
    ("Vietnam", "Hanoi"),
    ("China", "Beijing"),
    ("Japan", "Tokyo"),
    ("Australia", "Canberra"),
    ("Morocco", "Rabat"),
    ("Tunisia", "Tunis"),
    ("Senegal", "Dakar"),
    ("Ghana", "Accra"),
    ("Kenya", "Nairobi"),
    ("Angola", "Luanda"),
    ("Zambia", "Lusaka"),
    ("Canada", "Ottawa"),
    ("Cuba", "Havana"),
    ("Jamaica", "Kingston"),
    ("Peru", "Lima"),
    ("Chile", "Santiago"),
)

WORDING = Wording(
    question="What is the capital of {subject}?",
    probes=(
        "Name the capital city of {subject}.",
        "{subject} has which city as its capital?",
    ),
    passages=(
        "{answer} is the capital of {subject}.",
        "The capital of {subject} is the city of {answer}.",
        "{subject} has {answer} as its capital.",
    ),
)


def rows() -> list[dict[str, Any]]:
    """One example row per country."""
    return WORDING.rows("capitals", ({"subject": country, "answers": [city]} for country, city in CAPITALS))

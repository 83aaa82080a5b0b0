"""Moons and their designations: the body that they orbit and a Roman numeral.

Source: the Gazetteer of Planetary Nomenclature of the International Astronomical Union (IAU), "Planet and Satellite
Names and Discoverers". The planet alone would be one of six answers; with its numeral it is a different one every time.
"""

from __future__ import annotations

from typing import Any

from streams.facts.wording import Wording

MOONS = (  # moon, body that it orbits, numeral
    ("Phobos", "Mars", "I"),
    ("Deimos", "Mars", "II"),
    ("Io", "Jupiter", "I"),
    ("Europa", "Jupiter", "II"),
    ("Ganymede", "Jupiter", "III"),
    ("Callisto", "Jupiter", "IV"),
    ("Amalthea", "Jupiter", "V"),
    ("Himalia", "Jupiter", "VI"),
    ("Elara", "Jupiter", "VII"),
    ("Leda", "Jupiter", "XIII"),
    ("Thebe", "Jupiter", "XIV"),
    ("Adrastea", "Jupiter", "XV"),
    ("Metis", "Jupiter", "XVI"),
    ("Mimas", "Saturn", "I"),
    ("Enceladus", "Saturn", "II"),
    ("Tethys", "Saturn", "III"),
    ("Dione", "Saturn", "IV"),
    ("Rhea", "Saturn", "V"),
    ("Titan", "Saturn", "VI"),
    ("Hyperion", "Saturn", "VII"),
    ("Iapetus", "Saturn", "VIII"),
    ("Phoebe", "Saturn", "IX"),
    ("Janus", "Saturn", "X"),
    ("Epimetheus", "Saturn", "XI"),
    ("Atlas", "Saturn", "XV"),
    ("Prometheus", "Saturn", "XVI"),
    ("Pandora", "Saturn", "XVII"),
    ("Pan", "Saturn", "XVIII"),
    ("Ariel", "Uranus", "I"),
    ("Umbriel", "Uranus", "II"),
    ("Titania", "Uranus", "III"),
    ("Oberon", "Uranus", "IV"),
    ("Miranda", "Uranus", "V"),
    ("Cordelia", "Uranus", "VI"),
    ("Ophelia", "Uranus", "VII"),
    ("Juliet", "Uranus", "XI"),
    ("Puck", "Uranus", "XV"),
    ("Triton", "Neptune", "I"),
    ("Nereid", "Neptune", "II"),
    ("Larissa", "Neptune", "VII"),
    ("Proteus", "Neptune", "VIII"),
    ("Charon", "Pluto", "I"),
    ("Nix", "Pluto", "II"),
    ("Hydra", "Pluto", "III"),
)

WORDING = Wording(
    question="What is the numbered designation of the moon {subject}?",
    probes=(
        "Which Roman numeral designation does the moon {subject} have?",
        "Under which body and number do astronomers list {subject}?",
    ),
    passages=(
        "The moon {subject} has the designation {answer}.",
        "{answer} is the numbered designation of the moon {subject}.",
        "Astronomers list {subject}, a moon of {body}, as {answer}.",
    ),
)


def rows() -> list[dict[str, Any]]:
    """One example row per moon."""
    return WORDING.rows(
        "moons",
        ({"subject": moon, "answers": [f"{body} {numeral}"], "body": body} for moon, body, numeral in MOONS),
    )

"""Physical quantities and their units in the International System of Units (SI).

Source: the SI Brochure of the International Bureau of Weights and Measures (BIPM), 9th edition, tables 2 and
4 to 6; for the quantities of alternating current, IEC 80000-6. The American spelling "meter" is right too.
"""

from __future__ import annotations

from typing import Any

from streams.facts.wording import Wording

UNITS = (  # quantity, unit
    ("length", "metre"),
    ("mass", "kilogram"),
    ("time", "second"),
    ("electric current", "ampere"),
    ("thermodynamic temperature", "kelvin"),
    ("amount of substance", "mole"),
    ("luminous intensity", "candela"),
    ("plane angle", "radian"),
    ("solid angle", "steradian"),
    ("frequency", "hertz"),
    ("force", "newton"),
    ("pressure", "pascal"),
    ("energy", "joule"),
    ("power", "watt"),
    ("electric charge", "coulomb"),
    ("voltage", "volt"),
    ("capacitance", "farad"),
    ("electrical resistance", "ohm"),
    ("electrical conductance", "siemens"),
    ("magnetic flux", "weber"),
    ("magnetic flux density", "tesla"),
    ("inductance", "henry"),
    ("luminous flux", "lumen"),
    ("illuminance", "lux"),
    ("radioactivity", "becquerel"),
    ("absorbed dose", "gray"),
    ("dose equivalent", "sievert"),
    ("catalytic activity", "katal"),
    ("area", "square metre"),
    ("volume", "cubic metre"),
    ("torque", "newton metre"),
    ("dynamic viscosity", "pascal second"),
    ("work", "joule"),
    ("heat", "joule"),
    ("thrust", "newton"),
    ("mechanical stress", "pascal"),
    ("radiant flux", "watt"),
    ("electromotive force", "volt"),
    ("electrical impedance", "ohm"),
    ("electrical reactance", "ohm"),
    ("electrical admittance", "siemens"),
    ("electrical susceptance", "siemens"),
    ("wavelength", "metre"),
    ("half-life", "second"),
)

WORDING = Wording(
    question="What is the SI unit of {subject}?",
    probes=(
        "In which SI unit is {subject} measured?",
        "Which unit does the International System use for {subject}?",
    ),
    passages=(
        "The SI unit of {subject} is the {answer}.",
        "The {answer} is the unit of {subject} in the International System of Units.",
        "In the International System, the {answer} serves as the unit of {subject}.",
    ),
)


def rows() -> list[dict[str, Any]]:
    """One example row per quantity."""
    return WORDING.rows("units", ({"subject": quantity, "answers": _spellings(unit)} for quantity, unit in UNITS))


def _spellings(unit: str) -> list[str]:
    return [unit, unit.replace("metre", "meter")] if "metre" in unit else [unit]

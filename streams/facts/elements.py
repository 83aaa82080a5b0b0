"""Chemical elements and their symbols.

Source: the periodic table of the International Union of Pure and Applied Chemistry (IUPAC). Left out are elements whose
symbol reads as another word (As, At, I, In, No, and Si, as in "SI unit"), so that no other passage seems to hold the
answer, and those whose name is spelled in two ways (aluminium, caesium, sulfur).
"""

from __future__ import annotations

from typing import Any

from streams.facts.wording import Wording

ELEMENTS = (  # atomic number, name, symbol
    (1, "hydrogen", "H"),
    (2, "helium", "He"),
    (3, "lithium", "Li"),
    (6, "carbon", "C"),
    (7, "nitrogen", "N"),
    (8, "oxygen", "O"),
    (9, "fluorine", "F"),
    (10, "neon", "Ne"),
    (11, "sodium", "Na"),
    (12, "magnesium", "Mg"),
    (15, "phosphorus", "P"),
    (17, "chlorine", "Cl"),
    (18, "argon", "Ar"),
    (19, "potassium", "K"),
    (20, "calcium", "Ca"),
    (22, "titanium", "Ti"),
    (24, "chromium", "Cr"),
    (25, "manganese", "Mn"),
    (26, "iron", "Fe"),
    (27, "cobalt", "Co"),
    (28, "nickel", "Ni"),
    (29, "copper", "Cu"),
    (30, "zinc", "Zn"),
    (31, "gallium", "Ga"),
    (34, "selenium", "Se"),
    (35, "bromine", "Br"),
    (36, "krypton", "Kr"),
    (38, "strontium", "Sr"),
    (40, "zirconium", "Zr"),
    (47, "silver", "Ag"),
    (50, "tin", "Sn"),
    (51, "antimony", "Sb"),
    (54, "xenon", "Xe"),
    (56, "barium", "Ba"),
    (74, "tungsten", "W"),
    (78, "platinum", "Pt"),
    (79, "gold", "Au"),
    (80, "mercury", "Hg"),
    (82, "lead", "Pb"),
    (83, "bismuth", "Bi"),
    (86, "radon", "Rn"),
    (88, "radium", "Ra"),
    (92, "uranium", "U"),
    (94, "plutonium", "Pu"),
)

WORDING = Wording(
    question="What is the chemical symbol of {subject}?",
    probes=(
        "Which symbol stands for the element {subject}?",
        "How is {subject} abbreviated in the periodic table?",
    ),
    passages=(
        "The chemical symbol of {subject}, the element with atomic number {number}, is {answer}.",
        "{subject} is a chemical element with the symbol {answer} and the atomic number {number}.",
        "Element {number} of the periodic table is {subject}. Chemists write it as {answer}.",
    ),
)


def rows() -> list[dict[str, Any]]:
    """One example row per element."""
    return WORDING.rows(
        "elements",
        ({"subject": name, "answers": [symbol], "number": number} for number, name, symbol in ELEMENTS),
    )

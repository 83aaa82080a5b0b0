"""The table of all strategies, made from what their classes say; ``python -m lifelong.strategies.table`` writes it."""

from __future__ import annotations

import inspect
from pathlib import Path

import lifelong.strategies as strategies
from lifelong.strategies.base import Strategy
from lifelong.strategies.traits import ADAPTERS, FAMILIES, Traits

PAGE = Path(__file__).with_name("README.md")
HEAD = """# Strategies

Made from the classes by `python -m lifelong.strategies.table`. The documentation of each class gives paper, formula and
defaults. Bytes are those of state and further adapters in a stage's folder: P trainable parameters, R rows in memory,
T their answer tokens, S stages.

"""
COLUMNS = (
    "strategy", "in a sentence", "told of boundaries", "stores data", "state, bytes", "grows with tasks", "adapters",
    "families", "several devices", "a step takes", "a stage takes further", "not beside",
)  # fmt: skip


def classes() -> list[type[Strategy]]:
    """All strategies of the package, by name."""
    found = (getattr(strategies, name) for name in sorted(strategies.__all__))
    return [kind for kind in found if inspect.isclass(kind) and issubclass(kind, Strategy) and kind is not Strategy]


def page() -> str:
    """The page in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(row, classes())]
    return HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def row(kind: type[Strategy]) -> list[str]:
    """What a class says of itself, as Markdown in the order of ``COLUMNS``."""
    traits: Traits = kind.traits
    return [
        f"`{kind.__name__}`",
        inspect.getdoc(kind).partition("\n\n")[0].replace("\n", " ").replace("|", "\\|"),
        _yes(traits.boundary),
        traits.stores_data,
        f"`{traits.kept}`",
        _yes(traits.grows),
        _all_or_some(traits.adapters, ADAPTERS),
        _all_or_some(traits.families, FAMILIES),
        _yes(traits.several_devices),
        traits.step,
        traits.stage,
        ", ".join(f"`{name}`" for name in kind.conflicts) or "",
    ]


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


def _all_or_some(some: tuple[str, ...], every: tuple[str, ...]) -> str:
    return "all" if set(some) == set(every) else ", ".join(some)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""A page for every strategy and every adapter, made from its class."""

from __future__ import annotations

import dataclasses
import inspect

from peft import PeftConfig

import lifelong.adapters as adapters
from lifelong.strategies import table
from lifelong.strategies.base import Strategy
from making.docstrings import with_links
from making.documents import ROOT, sections


def made() -> dict[str, str]:
    """Both lists, and a page for each class on them."""
    pages = {"strategies/index.md": _strategies(), "adapters/index.md": _adapters()}
    pages |= {_page("strategies", kind): _strategy(kind) for kind in table.classes()}
    return pages | {_page("adapters", kind): _adapter(kind) for kind in configurations()}


def strategy_pages() -> list[str]:
    """Their paths, by name."""
    return [_page("strategies", kind) for kind in table.classes()]


def adapter_pages() -> list[str]:
    """Their paths, as the README lists them."""
    return [_page("adapters", kind) for kind in configurations()]


def configurations() -> list[type[PeftConfig]]:
    """The configurations of all mixtures, in the order of the README's table."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = (getattr(adapters, name) for name in adapters.__all__)
    kinds = [kind for kind in found if inspect.isclass(kind) and issubclass(kind, PeftConfig)]
    return sorted(kinds, key=lambda kind: readme.find(f"| `{kind.__name__}` |"))


def _page(folder: str, kind: type) -> str:
    return f"{folder}/{kind.__name__}.md"


def _link(kind: type) -> str:
    return f"[`{kind.__name__}`]({kind.__name__}.md)"


def _strategies() -> str:
    head, _, rows = table.page().partition("|")
    # what each cannot run beside is on its own page
    rows = "".join(line.rsplit("|", 2)[0] + "|\n" for line in f"|{rows}".splitlines())
    for kind in table.classes():
        rows = rows.replace(f"| `{kind.__name__}` |", f"| {_link(kind)} |", 1)
    return f"---\nhide: [toc]\n---\n{head}{with_links(rows)}"


def _strategy(kind: type[Strategy]) -> str:
    """The class's documentation, then what it says of itself in its traits."""
    names, cells = table.COLUMNS[2:-1], table.row(kind)[2:-1]  # but for the sentence, and what it cannot run beside
    rows = "".join(f"| {name} | {cell} |\n" for name, cell in zip(names, cells, strict=True))
    page = f"""{_documentation(f"lifelong.strategies.{kind.__name__}")}
## Needs, keeps and costs

P: trainable parameters, R: rows in memory, T: their answer tokens, S: stages. [All strategies side by side](index.md).

| | |
|---|---|
{rows}"""
    beside = [f"- `{name}`: {reason}\n" for name, reason in kind.conflicts.items()]
    return page + ("\n## Does not run beside\n\n" + "".join(beside) if beside else "")


def _adapters() -> str:
    readme = sections((ROOT / "README.md").read_text(encoding="utf-8"))
    rows = "".join(line for line in readme["Mixtures of LoRA experts"].splitlines(keepends=True) if line[0] == "|")
    for kind in configurations():
        rows = rows.replace(f"\n| `{kind.__name__}` |", f"\n| {_link(kind)} |")
    return f"""# Adapters

Mixtures of LoRA experts, as methods of PEFT. How they are used, and what they cannot do, is said in
[the guide](../guide/mixtures-of-lora-experts.md); every other method of PEFT is an adapter, too, and no adapter at all
trains the whole model.

{rows}"""


def _adapter(kind: type[PeftConfig]) -> str:
    """The class's documentation, then each setting with its default and its help."""
    rows = ""
    for field in dataclasses.fields(kind):
        help = field.metadata.get("help")
        if help is None or not _is_ours(kind, field.name):
            continue
        rows += f"| `{field.name}` | `{field.default!r}` | {help} |\n"
    return f"""{_documentation(f"lifelong.adapters.{kind.__name__}", signature=False)}
## Settings

| setting | default | what it is |
|---|---|---|
{rows}
Beside these there are those of PEFT's `PeftConfig`.
"""


def _is_ours(kind: type[PeftConfig], field: str) -> bool:
    owner = next(base for base in reversed(kind.__mro__) if field in getattr(base, "__annotations__", {}))
    return owner.__module__.startswith("lifelong.")


def _documentation(name: str, signature: bool = True) -> str:
    options = ["heading_level: 1", "toc_label: " + name.rpartition(".")[2]]
    if not signature:
        options += ["members: false", "show_signature: false"]
    lines = "".join(f"      {option}\n" for option in options)
    return f"::: {name}\n    options:\n{lines}"

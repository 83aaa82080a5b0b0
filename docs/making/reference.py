"""The reference: every public name, with its documentation."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import ModuleType

from making.docstrings import as_markdown
from making.methods import adapter_pages, strategy_pages

# modules in the order of a first reading; those without __all__ are shown whole
MODULES = (
    "lifelong",
    "streams",
    "lifelong.strategies",
    "lifelong.adapters",
    "lifelong.memory",
    "lifelong.models",
    "lifelong.prompts",
    "lifelong.retrieval",
    "lifelong.documents",
    "lifelong.judges",
    "lifelong.five_l",
    "lifelong.comparison",
    "lifelong.extension",
    "lifelong.metrics",
    "lifelong.metrics.functional",
    "lifelong.metrics.anytime",
    "lifelong.metrics.answers",
    "lifelong.metrics.five_l",
    "lifelong.metrics.retrieval",
    "lifelong.metrics.statistics",
    "lifelong.metrics.pareto",
    "lifelong.reports.figures",
    "lifelong.testing",
    "lifelong.errors",
)
# documented in another place, which the page leads to
ELSEWHERE = {"lifelong.strategies.Stage": "lifelong.Stage"}


def made() -> dict[str, str]:
    """A page for each module, and the list of all names."""
    found = {f"reference/{name}.md": _page(name) for name in MODULES}
    lines = [f"- [`{name}`]({name}.md): {_first_line(import_module(name))}\n" for name in MODULES]
    return {"reference/index.md": "# Reference\n\n" + "".join(lines), **found}


def pages() -> list[str]:
    """Their paths, in order."""
    return [f"reference/{name}.md" for name in MODULES]


def names(module: str) -> list[str]:
    """The public names of a module, each with its path: those it lists, or those that are made in it."""
    found = import_module(module)
    listed = getattr(found, "__all__", None)
    if listed is None:
        listed = [name for name, value in vars(found).items() if _is_made_in(value, module) and name[0] != "_"]
    return [f"{module}.{name}" for name in listed if name[0] != "_"]


def _page(module: str) -> str:
    parts = [f"# {module}\n", as_markdown(inspect.getdoc(import_module(module))) + "\n"]
    apart = {f"lifelong.{page[:-3].replace('/', '.')}": page for page in (*strategy_pages(), *adapter_pages())}
    for name in names(module):
        if name in apart or name in ELSEWHERE:
            continue
        parts.append(f"::: {name}\n")
    linked = [f"- [`{name.rpartition('.')[2]}`](../{apart[name]})\n" for name in names(module) if name in apart]
    linked += [f"- [`{name.rpartition('.')[2]}`][{ELSEWHERE[name]}]\n" for name in names(module) if name in ELSEWHERE]
    if linked:
        parts.append("## On pages of their own\n\n" + "".join(linked))
    return "\n".join(parts)


def _is_made_in(value: object, module: str) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module


def _first_line(module: ModuleType) -> str:
    return as_markdown(inspect.getdoc(module)).partition("\n\n")[0].replace("\n", " ")

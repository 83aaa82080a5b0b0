"""The page of sources: which papers the methods and the figures follow, as their documentation names them."""

from __future__ import annotations

import inspect
import re

from lifelong import __version__
from lifelong.metrics.definitions import ACCURACY
from lifelong.strategies.table import classes
from making.docstrings import with_links
from making.methods import configurations
from making.metrics import source

_WHO = r"[A-Z][\w-]+(?: et al\.,?| (?:&|and) [A-Z][\w-]+,?)?"
_WHERE = r'(?: "[^"]+",)?(?: [A-Z][A-Za-z]+)? (?:19|20)\d\d(?:, (?:https://[^\s,;:)]+|arXiv \d{4}\.\d{5}))?'
_CITATION = re.compile(rf"{_WHO}{_WHERE}|(?:[A-Z][\w-]+,? \(?)?arXiv \d{{4}}\.\d{{5}}")
HEAD = f"""# Papers to cite

What is here was written anew, after the papers and their authors' published code; where a paper leaves something open
or could not be verified, the page of the method says so. No published figure is claimed as reproduced, unless [an
experiment here](experiments/index.md) reproduces it. A study that uses a method or a figure should cite its source,
and say which version of `lifelong` computed it (`environment.json` in a run's folder has it):

```bibtex
@software{{lifelong,
  title   = {{lifelong: teaching a language model a stream of tasks}},
  version = {{{__version__}}},
  license = {{Apache-2.0}},
}}
```
"""


def made() -> dict[str, str]:
    """The page."""
    parts = [
        HEAD,
        "## Strategies\n\n" + _table("strategies", classes()),
        "## Adapters\n\n" + _table("adapters", configurations()),
        "## Figures\n\n| figure | source |\n|---|---|\n"
        + "".join(f"| `{one.name}` | {source(one)} |\n" for one in ACCURACY.values()),
    ]
    return {"sources.md": "\n".join(parts)}


def citations(kind: type) -> list[str]:
    """What a class's documentation cites, in its order, each once."""
    text = " ".join(inspect.getdoc(kind).split())
    return list(dict.fromkeys(match[0].rstrip(",").replace("(arXiv", "arXiv") for match in _CITATION.finditer(text)))


def _table(folder: str, kinds: list[type]) -> str:
    rows = "| method | source |\n|---|---|\n"
    for kind in kinds:
        found = "; ".join(with_links(one) for one in citations(kind)) or "none: a baseline, or ours"
        rows += f"| [`{kind.__name__}`]({folder}/{kind.__name__}.md) | {found} |\n"
    return rows

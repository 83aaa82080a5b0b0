"""The notebooks as pages: their text, their code, and the outputs that are kept in them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from making.documents import ROOT, linked

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HEAD = """# Notebooks

Each reads as an essay: a question, a run, a picture, an answer. They run on the embedded model in a minute or two,
without anything to download; the files are in `notebooks/`.

"""


def made() -> dict[str, str | bytes]:
    """A page for each notebook, its pictures, and the page that lists them."""
    found: dict[str, str | bytes] = {}
    head = HEAD
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        head += f"- [{_text(cells[0]).splitlines()[0].removeprefix('# ')}]({path.stem}.md)\n"
        parts = []
        for number, cell in enumerate(cells, 1):
            parts.append(_source(cell, f"notebooks/{path.name}"))
            for place, output in enumerate(cell.get("outputs", []), 1):
                picture = f"notebooks/{path.stem}-{number}-{place}.png"
                parts.append(_output(output, Path(picture).name))
                if "image/png" in output.get("data", {}):
                    found[picture] = base64.b64decode(_joined(output["data"]["image/png"]))
        found[f"notebooks/{path.stem}.md"] = "\n\n".join(filter(None, parts)) + "\n"
    return {"notebooks/index.md": head, **found}


def pages() -> list[str]:
    """Their paths, in order."""
    return [f"notebooks/{path.stem}.md" for path in NOTEBOOKS]


def _source(cell: dict[str, Any], file: str) -> str:
    if cell["cell_type"] == "markdown":
        return linked(_text(cell), file)
    return f"```python\n{_text(cell)}\n```" if _text(cell) else ""


def _output(output: dict[str, Any], picture: str) -> str:
    """One output in its best form: a picture, a table, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![What the cell above draws]({picture})"
    if "text/html" in data:
        return f'<div class="output">{_joined(data["text/html"])}</div>'
    text = _joined(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


def _text(cell: dict[str, Any]) -> str:
    return _joined(cell["source"]).strip("\n")


def _joined(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)

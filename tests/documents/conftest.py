"""Documents of every kind, in a folder; PDFs are real ones, written by matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def write_pdf() -> Callable[..., None]:
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    def write(path: Path, pages: Sequence[str], title: str = "") -> None:
        with PdfPages(path, metadata={"Title": title} if title else None) as pdf:
            for page in pages:
                sheet = Figure(figsize=(8.3, 11.7))
                sheet.text(0.1, 0.95, page, va="top", fontsize=9)
                pdf.savefig(sheet)

    return write


@pytest.fixture
def folder(tmp_path: Path, write_pdf) -> Path:
    """Two tasks by sub-folder: towers and metals."""
    root = tmp_path / "library"
    (root / "metals").mkdir(parents=True)
    (root / "towers").mkdir()
    (root / "metals" / "2025-03 gold.md").write_text(
        "---\ntitle: Gold\n---\n# Gold\n\n"
        "The symbol of gold is Au. Gold is a dense yellow metal that does not rust.\n\n"
        "```python\nprint('The symbol of code is Xx.')\n```\n\nThe melting point of gold is 1064 degrees.\n",
        encoding="utf-8",
    )
    (root / "metals" / "2025-04 iron.txt").write_text(
        "The symbol of iron is Fe. Iron melts at 1538 degrees in a furnace.\n\nSteel contains iron and some carbon.",
        encoding="utf-8",
    )
    (root / "towers" / "2024-12 eiffel.html").write_text(
        "<html><head><title>Eiffel</title><script>var x = 'The colour of scripts is Black.';</script></head><body><nav>"
        "Home</nav><h1>The Eiffel Tower</h1><p>The tower of Paris was finished by Gustave Eiffel in 1889.</p>"
        "<p>The height of the tower is 330 metres.</p></body></html>",
        encoding="utf-8",
    )
    write_pdf(
        root / "towers" / "2025-01 pisa.pdf",
        ["The bell tower of Pisa was completed in 1372 after two centuries of work."],
        "Pisa",
    )
    (root / "towers" / "plan.png").write_bytes(b"no document")
    return root

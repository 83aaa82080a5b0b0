"""The repository's own documents as pages: nothing that the README says is written twice."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = "README.md"
NOT_GUIDE = ("Try it", "Licence")  # sections that written pages include
# where a file of the repository is in the documentation; what a link leads to that is not here loses its link
PAGES = {
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "experiments/README.md": "experiments/index.md",
    "experiments/nano_curves.png": "experiments/nano_curves.png",
    "experiments/nano_sizes.png": "experiments/nano_sizes.png",
    "experiments/quickstart.png": "experiments/quickstart.png",
    "experiments/router_clusters.png": "experiments/router_clusters.png",
    "lifelong/assets/nano/README.md": "experiments/nano.md",
    "lifelong/retrieval/README.md": "guide/retrieval.md",
    "lifelong/strategies/README.md": "strategies/index.md",
    "notebooks": "notebooks/index.md",
    **{
        f"notebooks/{path.name}": f"notebooks/{path.stem}.md"
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    },
}  # fmt: skip
ELSEWHERE = ("lifelong/strategies/README.md",)  # made from the classes by ``methods``
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")
_MARKER = re.compile(r"^<!-- README: (.+) -->$", flags=re.MULTILINE)


def made() -> dict[str, str | bytes]:
    """A page for each section of the README, the other documents, and their pictures."""
    pages: dict[str, str | bytes] = {
        f"guide/{slug(title)}.md": f"# {title}\n\n{linked(body, README)}" for title, body in _guide().items()
    }
    for file, page in PAGES.items():
        if file.endswith(".png"):
            pages[page] = (ROOT / file).read_bytes()
        elif file.endswith(".md") and file not in ELSEWHERE:
            pages[page] = linked(_without_front_matter((ROOT / file).read_text(encoding="utf-8")), file)
    return pages


def guide() -> list[str]:
    """The README's pages in their order, and the one that belongs to its section on passages."""
    pages = [f"guide/{slug(title)}.md" for title in _guide()]
    pages.insert(pages.index("guide/open-book.md") + 1, PAGES["lifelong/retrieval/README.md"])
    return pages


def sections(text: str) -> dict[str, str]:
    """The parts of a document under headings of the second level, by title; what stands before them is under ``""``."""
    parts, title, fenced = {"": []}, "", False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            title = line[3:].strip()
            parts[title] = []
        else:
            parts[title].append(line)
    return {title: "".join(lines).strip("\n") + "\n" for title, lines in parts.items()}


def linked(text: str, file: str) -> str:
    """A document of the repository with links that lead to pages here.

    Args:
        text: Markdown.
        file: that it stands in, from the repository's root.

    Raises:
        ValueError: a link leads nowhere.
    """

    def target(match: re.Match[str]) -> str:
        picture, words, path, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        if path in PAGES:
            return f"{picture}[{words}](/{PAGES[path]}{anchor or ''})"
        if not (ROOT / path).exists():
            raise ValueError(f"{file}: there is no {path}")
        return words if path in words else f"{words} (`{path}`)"

    return _LINK.sub(target, text)


def with_sections(markdown: str) -> str:
    """A written page with the README's sections in the place of its markers.

    Raises:
        KeyError: the README has no such section.
    """
    if not _MARKER.search(markdown):
        return markdown
    parts = sections((ROOT / README).read_text(encoding="utf-8"))
    parts["lifelong"] = parts[""].partition("\n")[2]  # without the title
    return _MARKER.sub(lambda match: linked(parts[match[1]], README), markdown)


def slug(title: str) -> str:
    """A title as a file's name."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _guide() -> dict[str, str]:
    parts = sections((ROOT / README).read_text(encoding="utf-8"))
    return {title: body for title, body in parts.items() if title and title not in NOT_GUIDE}


def _without_front_matter(text: str) -> str:
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)

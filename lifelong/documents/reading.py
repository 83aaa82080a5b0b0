"""Files into text: plain text, Markdown, HTML and PDF."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

from lifelong.cache import cache_folder
from lifelong.errors import DataError
from lifelong.libraries import quiet_libraries
from lifelong.store import Store, key_of

READER = 1  # to be raised where the same file would be read differently
SHORT_LINE = 0.6  # of the longest line of a page: what is shorter ends a paragraph
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])(?:[-_.]?(0[1-9]|[12]\d|3[01]))?(?!\d)")
_NOT_PROSE = ("script", "style", "noscript", "template", "nav", "header", "footer", "aside", "form", "pre", "svg")
_BLOCKS = ("p", "li", "dd", "dt", "td", "th", "blockquote", "figcaption", "caption", *(f"h{n}" for n in range(1, 7)))


@dataclass(frozen=True)
class Document:
    """What a file says.

    Args:
        name: its path below the folder, with ``/``.
        title: its own, or the file's name.
        text: paragraphs, with an empty line between two; code, menus and tables' rules are left out.
        date: ``YYYY-MM`` or ``YYYY-MM-DD`` of the document itself or in the file's name; ``None`` where there is none.
    """

    name: str
    title: str
    text: str
    date: str | None = None


@dataclass(frozen=True)
class _Content:
    text: str
    title: str = ""
    date: str = ""


def read_document(path: str | Path, name: str = "") -> Document:
    """Read one file.

    Args:
        path: of a kind in ``READERS``.
        name: see `Document`; the file's name where empty.

    Raises:
        DataError: naming the file: it is of another kind, damaged, locked, not in UTF-8, or holds no text.
    """
    path = Path(path)
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path}: cannot be read, only {', '.join(READERS)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    store = Store(cache_folder("documents") / "texts.sqlite")
    key = key_of(READER, path.suffix.lower(), hashlib.sha256(data).hexdigest())
    kept = store.get([key])
    if kept:
        content = _Content(**json.loads(kept[key]))
    else:
        content = _read(read, data, path)
        store.put({key: json.dumps(asdict(content)).encode()})
    date = _date(content.date) or _date(path.stem)
    return Document(name or path.name, content.title or path.stem, content.text, date)


def read_folder(
    folder: str | Path, skip_unreadable: bool = False
) -> tuple[list[Document], dict[str, str], Counter[str]]:
    """All documents below a folder, by name; hidden files and folders are left alone.

    Args:
        folder: with any sub-folders.
        skip_unreadable: leave out what cannot be read.

    Returns:
        the documents, those left out with the reason, and how many files there are of other kinds, by suffix.

    Raises:
        DataError: there is no such folder, no document in it, or one cannot be read and was not to be left out.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    documents, skipped, others = [], {}, Counter()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in inside.parts):
            continue
        if path.suffix.lower() not in READERS:
            others[path.suffix.lower() or path.name] += 1
            continue
        try:
            documents.append(read_document(path, inside.as_posix()))
        except DataError as error:
            if not skip_unreadable:
                raise DataError(f"{error}; skip_unreadable leaves such files out") from None
            skipped[inside.as_posix()] = str(error)
    if not documents:
        raise DataError(f"{folder}: no document in it that can be read ({', '.join(READERS)})")
    return documents, skipped, others


def _read(read: Callable[[bytes], _Content], data: bytes, path: Path) -> _Content:
    try:
        content = read(data)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not in UTF-8 (byte {error.start})") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if not content.text.strip():
        raise DataError(f"{path}: holds no text")
    whole = content.text.encode("utf-8", "ignore").decode()  # PDFs may hold halves of characters
    return replace(content, text=whole)


def _plain(data: bytes) -> _Content:
    return _Content("\n\n".join(_paragraphs(data.decode("utf-8-sig"))))


def _markdown(data: bytes) -> _Content:
    from markdown_it import MarkdownIt

    text = data.decode("utf-8-sig").replace("\r\n", "\n")
    front = _FRONT_MATTER.match(text)
    about = {}
    if front:
        try:
            about = yaml.safe_load(front[1])
        except yaml.YAMLError:
            raise DataError("malformed front matter") from None
        text = text[front.end() :]
    about = about if isinstance(about, dict) else {}
    content = _html(MarkdownIt("commonmark").enable("table").render(text).encode())
    return _Content(content.text, str(about.get("title") or content.title), str(about.get("date") or content.date))


def _html(data: bytes) -> _Content:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(data, "html.parser")
    named = page.find("title") or page.find("h1")
    stamped = page.find("meta", attrs={"property": "article:published_time"}) or page.find(
        "meta", attrs={"name": "date"}
    )
    timed = page.find("time", attrs={"datetime": True})
    date = stamped.get("content", "") if stamped else timed["datetime"] if timed else ""
    title = " ".join(named.get_text().split()) if named else ""
    for tag in page.find_all(_NOT_PROSE):
        tag.decompose()
    blocks = [tag for tag in page.find_all(_BLOCKS) if not tag.find(_BLOCKS)]
    texts = [" ".join(tag.get_text().split()) for tag in blocks] or _paragraphs(page.get_text())
    return _Content("\n\n".join(filter(None, texts)), title, date)


def _pdf(data: bytes) -> _Content:
    from pypdf import PdfReader

    try:
        with quiet_libraries():
            reader = PdfReader(io.BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                raise DataError("is locked by a password")
            pages = [page.extract_text().splitlines() for page in reader.pages]
            about = reader.metadata
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file makes a parser stumble over
        raise DataError(f"is no PDF that can be read ({error})") from None
    if not any(line.strip() for page in pages for line in page):
        raise DataError("holds no text; scanned pages must go through text recognition first")
    text = "\n\n".join(part for page in _bodies(pages) for part in _paragraphs(_flowing(page)))
    return _Content(text, str(about.title or "") if about else "")


READERS: dict[str, Callable[[bytes], _Content]] = {
    ".txt": _plain,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}


def _paragraphs(text: str) -> list[str]:
    """What empty lines divide, each on one line."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _bodies(pages: list[list[str]]) -> list[list[str]]:
    """The lines of pages without what stands on most of them first or last, such as titles and page numbers."""
    pages = [[line.strip() for line in page if line.strip()] for page in pages]
    ends = Counter(end for page in pages if page for end in {_numberless(page[0]), _numberless(page[-1])})
    often = {end for end, count in ends.items() if count > max(2, len(pages) / 2)}
    for page in pages:
        for place in (0, -1):
            if page and _numberless(page[place]) in often:
                del page[place]
    return pages


def _numberless(line: str) -> str:
    return re.sub(r"\d+", "#", line)


def _flowing(lines: list[str]) -> str:
    """Lines of a page as text: a paragraph ends with a short line, and words are whole that were divided."""
    full = SHORT_LINE * max(map(len, lines), default=0)
    text = "".join(f"{line}\n\n" if len(line) < full else f"{line}\n" for line in lines)
    return re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", text)


def _date(text: str) -> str | None:
    found = _DATE.search(text)
    return None if found is None else "-".join(filter(None, found.groups()))

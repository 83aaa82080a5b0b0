"""Files of every kind become prose, and what cannot be read is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifelong.documents import read_document, read_folder
from lifelong.errors import DataError


def test_every_kind_is_read_with_title_and_date_and_without_what_is_no_prose(folder: Path) -> None:
    documents, skipped, others = read_folder(folder)
    assert skipped == {} and others == {".png": 1}
    found = {document.name: document for document in documents}
    assert list(found) == sorted(found)
    assert {name: (document.title, document.date) for name, document in found.items()} == {
        "metals/2025-03 gold.md": ("Gold", "2025-03"),
        "metals/2025-04 iron.txt": ("2025-04 iron", "2025-04"),
        "towers/2024-12 eiffel.html": ("Eiffel", "2024-12"),
        "towers/2025-01 pisa.pdf": ("Pisa", "2025-01"),
    }
    assert found["metals/2025-03 gold.md"].text.split("\n\n") == [
        "Gold",
        "The symbol of gold is Au. Gold is a dense yellow metal that does not rust.",
        "The melting point of gold is 1064 degrees.",
    ]
    assert found["towers/2024-12 eiffel.html"].text.split("\n\n") == [
        "The Eiffel Tower",
        "The tower of Paris was finished by Gustave Eiffel in 1889.",
        "The height of the tower is 330 metres.",
    ]
    assert "completed in 1372 after two centuries of work." in found["towers/2025-01 pisa.pdf"].text


def test_a_list_and_a_table_become_paragraphs_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("- one *item*\n- two\n\n| a | b |\n|---|---|\n| c | `d` |\n\n> quoted\n")
    assert read_document(tmp_path / "a.md").text.split("\n\n") == ["one item", "two", "a", "b", "c", "d", "quoted"]


def test_words_divided_at_the_end_of_a_pdf_s_line_are_whole_and_page_numbers_go(tmp_path: Path, write_pdf) -> None:
    line = "a sentence that is long enough to fill the line of the page"
    pages = [f"The Handbook of Towers\n{line} is contin-\nued here {line}.\n{n}" for n in (1, 2, 3)]
    write_pdf(tmp_path / "a.pdf", pages)
    text = read_document(tmp_path / "a.pdf").text
    assert "is continued here" in text and text.count(line) == 6
    assert "Handbook" not in text and not any(digit in text for digit in "123")


@pytest.mark.parametrize(
    ("name", "head", "date"),
    [
        ("a.md", "---\ndate: 2026-02-03\n---\n", "2026-02-03"),
        ("2020-05-06 a.md", "---\ndate: 2026-02\n---\n", "2026-02"),
        ("report_20200506.md", "", "2020-05-06"),
        ("a.html", "<meta name='date' content='2019-07-08T10:00'>", "2019-07-08"),
        ("a.html", "<time datetime='2018-01'>then</time>", "2018-01"),
        ("chapter 12.md", "", None),
        ("1999-13.md", "", None),
    ],
)
def test_a_date_is_the_document_s_own_or_its_name_s(tmp_path: Path, name: str, head: str, date: str | None) -> None:
    (tmp_path / name).write_text(head + "Some words.")
    assert read_document(tmp_path / name).date == date


def test_what_cannot_be_read_is_named_and_left_out_by_choice_only(tmp_path: Path, write_pdf) -> None:
    (tmp_path / "good.txt").write_text("Some words.")
    bad = {
        "latin.txt": ("caf\xe9".encode("latin-1"), "not in UTF-8"),
        "empty.md": (b"---\ntitle: x\n---\n", "holds no text"),
        "front.md": (b"---\n: [\n---\nwords", "malformed front matter"),
        "cut.pdf": (b"%PDF-1.4 nothing more", "is no PDF that can be read"),
    }
    write_pdf(tmp_path / "scan.pdf", [""])
    for name, (data, reason) in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name}.*{reason}"):
            read_document(tmp_path / name)
    with pytest.raises(DataError, match=r"(?s)cut.pdf.*skip_unreadable"):
        read_folder(tmp_path)
    documents, skipped, _ = read_folder(tmp_path, skip_unreadable=True)
    assert [document.name for document in documents] == ["good.txt"]
    assert set(skipped) == {*bad, "scan.pdf"} and "text recognition" in skipped["scan.pdf"]


def test_a_locked_pdf_is_named(tmp_path: Path, write_pdf) -> None:
    from pypdf import PdfReader, PdfWriter

    write_pdf(tmp_path / "open.pdf", ["Some words."])
    writer = PdfWriter(clone_from=PdfReader(tmp_path / "open.pdf"))
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    with pytest.raises(DataError, match=r"locked.pdf: is locked by a password"):
        read_document(tmp_path / "locked.pdf")


def test_folders_without_documents_and_hidden_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        read_folder(tmp_path / "none")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.txt").write_text("hidden")
    with pytest.raises(DataError, match="no document in it"):
        read_folder(tmp_path)
    with pytest.raises(DataError, match=r"only \.txt"):
        read_document(tmp_path / "a.docx")


def test_an_altered_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("First.")
    assert read_document(path).text == read_document(path).text == "First."
    path.write_text("Second.")
    assert read_document(path).text == "Second."

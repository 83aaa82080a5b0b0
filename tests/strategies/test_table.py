"""The page of strategies says what the classes say."""

from __future__ import annotations

from lifelong.strategies.table import PAGE, classes, page


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m lifelong.strategies.table"


def test_every_strategy_has_a_row_that_says_what_it_keeps():
    rows = page().splitlines()
    for kind in classes():
        (row,) = [row for row in rows if row.startswith(f"| `{kind.__name__}` |")]
        assert f"`{kind.traits.kept}`" in row

"""The documentation has a page for everything that has one, and is built without a warning."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from dataclasses import fields
from html import unescape
from importlib import import_module
from pathlib import Path

import pytest
from peft import PeftConfig

import lifelong.adapters
import lifelong.strategies
from lifelong.metrics.definitions import ACCURACY, GENERAL
from lifelong.strategies import Strategy

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """The words of every page, by its path."""
    found = {}
    for file in sorted(site.rglob("*.html")):
        article = re.search(r"<article.*?</article>", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        if article:  # not that of what is not found
            found[str(file.relative_to(site))] = article[0]
    return found


def words(article: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", article)).split())


def classes_of(module, base):
    found = [getattr(module, name) for name in module.__all__]
    return [one for one in found if inspect.isclass(one) and issubclass(one, base) and one is not base]


def test_every_strategy_has_a_page_that_says_what_its_docstring_says(pages):
    strategies = classes_of(lifelong.strategies, Strategy)
    assert len(strategies) > 20
    for kind in strategies:
        page = words(pages[f"strategies/{kind.__name__}.html"])
        first = inspect.getdoc(kind).split("\n\n")[0]
        assert " ".join(first.split()).replace("``", "").split(" (")[0].rstrip(".") in page.replace(" .", ".")
        for name in inspect.signature(kind).parameters:
            assert name in page
        for other, reason in kind.conflicts.items():
            assert f"{other} : {' '.join(reason.split())}".replace("`", "") in page


def test_every_adapter_has_a_page_with_all_of_its_settings(pages):
    adapters = classes_of(lifelong.adapters, PeftConfig)
    assert {kind.__name__ for kind in adapters} >= {"MoralConfig", "LoraMoeConfig", "MoeLoraConfig", "DenseMoeConfig"}
    for kind in adapters:
        page = words(pages[f"adapters/{kind.__name__}.html"])
        for name in {field.name for field in fields(kind)} - {field.name for field in fields(PeftConfig)}:
            assert f" {name} " in page, f"{kind.__name__}.{name}"


def test_every_figure_is_defined(pages):
    page = words(pages["metrics.html"])
    for figure in [*ACCURACY.values(), *GENERAL.values()]:
        assert figure.name in page
        assert figure.definition.rpartition(": ")[0] in page


def test_every_public_name_is_in_the_reference(site):
    known = set(re.findall(r'id="((?:lifelong|streams)[\w.]*)"', "".join(p.read_text() for p in site.rglob("*.html"))))
    for module in ("lifelong", "streams", "lifelong.strategies", "lifelong.adapters", "lifelong.metrics"):
        for name in import_module(module).__all__:
            if not name.startswith("_"):
                assert {f"{module}.{name}"} & known or name == "Stage", f"{module}.{name}"


def test_nothing_of_the_markup_is_left_over(pages):
    for path, article in pages.items():
        prose = re.sub(r"<(pre|code)\b.*?</\1>", "", article, flags=re.DOTALL)
        assert not re.search(r"<p>\|| :(class|func|meth):|``|^Args:|<!-- README", prose), path


def test_nothing_is_fetched_from_elsewhere(site):
    for file in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", file.read_text(encoding="utf-8")):
            assert not re.search(r'(?:src|href)="(?:https?:)?//', tag) or 'rel="canonical"' in tag, f"{file}: {tag}"

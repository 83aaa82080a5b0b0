"""What mkdocs asks while it builds: the pages that are made, their place, and the README's sections in written ones."""

from __future__ import annotations

import logging
from typing import Any

from making import documents, methods, metrics, notebooks, reference, sources
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

logging.getLogger("transformers").setLevel(logging.ERROR)  # what it says of packages that it misses is not ours


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation: written and made pages, in the order of a first reading."""
    config.nav = [
        "index.md",
        {"Guide": ["concepts.md", *documents.guide()]},
        {"Strategies": ["strategies/index.md", *methods.strategy_pages()]},
        {"Adapters": ["adapters/index.md", *methods.adapter_pages()]},
        {"Measures": ["metrics.md", "sources.md"]},
        {"Notebooks": ["notebooks/index.md", *notebooks.pages()]},
        {"Results": ["experiments/index.md", "experiments/nano.md"]},
        {"Reference": ["reference/index.md", *reference.pages()]},
        {"Changes": "changes.md"},
        {"Contributing": "contributing.md"},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Everything that is not written by hand joins the files."""
    made: dict[str, str | bytes] = {}
    for part in (documents, methods, metrics, notebooks, reference, sources):
        made |= part.made()
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """``<!-- README: Title -->`` on a line of its own becomes that section of the README."""
    return documents.with_sections(markdown)

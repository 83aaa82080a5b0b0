"""A real browser for the pages that are written."""

from __future__ import annotations

import os
import shutil

import pytest

# no network, no first-run pages, and no sandbox, which a container does not have
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    """Chromium of this machine, headless. Where LIFELONG_BROWSER is ``required``, as in CI, it must be there."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        assert os.environ.get("LIFELONG_BROWSER") != "required", "there is no Chromium on this machine"
        pytest.skip("needs Chromium: the package `chromium` of most systems")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()

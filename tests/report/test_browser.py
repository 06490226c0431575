"""The page in a real browser, where one is found."""

from __future__ import annotations

import os
import shlex
import shutil

import pytest

from fastmtl.report import report
from tests.report.devtools import Browser

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "chrome",
    "chrome-headless-shell",
    "msedge",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """That of the variable BROWSER_BINARY, with the options that follow it, or of the path."""
    named = shlex.split(os.environ.get("BROWSER_BINARY", ""))
    found = named or list(filter(None, map(shutil.which, NAMES)))[:1]
    if not found:
        pytest.skip("no Chromium on the path, and BROWSER_BINARY names none")
    with Browser(found[0], tmp_path_factory.mktemp("profile"), tuple(found[1:])) as started:
        yield started


# Wider, ten of them, than a sample has room.
PICTURE = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='300' height='60'/%3E"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page(run, browser, tmp_path, width, scheme):
    directory, data = run
    page = tmp_path / "report.html"
    pictures = report(directory, data, frames=lambda sample, places: [PICTURE] * len(places))
    page.write_text(pictures, encoding="utf-8")
    browser.open(page.as_uri(), width, 900, scheme)
    picture = browser.screenshot()
    assert picture.startswith(b"\x89PNG")
    # An empty page is a few kilobytes.
    assert len(picture) > 20_000
    # Nothing is wider than the window or over its neighbour, and the scheme is the reader's.
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    strips = "[...document.querySelectorAll('.strips')]"
    assert browser.evaluate(f"{strips}.every(each => each.scrollWidth <= each.clientWidth + 1)")
    red = browser.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.slice(4))")
    assert (red < 128) == (scheme == "dark")


def test_a_click_on_a_head_sorts_the_table(run, browser, tmp_path):
    directory, data = run
    page = tmp_path / "report.html"
    page.write_text(report(directory, data), encoding="utf-8")
    browser.open(page.as_uri(), 1280, 900, "light")
    table = "document.querySelector('table.concepts')"
    cells = f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[1].dataset.value))"
    before = browser.evaluate(cells)
    for order in (sorted(before, reverse=True), sorted(before)):
        browser.evaluate(f"{table}.tHead.rows[1].cells[1].firstChild.click()")
        assert browser.evaluate(cells) == order

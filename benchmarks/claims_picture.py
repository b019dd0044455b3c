"""Takes the pictures of the book: python -m benchmarks.claims_picture BOOK.html OVERVIEW.png [--verdicts].

The overview of the page, from its title to the figure of all effects, as Chromium shows it; with `--verdicts`
without that figure, which is long for a README.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH = 1160
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def take(book: Path, picture: Path, *, verdicts: bool = False) -> None:
    """Writes the picture.

    Args:
        book: the page that `normwright claims run` or `normwright claims book` wrote.
        picture: the file to write, as PNG.
        verdicts: without the figure of all effects.
    """
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as profile:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=shutil.which("chromium"), headless=True, args=list(FLAGS)
        )
        page = context.new_page()
        page.set_viewport_size({"width": WIDTH, "height": 900})
        page.goto(book.absolute().as_uri())
        # The navigation sticks to the window, and would lie over the picture.
        page.add_style_tag(content="nav, .listing, .rule, footer { display: none }")
        if verdicts:
            page.add_style_tag(content="#effects { display: none }")
        page.add_style_tag(content="#overview { padding: 24px !important }")
        page.locator("#overview").screenshot(path=picture)
        context.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("book", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--verdicts", action="store_true")
    asked = parser.parse_args()
    take(asked.book, asked.picture, verdicts=asked.verdicts)

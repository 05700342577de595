"""Take a picture of a page of HTML as Chromium shows it.

    python benchmarks/screenshot.py PAGE.html PICTURE.png [--width 1200] [--height 1500] [--dark]

A height of 0 is the whole page.
"""

import argparse
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright


def screenshot(page: Path, picture: Path, *, width: int = 1200, height: int = 1500, dark: bool = False) -> None:
    """Open the page in a window of this size and keep what is seen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(
            viewport={"width": width, "height": height or 900}, color_scheme="dark" if dark else "light"
        )
        tab.goto(page.resolve().as_uri())
        tab.screenshot(path=picture, full_page=not height)
        browser.close()
    with Image.open(picture) as taken:
        # Few colours, for the file is committed.
        taken.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT).save(picture, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--dark", action="store_true")
    given = parser.parse_args()
    screenshot(given.page, given.picture, width=given.width, height=given.height, dark=given.dark)

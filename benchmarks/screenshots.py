"""Take docs/img/report.webp in Chromium: the gallery of the page about a run over the built-in sample.

    fairdedup sample people/ --rows 400 && fairdedup run people/ --keep 0.5 --out first
    python benchmarks/screenshots.py first
    python benchmarks/screenshots.py first --look FOLDER

The last command saves pictures of the whole page to look at: light and dark, wide and as on a phone.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from results_file import ROOT

sys.path.insert(0, str(ROOT / "tests" / "report"))
from browser import Page, find_browser, open_browser  # noqa: E402

PLACE = ROOT / "docs" / "img" / "report.webp"
HEIGHT, MARGIN, SCALE = 1118, 24, 1.5  # of the picture, in CSS pixels; pixels for each of these
QUALITY = 86
WINDOWS = {"wide": (1280, 900, False), "phone": (390, 844, True)}
LOAD = "[...document.images].forEach(image => { image.loading = 'eager'; })"  # also those outside of the window
LOADED = "[...document.images].every(image => image.complete)"


def take_gallery(tab: Page, page: Path) -> bytes:
    """Return a PNG of the beginning of the gallery."""
    tab.prefer("light")
    tab.open(page, *WINDOWS["wide"][:2])
    tab.run(LOAD)
    tab.wait(LOADED)
    return tab.take_picture("#gallery", HEIGHT, SCALE, MARGIN)


def save_looks(tab: Page, page: Path, folder: Path) -> None:
    """Save a picture of each section of the page, in each window, in light and dark."""
    for name, (width, height, mobile) in WINDOWS.items():
        for scheme in ("light", "dark"):
            tab.prefer(scheme)
            tab.open(page, width, height, mobile=mobile)
            tab.run(LOAD)
            tab.wait(LOADED)
            sections = tab.run(
                "[...document.querySelectorAll('section')].map((s, k) => (s.dataset.shot = k, s.id || k))"
            )
            for k, section in enumerate(sections):
                file = folder / f"{name}-{scheme}-{section}.png"
                file.write_bytes(tab.take_picture(f"[data-shot='{k}']", 3 * height))
                print(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run over the sample, with its page")
    parser.add_argument("--look", type=Path, metavar="FOLDER", help="where to save pictures of the whole page")
    args = parser.parse_args()
    page = args.run / "report" / "index.html"
    if not page.is_file():
        parser.error(f"{page} is missing: fairdedup report {args.run}")
    if find_browser() is None:
        parser.error("Chromium is not installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile, open_browser(Path(profile)) as tab:
        if args.look is not None:
            args.look.mkdir(parents=True, exist_ok=True)
            save_looks(tab, page, args.look)
            return
        Image.open(io.BytesIO(take_gallery(tab, page))).convert("RGB").save(PLACE, quality=QUALITY, method=6)
    print(f"{PLACE.relative_to(ROOT)}: {PLACE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

"""The page in a real Chromium: nothing of the data is markup, nothing is loaded, and all controls do what they say."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Page, find_browser, open_browser
from PIL import Image
from report_pages import HOSTILE, read_data

pytestmark = pytest.mark.skipif(find_browser() is None, reason="Chromium is not installed: apt-get install chromium")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def page(tab: Page, pictures_run: Path) -> Page:
    """Return the page about the run over pictures, in a window of its usual size."""
    tab.problems.clear()
    tab.prefer("light")
    tab.open(pictures_run / "report" / "index.html")
    return tab


def texts(page: Page, selector: str) -> list[str]:
    return page.run(f"[...document.querySelectorAll({selector!r})].map(element => element.textContent)")


def click(page: Page, selector: str) -> None:
    page.run(f"document.querySelector({selector!r}).click()")


def change_page(run: Path, folder: Path, part: dict[str, Any]) -> Path:
    """Return a copy of the page of a run with other values in its data."""
    page = run / "report" / "index.html"
    text = page.read_text(encoding="utf-8")
    start, end = text.index('id="data">') + len('id="data">'), text.index("</script>", text.index('id="data">'))
    data = json.dumps({**read_data(page), **part}).replace("<", "\\u003c")
    (folder / "page.html").write_text(text[:start] + data + text[end:], encoding="utf-8")
    return folder / "page.html"


def test_nothing_of_the_data_is_markup_and_nothing_is_loaded(page: Page) -> None:
    assert page.run("window.hacked") is None
    assert page.run("document.querySelectorAll('#main script, img[src=\"x\"], #main i > *').length") == 0
    assert texts(page, ".hero .name") == ["run <i>"]
    page.run("document.querySelector('#query').focus()")
    page.write("onerror")
    found = texts(page, "#result-list .tile")
    assert any("onerror=hacked=1> & {{x}}.png" in text for text in found)
    assert any('<img src=x onerror="window.hacked = 1">' in text for text in found)
    assert "broken <b>.png" in "".join(texts(page, "#rejected code"))
    assert page.run("window.hacked") is None
    assert page.problems == []


def test_every_picture_that_is_shown_is_in_the_page(page: Page) -> None:
    shown = page.run("[...document.querySelectorAll('#gallery img, #borderline img')].map(i => i.src.slice(0, 23))")
    assert shown and set(shown) == {"data:image/jpeg;base64,"}
    page.wait("[...document.querySelectorAll('#hero-pictures img')].every(i => i.complete && i.naturalWidth > 0)")
    assert page.run("[...document.querySelectorAll('img:not([alt])')].length") == 0


def test_the_gallery_is_sorted_and_filtered(page: Page, pictures_run: Path) -> None:
    hoods = read_data(pictures_run / "report" / "index.html")["gallery"]
    sizes = [int(text.split()[2]) for text in texts(page, ".hood .head strong")]
    assert sizes == sorted(sizes, reverse=True)
    click(page, "[data-sort='least']")
    assert page.run("document.querySelector('[data-sort=least]').getAttribute('aria-pressed')") == "true"
    first = texts(page, ".hood .chip:not(.kept)")[0]
    assert first == f"least similar {min(each['least'] for each in hoods):.4f}"
    page.run("document.querySelector('#filter').focus()")
    page.write("no such picture")
    assert texts(page, ".hood") == [] and texts(page, "#gallery-count") == [f"0 of {len(hoods)} fit"]


def test_members_have_their_size_and_a_caption_that_is_cut(tab: Page, pictures_run: Path, tmp_path) -> None:
    """Whole in the title, and hostile texts are texts there too."""
    data = read_data(pictures_run / "report" / "index.html")
    for hood in data["gallery"]:
        for row, _ in hood["members"]:
            data["samples"][str(row)]["caption"] = HOSTILE[0] * 4
    tab.prefer("light")
    tab.open(change_page(pictures_run, tmp_path, {"samples": data["samples"]}))
    of_each = "map(e => [e.textContent, e.title, e.clientHeight])"
    captions = tab.run(f"[...document.querySelectorAll('.member .words')].{of_each}")
    sizes = texts(tab, ".member .size")
    assert captions and all(text == title == HOSTILE[0] * 4 for text, title, _ in captions)
    assert max(height for *_, height in captions) < 25, "of one line each"
    assert len(sizes) == len(captions)
    assert all(text.startswith("32 × 32, ") and text.endswith(" kB") for text in sizes)
    for sample in data["samples"].values():
        sample.pop("url")
    tab.open(change_page(pictures_run, tmp_path, {"samples": data["samples"]}))
    framed = tab.run(f"[...document.querySelectorAll('.member .text')].{of_each}")
    assert len(framed) == len(captions) and all(text == title == HOSTILE[0] * 4 for text, title, _ in framed)
    assert texts(tab, ".member .words") == [], "a caption is there once"
    assert tab.run("window.hacked") is None and tab.problems == []


def test_the_slider_shows_pairs_of_each_cosine(page: Page, pictures_run: Path) -> None:
    bands = read_data(pictures_run / "report" / "index.html")["bands"]
    before = texts(page, "#cosine-value")
    page.run("document.querySelector('#cosine').focus()")
    page.press("ArrowRight")
    assert len(bands) > 2
    at = int(page.run("document.querySelector('#cosine').value"))
    assert texts(page, "#cosine-value") == [f"{bands[at]['low']:.4f} to {bands[at]['high']:.4f}"] != before
    assert len(texts(page, ".couple")) == len(bands[at]["pairs"])
    page.press("ArrowRight", times=len(bands))
    assert page.run("document.querySelector('#cosine').getAttribute('aria-valuetext')").endswith("1.0000")


def test_the_search_finds_samples_by_id_and_caption_and_says_for_whom_they_were_removed(page: Page) -> None:
    page.run("document.querySelector('#query').focus()")
    page.write("caption OF 33")
    assert texts(page, "#found") == ["1 found"]
    (tile,) = texts(page, "#result-list .tile")
    assert "picture 33.png" in tile and ("kept" in tile or "removed for picture" in tile)


def test_a_search_that_finds_nothing_says_among_how_many_it_looked(tab: Page, pictures_run: Path, tmp_path) -> None:
    """A page need not hold every sample, nor every caption."""
    data = read_data(pictures_run / "report" / "index.html")
    for part, says in [
        ({}, "nothing found"),
        ({"valid": 9_000}, "nothing found among the 60 of 9,000 pictures that this page holds"),
        ({"valid": 9_000, "map": None}, "pictures that this page holds"),
        ({"map": {**data["map"], "captions": None}}, f"it has the captions of {len(data['samples'])} of them"),
    ]:
        tab.open(change_page(pictures_run, tmp_path, part))
        tab.run("document.querySelector('#query').focus()")
        tab.write("no such sample")
        assert texts(tab, "#found")[0].endswith(says)


def test_the_map_answers_to_pointer_and_keyboard(page: Page) -> None:
    assert page.run("document.querySelector('#points').dataset.ready") in ("webgl2", "2d")
    page.run("document.querySelector('#points').focus()")
    page.press("+", "+")
    page.wait("Number(document.querySelector('#points').dataset.zoom) > 1.4")
    page.press("0", "0")
    page.wait("document.querySelector('#points').dataset.zoom === '1'")
    for _ in range(50):  # until the page has come to rest under the pointer
        x, y = page.run("document.querySelector('#points').dataset.first.split(' ').map(Number)")
        page.move("#points", x, y)
        if page.run("!document.querySelector('#tip').hidden"):
            break
        time.sleep(0.1)
    page.wait("!document.querySelector('#tip').hidden")
    page.press("Escape")
    page.wait("document.querySelector('#tip').hidden")
    page.run(
        "(c => { c.value = 'cluster'; c.dispatchEvent(new Event('change')); })(document.querySelector('#colours'))"
    )
    assert "numbers" in texts(page, "#key")[0]
    assert page.problems == []


def test_the_map_fills_its_view_and_shows_outliers_on_demand(tab: Page, pictures_run: Path, tmp_path) -> None:
    """With a reach of 4 the first view holds a quarter of each direction, at a zoom of 1."""
    data = read_data(pictures_run / "report" / "index.html")
    tab.open(change_page(pictures_run, tmp_path, {"map": {**data["map"], "reach": 4}}))
    first = "document.querySelector('#points').dataset.first.split(' ').map(Number)"
    wide = tab.run(first)
    assert tab.run("document.querySelector('#points').dataset.zoom") == "1"
    click(tab, "#reset")
    assert tab.run("document.querySelector('#points').dataset.zoom") == "0.25"
    x, y = (0.5 + (value - 0.5) / 4 for value in wide)
    assert 0 <= x <= 1 and 0 <= y <= 1
    for _ in range(50):  # until the page has come to rest under the pointer
        tab.move("#points", x, y)
        if tab.run("!document.querySelector('#tip').hidden"):
            break
        time.sleep(0.1)
    tab.wait("!document.querySelector('#tip').hidden")
    assert tab.problems == []


def test_a_picture_of_the_gallery_shows_it_with_a_margin(page: Page) -> None:
    """As benchmarks/screenshots.py takes it for the documentation."""
    box = page.run("(b => [b.width, b.height])(document.querySelector('#gallery').getBoundingClientRect())")
    shown = {}
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        picture = Image.open(io.BytesIO(page.take_picture("#gallery", height=300, scale=2, margin=10))).convert("L")
        assert abs(picture.width - 2 * (box[0] + 20)) <= 2 and abs(picture.height - 2 * 310) <= 2 <= box[1] - 300
        shown[scheme] = picture.getpixel((2, 2))  # of the margin
    assert shown["light"] > 200 and shown["dark"] < 60


def test_it_is_dark_where_the_system_is_and_where_the_reader_wants_it(page: Page) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.run(paper)
    page.prefer("dark")
    page.wait("document.querySelector('#theme').getAttribute('aria-pressed') == 'true'")
    dark = page.run(paper)
    assert dark != light
    click(page, "#theme")
    assert page.run(paper) == light


@pytest.mark.parametrize("group", ["man", "of a name that has no end " * 4, "x" * 80])
def test_a_lost_group_of_any_name_fits_a_phone(group: str, tab: Page, pictures_run: Path, tmp_path) -> None:
    gallery = read_data(pictures_run / "report" / "index.html")["gallery"]
    lost = [{**hood, "lost": ["perceived gender", group, 0.69]} for hood in gallery]
    tab.open(change_page(pictures_run, tmp_path, {"gallery": lost}), 390, 844, mobile=True)
    assert tab.run("document.documentElement.scrollWidth") <= 390
    assert f"perceived gender: {group} lost 0.69" in texts(tab, ".hood .chip.removed")


def test_it_fits_a_phone_and_the_keyboard_reaches_everything(page: Page) -> None:
    page.resize(390, 844, mobile=True)
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.run("document.activeElement.blur()")
    page.press("Tab")
    assert page.run("document.activeElement.className") == "skip"
    names = "button, input, select, canvas, a"
    unnamed = page.run(
        f"[...document.querySelectorAll('{names}')]"
        ".filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.id)"
    )
    assert unnamed == []
    assert page.run("[...document.querySelectorAll('svg')].every(s => s.ariaLabel || s.ariaHidden)")

"""The documentation site: its menu and links, its pictures, and that it builds without a warning and loads nothing.

The pages of docs/ itself are tested by test_docs.py, and their commands by test_page_commands.py.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from needed import import_or_skip
from test_page_commands import SITE_PAGES

from fairdedup import cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def load_module(file: Path) -> Any:
    """Return a module that is not in a package."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hooks() -> Any:
    return load_module(DOCS / "site_hooks.py")


def list_menu(entries: Any) -> Iterator[str]:
    """Yield the pages of the menu."""
    for entry in entries.values() if isinstance(entries, dict) else entries:
        yield from [entry] if isinstance(entry, str) else list_menu(entry)


# The pages and their links


def test_the_menu_names_every_page_of_the_site_once(hooks: Any) -> None:
    menu = list(list_menu(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert len(menu) == len(set(menu))
    for page in menu:
        assert (ROOT / hooks.find_source(page)).is_file(), page
    assert set(SITE_PAGES) <= set(menu)


def test_links_out_of_the_docs_lead_to_files_of_the_site(hooks: Any) -> None:
    text = "[a](../README.md#x) [b](../benchmarks/results/sample.json) [c](rules.md#cover) [d](https://x.y/z)"
    shown = hooks.redirect_links(text, "figures.md")
    assert shown == "[a](index.md) [b](source/benchmarks/results/sample.json) [c](rules.md#cover) [d](https://x.y/z)"
    assert hooks.redirect_links("[a](../../CONTRIBUTING.md)", "howto/photos.md") == "[a](../contributing.md)"
    assert hooks.redirect_links("[a](docs/rules.md#cover)", "contributing.md") == "[a](rules.md#cover)"
    assert hooks.list_linked_files("figures.md", text) == {"benchmarks/results/sample.json"}


def test_the_page_of_commands_lists_every_option_of_every_command(hooks: Any) -> None:
    assert hooks.COMMANDS in (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    text = hooks.describe_commands()
    for name, known in cli.cli.commands.items():
        section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert section is not None, name
        for parameter in known.params:
            assert all(flag in section[1] for flag in parameter.opts if flag.startswith("--")), (name, parameter)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site, which is built as `make docs` does; any warning is an error."""
    for name in ("mkdocs", "mkdocstrings"):
        import_or_skip(name)
    place = tmp_path_factory.mktemp("built") / "site"
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert shown.returncode == 0, shown.stderr
    return place


def test_the_site_builds_without_a_warning(site: Path) -> None:
    for page in ("index.html", "reference/commands/index.html", "reference/python/index.html"):
        assert (site / page).is_file()
    assert "--always-keep" in (site / "reference" / "commands" / "index.html").read_text()


class Loaded(HTMLParser):
    """Collects the addresses that a page loads, and whether it has a diagram, for which the theme loads a script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.diagrams = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.diagrams += "mermaid" in (own.get("class") or "")
        loads = tag in ("script", "img", "iframe") or (tag == "link" and own.get("rel") in ("stylesheet", "icon"))
        self.addresses += [own[name] or "" for name in ("src", "href") if loads and name in own]


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    loaded = [Loaded(page.read_text(encoding="utf-8")) for page in pages]
    assert len(pages) > 40 and all(each.addresses for each in loaded)
    assert not [address for each in loaded for address in each.addresses if re.match("([a-z]+:)?//", address)]
    assert not [page for page, each in zip(pages, loaded, strict=True) if each.diagrams]
    styles = "".join(file.read_text(encoding="utf-8") for file in site.rglob("*.css"))
    assert styles and not re.search(r"@import|url\([\"']?(https?:)?//", styles)


# Pictures and README


def test_the_pictures_are_those_that_the_script_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    pictures = load_module(ROOT / "benchmarks" / "pictures.py").draw_all()
    assert {"result.svg", "rules.svg", "cover.svg", "across.svg", "architecture.svg"} <= set(pictures)
    for name, content in pictures.items():
        assert (DOCS / "img" / name).read_text(encoding="utf-8") == content, "run python benchmarks/pictures.py"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150

"""The documentation site: its menu and links, its pictures, and the commands of its pages, which run in this process.

The pages of docs/ itself are tested by test_docs.py. Commands run as they are written, but for the words of `WORDS`: a
model that would have to be downloaded, a scheduler, and the sizes of real data.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from remedies import InProcess
from runs import Finished, command, picture, raw_vectors, sample, write_tar

from fairdedup import cli, workers
from fairdedup import sample as drawn
from fairdedup.encoders import batch_encoder
from fairdedup.stages import caption_embedding

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WORDS = (
    (" --model ViT-B-16 --pretrained openai", ""),
    (r" --scheduler tcp://\w+:8786", ""),
    (r"\{00000\.\.00041\}", "{00000..00001}"),
    (">= 256", ">= 24"),
    ("--shard-size 5000", "--shard-size 5"),
    ("--suggest-labels 200", "--suggest-labels 5"),
    ("--max-drift 0.25 --min-retention 0.5", "--max-drift 9 --min-retention 0.01"),
)
OTHER_COMMANDS = ("pip install ", "dask scheduler", "dask worker ", "make ")  # lines that are not run here
SITE_PAGES = (
    "index.md",
    "install.md",
    "tutorial.md",
    *(f"howto/{path.name}" for path in sorted((DOCS / "howto").glob("*.md"))),
)
DAYS = ("monday", "tuesday", "wednesday", "thursday")


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


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: `make docs` installs it")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: `make docs` installs it")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert shown.returncode == 0, shown.stderr
    for page in ("index.html", "reference/commands/index.html", "reference/python/index.html"):
        assert (tmp_path / "site" / page).is_file()
    assert "--always-keep" in (tmp_path / "site" / "reference" / "commands" / "index.html").read_text()


# Pictures and README


def test_the_pictures_are_those_that_the_script_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    pictures = load_module(ROOT / "benchmarks" / "pictures.py").draw_all()
    assert {"result.svg", "rules.svg", "cover.svg", "across.svg"} <= set(pictures)
    for name, content in pictures.items():
        assert (DOCS / "img" / name).read_text(encoding="utf-8") == content, "run python benchmarks/pictures.py"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


# The commands of the pages


class Colours:
    """An encoder that averages the colours of each quarter; a caption has a vector that depends on its letters."""

    def encode_images(self, images: list[Any]) -> np.ndarray:
        return np.stack([np.asarray(i.resize((2, 2)), np.float32).reshape(-1) + 1 for i in images])

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.stack([np.random.default_rng(list(t.encode())).uniform(50, 200, 12) for t in texts]).astype(
            np.float32
        )


def write_photos(folder: Path, keys: list[str], first: int) -> None:
    """Write pictures with captions, near duplicates among them."""
    folder.mkdir(parents=True)
    for k, key in enumerate(keys):
        (folder / f"{key}.png").write_bytes(picture(first + 4 * k))
        (folder / f"{key}.txt").write_text(f"caption of {key}")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the inputs that the pages name."""
    folder = tmp_path_factory.mktemp("inputs")
    names = [f"p{k:02d}" for k in range(40)]
    write_photos(folder / "photos", names, 0)
    lines = [f"{name}.png,{'summer' if k % 2 else 'winter'}" for k, name in enumerate(names)]
    (folder / "photos" / "metadata.csv").write_text("\n".join(["file_name,album", *lines]))
    for k, day in enumerate((*DAYS, "new-photos", "benchmark", "taken-down")):
        write_photos(folder / day, [f"{day}{n}" for n in range(12 if k < 5 else 3)], 1 + 3 * k)
    for shard in range(2):
        members: dict[str, bytes] = {}
        for k in range(12):
            members |= sample(f"{shard}{k:03d}", 4 * k + shard)
        write_tar(folder / f"data-{shard:05d}.tar", members)
        write_tar(folder / "data" / f"{shard:05d}.tar", members)
    x = raw_vectors(60)
    np.save(folder / "embeddings.npy", x)
    (folder / "embeddings.ids.txt").write_text("".join(f"row-{k}\n" for k in range(60)))
    np.savez(folder / "prototypes.npz", **{"perceived age/young": x[0], "perceived age/older": x[1]})
    groups = [f"{name}.png,{('young', 'middle-aged', 'older')[k % 3]}" for k, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["id,perceived age", *groups]))
    (folder / "takedowns.txt").write_text("p01.png\np02.png\n")
    (folder / "vanished.txt").write_text("p03.png\np04.png\n")
    return folder


@pytest.fixture
def here(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """Go to a copy of the inputs, where commands run in this process and any model encodes by colours."""
    folder = shutil.copytree(inputs, tmp_path / "here", copy_function=os.link)
    draw = drawn.write_sample
    monkeypatch.setattr(drawn, "write_sample", lambda place, seed, n: draw(place, seed=seed, n=110))
    monkeypatch.setattr(workers, "Workers", InProcess)
    for module in (batch_encoder, caption_embedding):
        monkeypatch.setattr(module, "load_encoder", lambda _: Colours())
    monkeypatch.chdir(folder)
    return folder


def read_commands(page: str) -> list[str]:
    """Return the lines of all shell blocks of a page, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    lines = [re.sub(r" #.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def run_page(page: str) -> list[Finished]:
    """Run the commands of a page in its order, and return how each has ended."""
    ended = []
    for line in read_commands(page):
        if line.startswith(OTHER_COMMANDS):
            continue
        program, *words = shlex.split(replace_words(line))
        assert program == "fairdedup", line
        shown = command(*words)
        assert shown.code == 0, (line, shown.err)
        ended.append(shown)
    return ended


def replace_words(line: str) -> str:
    for old, new in WORDS:
        line = re.sub(old, new, line)
    return line


def run_python(page: str) -> dict[str, Any]:
    """Run the Python blocks of a page, and return what they have defined."""
    known: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL):
        exec(block, known)
    return known


def has_kept(known: dict[str, Any]) -> None:
    assert len(known["kept"]) == len(known["decisions"][known["decisions"]["kept"]]) > 0


def has_result(known: dict[str, Any]) -> None:
    assert len(known["kept"]) == 30


def has_near(known: dict[str, Any]) -> None:
    assert list(known["near"].columns) == ["id", "reason"]


PYTHON: dict[str, Callable[[dict[str, Any]], None]] = {
    "tutorial.md": has_kept,
    "howto/ready-vectors.md": has_result,
    "howto/decontamination.md": has_near,
}


@pytest.mark.parametrize("page", SITE_PAGES)
def test_the_commands_of_a_page_run_in_its_order(page: str, here: Path) -> None:
    ended = run_page(page)
    assert ended and all(shown.out for shown in ended)
    python = run_python(page)
    assert bool(python) == (page in PYTHON), "name in PYTHON what the blocks of this page define"
    if python:
        PYTHON[page](python)


# The notebook


def read_cells() -> list[str]:
    """Return the code of the notebook's cells."""
    notebook = json.loads((DOCS / "sample.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_cells_of_the_notebook_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    def run(words: list[str], check: bool) -> None:
        shown = command(*words[1:])
        assert words[0] == "fairdedup" and check and shown.code == 0, shown.err

    monkeypatch.setattr(subprocess, "run", run)
    known: dict[str, Any] = {}
    for cell in read_cells():
        exec(cell, known)
    assert len(pyplot.get_fignums()) >= 3
    pyplot.close("all")
    assert (here / "story" / "run.json").is_file()


def test_the_notebook_runs_in_a_kernel(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install '.[docs]'")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(DOCS / "sample.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("ROWS = 2400", "ROWS = 300")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_the_notebook_shows_its_plots() -> None:
    notebook = json.loads((DOCS / "sample.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3

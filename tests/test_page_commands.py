"""The commands and the Python code of the documentation run in this process, page by page, and so does the notebook.

They run as they are written, but for the words of `WORDS` and `CODE`: a model that would have to be downloaded, a
scheduler, and the sizes of real data. Pages that are not here have tests of their own: those of object stores, Airflow
and clusters need servers, and questions.md is compared with loops (tests/commands/test_export_ids.py).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needed import import_or_skip
from remedies import InProcess
from runs import Finished, command, picture, raw_vectors, sample, write_tar

from fairdedup import sample as drawn
from fairdedup import workers
from fairdedup.encoders import batch_encoder
from fairdedup.stages import caption_embedding, query_embedding

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WORDS = (
    (" --model ViT-B-16 --pretrained openai", ""),
    (r" --scheduler tcp://\w+:8786", ""),
    (r"\{00000\.\.00041\}", "{00000..00001}"),
    (">= 256", ">= 24"),
    ("--shard-size 5000", "--shard-size 5"),
    ("--clusters 100", "--clusters 4"),
    (r"--suggest-labels \d+", "--suggest-labels 5"),
    ("--max-drift 0.25 --min-retention 0.5", "--max-drift 9 --min-retention 0.01"),
    (r"photos/1\.jpg", "p01.png"),
    ("export my-run --to uids", "export hex-run --to uids"),  # DataComp's ids have 32 hex digits
)
CODE = (('"ViT-B-16:openai"', '"fairdedup-small"'), (r"\*\.jpg", "*.png"))
OTHER_COMMANDS = ("pip install ", "dask scheduler", "dask worker ", "make ")  # lines that are not run here
README = "../README.md"
SITE_PAGES = (
    "index.md",
    "install.md",
    "tutorial.md",
    *(f"howto/{path.name}" for path in sorted((DOCS / "howto").glob("*.md"))),
)
LOOKS = ("compare.md", "report.md", "audit.md", "export.md", "run-directory.md")  # into a run that is there
PAGES = (*SITE_PAGES, README, "python.md", "sizing.md", *LOOKS)
DAYS = ("monday", "tuesday", "wednesday", "thursday")


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


def write_vectors(folder: Path, names: list[str]) -> None:
    """Write vectors with ids, the same with ids of 32 hex digits, prototypes, and labels of photos."""
    x = raw_vectors(60)
    np.save(folder / "embeddings.npy", x)
    (folder / "embeddings.ids.txt").write_text("".join(f"row-{k}\n" for k in range(60)))
    np.save(folder / "hex.npy", x)
    (folder / "hex.ids.txt").write_text("".join(f"{k:032x}\n" for k in range(60)))
    np.savez(folder / "prototypes.npz", **{"perceived age/young": x[0], "perceived age/older": x[1]})
    np.save(folder / "prototypes.npy", x[:2])
    lines = ["id,perceived age,gender,age"]
    for k, name in enumerate(names):
        ages = ("young", "middle-aged", "older")
        lines.append(f"{name}.png,{ages[k % 3]},{'wm'[k % 2]},{ages[k // 2 % 3]}")
    (folder / "labels.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the inputs that the pages name."""
    folder = tmp_path_factory.mktemp("inputs")
    names = [f"p{k:02d}" for k in range(40)]
    write_photos(folder / "photos", names, 0)
    head = "file_name,album,language,aesthetic,url"
    lines = [f"{name}.png,{'summer' if k % 2 else 'winter'},en,{k},https://x.y/{k}" for k, name in enumerate(names)]
    (folder / "photos" / "metadata.csv").write_text("\n".join([head, *lines]))
    shutil.copytree(folder / "photos", folder / "moved" / "photos")
    shutil.copy2(folder / "photos" / "p05.png", folder / "mine.jpg")
    for k, day in enumerate((*DAYS, "new-photos", "benchmark", "benchmark-images", "taken-down")):
        write_photos(folder / day, [f"{day}{n}" for n in range(12 if k < 5 else 3)], 1 + 3 * k)
    for shard in range(2):
        members: dict[str, bytes] = {}
        for k in range(12):
            members |= sample(f"{shard}{k:03d}", 4 * k + shard)
        write_tar(folder / f"data-{shard:05d}.tar", members)
        write_tar(folder / "data" / f"{shard:05d}.tar", members)
    write_vectors(folder, names)
    (folder / "licensed.csv").write_text("id\np07.png\n")
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
    for module in (batch_encoder, caption_embedding, query_embedding):
        monkeypatch.setattr(module, "load_encoder", lambda _: Colours())
    monkeypatch.chdir(folder)
    return folder


def read_page(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def read_commands(page: str) -> list[str]:
    """Return the lines of all shell blocks of a page, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", read_page(page), re.DOTALL)
    lines = [re.sub(r" #.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def run_page(page: str) -> list[Finished]:
    """Run the commands of a page in its order, and return how each has ended."""
    ended = []
    for line in read_commands(page):
        if line.startswith(OTHER_COMMANDS):
            continue
        program, *words = shlex.split(replace_words(line, WORDS))
        assert program == "fairdedup", line
        shown = command(*words)
        assert shown.code == 0, (line, shown.err)
        ended.append(shown)
    return ended


def replace_words(text: str, words: tuple[tuple[str, str], ...]) -> str:
    for old, new in words:
        text = re.sub(old, new, text)
    return text


def run_python(page: str) -> dict[str, Any]:
    """Run the Python blocks of a page, and return what they have defined."""
    known: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", read_page(page), re.DOTALL):
        exec(replace_words(block, CODE), known)
    return known


def has_kept(known: dict[str, Any]) -> None:
    assert len(known["kept"]) == len(known["decisions"][known["decisions"]["kept"]]) > 0


def has_result(known: dict[str, Any]) -> None:
    assert len(known["kept"]) == 30


def has_balanced(known: dict[str, Any]) -> None:
    assert len(known["result"].kept) == 30


def has_photos(known: dict[str, Any]) -> None:
    assert len(known["result"].kept) == 20 and "p00.png" in known["result"].decisions["id"].tolist()


def has_near(known: dict[str, Any]) -> None:
    assert list(known["near"].columns) == ["id", "reason"]


def has_pairs(known: dict[str, Any]) -> None:
    assert known["pairs"]["id_kept"].notna().all() and len(known["pairs"]) == len(known["removed"]) > 0


PYTHON: dict[str, Callable[[dict[str, Any]], None]] = {
    "tutorial.md": has_kept,
    "howto/ready-vectors.md": has_result,
    "howto/decontamination.md": has_near,
    README: has_balanced,
    "python.md": has_photos,
    "run-directory.md": has_pairs,
}
ELSEWHERE = ("export.md",)  # tests/commands/test_export_ids.py and test_hf_export.py run its code in processes


def prepare(page: str) -> None:
    """Make the runs that a page takes as given."""
    if page in LOOKS:
        assert command("run", "photos/", "--keep", 0.5, "--out", "my-run").code == 0
    if page == "export.md":
        assert command("run", "hex.npy", "--keep", 0.5, "--out", "hex-run").code == 0
    if page == "run-directory.md":
        assert command("run", "photos/", "--keep", 0.5).code == 0


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_in_its_order(page: str, here: Path) -> None:
    prepare(page)
    ended = run_page(page)
    assert (ended or page in PYTHON) and all(shown.out for shown in ended)
    if page in ELSEWHERE:
        return
    python = run_python(page)
    assert bool(python) == (page in PYTHON), "name in PYTHON what the blocks of this page define"
    if python:
        PYTHON[page](python)


def test_every_page_with_commands_of_ours_is_tried_here_or_elsewhere() -> None:
    """Pages that have tests of their own are named with the file that reads them."""
    elsewhere = {
        "airflow.md": "pipelines/test_airflow.py",
        "increments.md": "test_remedies_in_docs.py",
        "object-stores.md": "storage/test_store_page.py",
        "repeat-the-paper.md": "benchmarks/test_repeat_the_paper.py",
    }
    pages = {str(file.relative_to(DOCS)) for file in DOCS.rglob("*.md")} | {README}
    assert {page for page in pages if any(line.startswith("fairdedup ") for line in read_commands(page))} <= {
        *PAGES,
        *elsewhere,
    }
    for page, file in elsewhere.items():
        assert page in (ROOT / "tests" / file).read_text(encoding="utf-8")


# The notebook


def test_the_notebook_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer pictures: all else is as a reader runs it, in processes of their own."""
    nbclient, nbformat, _ = (import_or_skip(name) for name in ("nbclient", "nbformat", "ipykernel"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(DOCS / "sample.ipynb", as_version=4)
    assert sum("ROWS = 2400" in cell.source for cell in notebook.cells) == 1
    for cell in notebook.cells:
        cell.source = cell.source.replace("ROWS = 2400", "ROWS = 300")
        cell.outputs = []
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    text = "".join(output.get("text", "") for output in outputs)
    assert "300 pictures were decided, 150 are kept" in text and "150 ids in kept.txt" in text


def test_the_notebook_shows_its_plots() -> None:
    notebook = json.loads((DOCS / "sample.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3

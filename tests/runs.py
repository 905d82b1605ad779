"""Shared by the tests of the pipeline: small data sets, a Dask cluster of real processes, finished runs.

The cluster runs in a separate folder, so that any dependence on the current folder of a worker makes a test fail.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from fairdedup import cli

MAKE_PAGES = ("run", "refit", "prune", "replace")
PRODUCT = ("kept", "decisions", "rejected")
DIMENSION = 16
CLUSTERS = 5
UNUSABLE = {7: "nan", 101: "zero", 233: "inf"}  # rows of the embeddings that cannot be used


@dataclass(frozen=True)
class Finished:
    """The exit code of a command and what it printed."""

    code: int
    out: str
    err: str


def without_page(arguments: tuple[object, ...]) -> list[str]:
    """Return the words of a command, which makes no page about the run unless it names `--report`."""
    words = [str(a) for a in arguments]
    if words and words[0] in MAKE_PAGES and "--report" not in words:
        words.insert(1, "--no-report")
    return words


def command(*arguments: object) -> Finished:
    """Run a command in this process, as the console script does; without the page, which takes time."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.call(without_page(arguments))
    return Finished(code, out.getvalue(), err.getvalue())


def done(*arguments: object) -> Finished:
    """Run a command that must succeed."""
    finished = command(*arguments)
    assert finished.code == 0 and "could not be made" not in finished.err, finished.err
    return finished


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the bytes and the modification time of every file under a folder."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file under a folder."""
    return {name: data for name, (data, _) in files(folder).items()}


def product(run: Path) -> dict[str, dict[str, bytes]]:
    """Return the bytes of the results of a run."""
    return {folder: contents(run / folder) for folder in PRODUCT}


def started(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a command in a folder, as a new process group with its own Dask workers."""
    return subprocess.Popen(
        [sys.executable, "-m", "fairdedup", *without_page(arguments)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def table(folder: Path) -> pd.DataFrame:
    """Return all parts of a table of a run, in order; the parts must agree on their schema."""
    parts = [pq.read_table(p) for p in sorted(folder.glob("part-*.parquet"))]
    assert parts and all(p.schema == parts[0].schema for p in parts)
    return pa.concat_tables(parts).to_pandas()


def manifest(run: Path) -> dict[str, Any]:
    """Return run.json."""
    return read_plain(run / "run.json")


def read_plain(file: Path) -> dict[str, Any]:
    """Return a JSON file of a run without its checksum, as an earlier version would have written it."""
    content = json.loads(file.read_text(encoding="utf-8"))
    content.pop("checksum", None)
    return content


def picture(seed: int, side: int = 24) -> bytes:
    """Return a PNG of two colours and some noise; seeds with equal tens (seed // 10) give near duplicates."""
    shape, noise = np.random.default_rng(seed // 10), np.random.default_rng(seed)
    pixels = np.empty((side, side, 3))
    pixels[:] = shape.integers(0, 256, 3)
    left, top = shape.integers(0, side // 2, 2)
    pixels[top : top + side // 2, left : left + side // 2] = shape.integers(0, 256, 3)
    pixels += noise.normal(0, 4, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar shard; the same members give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def sample(key: str, seed: int, **columns: Any) -> dict[str, bytes]:
    """Return the members of one WebDataset sample."""
    return {
        f"{key}.png": picture(seed),
        f"{key}.txt": f"caption of {key}".encode(),
        f"{key}.json": json.dumps({"seed": seed, **columns}).encode(),
    }


def raw_vectors(n: int = 240, seed: int = 0) -> NDArray[np.float32]:
    """Return vectors around a few bases, at all distances, with copies and without unusable rows."""
    rng = np.random.default_rng(seed)
    bases = rng.normal(size=(n // 6, DIMENSION)) + 1.5 * rng.normal(size=DIMENSION)
    x = bases[rng.integers(len(bases), size=n)] + rng.normal(size=(n, DIMENSION)) * 10 ** rng.uniform(-2, 0, (n, 1))
    x[n // 2] = x[n // 3]
    return (x * 10 ** rng.normal(size=(n, 1))).astype(np.float32)


def write_embeddings(folder: Path) -> NDArray[np.float32]:
    """Write three shards in clip-retrieval's layout whose tables differ, and return all vectors, in order."""
    x = raw_vectors()
    for row, kind in UNUSABLE.items():
        x[row] = 0 if kind == "zero" else float(kind)
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(x)), 3)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", x[rows])
        columns: dict[str, Any] = {
            "key": [f"k{row}" for row in rows],
            "caption": [f"caption {row}" if row % 5 else None for row in rows],
            "width": pa.array(rows.tolist(), pa.int32() if number else pa.int64()),
            "tags": [[f"t{row}", "all"] for row in rows],
            "mixed": rows.tolist() if number == 1 else [str(row) for row in rows],
            "nested": [([row], f"text {row}", {"row": row})[number] for row in rows.tolist()],
        }
        if number == 2:
            columns["only here"] = [row / 2 for row in rows]
        pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{number}.parquet")
    return x


def prototype_vectors(seed: int = 1) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return prototypes of two attributes near the vectors, one with absent prototypes."""
    rng = np.random.default_rng(seed)
    centre = raw_vectors().astype(np.float64)
    centre = (centre / np.linalg.norm(centre, axis=1, keepdims=True)).mean(axis=0)

    def near() -> NDArray[np.float64]:
        return centre + 0.2 * rng.normal(size=DIMENSION)

    return {
        "tone": {"light": near(), "dark": near()},
        "age": {"young": near(), "middle": near(), "old": near(), "absent": np.stack([near(), near()])},
    }


def write_prototypes(file: Path) -> Path:
    """Write them as .npz."""
    vectors = {f"{a}/{c}": v for a, concepts in prototype_vectors().items() for c, v in concepts.items()}
    np.savez(file, **vectors)  # type: ignore[arg-type]
    return file


@dataclass(frozen=True)
class Decided:
    """A finished run, with the values that the slow twin needs."""

    run: Path

    def __post_init__(self) -> None:
        assert (self.run / "run.json").is_file()

    @property
    def decisions(self) -> pd.DataFrame:
        return table(self.run / "decisions")

    @property
    def unit(self) -> NDArray[np.float16]:
        """Valid rows of RUN/embeddings, in order."""
        numbers = range(len(list((self.run / "embeddings" / "img_emb").glob("*.npy"))))
        return np.concatenate([np.load(self.run / "embeddings" / "img_emb" / f"img_emb_{k}.npy") for k in numbers])

    @property
    def centroids(self) -> NDArray[np.float16]:
        return oracles.unit16(np.load(self.run / "clusters" / "centroids.npy"))

    def problem(self, rule: str, cover: bool | None = None, **options: Any) -> oracles.Problem:
        """Return the slow twin's problem, made only from the run's vectors and clusters.

        Without `cover` and `reach`, it has those that the run has recorded.
        """
        used = manifest(self.run)["config"]["prune"]
        cover = used["cover"] if cover is None else cover
        options = {"reach": used["reach"], "reach_clusters": used["reach_clusters"], **options}
        labels = oracles.assign(self.unit, self.centroids)
        if rule == "random-neighbour":
            rows = self.decisions["row"].to_numpy()
            options["chosen"] = np.searchsorted(rows, self.decisions["representative"].to_numpy())
        return oracles.Problem(
            self.unit, labels, rule, cover=cover, prototypes=prototype_vectors(), centroids16=self.centroids, **options
        )


@contextlib.contextmanager
def cluster(folder: Path, **environment: str) -> Iterator[str]:
    """Yield the address of a Dask scheduler with two workers, as separate processes in a separate folder."""
    address = folder / "scheduler.json"
    asked = [["scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard"]] + 2 * [
        [
            "worker",
            "--no-nanny",
            "--nthreads",
            "1",
            "--no-dashboard",
            "--death-timeout",
            "60",
            "--local-directory",
            str(folder),
        ]
    ]
    quiet = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False", "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms"}
    with open(folder / "log", "wb") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "dask", *words, "--scheduler-file", str(address)],
                cwd=folder, stdout=log, stderr=log, env=os.environ | quiet | environment,
            )
            for words in asked
        ]  # fmt: skip
    try:
        for _ in range(600):
            if address.is_file() and address.stat().st_size:
                break
            assert processes[0].poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield json.loads(address.read_text())["address"]
    finally:
        for process in processes:  # killed, since after SIGTERM a worker waits for its scheduler
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Dask scheduler that most tests share."""
    with cluster(tmp_path_factory.mktemp("dask")) as address:
        yield address


@pytest.fixture(scope="session")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ready embeddings in clip-retrieval's layout."""
    folder = tmp_path_factory.mktemp("embeddings")
    write_embeddings(folder)
    return folder


@pytest.fixture(scope="session")
def prototypes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prototype vectors of their dimension."""
    return write_prototypes(tmp_path_factory.mktemp("prototypes") / "prototypes.npz")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, embeddings: Path, prototypes: Path) -> Path:
    """Return a finished run over the ready embeddings, by the rule `fairdedup`; copy it before you change it."""
    run = tmp_path_factory.mktemp("finished") / "run"
    done("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS, "--out", run,
         "--quiet")  # fmt: skip
    return run


@pytest.fixture
def again(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run, to be changed."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def prune(again: Path, prototypes: Path) -> Callable[..., Decided]:
    """Prune the copy again with some flags, and return it."""

    def decide(*flags: object) -> Decided:
        done("prune", again, *flags, "--prototypes", prototypes, "--quiet")
        assert not (again / "curated").exists()
        return Decided(again)

    return decide


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    """Return a file of random weights for the built-in model, made on a worker: this process must not import torch."""
    from distributed import Client

    file = tmp_path_factory.mktemp("weights") / "small.safetensors"
    pixels = [picture(seed) for seed in range(0, 200, 10)]

    def make() -> None:
        import open_clip
        import torch
        from safetensors.torch import save_file

        from fairdedup.datasets.images import decode
        from fairdedup.encoders import BUILTIN_FOLDER, BUILTIN_MODEL

        open_clip.add_model_config(BUILTIN_FOLDER)
        torch.manual_seed(0)
        model, _, transform = open_clip.create_model_and_transforms(BUILTIN_MODEL)
        with torch.inference_mode():
            # An untrained model gives all pictures nearly the same vector, so their common part is subtracted.
            batch = torch.stack([transform(decode(data)) for data in pixels])
            model.eval().visual.attnpool.c_proj.bias -= model.encode_image(batch).mean(dim=0)
        save_file(model.state_dict(), file)

    with Client(scheduler, set_as_default=False) as client:
        client.submit(make, pure=False).result()
    return file


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three WebDataset shards of 13 pictures each; one picture of them cannot be decoded."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(3):
        members: dict[str, bytes] = {}
        for k in range(shard * 13, shard * 13 + 13):
            extra = {"licence": "CC0"} if shard == 1 else {}
            members |= sample(f"{k:04d}", 3 * k, url=f"u/{k}", half=k / 2, **extra)
        if shard == 2:
            members["0030.png"] = members["0030.png"][:60]
        write_tar(folder / f"data-{shard:05d}.tar", members)
    return folder


@pytest.fixture(scope="session")
def images_run(tmp_path_factory: pytest.TempPathFactory, scheduler: str, shards: Path, weights: Path) -> Path:
    """Return a finished run over the shards, by the rule `fairdedup` and the default captions."""
    run = tmp_path_factory.mktemp("images") / "run"
    done("run", shards, "--keep", 0.5, "--model", "fairdedup-small", "--pretrained", weights, "--out", run,
         "--batch-size", 4, "--scheduler", scheduler, "--quiet")  # fmt: skip
    return run

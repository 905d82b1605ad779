"""Write the sample data set: WebDataset shards, true labels, the planted copies, and a few broken files.

The same seed and size give the same bytes. Nothing here reads a file or imports torch.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fairdedup.errors import UserError
from fairdedup.sample.captions import write_caption
from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import Scene, make_scenes

COPY_KINDS = ("exact", "jpeg", "resize", "crop", "recaption")
COPY_SHARE = 0.12  # of all pictures
SMALLEST = 50
PER_SHARD = 500
README = """\
The sample data set of fairdedup: {pictures} drawn pictures of people at work with captions, in {shards}
WebDataset shards (seed {seed}). Every picture is procedural; nobody in it is real, and the groups in
labels.parquet are those that the drawing was asked for, not perceived in or measured from any person.

labels.parquet  id, perceived_gender, age, skin_tone, monk (1 to 10 on the Monk Skin Tone scale),
                occupation, background. Pictures with nobody say "none", and no monk.
truth.parquet   id, copy_of, kind: {copies} planted copies of other pictures.
                exact: the same bytes and caption; recaption: the same bytes, another caption;
                jpeg: encoded again; resize: made smaller; crop: edges trimmed.
                Several shots of one scene and staff portraits in one setting are not listed: they are
                what the web repeats without copying.

The skew is on purpose: about 7 in 10 people have light skin and 1 in 10 dark; 1 in 8 is older; few of
the engineers, mechanics and firefighters are women, and most of the nurses and teachers.

Broken on purpose, and in neither table: {broken}.
"""


@dataclass(frozen=True)
class SampleSummary:
    """What `write_sample` wrote.

    Attributes
    ----------
    directory : Path
        Folder of the data set.
    seed : int
        Seed of the drawing.
    pictures, copies : int
        Number of readable pictures, and of planted copies among them.
    broken : tuple of str
        Ids of the files that cannot be read.
    shards : tuple of Path
        The WebDataset shards.
    """

    directory: Path
    seed: int
    pictures: int
    copies: int
    broken: tuple[str, ...]
    shards: tuple[Path, ...]


@dataclass(frozen=True)
class _Sample:
    """One sample of a shard: image bytes, caption, and the scene that they show (None for a broken file)."""

    image: bytes
    caption: str
    scene: Scene | None
    copy_of: int | None = None  # position in the list of samples
    kind: str = ""


def draw_pictures(scenes: Sequence[Scene]) -> list[bytes]:
    """Return the JPEG file of each scene."""
    return [_encode_jpeg(draw_scene(scene), 90) for scene in scenes]


def write_sample(
    directory: str | Path,
    seed: int = 0,
    n: int = 2400,
    draw: Callable[[Sequence[Scene]], list[bytes]] = draw_pictures,
) -> SampleSummary:
    """Draw the sample data set and write it to a folder.

    Parameters
    ----------
    directory : str or Path
        Folder to write; it is created if necessary. Files of the same names are replaced.
    seed : int
        The same seed and `n` give the same bytes.
    n : int
        Number of readable pictures, the planted copies among them; at least 50. Five broken files are added.
    draw : callable
        Draws scenes as `draw_pictures` does, perhaps in several processes.

    Returns
    -------
    SampleSummary
        Counts, the ids of the broken files, and the paths of the shards.

    Raises
    ------
    UserError
        If `n` is too small, `seed` is negative, or `directory` is a file.
    """
    directory = Path(directory)
    if n < SMALLEST:
        raise UserError(f"`n` must be at least {SMALLEST} pictures; got {n}")
    if seed < 0:
        raise UserError(f"`seed` must be 0 or more; got {seed}")
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file: name a folder for the sample")
    directory.mkdir(parents=True, exist_ok=True)

    copies = round(n * COPY_SHARE)
    samples, order = _make_samples(np.random.default_rng(seed), n, copies, draw)
    keys = [""] * len(samples)
    for position, at in enumerate(order):
        keys[at] = f"{position // PER_SHARD:05d}{position % PER_SHARD:04d}"
    shards = []
    for start in range(0, len(order), PER_SHARD):
        shard = directory / f"shard-{start // PER_SHARD:05d}.tar"
        _write_shard(shard, [(keys[at], samples[at]) for at in order[start : start + PER_SHARD]])
        shards.append(shard)
    _write_tables(directory, samples, keys, order)
    broken = tuple(keys[at] for at in order if samples[at].scene is None)
    (directory / "README.txt").write_text(
        README.format(pictures=n, shards=len(shards), seed=seed, copies=copies, broken=", ".join(broken)),
        encoding="utf-8",
    )
    return SampleSummary(directory, seed, n, copies, broken, tuple(shards))


def _make_samples(
    rng: np.random.Generator, n: int, copies: int, draw: Callable[[Sequence[Scene]], list[bytes]]
) -> tuple[list[_Sample], np.ndarray]:
    """Return all samples, with `copies` planted copies and the broken files, and the order to write them in."""
    scenes = list(make_scenes(rng, n - copies))
    samples = [
        _Sample(picture, write_caption(scene, rng).text, scene)
        for picture, scene in zip(draw(scenes), scenes, strict=True)
    ]
    originals = rng.choice(len(samples), size=copies, replace=False)
    samples += [
        _make_copy(rng, samples[at], int(at), COPY_KINDS[i % len(COPY_KINDS)]) for i, at in enumerate(originals)
    ]
    samples += _make_broken(rng, samples)
    return samples, rng.permutation(len(samples))


def _encode_jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _make_copy(rng: np.random.Generator, original: _Sample, at: int, kind: str) -> _Sample:
    copy = replace(original, copy_of=at, kind=kind)
    if kind == "exact":
        return copy
    if kind == "recaption":
        assert original.scene is not None
        caption = original.caption
        while caption == original.caption:
            caption = write_caption(original.scene, rng).text
        return replace(copy, caption=caption)
    image = Image.open(io.BytesIO(original.image))
    if kind == "jpeg":
        return replace(copy, image=_encode_jpeg(image, int(rng.integers(60, 86))))
    if kind == "resize":
        side = int(rng.integers(88, 105))
        return replace(copy, image=_encode_jpeg(image.resize((side, side), Image.Resampling.LANCZOS), 90))
    left, top, right, bottom = (int(edge) for edge in rng.integers(1, 5, size=4))
    return replace(copy, image=_encode_jpeg(image.crop((left, top, image.width - right, image.height - bottom)), 90))


def _make_broken(rng: np.random.Generator, samples: list[_Sample]) -> list[_Sample]:
    whole = samples[0].image
    page = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>Not Found</body></html>"
    return [
        _Sample(image, caption, None)
        for image, caption in (
            (b"", "a photo of a person at work"),
            (whole[: len(whole) // 3], "portrait of a chef in a kitchen"),
            (whole[:20], "a nurse, stock photo"),
            (page, "a photo of a woman engineer"),
            (rng.bytes(2000), "an office worker in an office"),
        )
    ]


def _write_shard(path: Path, members: list[tuple[str, _Sample]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, sample in members:
            record = {"key": key, "caption": sample.caption, "source": "drawn by fairdedup sample"}
            for suffix, data in (
                ("jpg", sample.image),
                ("txt", sample.caption.encode()),
                ("json", json.dumps(record).encode()),
            ):
                entry = tarfile.TarInfo(f"{key}.{suffix}")  # owner, mode and time are constants by default
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def _write_tables(directory: Path, samples: list[_Sample], keys: list[str], order: np.ndarray) -> None:
    labels: dict[str, list[str | int | None]] = {
        name: [] for name in ("id", "perceived_gender", "age", "skin_tone", "monk", "occupation", "background")
    }
    truth: dict[str, list[str]] = {"id": [], "copy_of": [], "kind": []}
    for at in order:
        sample = samples[at]
        if sample.scene is None:
            continue
        person = sample.scene.person
        row = (
            keys[at],
            person.gender if person else "none",
            person.age if person else "none",
            person.skin_tone if person else "none",
            person.monk if person else None,
            sample.scene.occupation,
            sample.scene.place,
        )
        for column, value in zip(labels.values(), row, strict=True):
            column.append(value)
        if sample.copy_of is not None:
            for name, text in (("id", keys[at]), ("copy_of", keys[sample.copy_of]), ("kind", sample.kind)):
                truth[name].append(text)
    pq.write_table(pa.table(labels), directory / "labels.parquet")
    pq.write_table(pa.table(truth), directory / "truth.parquet")

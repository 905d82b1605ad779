"""A large JPEG that is decoded at a reduced size has nearly the vector of the full decode, by the built-in encoder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairdedup.datasets.images import decode_picture
from fairdedup.encoders import builtin_spec, load_encoder
from fairdedup.encoders.protocol import Encoder
from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import make_scenes

FACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "fairface" / "train96-00000.tar"
LEAST = 0.999  # cosine


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(builtin_spec(batch_size=8, device="cpu", dtype="float32", threads=1))


def enlarge(image: Image.Image, side: int) -> bytes:
    """Return a JPEG of a picture whose longer side is enlarged."""
    scale = side / max(image.size)
    size = round(image.width * scale), round(image.height * scale)
    buffer = io.BytesIO()
    image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def compare(encoder: Encoder, files: list[bytes], scale: int) -> np.ndarray:
    """Return the cosine of each picture's vectors by the full and by the reduced decode, at 1/`scale` of the size."""
    detail = encoder.detail  # type: ignore[attr-defined]
    assert detail == 128, "twice the pixels of the model's input"
    full = [decode_picture(data).image for data in files]
    reduced = [decode_picture(data, detail=detail).image for data in files]
    for one, other in zip(full, reduced, strict=True):
        assert abs(other.width - one.width / scale) < 1 and abs(other.height - one.height / scale) < 1
    x, y = (encoder.encode_images(images).astype(np.float64) for images in (full, reduced))
    assert np.array_equal(x, y) == (scale == 1), "the reduced decode is another picture"
    return (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)


# Where the side is no multiple of 8, the reduced size is rounded up; 1501 / 8 is 0.2 % too large, 1100 / 8 0.36 %.
@pytest.mark.parametrize(("side", "scale"), [(260, 2), (600, 4), (1104, 8), (1501, 8), (1100, 4), (261, 1)])
def test_drawn_pictures_keep_their_vector(side: int, scale: int, encoder: Encoder) -> None:
    files = [enlarge(draw_scene(scene), side) for scene in make_scenes(np.random.default_rng(7), 8)]
    assert compare(encoder, files, scale).min() >= LEAST


@pytest.mark.skipif(not FACES.is_file(), reason="the pictures of FairFace are not here")
@pytest.mark.parametrize(("side", "scale"), [(600, 4), (1104, 8), (1030, 8)])
def test_faces_keep_their_vector(side: int, scale: int, encoder: Encoder) -> None:
    files = []
    with tarfile.open(FACES) as tar:
        for member in tar:
            if member.name.endswith(".jpg") and len(files) < 12:
                file = tar.extractfile(member)
                assert file is not None
                files.append(enlarge(Image.open(io.BytesIO(file.read())), side))
    assert len(files) == 12
    assert compare(encoder, files, scale).min() >= LEAST

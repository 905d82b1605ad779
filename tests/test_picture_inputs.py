"""deduplicate() embeds PIL images and files by the encoder that a run would use."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs import picture

from fairdedup import UserError, deduplicate
from fairdedup.picture_inputs import are_pictures, embed_pictures

ENCODER = "fairdedup-small"
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no encoder": ({"encoder": None}, "name what embeds pictures, such as `encoder='ViT-B-16:openai'`"),
    "an encoder of vectors": (
        {"embeddings": np.eye(4)},
        "`encoder` is for pictures: give a list of PIL images or of paths, or leave it out for vectors",
    ),
    "no text": ({"encoder": 5}, "`encoder` must be text; got 5 (int): choose MODEL:TAG"),
    "no weights": (
        {"encoder": "ViT-B-32"},
        "`encoder='ViT-B-32'` names no weights: add a tag or a file after a colon, such as `encoder='ViT-B-32:openai'`",
    ),
    "an unknown model": ({"encoder": "ViT-B-33:openai"}, "model 'ViT-B-33' is unknown to open_clip: did you mean"),
    "a file that is not there": ({"encoder": "ViT-B-32:x.pt"}, "pretrained 'x.pt': no such file"),
    "an unknown tag": ({"encoder": "ViT-B-32:opnai"}, "'opnai' is not a tag of ViT-B-32: choose one of "),
    "no amount": ({"keep": None}, "0 of `keep`, `at_most` and `eps` are given"),
    "a number among them": (
        {"embeddings": ["a.png", 5]},
        "`embeddings` holds 5 (int) at row 1, which is not a picture",
    ),
    "a picture of floats": (
        {"embeddings": [Image.new("F", (8, 8))]},
        "`embeddings` holds a picture of mode 'F' at row 0: scale it to 8 bits and convert it, by",
    ),
    "none of them": (
        {"embeddings": ["nowhere/a.png", "nowhere/b.png"]},
        "none of 2 pictures can be used; the first, 'nowhere/a.png', is rejected (file is missing or a broken link): "
        "give paths of image files",
    ),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the paths of 20 pictures in 4 kinds."""
    folder = tmp_path_factory.mktemp("photos")
    for k in range(20):
        (folder / f"{k:02d}.png").write_bytes(picture(2 * k))
    return sorted(folder.iterdir())


def test_paths_and_images_of_every_container_are_the_same_pictures(photos: list[Path]) -> None:
    images = [Image.open(io.BytesIO(path.read_bytes())) for path in photos]
    expected = embed_pictures(photos, ENCODER, "cpu")
    assert len(expected.vectors) == 20
    assert np.isfinite(expected.vectors).all() and not expected.faults
    for same in ([str(p) for p in photos], tuple(images), np.array([str(p) for p in photos])):
        assert np.array_equal(embed_pictures(same, ENCODER, "cpu").vectors, expected.vectors)
    by_path = deduplicate(photos, keep=0.5, encoder=ENCODER)
    assert by_path.decisions.equals(deduplicate(expected.vectors, keep=0.5).decisions)
    assert by_path.counts["kept"] == 10 and by_path.rethreshold(0).counts["kept"] == 20


def test_what_cannot_be_used_is_rejected_with_its_reason(photos: list[Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(picture(900)[:60])
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    whole = Image.open(io.BytesIO(photos[0].read_bytes()))
    broken = Image.open(io.BytesIO(picture(900)[:80]))  # Pillow reads the rest only when it is needed
    given = [whole, tmp_path / "none.png", cut, text, broken, *photos[1:5]]
    result = deduplicate(given, keep=0.6, encoder=ENCODER, ids=[f"p{k}" for k in range(9)], clusters=1)
    assert result.rejected["id"].tolist() == ["p1", "p2", "p3", "p4"]
    assert result.rejected["reason"].tolist()[0] == "file is missing or a broken link"
    assert result.rejected["reason"].tolist()[2] == "not a known image format"
    assert all("PNG" in reason or "cannot be prepared" in reason for reason in result.rejected["reason"][[1, 3]])
    assert result.counts["kept"] + result.counts["removed"] + result.counts["rejected"] == 9
    assert result.rethreshold(0).rejected.equals(result.rejected)


def test_images_are_upright_on_white_and_rgb() -> None:
    plain = Image.open(io.BytesIO(picture(10))).convert("RGB")
    clear = plain.convert("RGBA")
    clear.putalpha(Image.new("L", plain.size, 0))
    turned = plain.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6
    grey = plain.convert("L")
    kinds = [plain, clear, Image.new("RGB", plain.size, "white"), grey, grey.convert("RGB"), turned]
    vectors = embed_pictures(kinds, ENCODER, "cpu").vectors
    assert np.array_equal(vectors[1], vectors[2]) and np.array_equal(vectors[3], vectors[4])
    assert np.array_equal(vectors[0], vectors[5]) and not np.array_equal(vectors[0], vectors[1])


def test_embedding_leaves_the_settings_of_the_process_alone(photos: list[Path]) -> None:
    torch = pytest.importorskip("torch")
    before = logging.getLogger().level, torch.get_num_threads()
    embed_pictures(photos[:2], ENCODER, "auto")
    assert (logging.getLogger().level, torch.get_num_threads()) == before


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_with_a_remedy(case: str, photos: list[Path]) -> None:
    changes, text = CASES[case]
    with pytest.raises(UserError, match=re.escape(text)) as caught:
        deduplicate(**{"embeddings": photos[:3], "keep": 0.5, "encoder": ENCODER, **changes})
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)


def test_only_lists_of_images_or_paths_are_pictures() -> None:
    assert are_pictures([Path("a")]) and are_pictures(("a",)) and are_pictures([Image.new("L", (2, 2))])
    for other in ("a", b"a", [], [[1.0]], np.eye(2), {"a": 1}, None, [b"a"]):
        assert not are_pictures(other)

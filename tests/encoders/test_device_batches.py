"""What a GPU does with batches of pictures, on torch's CPU: the same pixels, the same order, and one batch ahead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fairdedup.encoders import batch_encoder, builtin_spec
from fairdedup.encoders.batch_encoder import BatchEncoder
from fairdedup.encoders.device_batches import DeviceBatches, PendingVectors, split_transform
from fairdedup.encoders.openclip import OpenClipEncoder

SPEC = builtin_spec(batch_size=4, device="cpu", dtype="float32", threads=1)
SIZES = ((64, 64), (90, 40), (33, 200), (300, 300), (8, 9), (64, 65), (70, 64))


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def plain() -> OpenClipEncoder:
    return OpenClipEncoder(SPEC)


@pytest.fixture(scope="module")
def gpu_like() -> OpenClipEncoder:
    return OpenClipEncoder(SPEC, as_on_gpu=True)


def test_pictures_travel_as_bytes_and_are_normalised_to_the_same_bits(
    plain: OpenClipEncoder, gpu_like: OpenClipEncoder
) -> None:
    sent = [gpu_like.prepare(picture) for picture in pictures()]
    assert {each.dtype for each in sent} == {torch.uint8}
    own = gpu_like._batches.normalisation
    assert own is not None
    expected = torch.stack([plain.prepare(picture) for picture in pictures()])
    assert torch.equal(own.apply(torch.stack(sent)), expected)


def test_a_transform_that_ends_otherwise_is_left_as_it_is() -> None:
    from torchvision.transforms import CenterCrop, Compose, Normalize, ToTensor

    for transform in (
        Compose([CenterCrop(4), ToTensor()]),
        Compose([ToTensor(), Normalize([0.5], [0.5]), CenterCrop(4)]),
        lambda picture: picture,
    ):
        assert split_transform(transform) == (transform, None)


@pytest.mark.parametrize("dtype, least", [("float32", 1 - 1e-6), ("float16", 0.999), ("bfloat16", 0.99)])
def test_the_vectors_are_those_of_the_plain_encoder(plain: OpenClipEncoder, dtype: str, least: float) -> None:
    encoder = OpenClipEncoder(replace(SPEC, dtype=dtype), as_on_gpu=True)
    found, expected = encoder.encode_images(pictures()), plain.encode_images(pictures())
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert cosines(found, expected).min() > least
    assert cosines(encoder.encode_texts(["a photo"]), plain.encode_texts(["a photo"])).min() > least


def test_batches_in_flight_keep_their_inputs_and_their_order() -> None:
    batches = DeviceBatches(3, "cpu", torch.float32, channels_last=True)
    given = [torch.randn(n, 3, 5, 4) for n in (3, 3, 1, 3, 2)]
    layouts = []

    def encode(batch: torch.Tensor) -> torch.Tensor:
        layouts.append(batch.is_contiguous(memory_format=torch.channels_last))
        return batch.flatten(1) * 2

    pending = [batches.begin(list(each), encode) for each in given]
    for each, vectors in zip(given, pending, strict=True):
        assert np.array_equal(vectors.wait(), each.flatten(1).numpy() * 2)
    assert all(layouts)
    tokens = torch.arange(8).reshape(2, 4)  # another shape and dtype, which stays
    assert batches.begin(list(tokens), lambda batch: batch).wait().tolist() == tokens.tolist()


class Slow:
    """An encoder that notes when batches begin and when their vectors are taken."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def prepare(self, image: Any) -> Any:
        return image

    def encode_images(self, images: list[Any]) -> Any: ...

    def encode_texts(self, texts: list[str]) -> Any: ...

    def encode_prepared(self, inputs: list[Any]) -> Any: ...

    def begin_prepared(self, inputs: list[Any]) -> Any:
        first, events = inputs[0], self.events
        events.append(f"begin {first}")
        vectors = torch.tensor([[float(each), 1.0] for each in inputs])

        class Noted(PendingVectors):
            def wait(self) -> Any:
                events.append(f"wait {first}")
                return super().wait()

        return Noted(vectors)


def test_a_batch_is_begun_before_the_vectors_of_the_last_one_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    monkeypatch.setattr(batch_encoder, "load_encoder", lambda _: slow)
    forward = BatchEncoder(SPEC)
    assert [forward.add(k) for k in range(10)] == list(range(10))
    forward.flush()
    assert slow.events == ["begin 0", "begin 4", "wait 0", "begin 8", "wait 4"]
    assert forward.collect_faults() == [0] * 10
    vectors = forward.collect_vectors().astype(float)
    assert slow.events[-1] == "wait 8" and len(slow.events) == 6
    assert np.allclose(vectors[:, 0] / vectors[:, 1], np.arange(10), rtol=2e-3)

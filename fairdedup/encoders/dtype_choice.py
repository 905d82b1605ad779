"""Chooses the number format of an encoder on a CPU, by measuring a batch in each."""

from __future__ import annotations

import time
from dataclasses import replace

from fairdedup.encoders.loading import keep_encoders, load_encoder
from fairdedup.encoders.spec import EncoderSpec

FASTER = 1.5  # how many times as fast as float32 another format must be
REPEATS = 3


def choose_dtype(spec: EncoderSpec) -> str:
    """Return "bfloat16" if a batch takes at most 1/1.5 of the time that it takes in float32, else "float32".

    Processors with AMX or AVX512-BF16 multiply in bfloat16; on others it is slower.

    Parameters
    ----------
    spec : EncoderSpec
        The encoder, on a CPU, in any format.
    """
    with keep_encoders():  # the check has loaded the first one, and the run goes on with one of the two
        seconds = {dtype: _measure(replace(spec, dtype=dtype)) for dtype in ("float32", "bfloat16")}
    return "bfloat16" if seconds["float32"] >= FASTER * seconds["bfloat16"] else "float32"


def _measure(spec: EncoderSpec) -> float:
    """Return the seconds of a batch of pictures: the shortest of some."""
    from PIL import Image

    encoder = load_encoder(spec)
    prepare = getattr(encoder, "prepare", None)
    picture = Image.effect_noise((256, 256), 64).convert("RGB")
    batch = [picture if prepare is None else prepare(picture)] * spec.batch_size
    encode = encoder.encode_images if prepare is None else encoder.encode_prepared  # type: ignore[attr-defined]
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        encode(batch)
        times.append(time.perf_counter() - started)
    return min(times)

"""Pictures as the argument of `deduplicate()`: embeds PIL images and files by the encoder that a run would use.

A picture that cannot be used is a rejected row with its reason, as in a run. Nothing here loads torch before there are
pictures to embed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.argument_checks import check_text, describe
from fairdedup.errors import FairdedupError, UserError, format_count

BATCH = 32  # pictures of a forward pass, as in a run
MOST_DECODERS = 4
RGB_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")  # of 8 bits a channel


class Embedded(NamedTuple):
    """Pictures as vectors.

    Attributes
    ----------
    vectors : ndarray of shape (n, d), float32
        NaN in the rows of pictures that cannot be used.
    faults : dict of int to str
        Why these cannot be used.
    """

    vectors: NDArray[np.float32]
    faults: dict[int, str]


def are_pictures(embeddings: Any) -> bool:
    """Tell whether an argument is a list of PIL images or of paths, by its first entry.

    Parameters
    ----------
    embeddings : object
        What the caller gave.
    """
    library = type(embeddings).__module__.partition(".")[0]
    listed = isinstance(embeddings, (list, tuple)) or (library == "pandas" and isinstance(embeddings, Sized))
    listed = listed or (isinstance(embeddings, np.ndarray) and embeddings.dtype.kind in "OU")
    if not listed or getattr(embeddings, "ndim", 1) != 1 or not len(embeddings):
        return False
    return _is_picture(next(iter(embeddings)))


def _is_picture(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike)) or _is_image(item)


def _is_image(item: Any) -> bool:
    return any(kind.__module__ == "PIL.Image" for kind in type(item).__mro__)


def embed_pictures(pictures: Any, encoder: Any, device: str) -> Embedded:
    """Embed pictures by an encoder of open_clip.

    Parameters
    ----------
    pictures : sequence of n PIL.Image.Image, str or PathLike
        Images, or paths of local files.
    encoder : str or None
        ``MODEL:TAG``, ``MODEL:FILE``, ``hf-hub:OWNER/NAME``, ``local-dir:FOLDER``, or the built-in ``fairdedup-small``.
    device : {"auto", "cpu", "cuda"}
        Where the encoder runs.

    Raises
    ------
    UserError
        If there is no such encoder, an entry is not a picture, or no picture can be used.
    FairdedupError
        If the weights cannot be loaded.
    """
    if not are_pictures(pictures):
        raise UserError("`encoder` is for pictures: give a list of PIL images or of paths, or leave it out for vectors")
    if encoder is None:
        raise UserError(
            "`embeddings` are pictures or text: name what embeds pictures, such as `encoder='ViT-B-16:openai'`, or "
            "give an (n, d) array of numbers"
        )
    items = list(pictures)
    for row, item in enumerate(items):
        _check_picture(row, item)
    spec = _read_spec(encoder, device)
    with _own_settings(spec.threads):
        try:
            embedded = _embed(items, spec)
        except FairdedupError as error:
            raise _reword(error, spec, encoder) from None
    if len(embedded.faults) == len(items):
        row, why = next(iter(embedded.faults.items()))
        name = f"{str(items[row])!r}" if not _is_image(items[row]) else f"at row {row}"
        raise UserError(
            f"none of {format_count(len(items), 'picture')} can be used; the first, {name}, is rejected ({why}): "
            "give paths of image files that can be read from here"
        )
    return embedded


def _reword(error: FairdedupError, spec: Any, encoder: str) -> FairdedupError:
    """Return an error of an encoder with the argument in place of the options of the command line."""
    text = str(error).replace(f"--model {spec.model} --pretrained {spec.pretrained}", f"`encoder={encoder!r}`")
    return type(error)(text.replace("with --pretrained", "after the colon of `encoder`"))


def _check_picture(row: int, item: Any) -> None:
    if not _is_picture(item):
        raise UserError(
            f"`embeddings` holds {describe(item)} at row {row}, which is not a picture: give PIL images or paths alone"
        )
    if _is_image(item) and item.mode not in RGB_MODES:
        raise UserError(
            f"`embeddings` holds a picture of mode {item.mode!r} at row {row}: scale it to 8 bits and convert it, "
            "by `image.convert('RGB')`, or give the path of its file"
        )


def _read_spec(encoder: Any, device: str) -> Any:
    """Return the encoder that a text names."""
    from fairdedup.encoders import BUILTIN_MODEL, EncoderSpec, check_model
    from fairdedup.encoders.spec import FOLDERS

    check_text("encoder", encoder, "MODEL:TAG, such as `encoder='ViT-B-16:openai'`")
    model, _, weights = (encoder, "", "") if encoder.startswith(FOLDERS) else encoder.partition(":")
    if not weights and model != BUILTIN_MODEL and not model.startswith(FOLDERS):
        raise UserError(
            f"`encoder={encoder!r}` names no weights: add a tag or a file after a colon, such as "
            f"`encoder='{model or 'ViT-B-16'}:openai'`"
        )
    check_model(model, weights or None)
    import torch

    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UserError("`device=cuda`: torch sees no GPU here; choose cpu or auto")
    where = ("cuda" if has_gpu else "cpu") if device == "auto" else device
    return EncoderSpec(model, weights or None, BATCH, where, "float32", os.cpu_count() or 1)


@contextmanager
def _own_settings(threads: int) -> Iterator[None]:
    """Set torch's threads in the block, and restore what an encoder sets for the whole process.

    An encoder sets the threads when it is loaded, and the last one stays loaded. Vectors depend on the threads.
    """
    import torch

    level, before = logging.getLogger().level, torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)
        torch.set_num_threads(before)


def _embed(items: list[Any], spec: Any) -> Embedded:
    """Embed pictures batch by batch: batch k has the usable ones at rows k * BATCH and on, as in a run."""
    from fairdedup.datasets.dataset import Sample
    from fairdedup.datasets.decoders import Decoder
    from fairdedup.datasets.decoding_ahead import map_ahead
    from fairdedup.datasets.images import BadImage
    from fairdedup.datasets.sixteen_bit import FULL
    from fairdedup.encoders import load_encoder
    from fairdedup.progress import StageProgress

    with StageProgress() as progress, progress.stage("embed", len(items)) as stage:
        encoder: Any = load_encoder(spec)
        decoder = Decoder(encoder.prepare, FULL, encoder.detail)

        def load(sample: Sample) -> Any:
            """Return a prepared picture, or the text that says why there is none."""
            item = items[sample.position]
            if _is_image(item):
                return _prepare_image(item, encoder)
            try:
                return sample.error or decoder.load(sample.image or b"").value
            except BadImage as error:
                return str(error)

        faults: dict[int, str] = {}
        batch: list[Any] = []
        rows: list[int] = []
        found: list[NDArray[np.float32]] = []
        decoders = min(MOST_DECODERS, (os.cpu_count() or 1) - 1)
        samples = (_read_sample(row, item) for row, item in enumerate(items))
        for row, prepared in enumerate(map_ahead(load, samples, decoders, BATCH + decoders)):
            if isinstance(prepared, str):
                faults[row] = prepared
            else:
                batch.append(prepared)
                rows.append(row)
            if batch and ((row + 1) % BATCH == 0 or row + 1 == len(items)):
                found.append(encoder.encode_prepared(batch))
                batch = []
            stage.advance(1)
    width = found[0].shape[1] if found else 1
    vectors = np.full((len(items), width), np.nan, np.float32)
    if found:
        vectors[rows] = np.concatenate(found)
    return Embedded(vectors, faults)


def _read_sample(row: int, item: Any) -> Any:
    """Return a picture with the bytes of its file, or with the reason why these cannot be read."""
    from fsspec.implementations.local import LocalFileSystem

    from fairdedup.datasets.dataset import Sample
    from fairdedup.datasets.filesystem import Unreadable, read_file
    from fairdedup.datasets.images import MAX_IMAGE_BYTES

    name = f"row {row}" if _is_image(item) else os.fsdecode(item)
    image, error = None, None
    if not _is_image(item):
        try:
            image = read_file(LocalFileSystem(), str(PurePath(name)), MAX_IMAGE_BYTES)
        except Unreadable as fault:
            error = str(fault)
    return Sample(row, name, image, None, {}, source=name, error=error)


def _prepare_image(image: Any, encoder: Any) -> Any:
    """Return a PIL image as the encoder takes it, or the text that says why it cannot be used."""
    try:
        return encoder.prepare(_to_rgb(image))
    except MemoryError:
        raise
    except Exception as error:  # it may be of a damaged file that is read only now, or of an odd shape
        return f"picture of {image.width} x {image.height} pixels cannot be prepared ({type(error).__name__})"


def _to_rgb(image: Any) -> Any:
    """Return a picture upright and as RGB, with what is transparent on white."""
    from PIL import ImageOps

    from fairdedup.datasets.image_tiles import convert_tiles

    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        return convert_tiles(upright.size, upright.crop)
    return upright.convert("RGB")

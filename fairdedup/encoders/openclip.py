"""Encoders of open_clip: a name and a tag, a local file or folder, or the small built-in model, all loaded alike."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from fairdedup.encoders.bounded_transform import BoundedTransform
from fairdedup.encoders.device_batches import DeviceBatches, PendingVectors, split_transform
from fairdedup.encoders.hub_snapshot import download_model, tensors_only
from fairdedup.encoders.model_folder import check_model_folder
from fairdedup.encoders.network import check_download, describe_failure, no_long_wait, nothing_fetched
from fairdedup.encoders.spec import BUILTIN_FOLDER, FOLDERS, REDUCED, EncoderSpec
from fairdedup.encoders.torch_imports import open_clip, torch
from fairdedup.errors import FairdedupError, LastingError, UserError, first_line

_PRECISION = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


class OpenClipEncoder:
    """An open_clip model with its transforms and its tokenizer.

    Parameters
    ----------
    spec : EncoderSpec
        The model, its weights, and where and how it runs.
    as_on_gpu : bool, optional
        Whether pictures travel to the device as bytes, and are laid out with their channels last: by default on a GPU.

    Raises
    ------
    UserError
        If open_clip does not know the tag, the weights do not fit the model, or the device does not exist.
    FairdedupError
        If the weights cannot be loaded, or do not fit on the device; within seconds if there is no network.
    """

    def __init__(self, spec: EncoderSpec, *, as_on_gpu: bool | None = None) -> None:
        if spec.device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no GPU on this worker. Use --device cpu or auto.")
        torch.set_num_threads(spec.threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        as_on_gpu = spec.device.startswith("cuda") if as_on_gpu is None else as_on_gpu
        self.spec = spec
        open_clip.add_model_config(BUILTIN_FOLDER)
        _check_tag(spec)
        obstacle = ""
        try:
            with warnings.catch_warnings(), tensors_only(), _unlogged(), _find_weights(spec) as (model, obstacle):
                warnings.simplefilter("ignore")  # open_clip warns of activations that a tag was not trained with
                self.model, _, transform = open_clip.create_model_and_transforms(
                    model,
                    pretrained=spec.weights,
                    precision=_PRECISION[spec.dtype],
                    device=spec.device,
                    weights_only=True,
                )
                self.tokenizer = open_clip.get_tokenizer(model)
        except FairdedupError:
            raise
        except Exception as error:
            raise _explain(spec, error, obstacle) from error
        transform, normalisation = split_transform(transform) if as_on_gpu else (transform, None)
        self.prepare = BoundedTransform(transform)
        self.detail = REDUCED * _find_size(self.model)
        self.model.eval()
        if as_on_gpu:
            self.model.to(memory_format=torch.channels_last)
        self._batches = DeviceBatches(
            spec.batch_size,
            spec.device,
            getattr(torch, spec.dtype),
            channels_last=as_on_gpu,
            normalisation=normalisation,
        )

    def encode_images(self, images: list[Image]) -> NDArray[np.float32]:
        """Return a vector for each RGB image: (n, d), not scaled to unit length."""
        return self.encode_prepared([self.prepare(image) for image in images])

    def encode_prepared(self, inputs: list[torch.Tensor]) -> NDArray[np.float32]:
        """Return a vector for each picture that `prepare` has turned into a tensor: (n, d)."""
        return self._in_batches(inputs, self.model.encode_image)

    def begin_prepared(self, inputs: list[torch.Tensor]) -> PendingVectors:
        """Begin to encode a batch of prepared pictures; the vectors are there after `wait`."""
        return self._batches.begin(inputs, self.model.encode_image)

    def encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Return a vector for each caption: (n, d), not scaled to unit length."""
        return self._in_batches(list(self.tokenizer(texts)), self.model.encode_text)

    def _in_batches(
        self, inputs: list[torch.Tensor], encode: Callable[[torch.Tensor], torch.Tensor]
    ) -> NDArray[np.float32]:
        size = self.spec.batch_size
        pending = [self._batches.begin(inputs[k : k + size], encode) for k in range(0, len(inputs), size)]
        return np.concatenate([each.wait() for each in pending])


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep what open_clip logs off stderr: what it fails at it raises too, and the rest is no news."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _find_size(model: torch.nn.Module) -> int:
    """Return the longer side of the pictures that a model takes in pixels; 0 if it does not say."""
    size = getattr(getattr(model, "visual", None), "image_size", 0)
    return max(size) if isinstance(size, (tuple, list)) else int(size or 0)


@contextmanager
def _find_weights(spec: EncoderSpec) -> Iterator[tuple[str, str]]:
    """Yield the name that open_clip gets, and why nothing can be downloaded, an empty text if it can."""
    if spec.model.startswith(FOLDERS) or spec.weights is None or os.path.isfile(spec.weights):
        with _safe_name(spec.model) as name:
            yield name, ""
        return
    check_download(open_clip.get_pretrained_cfg(spec.model.replace("/", "-"), spec.weights), _name_weights(spec))
    with no_long_wait() as obstacle:
        yield spec.model, obstacle


def _name_weights(spec: EncoderSpec) -> str:
    return f"--model {spec.model} --pretrained {spec.pretrained}"


@contextmanager
def _safe_name(model: str) -> Iterator[str]:
    """Yield the name that open_clip gets: for a model folder, local or of the hub, that of a checked copy."""
    if not model.startswith(FOLDERS):
        yield model
        return
    if model.startswith("hf-hub:"):
        checked = download_model(model)
    else:
        checked = check_model_folder(model, Path(model.removeprefix("local-dir:")))
    with tempfile.TemporaryDirectory(prefix="fairdedup-model-") as copy, nothing_fetched():
        checked.write_copy(Path(copy))
        yield f"local-dir:{copy}"


def _check_tag(spec: EncoderSpec) -> None:
    """Refuse a tag that open_clip does not list for the model; a file is not a tag."""
    if spec.weights is None or os.path.isfile(spec.weights):
        return
    tags = open_clip.list_pretrained_tags_by_model(spec.model.replace("/", "-"))
    if spec.pretrained not in tags:
        remedy = f"choose one of {', '.join(tags)}" if tags else "it has none; give a file of weights"
        raise UserError(f"pretrained {spec.pretrained!r} is not a tag of {spec.model}: {remedy}")


def _explain(spec: EncoderSpec, error: Exception, obstacle: str) -> Exception:
    """Return the error to raise in place of an error of open_clip or torch; an obstacle keeps from downloads."""
    first = first_line(error)
    if isinstance(error, torch.OutOfMemoryError):
        return LastingError(
            f"model {spec.model!r} does not fit on {spec.device}: use a smaller model or another device"
        )
    if spec.pretrained is not None and Path(spec.pretrained).is_file():
        if "weights_only" in str(error):  # torch's own message advises to load the file unsafely
            first = "it is neither a safetensors file nor a plain state dict"
        elif "state_dict" in first:
            first = "its tensors are those of another model"
        return UserError(
            f"pretrained {spec.pretrained!r} does not load into {spec.model!r} ({first}): give the model's own file"
        )
    if spec.model.startswith(FOLDERS):
        if isinstance(error, ImportError):
            return FairdedupError(f"model {spec.model!r} needs more ({first}): install that, or use another model")
        first = "its weights hold more than tensors" if "weights_only" in str(error) else first
        return UserError(
            f"model {spec.model!r} does not load ({first}): give a folder whose files are those of one open_clip model"
        )
    if spec.pretrained and ("download" in first.lower() or isinstance(error, OSError)):
        return LastingError(describe_failure(_name_weights(spec), obstacle or first))
    return FairdedupError(
        f"weights {spec.pretrained or spec.model!r} cannot be loaded ({first}): give a local file with --pretrained"
    )

"""Finds the columns of a Parquet file: the image, its path or its vector, the id and the caption.

A column is recognised by its type first, then by names in common use. If several fit, the user must choose one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from fairdedup.datasets.metadata import ID_COLUMNS
from fairdedup.datasets.rows import BINARY_TYPES, LIST_TYPES, TEXT_TYPES
from fairdedup.errors import UserError

Role = Literal["bytes", "vectors", "paths"]

NAMES: dict[Role, tuple[str, ...]] = {
    "bytes": (
        "image",
        "jpg",
        "jpeg",
        "png",
        "webp",
        "img",
        "bytes",
        "image_bytes",
        "image_data",
        "picture",
        "photo",
    ),
    "vectors": (
        "embedding",
        "embeddings",
        "image_embedding",
        "image_embeddings",
        "img_emb",
        "img_embedding",
        "clip_embedding",
        "emb",
        "vector",
        "image_vector",
        "features",
        "image_features",
    ),
    "paths": (
        "image_path",
        "path",
        "file_name",
        "filename",
        "file",
        "filepath",
        "file_path",
        "image_file",
        "image",
        "img",
    ),
}
"""The names by which a column of each role is recognised."""

CAPTION_COLUMNS = ("caption", "text", "txt", "TEXT", "alt_text", "alt")
"""Names of text columns that may hold the captions, in order of preference."""


@dataclass(frozen=True)
class Columns:
    """The roles of the columns of one Parquet file.

    Attributes
    ----------
    role : {"bytes", "vectors", "paths"}
        Content of the column ``sample``.
    sample : str
        The column of images, paths or vectors.
    id, caption : str or None
        The columns of ids and of captions; None if there is no such column.
    metadata : tuple of (str, str)
        Every other column, and its name in the run.
    """

    role: Role
    sample: str
    id: str | None
    caption: str | None
    metadata: tuple[tuple[str, str], ...]


def find_role(kind: pa.DataType) -> Role | None:
    """Return what a column of this type can hold: images, paths or vectors; None if none of these."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):  # what the Hugging Face libraries write for an image
        names = [kind.field(k).name for k in range(kind.num_fields)]
        inner = kind.field(names.index("bytes")).type if names.count("bytes") == 1 else None
        return "bytes" if inner is not None and find_role(inner) == "bytes" and names.count("path") < 2 else None
    if any(test(kind) for test in BINARY_TYPES[:3]):
        return "bytes"
    if any(test(kind) for test in TEXT_TYPES):
        return "paths"
    if any(test(kind) for test in LIST_TYPES) and pa.types.is_floating(kind.value_type):
        return "vectors"
    return None


def recognise_columns(schema: pa.Schema, wanted: str | None, path: str) -> Columns:
    """Return the roles of the columns of a Parquet file.

    Parameters
    ----------
    schema : pyarrow.Schema
        The columns and their types.
    wanted : str or None
        The column of images, paths or vectors that the user named; None recognises it.
    path : str
        The file, for messages.

    Raises
    ------
    UserError
        If there is no column of images, paths or vectors, or if several fit.
    """
    sample = _find_sample(schema, wanted, path)
    role = find_role(schema.field(sample).type)
    assert role is not None  # _find_sample has checked it
    names = [name for name in schema.names if name != sample or role == "paths"]
    own = next((name for name in ID_COLUMNS if name in names and _can_be_id(schema.field(name).type)), None)
    if own is None and role == "paths":
        own = sample
    caption = next((n for n in CAPTION_COLUMNS if n in names and find_role(schema.field(n).type) == "paths"), None)
    rest = [name for name in names if name != caption and (name != own or name == sample)]
    taken = {*rest, "id", "caption"}
    metadata = []
    for name in rest:
        new = name
        if name in ("id", "caption"):  # reserved for the sample's own id and caption, which are another column
            new = f"input_{name}"
            while new in taken:
                new += "_"
            taken.add(new)
        metadata.append((name, new))
    return Columns(role, sample, own, caption, tuple(metadata))


def _can_be_id(kind: pa.DataType) -> bool:
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (*BINARY_TYPES, *TEXT_TYPES, pa.types.is_integer, pa.types.is_float32, pa.types.is_float64)
    return any(test(kind) for test in tests)


def _find_sample(schema: pa.Schema, wanted: str | None, path: str) -> str:
    if wanted is not None:
        if wanted not in schema.names:
            raise UserError(
                f"{path!r} has no column {wanted!r}, but {_enumerate(schema.names)}: name one with --column"
            )
        kind = schema.field(wanted).type
        if find_role(kind) is None:
            raise UserError(
                f"column {wanted!r} of {path!r} is {_abbreviate(kind)}: name a column of image "
                "bytes, of paths (text) or of vectors (lists of floats)"
            )
        return wanted
    of_role: dict[Role, list[str]] = {role: [] for role in NAMES}
    for field in schema:
        role = find_role(field.type)
        if role is not None:
            of_role[role].append(field.name)
    known = {role: [name for name in names if name in NAMES[role]] for role, names in of_role.items()}
    # Paths next to images or vectors only say where these came from, so they are used only if there is nothing else.
    fit = known["bytes"] + known["vectors"] or of_role["bytes"] + of_role["vectors"] or known["paths"]
    if len(fit) > 1:
        raise UserError(
            f"{path!r} has several columns that fit ({_enumerate(fit)}): choose one, for example --column {fit[0]}"
        )
    if not fit:
        raise UserError(
            f"{path!r} has no column of images (bytes), of their paths or of embeddings (lists of floats), but "
            f"{_enumerate(schema.names)}: name it with --column, or download URLs first, as img2dataset does"
        )
    return fit[0]


def _enumerate(names: list[str]) -> str:
    more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
    return (", ".join(repr(name[:60]) for name in names[:8]) or "none") + more


def _abbreviate(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 60 else text[:57] + "..."

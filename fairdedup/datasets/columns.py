"""Finds the columns of a Parquet file: the image, its path or its vector, the id and the caption.

A column is recognised by its type first, then by names in common use. If several fit, the user must choose one. Text
that is no path, such as web addresses, is recognised by the first values.
"""

from __future__ import annotations

import base64
import binascii
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from fairdedup.datasets.image_formats import HEAD, looks_like_image
from fairdedup.datasets.metadata import ID_COLUMNS
from fairdedup.datasets.reserved_columns import rename_reserved
from fairdedup.datasets.rows import BINARY_TYPES, LIST_TYPES, TEXT_TYPES, can_be_text
from fairdedup.errors import UserError
from fairdedup.storage.urls import WEB

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
    own = next((name for name in ID_COLUMNS if name in names and can_be_text(schema.field(name).type)), None)
    if own is None and role == "paths":
        own = sample
    caption = next((n for n in CAPTION_COLUMNS if n in names and find_role(schema.field(n).type) == "paths"), None)
    rest = [name for name in names if name != caption and (name != own or name == sample)]
    renamed = rename_reserved(rest, ("id", "caption"))  # these are the sample's own id and caption in the run
    return Columns(role, sample, own, caption, tuple(renamed.items()))


def describe_unfit_ids(schema: pa.Schema, columns: Columns, path: str) -> list[str]:
    """Return a sentence for each column that is named as ids are, before the one that is used, and cannot be it.

    Parameters
    ----------
    schema : pyarrow.Schema
        The columns and their types.
    columns : Columns
        What `recognise_columns` returned for it.
    path : str
        The file.
    """
    used = f"from {columns.id!r}" if columns.id is not None else "made from the file's name and the row"
    before = ID_COLUMNS[: ID_COLUMNS.index(columns.id)] if columns.id in ID_COLUMNS else ID_COLUMNS
    return [
        f"column {name!r} of {path!r} is {_abbreviate(schema.field(name).type)}, which cannot be an id: ids are {used}"
        for name in before
        if name in schema.names and name != columns.sample and not can_be_text(schema.field(name).type)
    ]


def expect_paths(values: Sequence[str], column: str, path: str, is_readable: Callable[[str], bool]) -> None:
    """Check that most of the first values of a text column may be paths.

    Parameters
    ----------
    values : sequence of str
        The first values of the column.
    column, path : str
        The column and its file, for messages.
    is_readable : callable
        Whether an address lies in the folder of the data set, so that it is read.

    Raises
    ------
    UserError
        If they are web addresses, data URIs or base64.
    """
    kinds = {
        "data URIs": sum(value[:5].lower() == "data:" for value in values),
        "base64": sum(_is_base64(value) for value in values),
        "web addresses": sum(_scheme(value) in WEB and not is_readable(value) for value in values),
        "addresses": sum(_scheme(value) not in ("", "file", *WEB) and not is_readable(value) for value in values),
    }
    kind, count = max(kinds.items(), key=lambda item: item[1])
    if 2 * count <= len(values):
        return
    if kind == "web addresses":
        remedy = "download the images first, for example with img2dataset, and give its output folder"
    elif kind == "addresses":
        remedy = "copy the images into the folder of this file, and write their paths relative to it"
    elif kind == "data URIs":
        remedy = "replace each value by base64.b64decode(value.partition(',')[2]), which gives a column of bytes"
    else:
        remedy = "replace each value by base64.b64decode(value), which gives a column of bytes"
    raise UserError(f"column {column!r} of {path!r} holds {kind}, not paths to files: {remedy}")


def _scheme(value: str) -> str:
    scheme, mark, _ = value[:40].partition("://")
    return scheme.lower() if mark and scheme.isalnum() else ""


def _is_base64(value: str) -> bool:
    head = "".join(value[: 2 * HEAD].split())
    spare = b"-_" if "-" in head or "_" in head else None  # the alphabet for URLs
    try:
        data = base64.b64decode(head[: len(head) // 4 * 4], spare, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(data) >= 16 and looks_like_image(data)


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
    # Paths next to images or vectors of a known name only say where these came from. Next to lists or bytes of another
    # name, such as the boxes of faces, they may be what is meant.
    fit = known["bytes"] + known["vectors"] or known["paths"] + of_role["bytes"] + of_role["vectors"]
    if len(fit) > 1:
        raise UserError(
            f"{path!r} has several columns that fit ({_enumerate(fit)}): choose one, for example "
            f"--column {shlex.quote(fit[0])}"
        )
    if not fit:
        text = of_role["paths"]
        remedy = "name it with --column, or download URLs first, as img2dataset does" if text else "give another file"
        raise UserError(
            f"{path!r} has no column of images (bytes), of their paths or of embeddings (lists of floats), but "
            f"{_enumerate(schema.names)}: {remedy}"
        )
    return fit[0]


def _enumerate(names: list[str]) -> str:
    more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
    return (", ".join(repr(name[:60]) for name in names[:8]) or "none") + more


def _abbreviate(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 60 else text[:57] + "..."

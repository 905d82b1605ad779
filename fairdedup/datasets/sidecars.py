"""Parses the files next to an image: a ``.txt`` or ``.caption``, a ``.json`` of columns, and a ``.cls``.

img2dataset and WebDataset write them. No content of theirs causes a sample to be rejected, and none of it is lost: a
column whose name is taken gets another one. Nothing here executes or imports what it reads.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from typing import Any

from fairdedup.datasets.dataset import Metadata
from fairdedup.datasets.filesystem import to_valid_text
from fairdedup.datasets.reserved_columns import rename_reserved

MAX_TEXT_BYTES = 1 << 20
"""Size in bytes of the largest caption or JSON that is read; anything larger is a mistake or an attack."""

TEXT_UNREAD = f"larger than {MAX_TEXT_BYTES >> 20} MiB, or cut off"
"""Why a file was not read: the value of the columns ``caption_error``, ``json_error`` and ``cls_error``."""

TEXT_REPLACED = "bytes that are not text were replaced"
"""Value of ``caption_error`` or ``cls_error`` where a file was read, but some of its bytes are not text."""

BYTE_ORDER_MARKS = (  # UTF-32 before UTF-16, whose mark it begins with
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and the encodings of what follows; a caption without a mark is UTF-8."""

CAPTION_ENDINGS = ("txt", "caption")
"""Endings of caption files; where an image has several, the first one counts."""

SIDECAR_ENDINGS = (*CAPTION_ENDINGS, "json", "cls")
"""Endings of all files that are read for an image."""


def parse_caption(data: bytes) -> str | None:
    """Return the text of a caption file, stripped, with wrong bytes replaced; None if nothing is left."""
    return data.decode(_find_encoding(data), "replace").strip() or None


def is_text(data: bytes) -> bool:
    """Return whether a caption or class file can be read without replacing a byte."""
    try:
        data.decode(_find_encoding(data))
    except UnicodeDecodeError:
        return False
    return True


def _find_encoding(data: bytes) -> str:
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")


def parse_class(data: bytes) -> Metadata:
    """Return a ``.cls`` file as the column ``cls``: a whole number that is written plainly, else text; none if empty.

    Two classes in another encoding may become the same text. So where bytes are not text, ``cls_error`` says so.
    """
    text = parse_caption(data)
    if text is None:
        return {}
    plain = text.isascii() and text.isdigit() and len(text) < 19 and str(int(text)) == text
    return {"cls": int(text) if plain else text} | ({} if is_text(data) else {"cls_error": TEXT_REPLACED})


def parse_columns(data: bytes) -> Metadata:
    """Return a JSON object as flat columns: scalars as they are, anything nested as JSON text.

    Parameters
    ----------
    data : bytes
        A JSON file. If it cannot be read, the result is a single column ``json_error`` with the reason.
    """
    found, error = _load(data)
    if error is None and not isinstance(found, dict):
        error = f"not a JSON object but {type(found).__name__}"
    return {"json_error": error} if error is not None else _flatten(found)


def parse_json(data: bytes) -> Metadata:
    """Return the ``.json`` of an image as `parse_columns` does, but captions in a list stay a list of texts.

    Parameters
    ----------
    data : bytes
        A JSON object, whose ``caption`` may be a list of texts; or such a list alone, which becomes the column
        ``caption``.
    """
    found, error = _load(data)
    if error is None and _is_texts(found):
        return {"caption": list(map(to_valid_text, found))}
    columns = parse_columns(data)
    if error is None and isinstance(found, dict) and _is_texts(found.get("caption")):
        columns["caption"] = list(map(to_valid_text, found["caption"]))
    return columns


def _load(data: bytes) -> tuple[Any, str | None]:
    """Return the value of a JSON file, or why it cannot be read."""
    try:
        return json.loads(data), None
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} at character {error.pos}"
    except RecursionError:
        return None, "not JSON: nested too deep"
    except ValueError:  # wrong bytes, or an integer of thousands of digits
        return None, "not JSON: unreadable text or number"


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def _flatten(found: Mapping[str, Any]) -> Metadata:
    return {to_valid_text(name): _scalar(value) for name, value in found.items()}


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        return to_valid_text(value)  # JSON may spell half a surrogate pair
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:  # no integer column can hold it
        return str(value)
    return value


def combine_sidecars(text: bytes | None, columns: Metadata, own: Metadata | None = None) -> tuple[str | None, Metadata]:
    """Return the caption and the metadata of an image.

    The caption is the caption file's, else the JSON's ``caption``. If that is a list of texts, its first one is the
    caption, and the others are the column ``captions``, a list.

    Parameters
    ----------
    text : bytes or None
        The caption file. Where bytes of it are not text, the column ``caption_error`` says so.
    columns : dict
        The columns of the JSON file, as `parse_json` returns them. A name that is taken gets ``json_`` before it, and
        underscores after it until it is free: ``id``, the names in `own`, and a ``caption`` that differs from the
        caption returned.
    own : dict or None
        Other columns of the image, which keep their names; they come last.
    """
    columns, own = dict(columns), dict(own or {})
    caption = parse_caption(text) if text is not None else None
    if text is not None and not is_text(text):
        own.setdefault("caption_error", TEXT_REPLACED)
    found = columns.pop("caption", None)
    if isinstance(found, list):
        texts = [stripped for stripped in map(str.strip, found) if stripped]
        if caption is None or caption in texts:
            caption = caption or next(iter(texts), None)
            others = [text for text in texts if text != caption]
            own = {"captions": others, **own} if others and "captions" not in own else own
        elif texts:
            columns["caption"] = json.dumps(found)
    elif caption is None and isinstance(found, str):
        caption = found.strip() or None
    elif found is not None and not (isinstance(found, str) and found.strip() == caption):
        columns["caption"] = found
    names = rename_reserved(columns, {"id", "caption", *own}, prefix="json_")
    return caption, {names[name]: value for name, value in columns.items()} | own

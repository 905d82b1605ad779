"""Parses the text files next to an image: a ``.txt`` caption and a ``.json`` of columns, as img2dataset writes them.

No content of theirs causes a sample to be rejected. Nothing here executes or imports what it reads.
"""

from __future__ import annotations

import json
from typing import Any

from fairdedup.datasets.dataset import Metadata
from fairdedup.datasets.filesystem import to_valid_text

MAX_TEXT_BYTES = 1 << 20
"""Size in bytes of the largest caption or JSON that is read; anything larger is a mistake or an attack."""


def parse_caption(data: bytes) -> str | None:
    """Return the text of a caption file, stripped, with wrong bytes replaced; None if nothing is left."""
    return data.decode("utf-8-sig", "replace").strip() or None


def parse_columns(data: bytes) -> Metadata:
    """Return a JSON object as flat columns: scalars as they are, anything nested as JSON text.

    Parameters
    ----------
    data : bytes
        A JSON file. If it cannot be read, the result is a single column ``json_error`` with the reason.
    """
    try:
        found = json.loads(data)
    except json.JSONDecodeError as error:
        return {"json_error": f"not JSON: {error.msg} at character {error.pos}"}
    except RecursionError:
        return {"json_error": "not JSON: nested too deep"}
    except ValueError:  # wrong bytes, or an integer of thousands of digits
        return {"json_error": "not JSON: unreadable text or number"}
    if not isinstance(found, dict):
        return {"json_error": f"not a JSON object but {type(found).__name__}"}
    return {to_valid_text(name): _scalar(value) for name, value in found.items()}


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        return to_valid_text(value)  # JSON may spell half a surrogate pair
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:  # no integer column can hold it
        return str(value)
    return value


def combine_sidecars(text: bytes | None, columns: Metadata) -> tuple[str | None, Metadata]:
    """Return the caption, from the ``.txt`` or else from the JSON's ``caption``, and the other columns.

    Parameters
    ----------
    text : bytes or None
        The ``.txt`` file.
    columns : dict
        The columns of the JSON file. Names that a sample reserves are changed: ``id`` becomes ``json_id``, and a
        ``caption`` that differs from the caption returned becomes ``json_caption``.
    """
    caption = parse_caption(text) if text is not None else None
    metadata = dict(columns)
    if "caption" in metadata:
        own = metadata.pop("caption")
        stripped = own.strip() if isinstance(own, str) else own
        if caption is None and isinstance(own, str):
            caption = stripped or None
        elif stripped not in (None, caption):
            metadata["json_caption"] = own
    if "id" in metadata:
        metadata["json_id"] = metadata.pop("id")
    return caption, metadata

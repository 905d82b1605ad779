"""Turns the ids of samples, which may be any text, into WebDataset keys."""

from __future__ import annotations

import re
from hashlib import sha256

LONGEST_KEY = 180  # bytes of one part of a key, so that a key and its suffix fit a file name

# WebDataset ends a key at the first dot of its base name. A percent sign marks an escaped key.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\\%.]")
_PLAIN = re.compile(r"(?:[^\x00-\x1f\x7f-\x9f\\%/]+/)*[^\x00-\x1f\x7f-\x9f\\%/.]+")


def make_key(id_: str) -> str:
    """Return an id as a WebDataset key: unchanged if it can be one, else with ``%2E`` for a dot and so on.

    Different ids have different keys. `urllib.parse.unquote` recovers the id; the key of a long id is a hash.

    Parameters
    ----------
    id_ : str
        The id of a sample.
    """
    if _PLAIN.fullmatch(id_) and ".." not in id_.split("/") and _fits(id_):
        return id_
    escaped = _UNFIT.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), id_)
    escaped = escaped if all(escaped.split("/")) else escaped.replace("/", "%2F")
    return escaped if escaped and _fits(escaped) else f"%sha256-{sha256(id_.encode()).hexdigest()}"


def _fits(key: str) -> bool:
    parts = key.encode().split(b"/")
    return max(map(len, parts)) <= LONGEST_KEY and len(parts) <= 32

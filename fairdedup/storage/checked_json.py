"""JSON files of a run, which carry the checksum of what they say in a key of their own.

Files of earlier versions have no such key, and are believed. The checksum is of the values, not of the text, so a file
may be formatted anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xxhash

from fairdedup.errors import FairdedupError, first_line
from fairdedup.storage.remedies import MAKE_AGAIN
from fairdedup.storage.run_files import atomic_write
from fairdedup.storage.sealed_files import read_small_file

KEY = "checksum"


def compute_checksum(content: dict[str, Any]) -> str:
    """Return the checksum (XXH3, 128 bits) of an object, without its own key."""
    rest = {name: value for name, value in content.items() if name != KEY}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; an object gets its checksum as the last key."""
    if isinstance(value, dict):
        plain = json.loads(json.dumps(value))  # keys as the file has them
        value = {name: each for name, each in value.items() if name != KEY} | {KEY: compute_checksum(plain)}
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON, without the checksum, or None where there is no such file.

    Raises
    ------
    FairdedupError
        If it is damaged.
    """
    data = read_small_file(path)
    return None if data is None else check_content(path, parse_json(path, data))


def parse_json(path: Path, data: bytes) -> Any:
    """Return the value of a file's bytes, with its checksum, which is not verified.

    Raises
    ------
    FairdedupError
        If it is no JSON.
    """
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise damage(path, str(error)) from None


def check_content(path: Path, content: Any) -> Any:
    """Return the content of a file without its checksum.

    Raises
    ------
    FairdedupError
        If the checksum is another.
    """
    if not isinstance(content, dict) or KEY not in content:
        return content
    if content[KEY] != compute_checksum(content):
        raise damage(path, "its checksum is another")
    return {name: value for name, value in content.items() if name != KEY}


def damage(path: Path, reason: str) -> FairdedupError:
    """Return the error of a damaged file."""
    return FairdedupError(f"{path} is damaged ({first_line(reason)}): {MAKE_AGAIN}")

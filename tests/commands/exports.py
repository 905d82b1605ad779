"""Shared by the tests of the export: readers of shards, by tarfile and by the webdataset package."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from runs import (
    table,
)

Exported = Callable[..., Path]


def members(path: Path) -> dict[str, bytes]:
    """Return the members of a tar, whose names must be unique."""
    with tarfile.open(path) as archive:
        headers = archive.getmembers()
        found = {h.name: archive.extractfile(h).read() for h in headers}  # type: ignore[union-attr]
    assert len(found) == len(headers)
    return found


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def all_members(folder: Path) -> dict[str, bytes]:
    """Return the members of all shards of a folder, in order; their names must be unique."""
    found: dict[str, bytes] = {}
    for path in shards_of(folder):
        own = members(path)
        assert not found.keys() & own.keys()
        found |= own
    return found


READ = """
import hashlib, json, sys, webdataset
for found in webdataset.WebDataset(sys.argv[1:], shardshuffle=False):
    print(json.dumps({k: v if k == "__key__" else hashlib.sha256(v).hexdigest()
                      for k, v in found.items() if k[:2] != "__" or k == "__key__"}))
"""


def by_webdataset(folder: Path) -> list[dict[str, str]]:
    """Return the samples as the webdataset package reads them: the key, and the SHA-256 of each file by its suffix."""
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, shards_of(folder))], check=True, capture_output=True, text=True
    )  # in a separate process, since the package leaves files open
    return [json.loads(line) for line in done.stdout.splitlines()]


def hashed(members: dict[str, bytes]) -> list[dict[str, str]]:
    """Return members in the form of `by_webdataset`, by WebDataset's rule for names."""
    found: dict[str, dict[str, str]] = {}
    for name, data in members.items():
        key, suffix = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", name).groups()  # type: ignore[union-attr]
        found.setdefault(key, {"__key__": key})[suffix.lower()] = hashlib.sha256(data).hexdigest()
    return list(found.values())


def ids(run: Path, kept: bool) -> list[str]:
    decisions = table(run / "decisions")
    return decisions.loc[decisions["kept"] == kept, "id"].tolist()

"""Expands brace patterns and globs to the files that they name, in the order of the pattern."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Sequence

from braceexpand import braceexpand
from fsspec import AbstractFileSystem

from fairdedup.datasets.format_registry import describe_shards, is_shard
from fairdedup.errors import UserError

MAX_SHARDS = 1_000_000


def is_pattern(path: str) -> bool:
    """Tell whether a path that does not exist is meant as braces or a glob."""
    return any(letter in path for letter in "{*?[")


def expand_braces(pattern: str, source: str) -> list[str]:
    """Return the names that the braces of a pattern expand to; globs stay unchanged.

    Parameters
    ----------
    pattern : str
        A path with braces, globs, both or neither.
    source : str
        INPUT as the user gave it, for messages.

    Raises
    ------
    UserError
        If braces do not match, or expand to more than a million names.
    """
    for first, last in re.findall(r"\{(-?[0-9]+)\.\.(-?[0-9]+)", pattern):  # braceexpand holds every range in memory
        if len(first) > 18 or len(last) > 18 or abs(int(last) - int(first)) >= MAX_SHARDS:
            raise UserError(f"range {first}..{last} in {source!r} is over {MAX_SHARDS:,} shards: shorten the range")
    try:
        expanded = list(itertools.islice(braceexpand(pattern), MAX_SHARDS + 1))
    except ValueError:
        raise UserError(f"braces in {source!r} do not match: write them as 'data-{{00000..00014}}.tar'") from None
    if len(expanded) > MAX_SHARDS:
        raise UserError(f"pattern {source!r} names over {MAX_SHARDS:,} shards: split it into several inputs")
    return expanded


def find_shards(fs: AbstractFileSystem, names: Sequence[str], source: str) -> list[str]:
    """Return the paths of the shards that a pattern names.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    names : sequence of str
        Result of `expand_braces`. Globs among them are looked up; files of other names must exist.
    source : str
        INPUT as the user gave it, for messages.

    Raises
    ------
    UserError
        If a named shard is missing or of a kind that patterns cannot name, or if globs match nothing.
    """
    paths: list[str] = []
    for path in names:
        if any(letter in path for letter in "*?["):
            paths.extend(_match(fs, path))
        elif not is_shard(path):
            raise UserError(
                f"pattern {source!r} names {posixpath.basename(path)!r}, which is not a shard: patterns name files "
                f"that end in {describe_shards()}"
            )
        elif fs.isfile(path):
            paths.append(path)
        else:
            there = sum(fs.isfile(other) for other in names)
            raise UserError(
                f"shard {path!r} of {source!r} is missing ({there:,} of {len(names):,} are there): "
                "correct the pattern or add the shard"
            )
    if not paths:
        raise UserError(
            f"no shard matches {source!r}: check the pattern; it must name files that end in {describe_shards()}"
        )
    return paths


def _match(fs: AbstractFileSystem, glob: str) -> list[str]:
    """Return the shards that a glob matches, without hidden ones."""
    found = fs.glob(glob, detail=True)
    return [
        name
        for name, info in found.items()
        if info["type"] != "directory" and is_shard(name) and not posixpath.basename(name).startswith(".")
    ]

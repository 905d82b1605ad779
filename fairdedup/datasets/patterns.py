"""Brace patterns and globs: the shards that they name, tar or Parquet files, in the order in which they name them."""

from __future__ import annotations

import itertools
import posixpath
import re

from braceexpand import braceexpand
from fsspec import AbstractFileSystem

from fairdedup.datasets.rows import is_parquet
from fairdedup.datasets.webdataset import TAR_EXTENSIONS, is_tar
from fairdedup.errors import UserError

MAX_SHARDS = 1_000_000


def is_pattern(path: str) -> bool:
    """Tell whether a path that does not exist is meant as braces or a glob."""
    return any(letter in path for letter in "{*?[")


def named_by(fs: AbstractFileSystem, pattern: str, source: str) -> list[str]:
    """Return the paths of the shards that a pattern names.

    Raises
    ------
    UserError
        If a shard that the braces name is missing, the glob matches none, or tars and Parquet files are mixed.
    """
    paths: list[str] = []
    expanded = _expand(pattern, source)
    for path in expanded:
        if any(letter in path for letter in "*?["):
            found = fs.glob(path, detail=True)
            paths.extend(
                name
                for name, info in found.items()
                if info["type"] != "directory" and _is_shard(name) and not posixpath.basename(name).startswith(".")
            )
        elif not _is_shard(path):
            raise UserError(
                f"pattern {source!r} names {posixpath.basename(path)!r}, not a shard: patterns name "
                f"{' '.join(TAR_EXTENSIONS)} or .parquet files"
            )
        elif fs.isfile(path):
            paths.append(path)
        else:
            there = sum(fs.isfile(other) for other in expanded)
            raise UserError(
                f"shard {path!r} of {source!r} is missing ({there:,} of {len(expanded):,} are there): "
                "mend the pattern or bring the shard"
            )
    if not paths:
        raise UserError(
            f"no tar shard or Parquet file matches {source!r}: check the pattern; shards end in .tar, .tar.gz, .tgz "
            "or .parquet"
        )
    return _of_one_kind(paths, source)


def folders_named_by(fs: AbstractFileSystem, pattern: str, source: str) -> list[str]:
    """Return the folders of clip-retrieval's layout that braces name, if all that they name are such."""
    paths = _expand(pattern, source)
    return paths if all(fs.isdir(posixpath.join(path, "img_emb")) for path in paths) else []


def _is_shard(name: str) -> bool:
    return is_tar(name) or is_parquet(name)


def _of_one_kind(paths: list[str], source: str) -> list[str]:
    """Return the paths; Parquet files beside the tars of their names (img2dataset's) are no shards of their own."""
    tars = {path[: -len(_ending(path))] for path in paths if is_tar(path)}
    if not tars:
        return paths
    alone = [path for path in paths if is_parquet(path) and posixpath.splitext(path)[0] not in tars]
    if alone:
        raise UserError(
            f"pattern {source!r} names tar shards and Parquet files such as {posixpath.basename(alone[0])!r}: "
            "end it in .tar or in .parquet"
        )
    return [path for path in paths if is_tar(path)]


def _ending(path: str) -> str:
    return next(end for end in TAR_EXTENSIONS if path.lower().endswith(end))


def _expand(pattern: str, source: str) -> list[str]:
    """Expand braces, which may not name more than a million shards (braceexpand holds every range whole)."""
    for first, last in re.findall(r"\{(-?[0-9]+)\.\.(-?[0-9]+)", pattern):
        if len(first) > 18 or len(last) > 18 or abs(int(last) - int(first)) >= MAX_SHARDS:
            raise UserError(f"range {first}..{last} in {source!r} is over {MAX_SHARDS:,} shards: mend the pattern")
    try:
        expanded = list(itertools.islice(braceexpand(pattern), MAX_SHARDS + 1))
    except ValueError:
        raise UserError(f"braces in {source!r} do not match: write them as 'data-{{00000..00014}}.tar'") from None
    if len(expanded) > MAX_SHARDS:
        raise UserError(f"pattern {source!r} names over {MAX_SHARDS:,} shards: mend the pattern")
    return expanded

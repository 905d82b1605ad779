"""Reads ready embeddings in .npz files, such as DataComp's: several arrays by name, one of which is used.

Ids and metadata come from an array of ids in the file, or from the files beside it that accompany an .npy file too.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.file_labels import is_named_itself, label_files
from fairdedup.datasets.filesystem import fingerprint
from fairdedup.datasets.input_format import DocumentedInput, InputSource, ReadOptions
from fairdedup.datasets.npy import Npy, NpyShard, cut, expect_ids_in_all, expect_width
from fairdedup.datasets.npy_arrays import Header, expect_embeddings
from fairdedup.datasets.npy_companions import holds_ids, write_texts
from fairdedup.datasets.npz_arrays import load_array_rows, read_headers
from fairdedup.errors import UserError

ID_ARRAYS = ("uid", "id", "key", "uids", "ids", "keys")


@dataclass(frozen=True)
class NpzShard(NpyShard):
    """Consecutive rows of one array in an .npz file.

    Attributes
    ----------
    array : str
        The array of embeddings.
    """

    array: str = ""

    def vectors(self) -> np.ndarray:
        """Return the (n, d) rows."""
        return load_array_rows(self.fs, self.path, self.array, self.start, self.stop)

    def _listed_ids(self, path: str) -> list[str]:
        if self.path != self.ids:
            return super()._listed_ids(path)
        return write_texts(load_array_rows(self.fs, path, str(self.id_column), self.start, self.stop))

    def fingerprint(self) -> str:
        """Return a short text that changes when a file's name, size or time does."""
        paths = dict.fromkeys(path for path in (self.path, self.ids, self.table) if path is not None)
        return fingerprint(self.fs, *paths, label=f"{self.name} {self.start}:{self.stop} {self.array}")


class Npz(Npy):
    """Files .npz of ready embeddings: one array of each, which is the only one that fits or is chosen by name."""

    name = "npz"
    file_title = "an .npz file of embeddings"
    folder_title = ".npz files"
    extensions = (".npz",)
    has_columns = True
    documentation: ClassVar[tuple[DocumentedInput, ...]] = (
        DocumentedInput(
            "[`.npz` files](#arrays), as DataComp has them: one, a folder of them, a brace pattern or a glob",
            "the array of floats (n, d), or the one that `--column NAME` chooses",
            "an array `uid`, `id`, `key`, `uids`, `ids` or `keys` in it; else as for `.npy`",
        ),
    )

    def files_in(self, folder: InputSource) -> list[str]:
        """Return the .npz files of a folder."""
        return [entry.path for entry in folder.with_endings(self.extensions)]

    def open_files(self, source: InputSource, paths: list[str], options: ReadOptions) -> Dataset:
        """Return shards of 100,000 rows. Headers are read, and the ids in a text file are counted.

        Raises
        ------
        UserError
            If no array or several fit, if an array or a companion file cannot be used, or if their numbers of rows or
            dimensions differ.
        """
        shards: list[NpzShard] = []
        remarks: list[str] = []
        alone = is_named_itself(source, paths)
        array, first = options.column, ("", 0)
        for path, label in label_files(source, paths).items():
            headers = read_headers(source.fs, path)
            array = _choose_array(headers, array, path, chosen=options.column is not None)
            rows, width = expect_embeddings(headers[array], f"array {array!r} of {path!r}")
            ids = _find_ids(headers, rows)
            if not first[0]:
                first = (path, width)
                remarks = _describe_unread(headers, {array, ids}, path)
            expect_width(path, width, *first)
            found = cut(NpzShard(source.fs, path, 0, rows, array=array), label, options, alone=alone)
            shards += [_with_ids(shard, ids) for shard in found] if ids is not None else found
        expect_ids_in_all(shards)
        return Dataset("embeddings", self.name, source.text, tuple(shards), column=array, remarks=tuple(remarks))


def _with_ids(shard: NpzShard, ids: str) -> NpzShard:
    """Return a shard whose ids are an array in its own file, unless there is a file of ids."""
    return shard if shard.ids is not None else replace(shard, ids=shard.path, id_column=ids)


def _choose_array(headers: Mapping[str, Header], wanted: str | None, path: str, *, chosen: bool) -> str:
    """Return the name of the array of embeddings."""
    fit = [name for name, header in headers.items() if _fits(header)]
    listed = ", ".join(f"{name[:60]!r} {header.dtype} {header.shape}" for name, header in [*headers.items()][:8])
    more = f" and {len(headers) - 8:,} more" if len(headers) > 8 else ""
    there = (listed or "nothing") + more
    if wanted is not None:
        if wanted not in headers:
            remedy = "name one with --column" if chosen else "give the array the same name in every file"
            raise UserError(f"{path!r} has no array {wanted!r}, but {there}: {remedy}")
        return wanted
    if not fit:
        raise UserError(
            f"{path!r} has no array of embeddings (float16, float32 or float64 in two dimensions), but {there}: save "
            "one with numpy.savez"
        )
    if len(fit) > 1:
        names = ", ".join(repr(name[:60]) for name in fit[:8])
        raise UserError(
            f"{path!r} has several arrays that fit ({names}): choose one, for example --column {shlex.quote(fit[0])}"
        )
    return fit[0]


def _fits(header: Header) -> bool:
    is_float = header.dtype.kind == "f" and header.dtype.itemsize <= 8
    return is_float and len(header.shape) == 2 and header.shape[1] > 0


def _find_ids(headers: Mapping[str, Header], rows: int) -> str | None:
    """Return the name of the array of ids; None if there is none."""
    fit = [name for name in ID_ARRAYS if name in headers and holds_ids(headers[name])]
    return next((name for name in fit if headers[name].shape[0] == rows), None)


def _describe_unread(headers: Mapping[str, Header], used: set[str | None], path: str) -> list[str]:
    unread = [repr(name[:60]) for name in headers if name not in used]
    return [f"arrays that are not read in {path!r}: {', '.join(unread[:8])}"] if unread else []

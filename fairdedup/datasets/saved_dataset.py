"""Opens what `datasets.save_to_disk` wrote, and other Arrow files: the Hugging Face library itself is not needed.

A saved data set is a folder with state.json, which names its data-*.arrow files in order. A saved DatasetDict is a
folder with dataset_dict.json, which names its splits, and one such folder for each split. Other files in these folders
are caches of the library, which are never read.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from dataclasses import replace
from typing import ClassVar

from fsspec import AbstractFileSystem

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.file_labels import label_files
from fairdedup.datasets.filesystem import Unreadable, read_file
from fairdedup.datasets.findings import name_ending
from fairdedup.datasets.input_format import DocumentedInput, InputSource, ReadOptions, ShardFormat
from fairdedup.datasets.metadata import DOCUMENTED_ID_COLUMN
from fairdedup.datasets.table_files import ARROW_EXTENSIONS
from fairdedup.datasets.table_inputs import TableFile, holds_paths, open_tables
from fairdedup.errors import UserError

STATE = "state.json"
SPLITS = "dataset_dict.json"
OWN_FILES = (STATE, SPLITS, "dataset_info.json")
MOST_BYTES = 64 << 20


class SavedDataset(ShardFormat):
    """Arrow files, as `datasets.save_to_disk` writes them: tables like those of Parquet."""

    name = "arrow"
    file_title = "an .arrow file"
    folder_title = "Arrow files"
    extensions = ARROW_EXTENSIONS
    in_patterns = True
    has_columns = True
    documentation: ClassVar[tuple[DocumentedInput, ...]] = (
        DocumentedInput(
            "[what `datasets.save_to_disk` wrote](#parquet): its folder",
            "a column as in Parquet; of a `DatasetDict` all splits, in its order",
            f"{DOCUMENTED_ID_COLUMN}; else the path, else the row number, `SPLIT/row` in a `DatasetDict`",
        ),
        DocumentedInput(
            "`.arrow` files: one, a folder of them, a brace pattern or a glob", "the same", "as for Parquet"
        ),
    )

    def files_in(self, folder: InputSource) -> list[str]:
        """Return the Arrow files of a folder; of saved data sets only those that belong to them."""
        entries = folder.with_endings(self.extensions)
        if not entries or folder.tree is None:
            return []
        saved = {posixpath.dirname(entry.path) for entry in folder.with_endings((".json",)) if entry.name == STATE}
        return [entry.path for entry in entries if posixpath.dirname(entry.path) not in saved or _is_data(entry.name)]

    def without_companions(self, others: list[str], shards: list[str]) -> list[str]:
        """Return the files that do not describe a saved data set."""
        return [path for path in others if posixpath.basename(path) not in OWN_FILES]

    def names_images(self, source: InputSource, shards: list[str], options: ReadOptions) -> bool:
        """Tell whether the first file has a column of paths to images."""
        return holds_paths(source, shards[0], options)

    def open_files(self, source: InputSource, paths: list[str], options: ReadOptions) -> Dataset:
        """Return shards of whole record batches, as `open_tables` does.

        Raises
        ------
        UserError
            If a file that the data set names is missing, or a file cannot be read.
        """
        files, splits = self._find_files(source, paths)
        dataset = open_tables(self.name, source, files, options)
        left = Counter(map(name_ending, set(paths) - {file.path for file in files}))
        remark = (f"all splits of {source.text!r} are read: {', '.join(splits)}",) if len(splits) > 1 else ()
        return replace(dataset, unused=left, remarks=(*remark, *dataset.remarks))

    def _find_files(self, source: InputSource, paths: list[str]) -> tuple[list[TableFile], list[str]]:
        """Return the files in the order in which they are read, and the splits of a DatasetDict."""
        fs, root = source.fs, source.paths[0]
        is_folder = source.kind == "folder"
        names = {entry.relative for entry in source.with_endings((".json",))} if is_folder else set()
        if STATE in names:
            return _files_of(fs, root, "", set(paths)), []
        if SPLITS in names:
            splits = _read_list(fs, posixpath.join(root, SPLITS), "splits")
            return [file for split in splits for file in _files_of(fs, root, f"{split}/", set(paths))], splits
        return [TableFile(path, label) for path, label in label_files(source, paths).items()], []


def _is_data(name: str) -> bool:
    return not name.startswith(("cache-", "tmp"))


def _files_of(fs: AbstractFileSystem, root: str, split: str, there: set[str]) -> list[TableFile]:
    """Return the files of a saved data set, in its order."""
    state = posixpath.join(root, split, STATE)
    names = _read_list(fs, state, "_data_files")
    files = []
    for name in names:
        path = posixpath.join(root, split, name)
        if path not in there:
            raise UserError(f"{path!r} is missing, but {state!r} names it: copy the whole folder, or save it again")
        files.append(TableFile(path, split + name, split))
    return files


def _is_plain(name: str) -> bool:
    """Tell whether a name in the data leads to no other folder."""
    return name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)


def _read_list(fs: AbstractFileSystem, path: str, key: str) -> list[str]:
    """Return a list of names in a JSON file of a saved data set."""
    try:
        content = json.loads(read_file(fs, path, MOST_BYTES))
        found = [entry["filename"] if isinstance(entry, dict) else entry for entry in content[key]]
    except (Unreadable, ValueError, KeyError, TypeError, RecursionError):
        found = []
    if not found or not all(isinstance(name, str) and _is_plain(name) for name in found):
        raise UserError(f"{path!r} does not list {key!r}: save the data set again with datasets.save_to_disk")
    return found

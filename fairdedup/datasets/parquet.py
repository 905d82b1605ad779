"""Opens Parquet files as an input: a column of image bytes, of paths to images, or of ready embeddings."""

from __future__ import annotations

import posixpath

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.file_labels import label_files
from fairdedup.datasets.input_format import DocumentedInput, InputSource, ReadOptions, ShardFormat
from fairdedup.datasets.listing import METADATA_FILES
from fairdedup.datasets.metadata import DOCUMENTED_ID_COLUMN
from fairdedup.datasets.npy_companions import ARRAY_EXTENSIONS
from fairdedup.datasets.rows import PARQUET_EXTENSIONS
from fairdedup.datasets.table_inputs import TableFile, has_sample_column, holds_paths, open_tables


class Parquet(ShardFormat):
    """Parquet files: tables whose column of images, paths or vectors is recognised by its type and name."""

    name = "parquet"
    file_title = "a .parquet file"
    folder_title = "Parquet files"
    extensions = PARQUET_EXTENSIONS
    in_patterns = True
    has_columns = True
    documentation = (
        DocumentedInput(
            "[Parquet](#parquet): a file, a folder of them, a brace pattern or a glob",
            "a column of image bytes, of paths to images, or of embeddings",
            f"{DOCUMENTED_ID_COLUMN}; else the path, else `FILE-row`",
        ),
    )

    def files_in(self, folder: InputSource) -> list[str]:
        """Return the Parquet files of a folder, unless they only describe the images or the vectors in it."""
        found = [entry for entry in folder.with_endings(self.extensions) if entry.name not in METADATA_FILES]
        folders = folder.tree.folders if folder.tree is not None else set()
        if all(posixpath.splitext(table.relative)[0] in folders for table in found):
            return []  # img2dataset's output as files: a folder of images for each table
        arrays = {posixpath.splitext(array.path)[0] for array in folder.with_endings(ARRAY_EXTENSIONS)}
        return [table.path for table in found if posixpath.splitext(table.path)[0] not in arrays]

    def names_images(self, source: InputSource, shards: list[str], options: ReadOptions) -> bool:
        """Tell whether the first file has a column of paths to images."""
        return holds_paths(source, shards[0], options)

    def can_hold_samples(self, source: InputSource, path: str) -> bool:
        """Tell whether a file has a column of images, of vectors, or of paths by a known name; or cannot be read."""
        return has_sample_column(source.fs, path)

    def open_files(self, source: InputSource, paths: list[str], options: ReadOptions) -> Dataset:
        """Return shards of whole row groups, as `open_tables` does."""
        files = [TableFile(path, label) for path, label in label_files(source, paths).items()]
        return open_tables(self.name, source, files, options)

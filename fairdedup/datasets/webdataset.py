"""Reads WebDataset tar shards: consecutive members with one key are one sample.

Shards are streamed from the first byte to the last; no member is ever written to disk, under any name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from sys import maxsize

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.dataset import Dataset, Sample
from fairdedup.datasets.filesystem import (
    Entry,
    fingerprint,
    list_entries,
    natural_key,
    to_valid_text,
)
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.img2dataset import read_downloads
from fairdedup.datasets.input_format import DocumentedInput, InputSource, ReadOptions, ShardFormat
from fairdedup.datasets.rows import is_parquet
from fairdedup.datasets.tar import DamagedTar, open_tar
from fairdedup.datasets.tar_members import EVERY_IMAGE, read_groups
from fairdedup.datasets.tar_samples import TarSample, choose_certain, count_unused, split_group
from fairdedup.errors import UserError

TAR_EXTENSIONS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst")


FIRST_SHARDS = 16
FIRST_KEYS = 100
"""Keys of the first tar that are looked at when an input is opened."""


@dataclass(frozen=True)
class TarShard:
    """One tar file of image samples.

    Attributes
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The tar file.
    name : str
        Its path below the folder that all shards have in common.
    id_from : {"key", "shard/key"}
        Whether ids have the shard's name before them.
    table : str or None
        The NAME.parquet that img2dataset writes next to NAME.tar.
    column : str or None
        The ending of the members that are the images, or `EVERY_IMAGE`; None recognises them.
    skip_damaged : bool
        Whether a damaged tar is read as far as it goes, instead of stopping the run.
    start : int
    stop : int or None
        The range of samples that `read` yields; None means up to the last one.
    """

    fs: AbstractFileSystem
    path: str
    name: str
    id_from: str = "key"
    table: str | None = None
    column: str | None = None
    skip_damaged: bool = False
    start: int = 0
    stop: int | None = None

    @property
    def rows(self) -> None:
        """Number of samples: always None, since it is known only after reading the tar."""
        return None

    def read(self, findings: Findings | None = None) -> Iterator[Sample]:
        """Yield every sample in the order of the tar, then the failed downloads in the order of their table."""
        findings = Findings() if findings is None else findings
        stop = maxsize if self.stop is None else self.stop
        position = 0
        keys = set()
        for found in self._read_tar(findings):
            if self.table is not None:
                keys.add(found.id if isinstance(found, Sample) else to_valid_text(self.make_id(found.key)))
            if position >= self.start:
                yield found if isinstance(found, Sample) else self._make_sample(position, found)
            position += 1
            if position >= stop:
                return
        for key, why in self._read_downloads(findings):
            name = self.name if key is None else to_valid_text(self.make_id(key))
            if name not in keys:
                why = why or "img2dataset has it as a success, but the tar does not hold it"
                source = to_valid_text(self.name if key is None else f"{self.name}/{key}")
                if position >= self.start:
                    yield Sample(position=position, id=name, image=None, source=source, error=why)
                position += 1
                if position >= stop:
                    return

    @property
    def is_seekable(self) -> bool:
        """Whether a part of the samples can be read at little more than its own cost: what is before it is skipped."""
        return isinstance(self.fs, LocalFileSystem) and self.path.lower().endswith(".tar")

    def select(self, start: int, stop: int) -> TarShard:
        """Return the shard with the samples at positions from start to stop only; they keep their positions."""
        return replace(self, start=start, stop=stop)

    def _read_downloads(self, findings: Findings) -> Iterator[tuple[str | None, str | None]]:
        """Yield what `read_downloads` does; a damaged table is a finding, and one of another kind is not used."""
        found = False
        for key, why in read_downloads(self.fs, self.table) if self.table is not None else ():
            found = True
            if key is None and self.table is not None:
                earlier = findings.damage
                findings.add_damage(self.table, "not all downloads that failed can be counted", skip=self.skip_damaged)
                findings.damage = f"{earlier}; {why}" if earlier is not None else why
            yield key, why
        if self.table is not None and not found:
            findings.add_unused(self.table)

    def _read_tar(self, findings: Findings) -> Iterator[TarSample | Sample]:
        """Yield every sample in the order of the tar. A damaged tar that is read ends with a rejected `Sample`."""
        position = usable = 0
        lost: str | None = None  # the key whose image is behind the damage
        try:
            for group in read_groups(self.fs, self.path, self.column, findings=findings):
                samples = split_group(group, self.column, self.name)
                count_unused(group, samples, findings)
                if not group.complete:
                    samples, missing = choose_certain(group, samples, self.column)
                    lost = None if missing is None else missing.key
                for sample in samples:
                    yield sample
                    position += 1
                    usable += sample.error is None
        except DamagedTar as damage:
            before = f"{usable:,} {'sample' if usable == 1 else 'samples'} before it can be read"
            findings.add_damage(self.path, f"{damage.place}; {before}", skip=self.skip_damaged)
            yield Sample(
                position=position,
                id=to_valid_text(self.name if lost is None else self.make_id(lost)),
                image=None,
                source=to_valid_text(self.name if lost is None else f"{self.name}/{lost}"),
                error=str(damage),
            )

    def _make_sample(self, position: int, sample: TarSample) -> Sample:
        caption, metadata = sample.read_sidecars()
        member = sample.image
        return Sample(
            position=position,
            id=to_valid_text(self.make_id(sample.key)),
            image=member.content.read() if sample.error is None and member is not None and member.content else None,
            caption=caption,
            metadata=metadata,
            source=to_valid_text(f"{self.name}/{sample.key if member is None else member.name}"),
            error=sample.error,
        )

    def make_id(self, key: str) -> str:
        """Return the id of the sample with this key."""
        return f"{strip_tar_extension(self.name)}/{key}" if self.id_from == "shard/key" else key

    def fingerprint(self) -> str:
        """Return a short text that changes when the file's name, size or time does."""
        paths = (path for path in (self.path, self.table) if path is not None)
        label = self.name if self.column is None else f"{self.name}\0--column {self.column}"
        return fingerprint(self.fs, *paths, label=label)


def strip_tar_extension(name: str) -> str:
    """Return a shard's name without its tar extension."""
    ending = next((end for end in TAR_EXTENSIONS if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


class WebDataset(ShardFormat):
    """WebDataset tar shards, also those of img2dataset, each with a table of downloads next to it."""

    name = "webdataset"
    file_title = "a .tar (.tar.gz, .tar.bz2, .tar.xz, .tar.zst) shard"
    folder_title = "tar shards"
    extensions = TAR_EXTENSIONS
    in_patterns = True
    has_columns = True
    documentation = (
        DocumentedInput(
            "WebDataset [tars](#tars): a folder of them, one, a brace pattern or a glob (`'data-{00000..00041}.tar'`; "
            "also compressed by gzip, bzip2, xz or Zstandard)",
            "of each key the image, `.txt` or `.caption` as caption, `.json` and `.cls` as metadata",
            "`__key__`",
        ),
        DocumentedInput(
            "[img2dataset's output](#img2dataset): its folder, or a pattern of its tars",
            "its tars, files or Parquet, and which downloads failed",
            "its key",
        ),
    )

    def without_companions(self, others: list[str], shards: list[str]) -> list[str]:
        """Return the files that are not img2dataset's table of downloads, or its statistics, for one of the tars."""
        stems = set(map(strip_tar_extension, shards))
        statistics = {f"{stem}_stats.json" for stem in stems}
        return [
            path
            for path in others
            if path not in statistics and not (is_parquet(path) and posixpath.splitext(path)[0] in stems)
        ]

    def open_files(self, source: InputSource, paths: list[str], options: ReadOptions) -> Dataset:
        """Return a shard for each tar file, named by its path below the common folder."""
        fs, column = source.fs, _parse_column(options.column)
        common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
        names = {path: posixpath.relpath(path, common) if common else path for path in paths}
        tables = {entry.path for folder in set(map(posixpath.dirname, paths)) for entry in _list_tables(fs, folder)}
        shards = []
        for path in sorted(names, key=lambda path: natural_key(names[path])):
            table = f"{strip_tar_extension(path)}.parquet"
            shards.append(
                TarShard(
                    fs,
                    path,
                    names[path],
                    options.id_from,
                    table if table in tables else None,
                    column,
                    options.skip_damaged,
                )
            )
        _check_first_keys(shards)
        return Dataset(kind="images", format=self.name, source=source.text, shards=tuple(shards), column=column)


def _check_first_keys(shards: Sequence[TarShard]) -> None:
    """Refuse a choice of images that is missing or wrong, before anything is written, as far as the first keys show it.

    Only uncompressed local tars are looked at: there it is cheap. Reading finds the rest.
    """
    faults = []
    for shard in shards[:FIRST_SHARDS]:
        fault = _describe_unfit(shard)
        if fault is None:
            return
        faults.append(fault)
    raise UserError(f"--column {shards[0].column!r} fits {faults[0]}: give one of these endings")


def _describe_unfit(shard: TarShard) -> str | None:
    """Return which of the first keys of a tar lack the image that the user chose; None if one has it, or to be read."""
    if not isinstance(shard.fs, LocalFileSystem):
        return None
    images, groups, samples = 0, 0, []
    with suppress(DamagedTar, OSError):  # reading reports them
        with open_tar(shard.fs, shard.path) as tar:
            if tar.size is None:
                return None
        for group in islice(read_groups(shard.fs, shard.path, shard.column), FIRST_KEYS):
            samples = split_group(group, shard.column, shard.name)
            groups += 1
            images += sum(sample.image is not None for sample in samples)
    if not samples or images or shard.column in (None, EVERY_IMAGE):
        return None
    keys = "nothing in the first key" if groups == 1 else f"none of the first {groups:,} keys"
    return f"{keys} of {shard.name} ({samples[-1].error})"


def _parse_column(column: str | None) -> str | None:
    """Return the ending of the images in lower case and without a dot before it."""
    ending = None if column is None else column.lower().lstrip(".")
    if ending == "":
        raise UserError(
            f"--column {column!r} is empty: with tars it is the ending of the images, such as --column rgb.png"
        )
    return ending


def _list_tables(fs: AbstractFileSystem, folder: str) -> list[Entry]:
    try:
        return [
            entry
            for entry in list_entries(fs, folder)
            if is_parquet(entry.name) and not entry.is_dir and entry.is_plain
        ]
    except (UserError, OSError):  # permissions may allow reading a shard, but not listing its folder
        return []

"""The first pass over images, before any forward pass: finds damage, duplicate ids, and the range of 16-bit pictures.

It reads every file once and writes a checksum of it, from which `exact_copies` finds copies. Pictures are not decoded,
except those of 16 bits, whose largest value says what is white in the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from fairdedup.datasets import Dataset, ImageShard
from fairdedup.datasets.column_types import ColumnTypes, write_schema
from fairdedup.datasets.dataset import estimate_rows, find_reading_memory
from fairdedup.datasets.duplicate_ids import duplicate_id_error
from fairdedup.datasets.findings import Findings
from fairdedup.storage.attempts import note_attempt
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import is_up_to_date, mark_up_to_date, marked_file
from fairdedup.storage.records import FindingsRecord, read_findings
from fairdedup.storage.remedies import embed_again
from fairdedup.storage.run_files import write_array
from fairdedup.storage.sealed_files import DamagedFileError, open_array
from fairdedup.tasks import Submit, Task

SUSPECTS = 1_000  # repeated hashes of ids whose samples are looked at together


class Scan(NamedTuple):
    """What the first pass has found.

    Attributes
    ----------
    white : int or None
        Value that becomes white in 16-bit pictures, one of `sixteen_bit.WHITES`; None if there are none.
    deep : frozenset of int
        Numbers of the shards that have 16-bit pictures.
    counts : tuple of int
        Number of samples in each shard.
    """

    white: int | None
    deep: frozenset[int]
    counts: tuple[int, ...] = ()

    def extend_fingerprints(self, fingerprints: Sequence[str]) -> list[str]:
        """Return the fingerprints of shards, with the white value in those of 16-bit pictures if it is not 65,535.

        With 65,535 the pixels are those of versions that knew no other value, so their vectors are used again.
        """
        from fairdedup.datasets.sixteen_bit import FULL

        if self.white in (None, FULL):
            return list(fingerprints)
        return [
            hashlib.sha256(f"{known} white {self.white}".encode()).hexdigest() if k in self.deep else known
            for k, known in enumerate(fingerprints)
        ]


def scan_shard(number: int, shard: ImageShard, root: Path, fingerprint: str) -> None:
    """Write what the first pass finds in a shard, unless that is done: 0 where a sample has no image file.

    These are the checksum (XXH3, 128 bits) of each image file, the hash of each id, the largest value of each 16-bit
    picture, and the findings.

    Parameters
    ----------
    number : int
        Number of the shard.
    shard : ImageShard
    root : Path
        Run directory.
    fingerprint : str
        Hash of what the shard depends on.

    Raises
    ------
    UserError
        If the shard is damaged.
    """
    from fairdedup.datasets.decoders import open_decoder
    from fairdedup.datasets.sixteen_bit import FULL

    run = RunDirectory(root)
    hashes, checks, noted = run.image_hashes(number), run.sample_checks(number), read_findings(run, number)
    is_noted = noted is not None and noted.fingerprint == fingerprint
    if is_noted and is_up_to_date(hashes, fingerprint) and is_up_to_date(checks, fingerprint):
        return
    findings = Findings()
    digests, found = [], []
    columns: dict[str, None] = {}
    types = ColumnTypes()
    with (
        note_attempt(run.attempt("scan", number)) as has_died,
        open_decoder(None, FULL, isolated=has_died) as decoder,
    ):
        for sample in shard.read(findings):
            columns |= dict.fromkeys(sample.metadata)
            if sample.image is None:  # it will be rejected, so its values are not among the metadata
                digests.append(bytes(16))
                found.append((0, 0))
            else:
                types.add(sample.metadata)
                digests.append(xxhash.xxh3_128_digest(sample.image))
                found.append((_hash_id(sample.id), decoder.measure_peak(sample.image)))
        write_array(hashes, np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2))
        mark_up_to_date(hashes, fingerprint)
        write_array(checks, np.array(found, np.uint64).reshape(-1, 2))
        mark_up_to_date(checks, fingerprint)
        unused = dict(sorted(findings.unused.items()))
        noted = FindingsRecord(
            fingerprint=fingerprint,
            unused=unused,
            damage=findings.damage,
            columns=sorted(columns),
            schema_of_columns=write_schema(types.find_schema()),
        )
        noted.write(run.scan_findings(number))


def _hash_id(name: str) -> int:
    """Return a hash of an id that is not 0."""
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")) or 1


def scan_images(
    dataset: Dataset,
    run: RunDirectory,
    submit: Submit,
    fingerprints: Sequence[str],
    read_by: tuple[str, str | None] = ("key", None),
) -> Scan:
    """Read every image file of an input once, and check what can be checked before embedding.

    Parameters
    ----------
    dataset : Dataset
    run : RunDirectory
    submit : Submit
    fingerprints : sequence of str
        Fingerprint of each shard.
    read_by : (str, str or None)
        What ids are made of, and the column that was named. A directory may have what a command that was refused has
        found with others.

    Raises
    ------
    UserError
        If a shard is damaged, or two pictures have the same id.
    """
    suffix = "" if read_by == ("key", None) else f" {json.dumps(read_by)}"
    tasks = [
        Task(
            (k, shard, run.root, f"{fingerprint}{suffix}"),
            shard.rows,
            shard.name,
            peak=find_reading_memory(shard),
            isolated=True,
            likely_rows=estimate_rows(shard),
        )
        for k, (shard, fingerprint) in enumerate(zip(dataset.shards, fingerprints, strict=True))
    ]
    submit("find copies", scan_shard, tasks)
    checks = _read_checks(run, len(tasks))
    _check_unique_ids(dataset, [own[:, 0] for own in checks], submit)
    return _summarise([own[:, 1] for own in checks])


def read_scan(run: RunDirectory, shards: int) -> Scan | None:
    """Return what an earlier first pass has found: nothing if a version without it made the run; None if damaged."""
    if not all(run.sample_checks(k).exists() for k in range(shards)):
        return Scan(None, frozenset())
    try:
        return _summarise([own[:, 1] for own in _read_checks(run, shards)])
    except DamagedFileError:
        return None


def _read_checks(run: RunDirectory, shards: int) -> list[NDArray[np.uint64]]:
    """Return the sample checks (n, 2) of each shard."""
    remedy = embed_again(run.root)
    return [open_array(marked_file(run.sample_checks(k), remedy)) for k in range(shards)]


def _summarise(peaks: Sequence[NDArray[np.uint64]]) -> Scan:
    from fairdedup.datasets.sixteen_bit import choose_white

    highest = [int(own.max(initial=0)) for own in peaks]
    deep = frozenset(k for k, peak in enumerate(highest) if peak)
    return Scan(choose_white(highest), deep, tuple(map(len, peaks)))


def _check_unique_ids(dataset: Dataset, hashes: Sequence[NDArray[np.uint64]], submit: Submit) -> None:
    """Refuse duplicate ids of pictures that can be decoded.

    Equal hashes of 8 bytes find the candidates. Their samples are then read, so a clash of hashes refuses nothing.
    """
    for suspects in _list_suspects(hashes):
        places = [np.flatnonzero(np.isin(own, suspects)) for own in hashes]
        reading = [k for k, own in enumerate(places) if len(own)]
        shards = dataset.shards
        tasks = [
            Task(
                (shards[k], places[k].tolist()),
                None,
                shards[k].name,
                peak=find_reading_memory(shards[k]),
                isolated=True,
                likely_rows=estimate_rows(shards[k]),
            )
            for k in reading
        ]
        seen: dict[str, int] = {}
        for k, names in zip(reading, submit("compare ids", list_usable_ids, tasks), strict=True):
            for name in names:
                if name in seen:
                    raise duplicate_id_error(name, dataset.shards[seen[name]], dataset.shards[k])
                seen[name] = k


def _list_suspects(hashes: Sequence[NDArray[np.uint64]]) -> Iterator[NDArray[np.uint64]]:
    """Yield hashes that occur more than once, in the order of their first rows, some at a time."""
    every = np.concatenate(hashes)
    order = np.argsort(every, kind="stable")
    ordered = every[order]
    again = ordered[1:] == ordered[:-1]
    is_first = again & ~np.r_[False, again[:-1]] & (ordered[:-1] != 0) if len(again) else again
    rows = np.sort(order[:-1][is_first])
    for start in range(0, len(rows), SUSPECTS):
        yield every[rows[start : start + SUSPECTS]]


def list_usable_ids(shard: ImageShard, positions: Sequence[int]) -> list[str]:
    """Return the ids of the samples at these positions whose pictures can be decoded.

    Parameters
    ----------
    shard : ImageShard
    positions : sequence of int
        Positions of samples that have an image file.
    """
    from fairdedup.datasets.decoders import open_decoder
    from fairdedup.datasets.images import BadImage
    from fairdedup.datasets.sixteen_bit import FULL

    wanted, names = set(positions), []
    with open_decoder(None, FULL, isolated=True) as decoder:
        for sample in shard.read(Findings()):
            if sample.position in wanted and sample.image is not None:
                try:
                    decoder.load(sample.image)
                except BadImage:
                    continue
                names.append(sample.id)
    return names

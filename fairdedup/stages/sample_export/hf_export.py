"""Kept samples as Parquet files with the images in them, which `datasets.load_dataset` opens as one split `train`.

A row has the image file byte for byte, in the column `image` of the type Image, and the columns of kept/. A task writes
one file; its record is written after it, and with it the same command skips the file.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from fairdedup.datasets.chosen_images import read_chosen_images
from fairdedup.datasets.filesystem import get_extension
from fairdedup.datasets.images import IMAGE_EXTENSIONS
from fairdedup.datasets.keys import make_key
from fairdedup.datasets.originals import detect_extension
from fairdedup.datasets.reserved_columns import rename_reserved
from fairdedup.stages.sample_export.export_plan import (
    NewShard,
    Plan,
    Samples,
    Written,
    expect_id,
    find_written,
    lost,
    make_task,
    read_samples,
    record_written,
)
from fairdedup.storage.run_files import open_table_writer
from fairdedup.storage.seals import is_sealed, seal
from fairdedup.tasks import Submit

IMAGE = "image"
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # of a column of images, for `datasets`
FEATURES = {b"huggingface": json.dumps({"info": {"features": {IMAGE: {"_type": "Image"}}}}).encode()}
ROWS, BYTES = 100, 1 << 26  # of a row group, at most; a larger image has one of its own


def write_parquet(plan: Plan, new: NewShard) -> Written:
    """Write one file, unless an undamaged one exists.

    Raises
    ------
    UserError
        If the input has changed since the run.
    """
    path = plan.folder / new.name
    known = find_written(plan, new.name)
    if known is not None and is_sealed(path, known.seal):
        return known
    samples = list(read_samples(plan, new))
    first = samples[0].values
    assert first is not None  # kept/ has at least the id
    names = rename_reserved(first.column_names, {IMAGE})
    fields = [field.with_name(names[field.name]) for field in first.schema]
    schema = pa.schema([pa.field(IMAGE, IMAGE_TYPE), *fields], metadata=FEATURES)
    with open_table_writer(path, schema) as writer:
        for each in samples:
            start = 0
            for images in _read_images(each):
                assert each.values is not None
                own = each.values.slice(start, len(images))
                start += len(images)
                writer.write_table(pa.table([pa.array(images, IMAGE_TYPE), *own.columns], schema=schema))
    return record_written(plan, Written(new.name, new.samples, new.samples, seal(path)))


def _read_images(samples: Samples) -> Iterator[list[dict[str, object]]]:
    """Yield the images of samples in their order, some at a time."""
    source, batch, size = samples.source, list[dict[str, object]](), 0
    expected = iter(zip(samples.positions, samples.ids, strict=True))
    for position, name, data in read_chosen_images(source, samples.positions):
        wanted, id_ = next(expected)
        if position != wanted:
            raise lost(source, id_)
        expect_id(source, position, name, id_)
        if batch and (len(batch) == ROWS or size + len(data) > BYTES):
            yield batch
            batch, size = [], 0
        batch.append({"bytes": data, "path": _name_file(name, data)})
        size += len(data)
    missing = next(expected, None)
    if missing is not None:
        raise lost(source, missing[1])
    yield batch


def _name_file(id_: str, data: bytes) -> str:
    """Return the name of an image file, from the last part of its id, with an extension."""
    base = posixpath.basename(id_)
    ending = get_extension(base)
    if ending in IMAGE_EXTENSIONS:
        return f"{make_key(base[: -len(ending) - 1])}.{ending}"
    return f"{make_key(base)}.{detect_extension(data)}"


def write_dataset(plan: Plan, shards: list[NewShard], submit: Submit) -> list[Written]:
    """Write every file that does not exist yet, and return all of them in order.

    Parameters
    ----------
    plan : Plan
        Its `values` are the columns of kept/.
    shards : list of NewShard
        The samples of each file; the names are chosen here, as `datasets` wants them.
    submit : Submit
    """
    digits = max(5, len(str(len(shards))))
    named = [
        replace(new, name=f"data/train-{number:0{digits}d}-of-{len(shards):0{digits}d}.parquet")
        for number, new in enumerate(shards)
    ]
    return submit("write", write_parquet, [make_task(plan, new) for new in named])

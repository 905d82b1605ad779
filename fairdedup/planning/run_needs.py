"""What a run of a given size needs: hours, bytes and memory of each stage, scaled from what was measured.

A figure that nobody has measured or counted is None. docs/sizing.md has the formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fairdedup.planning.coefficients import CLUSTER_BYTES, CONDUCTOR_MIB, COSTS, JOB, ROW_BYTES, WORKER_MIB
from fairdedup.planning.round_bytes import count_rounds_on_disk, count_rounds_read, count_rounds_written
from fairdedup.planning.stage_work import (
    ACROSS,
    CONCEPTS,
    DECIDE,
    EMBED,
    HASH_BYTES,
    RESULTS,
    STAGES,
    STATE,
    Size,
    Stage,
    count_image_tasks,
)

MIB = 1 << 20
HOUR = 3600
REMOVED_BYTES = 16  # that the command holds for each removed row: its number and its similarity
FLAG_BYTES = 12  # that it holds for each row where rows are compared across clusters
ASK = "not measured: give --images-per-second"
ASK_RATE = "not measured: give --read-rate and --image-bytes"


@dataclass(frozen=True)
class Images:
    """What is known of an input of images.

    Attributes
    ----------
    gpus : int or None
        Number of GPUs that embed; None where the workers embed on their CPUs.
    per_second : float or None
        Images that each of these embeds in a second.
    bytes_each : int or None
        Mean size of an image file.
    read_rate : int or None
        Bytes of images that each worker reads in a second.
    memory : int or None
        Bytes that the model needs in a worker.
    """

    gpus: int | None
    per_second: float | None
    bytes_each: int | None
    read_rate: int | None = None
    memory: int | None = None


@dataclass(frozen=True)
class StageNeeds:
    """What a stage needs. None stands for what nobody has measured or counted.

    Attributes
    ----------
    name : str
    workers : int
        Workers that it keeps busy.
    hours : float or None
    disk : float or None
        Bytes of its files that stay.
    read, written : float or None
        Bytes.
    memory : float or None
        Bytes of a worker.
    source : str
        Where the hours come from.
    """

    name: str
    workers: int
    hours: float | None
    disk: float | None
    read: float | None
    written: float | None
    memory: float | None
    source: str


@dataclass(frozen=True)
class RunNeeds:
    """What a run needs.

    Attributes
    ----------
    size : Size
    stages : tuple of StageNeeds
    hours : float
        Of the stages whose hours are known.
    not_measured : tuple of str
        Names of the stages whose hours are not.
    disk : float
        Bytes of the run directory at its largest, without the input.
    conductor : float
        Bytes that the command itself holds at least.
    source, hardware : str
        What was measured, and on what.
    """

    size: Size
    stages: tuple[StageNeeds, ...]
    hours: float
    not_measured: tuple[str, ...]
    disk: float
    conductor: float
    source: str
    hardware: str


def estimate_run(size: Size, images: Images | None = None, *, concepts: bool = False) -> RunNeeds:
    """Estimate what a run needs.

    Parameters
    ----------
    size : Size
        Size of the run.
    images : Images or None
        What is known of the images; None for ready embeddings.
    concepts : bool
        Whether the rule compares samples with concepts, which takes passes of its own.
    """
    stages = [estimate_stage(stage, size) for stage in STAGES if concepts or stage is not CONCEPTS]
    if images is not None:
        stages[:1] = _estimate_images(size, images)
    decided = DECIDE.written(size) if DECIDE.written else 0
    temporary = max(size.training_disk, decided + count_rounds_on_disk(size))
    return RunNeeds(
        size=size,
        stages=tuple(stages),
        hours=sum(stage.hours or 0 for stage in stages),
        not_measured=tuple(stage.name for stage in stages if stage.hours is None),
        disk=sum(stage.disk or 0 for stage in stages) + temporary,
        conductor=CONDUCTOR_MIB * MIB + REMOVED_BYTES * (size.rows - size.kept) + FLAG_BYTES * size.rows,
        source=JOB.source,
        hardware=JOB.hardware,
    )


def estimate_stage(stage: Stage, size: Size) -> StageNeeds:
    """Estimate what a stage needs.

    Parameters
    ----------
    stage : Stage
        One of `STAGES`.
    size : Size
        Size of the run.
    """
    cost, extra = COSTS.get(stage.name), _row_bytes(stage, size)
    read, written = stage.read, stage.written
    if stage is ACROSS:
        read, written = count_rounds_read, count_rounds_written
    return StageNeeds(
        name=stage.name,
        workers=min(size.workers, stage.tasks(size)),
        hours=_estimate_hours(stage, size),
        disk=stage.disk(size) + extra,
        read=None if read is None else read(size),
        written=None if written is None else written(size) + extra,
        memory=_estimate_memory(stage, size),
        source="not measured" if cost is None else cost.source,
    )


def _estimate_hours(stage: Stage, size: Size) -> float | None:
    """Return the hours of a stage: the seconds of one task, times how many each worker has one after the other."""
    cost = COSTS.get(stage.name)
    if cost is None:
        return None
    tasks = stage.tasks(size)
    seconds = cost.unit * stage.work(size) / tasks * math.ceil(tasks / size.workers)
    seconds += cost.shard * size.shards / (1 if stage.one_task_for_shards else min(size.workers, tasks))
    return seconds / HOUR


def _estimate_memory(stage: Stage, size: Size) -> float | None:
    """Return the bytes of a worker: those that were measured, and what grows with the size."""
    memory = WORKER_MIB[stage.command] * MIB * max(1.0, size.dim / JOB.dim)
    if stage.command == "cluster":
        memory += 24 * max(0, size.clusters * size.dim - JOB.clusters * JOB.dim)
    if stage.name == DECIDE.name:
        largest = JOB.largest / (JOB.rows / JOB.clusters) * size.rows / size.clusters
        memory += CLUSTER_BYTES * size.dim * max(0.0, largest - JOB.largest)
    return None if COSTS.get(stage.name) is None else memory


def _row_bytes(stage: Stage, size: Size) -> float:
    """Return the bytes of the files of a stage that are not vectors, by what was measured for each row."""
    if stage.name == EMBED.name:
        return ROW_BYTES["embeddings"] * size.rows
    if stage.name == RESULTS.name:
        return ROW_BYTES["decisions"] * size.rows + ROW_BYTES["kept"] * size.kept
    return ROW_BYTES["state"] * size.kept if stage.name == STATE.name else 0


def _estimate_images(size: Size, images: Images) -> list[StageNeeds]:
    """Return what the stages need that images have and ready embeddings do not, in place of the import."""
    input_bytes = None if images.bytes_each is None else images.bytes_each * size.rows
    hashes, vectors = HASH_BYTES * size.rows, size.vectors + _row_bytes(EMBED, size)
    devices = images.gpus or size.workers
    hours = None if images.per_second is None else size.rows / images.per_second / devices / HOUR
    readers = min(size.workers, size.shards)
    reading = None
    if input_bytes is not None and images.read_rate is not None:
        reading = input_bytes / images.read_rate / readers / HOUR
    return [
        StageNeeds(
            name="find copies",
            workers=readers,
            hours=reading,
            disk=hashes,
            read=input_bytes,
            written=hashes,
            memory=None,
            source=ASK_RATE if reading is None else "--read-rate",
        ),
        StageNeeds(
            name="embed",
            workers=min(devices, count_image_tasks(size)),
            hours=hours,
            disk=vectors,
            read=input_bytes,
            written=vectors,
            memory=None if images.memory is None else WORKER_MIB["embed"] * MIB + images.memory,
            source=ASK if hours is None else "--images-per-second",
        ),
    ]

"""`fairdedup plan`: what a run of a given size needs. It reads no data and starts no worker."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from fairdedup.core.kmeans import check_clusters
from fairdedup.core.rules.registry import find_rule, simplest_rule
from fairdedup.encoders import BUILTIN_MODEL, check_model
from fairdedup.encoders.encoder_memory import estimate_encoder_memory
from fairdedup.encoders.spec import FOLDERS
from fairdedup.errors import UserError, format_count
from fairdedup.planning.run_needs import Images, RunNeeds, estimate_run
from fairdedup.planning.stage_work import Size

ROWS_A_SHARD = 10_000  # img2dataset's default


@dataclass(frozen=True)
class PlanOptions:
    """Options of the command.

    Attributes
    ----------
    rows, dim : int
        Number of rows, and of values of a vector.
    keep : float
        Fraction that is kept.
    clusters : int or "auto"
    shards : int or None
        Shards of the input; None means one for 10,000 rows.
    workers : int or None
        None means one for each GPU, else one for each core of this machine.
    gpus : int or None
        GPUs that embed images.
    images_per_second : float or None
        Images that a GPU, or without GPUs a worker, embeds in a second.
    image_bytes : int or None
        Mean size of an image file.
    read_rate : int or None
        Bytes of images that a worker reads in a second.
    model : str or None
        Model that embeds the images, for the memory of a worker.
    batch_size : int
        Pictures of a batch.
    rule : str or None
        Rule that decides; None is one that needs no prototypes.
    """

    rows: int
    dim: int
    keep: float = 0.5
    clusters: int | str = "auto"
    shards: int | None = None
    workers: int | None = None
    gpus: int | None = None
    images_per_second: float | None = None
    image_bytes: int | None = None
    read_rate: int | None = None
    model: str | None = None
    batch_size: int = 32
    rule: str | None = None

    @property
    def has_images(self) -> bool:
        """Whether the input is images."""
        return self.gpus is not None or self.images_per_second is not None

    @property
    def images(self) -> Images | None:
        """What is known of the images; None for ready embeddings."""
        if not self.has_images:
            return None
        memory = None
        if self.model is not None:
            named = self.model == BUILTIN_MODEL or self.model.startswith(FOLDERS)
            check_model(self.model, None if named else "any tag")
            memory = estimate_encoder_memory(self.model, None if named else "any tag", self.batch_size)
        return Images(self.gpus, self.images_per_second, self.image_bytes, self.read_rate, memory)


def plan_run(options: PlanOptions) -> RunNeeds:
    """Return what a run needs.

    Parameters
    ----------
    options : PlanOptions
        Size of the run.

    Raises
    ------
    UserError
        If an option is wrong, or does not fit another.
    """
    rows, shards = options.rows, options.shards or math.ceil(options.rows / ROWS_A_SHARD)
    if not 0 < options.keep <= 1:
        raise UserError(f"`keep` must be above 0 and at most 1; got {options.keep:g}.")
    if shards > rows:
        raise UserError(
            f"`shards={shards}` is more than the {format_count(rows, 'row')}: give at most {rows}, or leave it out."
        )
    rate = options.images_per_second
    if rate is not None and not (rate > 0 and math.isfinite(rate)):
        raise UserError(f"`images_per_second` must be a number above 0; got {rate:g}.")
    for name in ("image_bytes", "read_rate", "model"):
        if getattr(options, name) is not None and not options.has_images:
            raise UserError(f"`{name}` is about images: give `gpus` or `images_per_second` too, or leave it out.")
    size = Size(
        rows=rows,
        dim=options.dim,
        clusters=check_clusters(options.clusters, rows),
        kept=max(1, round(options.keep * rows)),
        shards=shards,
        workers=options.workers or options.gpus or os.cpu_count() or 1,
    )
    rule = simplest_rule() if options.rule is None else find_rule(options.rule)
    return estimate_run(size, options.images, concepts=rule.needs_prototypes)

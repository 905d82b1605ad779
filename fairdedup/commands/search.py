"""`fairdedup search`: the samples of a finished run that are most similar to a picture, a text or one of them.

Cosines are exact, over all vectors of the run, whatever the clusters. Nothing is written into the run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.commands.named_outputs import check_output, write_output
from fairdedup.config import RunConfig
from fairdedup.datasets.images import MAX_IMAGE_BYTES
from fairdedup.datasets.sixteen_bit import FULL
from fairdedup.errors import UserError
from fairdedup.preparation.encoder_choice import check_named_model, require_encoder_memory
from fairdedup.preparation.prototype_choice import choose_text_encoder
from fairdedup.report.looked_up import collect_samples, describe_state, read_pictures
from fairdedup.report.report_figures import ShownSample
from fairdedup.report.sample_page import Shelf, build_tile, render_samples
from fairdedup.stages.named_rows import find_row
from fairdedup.stages.query_embedding import embed_picture, embed_text
from fairdedup.stages.similar_rows import find_similar_rows, read_vector
from fairdedup.storage.config_record import read_config_record
from fairdedup.storage.contents import Embedded, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import RunManifest, require_manifest
from fairdedup.storage.plain_files import open_plain_file
from fairdedup.tasks import Task
from fairdedup.workers import Workers


@dataclass(frozen=True, kw_only=True)
class Query:
    """What to look for: exactly one of the three is given.

    Attributes
    ----------
    image : Path or None
        Image file.
    text : str or None
    sample : str or None
        Id of a sample of the run.
    """

    image: Path | None = None
    text: str | None = None
    sample: str | None = None

    @property
    def title(self) -> str:
        """What is looked for, in a few words."""
        if self.image is not None:
            return f"Similar to the picture {self.image.name}"
        return f'Similar to the text "{self.text}"' if self.text is not None else f"Similar to {self.sample}"


@dataclass(frozen=True)
class FoundSample:
    """A sample that was found.

    Attributes
    ----------
    rank : int
        From 1.
    cosine : float
    id : str
    state : str
        "kept", "re-admitted", "removed" or "left out".
    caption : str or None
        Its beginning.
    """

    rank: int
    cosine: float
    id: str
    state: str
    caption: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the values."""
        return asdict(self)


def search_run(
    config: RunConfig,
    query: Query,
    workers: Workers,
    *,
    top: int = 20,
    html: Path | None = None,
    source: str | None = None,
) -> list[FoundSample]:
    """Return the samples that are most similar to a query, and write a page of them if a file is named.

    Parameters
    ----------
    config : RunConfig
        Names the run, and the model of ready embeddings.
    query : Query
        What to look for.
    workers : Workers
        Run the tasks that search.
    top : int
        Number of samples.
    html : Path, optional
        File of the page.
    source : str, optional
        Place of the input, if it has moved.

    Raises
    ------
    UserError
        If the run is not finished, its model is not known, or the picture or the id cannot be used.
    """
    check_output(html, "--html", "found.html")
    directory = RunDirectory(config.out.absolute())
    manifest = require_manifest(directory)
    embedded = load_embedded(directory)
    unit = _embed_query(config, query, embedded, manifest, workers)
    found = find_similar_rows(embedded, unit, top, workers.submit)
    rows, cosines = found.rows.tolist(), found.cosines.tolist()
    samples = collect_samples(embedded, manifest, rows)
    if html is not None:
        _write_page(html, query, dict(zip(rows, cosines, strict=True)), samples, embedded, manifest, source)
    return [
        FoundSample(rank, cosine, samples[row].id, describe_state(samples[row]), samples[row].caption)
        for rank, (row, cosine) in enumerate(zip(rows, cosines, strict=True), 1)
    ]


def _embed_query(
    config: RunConfig, query: Query, embedded: Embedded, manifest: RunManifest, workers: Workers
) -> NDArray[np.float16]:
    """Return the unit vector (d,) of what is looked for."""
    if query.sample is not None:
        return read_vector(embedded, find_row(embedded, query.sample, workers.submit))
    option = "--image" if query.image is not None else "--text"
    check_named_model(config)
    spec = choose_text_encoder(config, read_config_record(embedded.directory))
    if spec is None:
        raise UserError(
            f"{option} needs the model of these embeddings, which is not known: name it (--model ViT-B-16 --pretrained "
            "openai), or look for a sample of the run by --id X"
        )
    data = None if query.image is None else _read_image(query.image)
    require_encoder_memory(workers, spec.model, spec.pretrained, spec.batch_size)
    if data is None:
        (unit,) = workers.submit("embed text", embed_text, [Task((query.text, spec), isolated=True)])
    else:
        arguments = (data, manifest.input.white or FULL, f"--image {str(query.image)!r}", spec)
        (unit,) = workers.submit("embed picture", embed_picture, [Task(arguments, isolated=True)])
    if len(unit) != embedded.dimension:
        raise UserError(
            f"model {spec.model!r} gives {len(unit)} dimensions and the embeddings have {embedded.dimension}: name the "
            "model that made them"
        )
    found: NDArray[np.float16] = unit
    return found


def _read_image(path: Path) -> bytes:
    """Return the bytes of the image that the user names."""
    what = f"--image {str(path)!r}"
    try:
        with open_plain_file(path, what) as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise UserError(f"{what}: {error.strerror}; give an image file") from None
    if len(data) > MAX_IMAGE_BYTES:
        raise UserError(f"{what} is larger than {MAX_IMAGE_BYTES >> 20} MiB, which no picture of a run is: shrink it")
    return data


def _write_page(
    path: Path,
    query: Query,
    cosines: dict[int, float],
    samples: dict[int, ShownSample],
    embedded: Embedded,
    manifest: RunManifest,
    source: str | None,
) -> None:
    ordered = {row: samples[row] for row in cosines}  # the pictures of the best are read first
    thumbnails = read_pictures(embedded, manifest, ordered, source)
    tiles = [build_tile(samples[row], f"{cosine:.4f}", thumbnails) for row, cosine in cosines.items()]
    name = embedded.directory.root.name
    lines = [f"The {len(tiles):,} most similar of {embedded.valid:,} samples in {name}, with their cosines."]
    write_output(path, render_samples(query.title, lines, [Shelf("Found", tiles)], thumbnails.remark))

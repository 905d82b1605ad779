"""Every option that several commands share, declared once: flag, type, help text and heading in `--help`.

Its names are the keys of the YAML file and the fields of `RunConfig`. It checks the values; this module does not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from fairdedup.cli.help_format import GroupedOption
from fairdedup.cli.value_types import FILE, MODEL_NAME, PATH_TEXT, PLACE, NumberOrAuto, RuleName
from fairdedup.core.rules.registry import DEFAULT

Decorator = Callable[[Any], Any]

option = partial(click.option, cls=GroupedOption)
_amount = partial(option, heading="Amount to keep")
_place = partial(option, heading="Input and output")
_rule = partial(option, heading="Rule")
_curation = partial(option, heading="Curation")
_result = partial(option, heading="Result")
_encoder = partial(option, heading="Encoder")
_clustering = partial(option, heading="Clustering")
_machine = partial(option, heading="Machine and messages")

OPTIONS: dict[str, Decorator] = {
    # Amount to keep
    "keep": _amount("--keep", type=float, help="Keep exactly this fraction of the valid rows."),
    "at_most": _amount("--at-most", type=float, help="Keep at most this fraction. Nothing is re-admitted."),
    "eps": _amount("--eps", type=float, help="Remove duplicates: pairs with cosine similarity above 1 - eps."),
    # Input and output
    "out": _place("--out", type=PLACE, help="Run directory: a folder or s3://BUCKET/RUN.  [default: ./fairdedup-run]"),
    "against": _place(
        "--against",
        multiple=True,
        type=PLACE,
        help="Finished run. What it kept stays, and the new rows are added to it.",
    ),
    "id": _place("--id", type=click.Choice(("key", "shard/key")), help="What the id of a sample is made of."),
    "column": _place(
        "--column",
        help="Column of images, paths or vectors (tables, .npz), or ending of the images (tars), if several fit.",
    ),
    "collect": _place(
        "--collect",
        multiple=True,
        metavar="COLUMN",
        help="Give each kept row the distinct values that the rows it stands for have in this column.",
    ),
    "skip_damaged": _place(
        "--skip-damaged/--no-skip-damaged",
        default=None,
        help="Go on without what cannot be read of a damaged shard, with a warning.  [default: stop]",
    ),
    "max_rejected": _place(
        "--max-rejected", type=float, help="Stop if a larger share of the rows is rejected.  [default: 0.05]"
    ),
    # Rule
    "rule": _rule("--rule", type=RuleName(), help=f"Which sample of a neighbourhood is kept.  [default: {DEFAULT}]"),
    "cover": _rule(
        "--cover/--no-cover", default=None, help="A kept sample removes only its own duplicates.  [default: cover]"
    ),
    "reach": _rule(
        "--reach",
        type=NumberOrAuto(float),
        help="How near another cluster rows are compared with its rows: auto, or 0 (never) to 2.  [default: auto]",
    ),
    "reach_clusters": _rule(
        "--reach-clusters", type=int, help="Most clusters that a row is compared in.  [default: 16]"
    ),
    "published": _rule(
        "--published", is_flag=True, default=None, help="The papers' own procedure: --no-cover --reach 0."
    ),
    "prototypes": _rule(
        "--prototypes",
        type=FILE,
        help="Concepts: people or fairface, or a file of captions (.yaml) or vectors (.parquet, .npz, .npy).  "
        "[default: people]",
    ),
    "start": _rule(
        "--start", type=click.Choice(("cluster", "zero")), help="fairdedup: where the sums of the concepts start."
    ),
    "calibrate": _rule(
        "--calibrate", type=click.Choice(("none", "zscore")), help="fairdedup: how to standardise similarities."
    ),
    "target": _rule(
        "--target",
        type=click.Choice(("uniform", "data")),
        help="balanced: shares to aim at. The YAML file can list shares instead.",
    ),
    "temperature": _rule(
        "--temperature",
        type=NumberOrAuto(float),
        help="balanced: temperature of the membership softmax, or auto.",
    ),
    "reserve": _rule(
        "--reserve", type=float, help="balanced: share of the kept count that is reserved for rare rows, 0 to 0.3."
    ),
    # Curation
    "prefer": _curation(
        "--prefer",
        metavar="COLUMN",
        help="Keep the row with the highest value in this metadata column. Implies --rule prefer.",
    ),
    "within": _curation(
        "--within",
        metavar="COLUMN",
        help="Compare rows only where this metadata column has the same value, such as an album or a class.",
    ),
    "where": _curation(
        "--where", metavar="EXPR", help="Use only rows for which this SQL condition on metadata columns is true."
    ),
    "drop": _curation("--drop", type=FILE, help="File of ids to leave out, such as takedowns."),
    "always_keep": _curation("--always-keep", type=FILE, help="File of ids to keep whatever the rule decides."),
    "exclude_near": _curation(
        "--exclude-near",
        metavar="EVAL",
        type=PATH_TEXT,
        help="Images, embeddings or a run. Rows that are too similar to any of them are left out.",
    ),
    "exclude_near_eps": _curation(
        "--exclude-near-eps",
        type=float,
        help="Too similar means a cosine similarity above 1 - this.  [default: eps]",
    ),
    # Result
    "leftover": _result(
        "--leftover",
        type=int,
        help="Kept samples to look up among all kept, to count duplicates that are left; 0: none.  [default: 1000]",
    ),
    "report": _result(
        "--report/--no-report",
        default=None,
        help="Make a page that shows what was kept and removed: RUN/report/index.html.  [default: report]",
    ),
    "images": _result(
        "--images/--no-images", default=None, help="Show pictures of samples on the page.  [default: images]"
    ),
    # Encoder
    "model": _encoder(
        "--model",
        type=MODEL_NAME,
        help="open_clip model, hf-hub:NAME or local-dir:FOLDER.  [default: the small built-in model]",
    ),
    "pretrained": _encoder("--pretrained", type=MODEL_NAME, help="open_clip tag, or a file of weights."),
    "batch_size": _encoder("--batch-size", type=int, help="Images in one forward pass.  [default: 32]"),
    "device": _encoder("--device", type=click.Choice(("auto", "cpu", "cuda")), help="Where the encoder runs."),
    "dtype": _encoder(
        "--dtype",
        type=click.Choice(("auto", "float32", "float16", "bfloat16")),
        help="Number format of the encoder; auto takes a faster one, if it is at least 1.5 times as fast.",
    ),
    "threads": _encoder("--threads", type=int, help="CPU threads of the encoder and of k-means.  [default: 1]"),
    "decoders": _encoder(
        "--decoders",
        type=NumberOrAuto(int),
        help="Threads of each worker that decode pictures ahead of the model, or auto.",
    ),
    # Clustering
    "clusters": _clustering("--clusters", type=NumberOrAuto(int), help="Number of clusters, or auto."),
    "seed": _clustering("--seed", type=int, help="Seed of the clustering and of the random rules.  [default: 0]"),
    # Machine and messages
    "scheduler": _machine(
        "--scheduler", help="Address of a Dask scheduler.  [default: a cluster on this machine, none if small]"
    ),
    "workers": _machine("--workers", type=int, help="Processes of the local cluster.  [default: one per core]"),
    "memory_limit": _machine(
        "--memory-limit",
        help="Memory of each process of the local cluster, such as 4GiB.  [default: auto, an equal share]",
    ),
    "config": _machine(
        "--config",
        "config_file",
        type=FILE,
        help="YAML file with these options as keys. Flags override it.  [default: ./fairdedup.yaml, if it exists]",
    ),
    "log_json": _machine("--log-json", is_flag=True, help="Write progress, result and error to stderr as JSON lines."),
    "quiet": _machine("--quiet", is_flag=True, help="Print no progress and no summary."),
}

AMOUNT = ("keep", "at_most", "eps")
CURATION = ("prefer", "within", "where", "drop", "always_keep", "exclude_near", "exclude_near_eps")
DECISION = (
    "rule",
    "cover",
    "reach",
    "reach_clusters",
    "published",
    "prototypes",
    "start",
    "calibrate",
    "target",
    "temperature",
    "reserve",
    *CURATION,
)
EMBEDDING = (
    *("model", "pretrained", "id", "column", "batch_size", "device", "dtype", "threads"),
    *("decoders", "skip_damaged", "max_rejected"),
)
PAGE = ("report", "images")
CLUSTERING = ("clusters", "seed", "against")
MESSAGES = ("config", "log_json", "quiet")
MACHINE = ("scheduler", "workers", "memory_limit", *MESSAGES)


def options(*names: str) -> Decorator:
    """Return a decorator that adds the options with these names to a command, in this order."""

    def add(command: Any) -> Any:
        for name in reversed(names):
            command = OPTIONS[name](command)
        return command

    return add


INPUT = click.argument("input", metavar="[INPUT]", required=False, type=PATH_TEXT)
RUN = click.argument("out", metavar="[RUN]", required=False, type=PLACE)
LABELS = option(
    "--labels",
    type=FILE,
    metavar="FILE",
    help="CSV or Parquet: a column id, and one for each attribute.  [default: soft membership]",
)
RESTART = option("--restart", is_flag=True, help="Clear the run directory first.")

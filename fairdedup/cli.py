"""The command line: parse, call, print. Whatever goes wrong is one line: what, where, the mend.

Nothing heavy is imported before a command needs it, so that --help answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from fairdedup.core.rules.registry import DEFAULT, rule_names
from fairdedup.errors import NO_TEXT, FairdedupError, UserError, flags_for_parameters, is_text, visible
from fairdedup.storage.object_stores import as_path, check_local, check_url
from fairdedup.streams import steady

EXIT_USER, EXIT_OTHER = 2, 1


class _Examples(click.Command):
    """A command whose help ends with examples as they are to be typed."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text("Examples:")
        with formatter.indentation():
            for line in self.examples.strip().splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


def _options(*names: str) -> Callable[[Any], Any]:
    """Add the options of these names, in order."""

    def add(command: Any) -> Any:
        for name in reversed(names):
            command = _OPTIONS[name](command)
        return command

    return add


class _Place(click.Path):
    """A path, or a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if value == "":
            raise UserError(f"{_option(param, ctx)} is empty: give a name, or leave it out")
        return as_path(value)


class _LocalFile(_Place):
    """A local path, and never a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        place = super().convert(value, param, ctx)
        check_local(place, _option(param, ctx))
        return place


class _RuleName(click.ParamType):
    """The name of a registered rule, rules that were registered after this module was loaded included."""

    name = "rule"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the names of the rules, as the help shows them."""
        return f"[{'|'.join(rule_names())}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse a name that is not registered."""
        return click.Choice(rule_names()).convert(value, param, ctx)


def _option(param: click.Parameter | None, ctx: click.Context | None) -> str:
    return param.get_error_hint(ctx).strip("'") if param and ctx else "this option"


_PLACE, _FILE = _Place(), _LocalFile()
_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "out": click.option(
        "--out", type=_PLACE, help="Run directory: a folder or s3://BUCKET/RUN.  [default: ./fairdedup-run]"
    ),
    "config": click.option(
        "--config",
        "config_file",
        type=_FILE,
        help="YAML with these options as keys; a flag beats it.  [default: ./fairdedup.yaml, if any]",
    ),
    "keep": click.option("--keep", type=float, help="Keep exactly this fraction of the valid rows."),
    "at_most": click.option("--at-most", type=float, help="Keep at most this fraction: nothing is re-admitted."),
    "eps": click.option("--eps", type=float, help="Remove duplicates: cosine above 1 - eps."),
    "rule": click.option(
        "--rule", type=_RuleName(), help=f"Which member of a neighbourhood is kept.  [default: {DEFAULT}]"
    ),
    "cover": click.option("--cover/--no-cover", default=None, help="A kept sample removes only its own duplicates."),
    "prototypes": click.option(
        "--prototypes",
        type=_FILE,
        help="Concepts: captions (.yaml) or vectors (.parquet, .npz, .npy).  [default: people]",
    ),
    "start": click.option(
        "--start", type=click.Choice(("cluster", "zero")), help="fairdedup: where concept sums start."
    ),
    "calibrate": click.option(
        "--calibrate", type=click.Choice(("none", "zscore")), help="fairdedup: standardise similarities first."
    ),
    "target": click.option(
        "--target", type=click.Choice(("uniform", "data")), help="balanced: shares to aim at; others in the YAML."
    ),
    "temperature": click.option("--temperature", help="balanced: of the membership softmax; a number or auto."),
    "reserve": click.option(
        "--reserve", type=float, help="balanced: share of the kept count held for rare rows, 0 to 0.3."
    ),
    "prefer": click.option(
        "--prefer", metavar="COLUMN", help="Keep the highest of this metadata column; implies --rule prefer."
    ),
    "where": click.option(
        "--where", metavar="EXPR", help="Decide only rows for which this SQL condition on metadata columns is true."
    ),
    "drop": click.option(
        "--drop",
        type=_FILE,
        help="File of IDs that take no part: takedowns.",
    ),
    "always_keep": click.option("--always-keep", type=_FILE, help="File of IDs that are kept whatever the rule."),
    "exclude_near": click.option(
        "--exclude-near",
        metavar="EVAL",
        help="Images, embeddings or a run: rows too near to any of them are left out.",
    ),
    "exclude_near_eps": click.option(
        "--exclude-near-eps", type=float, help="Too near: cosine above 1 - this.  [default: eps]"
    ),
    "against": click.option(
        "--against",
        multiple=True,
        type=_PLACE,
        help="Finished run: what it kept stays, and new rows are decided beside it.",
    ),
    "model": click.option(
        "--model", help="open_clip model, hf-hub:NAME or local-dir:FOLDER.  [default: the built-in small one]"
    ),
    "pretrained": click.option("--pretrained", help="open_clip tag, or a file of weights."),
    "id": click.option("--id", type=click.Choice(("key", "shard/key")), help="What an ID is made of."),
    "column": click.option("--column", help="Parquet: of images, paths or vectors, where several may be meant."),
    "batch_size": click.option("--batch-size", type=int, help="Images in one forward pass.  [default: 32]"),
    "device": click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), help="Where the encoder runs."),
    "dtype": click.option("--dtype", type=click.Choice(("float32", "float16", "bfloat16")), help="Of the encoder."),
    "threads": click.option("--threads", type=int, help="CPU threads of the encoder and of k-means.  [default: 1]"),
    "max_rejected": click.option(
        "--max-rejected", type=float, help="Stop past this share of rejected rows.  [default: 0.05]"
    ),
    "clusters": click.option("--clusters", help="Number of clusters, or auto."),
    "seed": click.option("--seed", type=int, help="Of the clustering and the random rules.  [default: 0]"),
    "scheduler": click.option("--scheduler", help="Address of a Dask scheduler; else a local cluster."),
    "workers": click.option("--workers", type=int, help="Processes of the local cluster.  [default: one a core]"),
    "memory_limit": click.option(
        "--memory-limit", help="Of each process of the local cluster, as 4GiB.  [default: auto, an equal share]"
    ),
    "log_json": click.option("--log-json", is_flag=True, help="Progress, result and error as JSON lines on stderr."),
    "quiet": click.option("--quiet", is_flag=True, help="No progress and no summary."),
}

_AMOUNT = ("keep", "at_most", "eps")
_CURATE = ("prefer", "where", "drop", "always_keep", "exclude_near", "exclude_near_eps")
_PRUNE = ("rule", "cover", "prototypes", "start", "calibrate", "target", "temperature", "reserve", *_CURATE)
_EMBED = ("model", "pretrained", "id", "column", "batch_size", "device", "dtype", "threads", "max_rejected")
_CLUSTER = ("clusters", "seed", "against")
_DASK = ("scheduler", "workers", "memory_limit", "config", "log_json", "quiet")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="fairdedup")
def cli() -> None:
    """Remove semantic duplicates from image-text data without dropping the people who were rare to begin with.

    `fairdedup run --keep 0.5` tries it on a sample that it draws; `fairdedup run FOLDER --keep 0.5` is the real thing.
    """


@cli.command(cls=_Examples, examples="""
    fairdedup run --keep 0.5
    fairdedup run photos/ --keep 0.5 --rule balanced --out my-run
    fairdedup run 'data-{00000..00014}.tar' --keep 0.5 --model ViT-B-16 --pretrained openai
    fairdedup run embeddings/ --keep 0.5 --rule semdedup --cover
    fairdedup run new-photos/ --against my-run --out day-2
""")  # fmt: skip
@click.argument("input_", metavar="[INPUT]", required=False)
@_options(*_AMOUNT, "out", *_PRUNE, *_EMBED, *_CLUSTER, *_DASK)
@click.option("--restart", is_flag=True, help="Clear the run directory first.")
def run(input_: str | None, restart: bool, quiet: bool, log_json: bool, config_file: Path | None, **flags: Any) -> None:
    """From images, tar shards, Parquet files or embeddings to kept IDs.

    INPUT is a folder of images, WebDataset tars or Parquet files (braces and globs too) of images, paths or
    embeddings, img2dataset's output, a folder in clip-retrieval's layout, or one .npy; without it, the built-in sample.
    """
    config = _config(config_file, {"input": input_, **flags})
    from fairdedup import pipeline

    with _progress(quiet, log_json) as progress, pipeline.at_work(config, progress) as workers:
        manifest = pipeline.run(config, workers, restart)
    _summary(manifest, config.out, quiet, log_json)


@cli.command(cls=_Examples, examples="fairdedup refit day-30 --keep 0.5 --out new-line")
@click.argument("runs", metavar="RUN...", required=True, nargs=-1, type=_PLACE)
@_options(*_AMOUNT, "out", *_PRUNE, "model", "pretrained", "id", "max_rejected", "threads", "clusters", "seed", *_DASK)
@click.option("--restart", is_flag=True, help="Clear the run directory first.")
def refit(
    runs: tuple[Path, ...], restart: bool, quiet: bool, log_json: bool, config_file: Path | None, **flags: Any
) -> None:
    """Cluster and decide anew all samples of RUN and of the runs before it, with no re-embedding.

    The result begins a new line: later runs go --against it. Rule, prototypes and model are RUN's unless given.
    """
    config = _config(config_file, flags)
    from fairdedup import pipeline

    with _progress(quiet, log_json) as progress, pipeline.at_work(config, progress) as workers:
        manifest = pipeline.refit(config, list(runs), workers, restart)
    _summary(manifest, config.out, quiet, log_json)


@cli.command(cls=_Examples, examples="fairdedup embed photos/ --out my-run --model ViT-B-16 --pretrained openai")
@click.argument("input_", metavar="[INPUT]", required=False)
@_options("out", *_EMBED, "against", *_DASK)
def embed(input_: str | None, quiet: bool, log_json: bool, config_file: Path | None, **flags: Any) -> None:
    """First stage: images to embeddings, or ready embeddings taken in."""
    config = _config(config_file, {"input": input_, **flags})
    from fairdedup import pipeline
    from fairdedup.storage.layout import RunDirectory

    with _progress(quiet, log_json) as progress, pipeline.at_work(config, progress) as workers:
        config, dataset = pipeline.open_for_embedding(config, progress)
        pipeline.embed_stage(config, RunDirectory(config.out.absolute()), dataset, workers)
    progress.log("finished", run=str(config.out))
    _say(quiet or log_json, visible(f"embeddings: {config.out / 'embeddings'}"))


@cli.command(cls=_Examples, examples="fairdedup cluster my-run --clusters 100")
@click.argument("run_", metavar="[RUN]", required=False, type=_PLACE)
@_options(*_CLUSTER, "threads", *_DASK)
def cluster(run_: Path | None, quiet: bool, log_json: bool, config_file: Path | None, **flags: Any) -> None:
    """Second stage: cluster the embeddings of RUN (./fairdedup-run)."""
    config = _config(config_file, {"out": run_, **flags})
    from fairdedup import pipeline
    from fairdedup.storage.layout import RunDirectory

    with _progress(quiet, log_json) as progress, pipeline.at_work(config, progress) as workers:
        pipeline.cluster_stage(config, RunDirectory(config.out.absolute()), workers)
    progress.log("finished", run=str(config.out))
    _say(quiet or log_json, visible(f"clusters: {config.out / 'clusters'}"))


@cli.command(cls=_Examples, examples="""
    fairdedup prune my-run --keep 0.5
    fairdedup prune my-run --keep 0.3 --rule balanced --cover
    fairdedup prune my-run --keep 0.3 --where "path NOT LIKE 'drafts/%'"
""")  # fmt: skip
@click.argument("run_", metavar="[RUN]", required=False, type=_PLACE)
@_options(*_AMOUNT, *_PRUNE, "seed", "model", "pretrained", *_DASK)
def prune(run_: Path | None, quiet: bool, log_json: bool, config_file: Path | None, **flags: Any) -> None:
    """Third stage: decide who of RUN (./fairdedup-run) is kept, or decide again, with no re-embedding."""
    config = _config(config_file, {"out": run_, **flags})
    from fairdedup import pipeline
    from fairdedup.storage.layout import RunDirectory

    with _progress(quiet, log_json) as progress, pipeline.at_work(config, progress) as workers:
        manifest = pipeline.prune_stage(config, RunDirectory(config.out.absolute()), workers)
    _summary(manifest, config.out, quiet, log_json)


@cli.command(cls=_Examples, examples="fairdedup replace my-run --gone vanished.txt")
@click.argument("run_", metavar="[RUN]", required=False, type=_PLACE)
@click.option("--gone", required=True, type=_FILE, help="File of IDs (.txt, .csv, .parquet).")
@_options(*_DASK)
def replace(run_: Path | None, gone: Path, quiet: bool, log_json: bool, config_file: Path | None, **flags: Any) -> None:
    """Take samples that have vanished out of the finished RUN (./fairdedup-run), and promote who takes their place.

    Where a kept sample has gone, the most similar of those that had been removed for it is kept instead.
    """
    config = _config(config_file, {"out": run_, **flags})
    from fairdedup import pipeline

    with _progress(quiet, log_json) as progress, pipeline.at_work(config, progress) as workers:
        manifest = pipeline.replace_stage(config, gone, workers)
    _summary(manifest, config.out, quiet, log_json)


@cli.command(cls=_Examples, examples="fairdedup sweep my-run --keep 0.3,0.5,0.8")
@click.argument("run_", metavar="[RUN]", required=False, type=_PLACE)
@click.option("--keep", "fractions", required=True, help="Fractions, with commas between them.")
@_options(*_PRUNE, "seed", "model", "pretrained", *_DASK)
def sweep(
    run_: Path | None, fractions: str, quiet: bool, log_json: bool, config_file: Path | None, **flags: Any
) -> None:
    """Kept counts and eps of RUN (./fairdedup-run) at several fractions, with no re-embedding; writes nothing."""
    config = _config(config_file, {"out": run_, **flags})
    try:
        values = [float(text) for text in fractions.split(",")]
    except ValueError:
        raise UserError(f"--keep {fractions!r} is no list of fractions: write 0.3,0.5,0.8") from None
    from fairdedup import pipeline
    from fairdedup.summary import print_sweep

    with _progress(quiet, log_json) as progress, pipeline.at_work(config, progress) as workers:
        lines = pipeline.sweep_run(config, values, workers)
    if progress.log_json:
        progress.log("finished", run=str(config.out), sweep=lines)
    else:  # --quiet too: the table is all that a sweep is for
        print_sweep(lines, _console())


@cli.command(cls=_Examples, examples="""
    fairdedup audit my-run --labels labels.csv
    fairdedup audit my-run --labels labels.csv --attributes gender,age --intersections gender,age
    fairdedup audit my-run --suggest-labels 500
""")  # fmt: skip
@click.argument("run_", metavar="[RUN]", required=False, type=_PLACE)
@click.option("--labels", type=_FILE, metavar="FILE",
              help="CSV or Parquet: a column id, and one for each attribute.  [default: soft membership]")  # fmt: skip
@click.option("--attributes", metavar="A,B", help="Which attributes.  [default: all]")
@click.option("--intersections", metavar="A,B", multiple=True,
              help="Which to cross, once for each intersection; none for none.  [default: all pairs]")  # fmt: skip
@click.option("--min-count", type=click.IntRange(1), default=30, show_default=True,
              help="A group with fewer samples is insufficient.")  # fmt: skip
@click.option("--target", "aim", type=click.Choice(("uniform", "data")),
              help="Shares to measure the distance to.  [default: that of `balanced`, else uniform]")  # fmt: skip
@click.option("--top", type=click.IntRange(0), default=5, show_default=True,
              help="How many of the costliest clusters and neighbourhoods to name.")  # fmt: skip
@click.option("--suggest-labels", type=click.IntRange(1), metavar="N",
              help="Write the N samples whose labels would say most, as CSV.")  # fmt: skip
@click.option("--out", "csv_out", type=_FILE, metavar="FILE",
              help="Of --suggest-labels.  [default: RUN/report/suggested-labels.csv]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print report/audit.json in place of tables.")
@click.option("--seed", type=int, help="Of the resampling.  [default: 0]")
@_options("prototypes", "model", "pretrained", *_DASK)
def audit(
    run_: Path | None, labels: Path | None, attributes: str | None, intersections: tuple[str, ...], min_count: int,
    aim: str | None, top: int, suggest_labels: int | None, csv_out: Path | None, as_json: bool,
    quiet: bool, log_json: bool, config_file: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Who of RUN (./fairdedup-run) was kept and who was lost, by group, with intervals, and where.

    By the labels of FILE, else by soft membership. Writes report/audit.json and report/audit.parquet into RUN.
    """
    config = _config(config_file, {"out": run_, **flags})
    from fairdedup import pipeline
    from fairdedup.audit import Asked

    crossed = None
    if intersections:
        crossed = tuple(tuple(_names(text, "--intersections")) for text in intersections if text != "none")
    named = None if attributes is None else tuple(_names(attributes, "--attributes"))
    asked = Asked(labels, named, crossed, min_count, aim, top, suggest_labels or 0, csv_out, config.seed)
    with _progress(quiet, log_json) as progress, pipeline.at_work(config, progress) as workers:
        found = pipeline.audit_run(config, asked, workers)
    report = config.out / "report" / "audit.json"
    told = {name: found[name] for name in ("source", "counts", "notes")}
    progress.log("finished", run=str(config.out), report=str(report), **told)
    if as_json:
        click.echo(report.read_text(encoding="utf-8"), nl=False)
    elif not (quiet or log_json):
        from fairdedup.summary import print_audit

        print_audit(found, config.out, _console())


@cli.command(cls=_Examples, examples="fairdedup gate my-run --max-rejected 0.05 --max-drift 0.25 --min-retention 0.5")
@click.argument("run_", metavar="[RUN]", required=False, type=_PLACE)
@click.option("--max-rejected", type=float, help="Largest share of the input that could not be used.")
@click.option("--max-drift", type=float, help="Largest psi beyond chance, of a run made --against others.")
@click.option("--min-retention", type=float,
              help="Smallest keep rate of a group of the audit, as a share of its attribute's largest.")  # fmt: skip
@_options("config", "log_json", "quiet")
def gate(run_: Path | None, quiet: bool, log_json: bool, config_file: Path | None, **bounds: float | None) -> None:
    """Whether RUN (./fairdedup-run) may be handed on: exit code 1 and one line where it passes a bound.

    For whatever schedules runs. A retention is read from what `fairdedup audit RUN` has written.
    """
    root = _config(config_file, {"out": run_}).out  # its max_rejected is where a run stops, and no bound of a gate
    from fairdedup.gate import Bounds, check_run

    checks = check_run(root, Bounds(**bounds))
    failed = [check.text for check in checks if not check.passed]
    if failed:
        raise FairdedupError(f"the gate is closed for {root}: {'; '.join(failed)}")
    _progress(quiet, log_json).log("finished", run=str(root), checks=[check.text for check in checks])
    for check in checks:
        _say(quiet or log_json, visible(check.text))


@cli.command(cls=_Examples, examples="""
    fairdedup calibrate my-run --labels labels.csv --out calibrated.parquet
""")  # fmt: skip
@click.argument("run_", metavar="[RUN]", required=False, type=_PLACE)
@click.option("--labels", required=True, type=_FILE, metavar="FILE",
              help="CSV or Parquet: a column id, and one for each attribute; some hundred samples.")  # fmt: skip
@click.option("--out", "file", type=_FILE, metavar="FILE", default="calibrated.parquet",
              show_default=True, help="Prototypes to write, for prune --prototypes.")  # fmt: skip
@_options("prototypes", "model", "pretrained", *_DASK)
def calibrate(
    run_: Path | None, labels: Path, file: Path, quiet: bool, log_json: bool, config_file: Path | None, **flags: Any
) -> None:
    """Fit the prototypes of RUN (./fairdedup-run) to a few hundred labels, so that memberships are probabilities.

    Decide by them with `fairdedup prune RUN --keep 0.5 --rule balanced --cover --reserve 0.2 --prototypes FILE`.
    """
    config = _config(config_file, {"out": run_, **flags})
    if file.suffix != ".parquet":
        raise UserError(f"--out {str(file)!r}: prototypes with a temperature are Parquet; name it .parquet")
    from fairdedup import pipeline

    with _progress(quiet, log_json) as progress, pipeline.at_work(config, progress) as workers:
        told = pipeline.calibrate_run(config, labels, file, workers)
    if log_json:
        progress.log("finished", run=str(config.out), prototypes=str(file), attributes=told)
    for line in told:
        _say(quiet or log_json, visible(
            f"{line['attribute']}: {line['labels']:,} labels, temperature {line['temperature']:g}; cross entropy of "
            f"labels not seen {line['after']:.3f}, {line['before']:.3f} before, {line['by chance']:.3f} by chance"
        ))  # fmt: skip
    _say(quiet or log_json, visible(f"prototypes: {file}"))


@cli.command(cls=_Examples, examples="""
    fairdedup export my-run --to webdataset --dest kept/
    fairdedup export my-run --to txt --what removed --dest removed.txt
    fairdedup export my-run --to uids --dest kept.npy
""")  # fmt: skip
@click.argument("run_", metavar="[RUN]", required=False, type=_PLACE)
@click.option(
    "--to", "form", required=True, type=click.Choice(("webdataset", "uids", "txt")),
    help="Tar shards of the samples, DataComp's array of uids (.npy), or a line an ID.",
)  # fmt: skip
@click.option("--what", type=click.Choice(("kept", "removed")), default="kept", show_default=True)
@click.option("--dest", help="Local folder, or file, to write.  [default: beside RUN, as RUN-kept.txt]")
@click.option("--shard-size", type=click.IntRange(1), help="webdataset: samples in a shard.  [default: 10000]")
@click.option("--shard-bytes", metavar="SIZE", help="webdataset: largest shard instead, such as 1GB.")
@click.option("--input", "source", help="webdataset: where the input of RUN is now, if it has moved.")
@_options(*_DASK)
def export(
    run_: Path | None, form: Any, what: Any, dest: str | None, shard_size: int | None, shard_bytes: str | None,
    source: str | None, quiet: bool, log_json: bool, config_file: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Hand the finished RUN (./fairdedup-run) over: its samples as WebDataset shards, or their IDs as a file.

    The files of a sample are copied out of the input byte for byte.
    """
    config = _config(config_file, {"out": run_, **flags})
    from fairdedup import pipeline
    from fairdedup.handover import SHARD_SAMPLES, Wanted, hand_over

    if shard_size is not None and shard_bytes is not None:
        raise UserError("--shard-size and --shard-bytes exclude each other: give one of them")
    for flag, value in (("--shard-size", shard_size), ("--shard-bytes", shard_bytes), ("--input", source)):
        if form != "webdataset" and value is not None:
            raise UserError(f"{flag} is for --to webdataset, not for --to {form}: leave it out")
    most = None if shard_bytes is None else _bytes(shard_bytes, "--shard-bytes")
    wanted = Wanted(config.out, form, what, dest, shard_size or SHARD_SAMPLES, most, source)
    with _progress(quiet, log_json) as progress, pipeline.at_work(config, progress, alone=False) as workers:
        told = hand_over(wanted, workers)
    if log_json:
        progress.log("finished", run=str(config.out), **told)
    shards = f", {told['shards']:,} tar, {told['bytes'] / 1e6:,.1f} MB" if "shards" in told else ""
    _say(quiet or log_json, visible(f"{what} samples: {told['samples']:,}{shards}, in {told['path']}"))


@cli.command(cls=_Examples, examples="fairdedup sample faces/ && fairdedup run faces/ --keep 0.5")
@click.argument("folder", metavar="DIR", type=_FILE)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--rows", type=click.IntRange(200), default=2400, show_default=True, help="About how many pictures.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def sample(folder: Path, seed: int, rows: int, quiet: bool) -> None:
    """Draw the sample data set into DIR: people at work, with planted duplicates, as WebDataset shards."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"DIR {str(folder)!r} is not empty: choose a new folder")
    from fairdedup.sample import write_sample

    try:
        drawn = write_sample(folder, seed=seed, n=rows)
    except OSError as error:
        raise UserError(f"DIR {str(folder)!r} cannot be written ({error.strerror}): choose another folder") from None
    _say(quiet, visible(f"{drawn.pictures:,} pictures, {drawn.copies:,} of them copies, in {drawn.directory}"))


def _bytes(text: str, option: str) -> int:
    from dask.utils import parse_bytes

    from fairdedup.config import amount_of_memory

    try:
        size = int(parse_bytes(amount_of_memory(text)))
    except ValueError:
        size = 0
    if not size:
        raise UserError(f"{option} {text!r} is no amount of bytes: give one such as 1GB or 512MiB")
    return size


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(f"{option} {text!r} is no list of names: write them with commas between, as gender,age")
    return names


def _config(file: Path | None, flags: dict[str, Any]) -> Any:
    from fairdedup.config import load_config

    flags["against"] = flags.get("against") or None  # click gives an empty tuple where it is not given
    for name in ("clusters", "temperature"):
        text = flags.get(name)
        if text is not None and text != "auto":
            try:
                flags[name] = int(text) if name == "clusters" else float(text)
            except ValueError:
                raise UserError(f"--{name} {text!r} is no number: give one, or auto") from None
    return load_config(file, flags)


def _console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 110, highlight=False)


def _progress(quiet: bool, log_json: bool) -> Any:
    from fairdedup.progress import StageProgress

    return StageProgress(quiet, log_json)


def _summary(manifest: dict[str, Any], out: Path, quiet: bool, log_json: bool) -> None:
    if log_json:
        told = {name: manifest[name] for name in ("counts", "eps", "guarantees", "warnings", "shares")}
        _progress(quiet, log_json).log("finished", run=str(out), **told)
    elif not quiet:
        from fairdedup.summary import print_summary

        print_summary(manifest, out, _console())


def _say(quiet: bool, line: str) -> None:
    if not quiet:
        click.echo(line)


def main() -> None:
    """Run the command line and leave with its exit code; a reader of stdout who has left early wanted no more."""
    printed = steady()
    code = call(sys.argv[1:])
    sys.stdout.flush()
    if not code and printed.failure and not isinstance(printed.failure, BrokenPipeError):
        message = (
            f"the work is done, but what was to be printed cannot be written (stdout: {printed.failure.strerror}): "
            "send it elsewhere, or leave it out by --quiet"
        )
        code = _fail(message, EXIT_OTHER, as_json="--log-json" in sys.argv)
    sys.exit(code)


def call(arguments: list[str], command: click.Command = cli, name: str = "fairdedup") -> int:
    """Run the command line with these arguments and return the exit code: 0, 2 (the user's mistake) or 1."""
    fail = partial(_fail, as_json="--log-json" in arguments)
    try:
        for argument in arguments:  # before anything may repeat it
            check_url(argument)
            if not is_text(argument):
                raise UserError(f"the argument {argument!r} {NO_TEXT}")
        # Without standalone mode a command returns what --help and --version exit with.
        return int(command.main(arguments or ["--help"], prog_name=name, standalone_mode=False) or 0)
    except UserError as error:
        return fail(flags_for_parameters(str(error), _OPTIONS), EXIT_USER)
    except click.UsageError as error:
        return fail(f"{error.format_message().rstrip('.')}; see {_help_of(error)}", EXIT_USER)
    except FairdedupError as error:
        return fail(flags_for_parameters(str(error), _OPTIONS), EXIT_OTHER)
    except (KeyboardInterrupt, click.Abort) as error:
        if isinstance(error.__cause__, EOFError):  # click takes the end of any file for the user's wish
            return _unexpected(error.__cause__, fail)
        return fail("stopped; the same command goes on after the last finished shard", EXIT_OTHER)
    except Exception as error:
        return _unexpected(error, fail)


def _unexpected(error: Exception, fail: Callable[[str, int], int]) -> int:
    if os.environ.get("FAIRDEDUP_DEBUG"):
        raise error
    first = (str(error).strip() or "no message").splitlines()[0]
    return fail(f"{type(error).__name__}: {first} (FAIRDEDUP_DEBUG=1 shows where)", EXIT_OTHER)


def _help_of(error: click.UsageError) -> str:
    return f"{error.ctx.command_path if error.ctx else 'fairdedup'} --help"


def _fail(message: str, code: int, as_json: bool = False) -> int:
    """Print the error as one line and return the exit code."""
    if as_json:
        _progress(quiet=False, log_json=True).log("error", text=visible(message), code=code)
    else:
        click.echo(f"fairdedup: error: {visible(message)}", err=True)
    return code


if __name__ == "__main__":
    main()

"""The commands that use a finished run, and the command that draws sample data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from fairdedup.cli.help_format import ExampleCommand
from fairdedup.cli.options import LABELS, MACHINE, MESSAGES, RUN, option, options
from fairdedup.cli.session import Session
from fairdedup.cli.value_types import FILE, PATH_TEXT, Bytes, Names
from fairdedup.errors import FairdedupError, UserError, format_count, visible


@click.command(
    cls=ExampleCommand,
    examples=[
        "fairdedup audit my-run --labels labels.csv",
        "fairdedup audit my-run --labels labels.csv --attributes gender,age --intersections gender,age",
        "fairdedup audit my-run --suggest-labels 500",
    ],
)
@RUN
@LABELS
@option("--attributes", type=Names(), metavar="A,B", help="Attributes to audit.  [default: all]")
@option(
    "--intersections",
    type=Names(none_allowed=True),
    metavar="A,B",
    multiple=True,
    help="Attributes to cross, once for each intersection, or none.  [default: all pairs]",
)
@option(
    "--min-count",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Fewest samples of a group that has figures; a smaller one is called insufficient.",
)
@option(
    "--target",
    "aim",
    type=click.Choice(("uniform", "data")),
    help="Shares to measure the distance to.  [default: that of `balanced`, else uniform]",
)
@option(
    "--top",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="How many of the costliest clusters and neighbourhoods to list.",
)
@option(
    "--suggest-labels",
    type=click.IntRange(1),
    metavar="N",
    help="Write the N samples whose labels would be most informative, as CSV.",
)
@option(
    "--out",
    "suggestions",
    type=FILE,
    metavar="FILE",
    help="File for --suggest-labels.  [default: RUN/report/suggested-labels.csv]",
)
@option("--json", "as_json", is_flag=True, help="Print report/audit.json instead of tables.")
@option("--seed", type=int, help="Seed of the resampling.  [default: 0]")
@options("prototypes", "model", "pretrained", *MACHINE)
def audit(
    labels: Path | None,
    attributes: tuple[str, ...] | None,
    intersections: tuple[tuple[str, ...], ...],
    min_count: int,
    aim: str | None,
    top: int,
    suggest_labels: int | None,
    suggestions: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Report which groups of RUN were kept or lost, and where.

    RUN is a finished run, by default ./fairdedup-run. Groups come from the labels in FILE, or from soft membership
    without --labels. Writes report/audit.json and report/audit.parquet into RUN.
    """
    session = Session.open(flags)
    from fairdedup.audit.audit_options import AuditOptions
    from fairdedup.commands.audit import audit_run

    audit_options = AuditOptions(
        labels=labels,
        attributes=attributes,
        intersections=tuple(filter(None, intersections)) if intersections else None,
        min_count=min_count,
        target=aim,
        top=top,
        suggest=suggest_labels or 0,
        suggestions=suggestions,
        seed=session.config.seed,
    )
    with session.workers() as workers:
        found = audit_run(session.config, audit_options, workers)
    report = session.config.out / "report" / "audit.json"
    session.finish(report=str(report), source=found.source, counts=found.counts, notes=found.notes)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    elif session.prints:
        from fairdedup.cli.audit_summary import print_audit

        print_audit(found, session.config.out, session.console)


@click.command(cls=ExampleCommand, examples=["fairdedup report my-run", "fairdedup report my-run --no-images"])
@RUN
@option("--input", "source", type=PATH_TEXT, help="Where the input of RUN is now, if it has moved.")
@options("images", *MACHINE)
def report(source: str | None, **flags: Any) -> None:
    """Make a page that shows what RUN kept and removed.

    RUN is a finished run, by default ./fairdedup-run. The page is one file that loads nothing: RUN/report/index.html.
    """
    session = Session.open(flags)
    from fairdedup.commands.report import write_page

    with session.workers() as workers:
        page = write_page(session.config, workers, source=source)
    session.finish(f"See it: {page}", page=str(page))


@click.command(
    cls=ExampleCommand,
    examples=["fairdedup gate my-run --max-rejected 0.05 --max-drift 0.25 --min-retention 0.5"],
)
@RUN
@option("--max-rejected", type=float, help="Largest share of the input that was rejected.")
@option("--max-drift", type=float, help="Largest psi beyond chance, for a run made --against others.")
@option(
    "--min-retention",
    type=float,
    help="Smallest keep rate of an audited group, as a share of the largest in its attribute.",
)
@options(*MESSAGES)
def gate(max_rejected: float | None, max_drift: float | None, min_retention: float | None, **flags: Any) -> None:
    """Check RUN against bounds, for schedulers.

    RUN is a finished run, by default ./fairdedup-run. If it exceeds a bound, the exit code is 1 and the error says why.
    Retention is read from the report of `fairdedup audit RUN`.
    """
    session = Session.open(flags)  # without --max-rejected: in `RunConfig` that stops a run, here it is a bound
    from fairdedup.commands.gate import Bounds, check_run

    run = session.config.out
    checks = check_run(run, Bounds(max_rejected=max_rejected, max_drift=max_drift, min_retention=min_retention))
    failed = [check.text for check in checks if not check.passed]
    if failed:
        raise FairdedupError(f"the gate is closed for {run}: {'; '.join(failed)}")
    texts = [check.text for check in checks]
    session.finish(*texts, checks=texts)


@click.command(
    cls=ExampleCommand,
    examples=[
        "fairdedup calibrate my-run --labels labels.csv --correct-shares --out calibrated.parquet",
        "fairdedup calibrate my-run --correct-shares",
    ],
)
@RUN
@option(
    "--labels",
    type=FILE,
    metavar="FILE",
    help="CSV or Parquet: a column id, and one for each attribute, for a few hundred samples.",
)
@option(
    "--correct-shares",
    is_flag=True,
    help="Estimate without labels how common each concept is in RUN, and correct the memberships by it.",
)
@option(
    "--out",
    "file",
    type=FILE,
    metavar="FILE",
    default="calibrated.parquet",
    show_default=True,
    help="Prototypes to write, for prune --prototypes.",
)
@options("prototypes", "model", "pretrained", *MACHINE)
def calibrate(labels: Path | None, correct_shares: bool, file: Path, **flags: Any) -> None:
    """Fit the prototypes of RUN to a few hundred labels, or to the shares of its groups.

    RUN is ./fairdedup-run by default. Memberships by the fitted prototypes are probabilities. Use them with
    `fairdedup prune RUN --keep 0.5 --rule balanced --reserve 0.2 --prototypes FILE`.
    """
    session = Session.open(flags)
    if file.suffix != ".parquet":
        raise UserError(f"--out must end with .parquet, since it stores temperatures too; got {str(file)!r}.")
    from fairdedup.commands.calibrate import calibrate_run

    with session.workers() as workers:
        found = calibrate_run(session.config, labels, file, workers, correct_shares=correct_shares)
    lines = [
        f"{fit.attribute}: {format_count(fit.labels, 'label')}, temperature {fit.temperature:g}; cross entropy on "
        f"held-out labels {fit.after:.3f}, before {fit.before:.3f}, by chance {fit.by_chance:.3f}"
        + ("" if fit.improved else "; that is worse, so its prototypes stay as they were: give more labels, or better")
        for fit in found.fits
    ]
    for attribute, shares in found.shares.items():
        lines.append(f"{attribute}, estimated: {', '.join(f'{name} {share:.1%}' for name, share in shares.items())}")
    values: dict[str, Any] = {"attributes": [fit.to_json() for fit in found.fits]}
    values |= {"shares": found.shares} if correct_shares else {}
    session.finish(*lines, f"prototypes: {file}", prototypes=str(file), **values)


@click.command(
    cls=ExampleCommand,
    examples=[
        "fairdedup export my-run --to webdataset --dest kept/",
        "fairdedup export my-run --to folder --copy --dest kept-files/",
        "fairdedup export my-run --to hf --dest kept-hf/",
        "fairdedup export my-run --to txt --what removed --dest removed.txt",
        "fairdedup export my-run --to uids --dest kept.npy",
        "fairdedup export my-run --to csv --dest kept.csv",
    ],
)
@RUN
@option(
    "--to",
    "form",
    required=True,
    type=click.Choice(("webdataset", "folder", "hf", "uids", "txt", "csv")),
    help="Tar shards of the samples, a tree of links to their files, Parquet with the images for `datasets`, "
    "DataComp's array of uids (.npy), one id per line, or a table of the decisions.",
)
@option("--what", type=click.Choice(("kept", "removed")), default="kept", show_default=True)
@option("--dest", type=PATH_TEXT, help="Local folder or file to write.  [default: next to RUN, such as RUN-kept.txt]")
@option("--copy", is_flag=True, help="folder: copy the files, instead of linking to those of the input.")
@option("--shard-size", type=click.IntRange(1), help="webdataset, hf: samples in a file.  [default: 10000]")
@option("--shard-bytes", type=Bytes(), metavar="SIZE", help="webdataset: largest shard instead, such as 1GB.")
@option("--input", "source", type=PATH_TEXT, help="Where the input of RUN is now, if it has moved.")
@option("--keep-formulas", is_flag=True, help="csv: write cells that begin with =, +, - or @ without an apostrophe.")
@options(*MACHINE)
def export(
    form: Literal["webdataset", "folder", "hf", "uids", "txt", "csv"],
    what: Literal["kept", "removed"],
    dest: str | None,
    copy: bool,
    shard_size: int | None,
    shard_bytes: int | None,
    source: str | None,
    keep_formulas: bool,
    **flags: Any,
) -> None:
    """Export the samples of RUN as shards or files, or their ids as a file.

    RUN is a finished run, by default ./fairdedup-run. The files of a sample are copied from the input byte for byte.
    Nothing is overwritten. A stopped export is resumed by the same command.
    """
    session = Session.open(flags)
    if shard_size is not None and shard_bytes is not None:
        raise UserError("--shard-size and --shard-bytes exclude each other. Give one of them.")
    for flag, value, forms in (
        ("--copy", copy, ("folder",)),
        ("--shard-size", shard_size is not None, ("webdataset", "hf")),
        ("--shard-bytes", shard_bytes is not None, ("webdataset",)),
        ("--input", source is not None, ("webdataset", "folder", "hf")),
        ("--keep-formulas", keep_formulas, ("csv",)),
    ):
        if value and form not in forms:
            known = " or ".join(forms)
            raise UserError(f"{flag} works only with --to {known}, not with --to {form}. Leave it out.")
    from fairdedup.commands.export import export_samples
    from fairdedup.commands.export_options import SHARD_SAMPLES, ExportOptions

    export_options = ExportOptions(
        run=session.config.out,
        form=form,
        what=what,
        dest=dest,
        shard_samples=shard_size or SHARD_SAMPLES,
        shard_bytes=shard_bytes,
        source=source,
        copy=copy,
        keep_formulas=keep_formulas,
    )
    with session.workers(read_only=True) as workers:
        written = export_samples(export_options, workers)
    shards = ""
    if written.shards is not None:
        noun = "tar shard" if form == "webdataset" else "Parquet file"
        shards = f", {format_count(written.shards, noun)}, {(written.bytes or 0) / 1e6:,.1f} MB"
    session.finish(f"{what} samples: {written.samples:,}{shards}, in {written.path}", **written.to_json())


@click.command(cls=ExampleCommand, examples=["fairdedup sample faces/ && fairdedup run faces/ --keep 0.5"])
@click.argument("folder", metavar="DIR", type=FILE)
@option("--seed", type=int, default=0, show_default=True)
@option("--rows", type=click.IntRange(200), default=2400, show_default=True, help="Approximate number of pictures.")
@option("--quiet", is_flag=True, help="Print nothing.")
def sample(folder: Path, seed: int, rows: int, quiet: bool) -> None:
    """Draw the sample data set into DIR.

    It shows people at work, with planted duplicates, as WebDataset shards.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"DIR {str(folder)!r} is not empty. Choose a new folder.")
    from fairdedup.sample import write_sample

    try:
        drawn = write_sample(folder, seed=seed, n=rows)
    except OSError as error:
        raise UserError(f"DIR {str(folder)!r} cannot be written ({error.strerror}). Choose another folder.") from None
    if not quiet:
        click.echo(
            visible(f"{format_count(drawn.pictures, 'picture')}, {drawn.copies:,} of them copies, in {drawn.directory}")
        )

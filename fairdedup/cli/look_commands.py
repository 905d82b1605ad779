"""The commands that look into a finished run and change none of its results: compare, search and explain."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from fairdedup.cli.help_format import ExampleCommand
from fairdedup.cli.options import AMOUNT, LABELS, MACHINE, RUN, option, options
from fairdedup.cli.session import Session
from fairdedup.cli.value_types import FILE, PATH_TEXT, Names
from fairdedup.errors import UserError, visible

MOVED = option("--input", "source", type=PATH_TEXT, help="For --html: where the input of RUN is now, if it has moved.")
PAGE = option("--html", type=FILE, metavar="FILE", help="Also write a page with the pictures.")


@click.command(
    cls=ExampleCommand,
    examples=[
        "fairdedup compare my-run",
        "fairdedup compare my-run --rules semdedup,balanced,random --labels labels.csv",
        "fairdedup compare my-run --keep 0.3 --csv rules.csv --svg rules.svg",
        "fairdedup compare my-run --rules semdedup --differs differs.csv",
    ],
)
@RUN
@option(
    "--rules",
    type=Names(),
    metavar="A,B",
    default="semdedup,fairdedup,balanced",
    show_default=True,
    help="Rules to compare.",
)
@LABELS
@option("--attributes", type=Names(), metavar="A,B", help="Attributes to compare.  [default: all]")
@option(
    "--min-count",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Fewest samples of a group that has figures; a smaller one is called insufficient.",
)
@option("--csv", "table", type=FILE, metavar="FILE", help="Also write the figures as CSV.")
@option("--svg", "drawing", type=FILE, metavar="FILE", help="Also draw the shifts of the groups.")
@option(
    "--differs",
    type=FILE,
    metavar="FILE",
    help="Also write the samples that a rule decides differently from RUN (.csv, .parquet).",
)
@options(*AMOUNT, "prefer", "prototypes", "seed", "model", "pretrained", *MACHINE)
def compare(
    rules: tuple[str, ...],
    labels: Path | None,
    attributes: tuple[str, ...] | None,
    min_count: int,
    table: Path | None,
    drawing: Path | None,
    differs: Path | None,
    **flags: Any,
) -> None:
    """Print what several rules would keep of RUN, and of which groups.

    RUN is a finished run, by default ./fairdedup-run. Each rule decides with the options of RUN, at the same fraction
    or eps unless one is given. No result of RUN changes.
    """
    session = Session.open(flags)
    from fairdedup.commands.compare import CompareOptions, compare_rules
    from fairdedup.commands.named_outputs import check_output, write_output

    check_output(table, "--csv", "rules.csv")
    check_output(drawing, "--svg", "rules.svg")
    check_output(differs, "--differs", "differs.csv", ".parquet")
    wanted = CompareOptions(rules=rules, labels=labels, attributes=attributes, min_count=min_count, differs=differs)
    with session.workers() as workers:
        found = compare_rules(session.config, wanted, workers)
    from fairdedup.cli.look_summary import list_values, print_comparison
    from fairdedup.report.rule_comparison import write_csv
    from fairdedup.report.rule_plots import draw_comparison

    write_output(table, "" if table is None else write_csv(found))
    write_output(drawing, "" if drawing is None else draw_comparison(found))
    session.finish(**list_values(found))
    if session.quiet or not session.log_json:  # the table is all that a comparison is for, so --quiet prints it too
        print_comparison(found, session.console)


@click.command(
    cls=ExampleCommand,
    examples=[
        "fairdedup search my-run --id 0.png --top 5",
        "fairdedup search my-run --image photos/0.png --html found.html",
        'fairdedup search my-run --text "a person on a bicycle"',
    ],
)
@RUN
@option("--image", type=FILE, metavar="FILE", help="Look for samples like this picture.")
@option("--text", metavar="TEXT", help="Look for samples that fit this text.")
@option("--id", "sample", metavar="X", help="Look for samples like the one with this id.")
@option("--top", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many samples to print.")
@PAGE
@MOVED
@options("model", "pretrained", *MACHINE)
def search(
    image: Path | None,
    text: str | None,
    sample: str | None,
    top: int,
    html: Path | None,
    source: str | None,
    **flags: Any,
) -> None:
    """Print the samples of RUN that are most similar to a picture, a text or one of them.

    RUN is a finished run, by default ./fairdedup-run. Cosines are exact, over all its samples, kept or removed.
    """
    session = Session.open(flags)
    if sum(bool(value) for value in (image, text, sample)) != 1:
        raise UserError("Give one of --image FILE, --text TEXT and --id X.")
    from fairdedup.commands.search import Query, search_run

    query = Query(image=image, text=text, sample=sample)
    with session.workers(read_only=True) as workers:
        found = search_run(session.config, query, workers, top=top, html=html, source=source)
    from fairdedup.cli.look_summary import print_found

    session.finish(found=[each.to_json() for each in found], page=None if html is None else str(html))
    if session.quiet or not session.log_json:
        print_found(found, session.console)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """Return values without those that are not numbers, which JSON does not have."""
    return {name: value for name, value in values.items() if value == value}


@click.command(
    cls=ExampleCommand,
    examples=["fairdedup explain my-run --id 0.png", "fairdedup explain my-run --id 0.png --html explained.html"],
)
@RUN
@option("--id", "sample", metavar="X", required=True, help="Id of the sample, as in the column id of decisions/.")
@PAGE
@MOVED
@options(*MACHINE)
def explain(sample: str, html: Path | None, source: str | None, **flags: Any) -> None:
    """Print why one sample of RUN was kept or removed.

    RUN is a finished run, by default ./fairdedup-run. Three lines say what became of the sample, who stands for it or
    for whom it stands, and at which eps that may change.
    """
    session = Session.open(flags)
    from fairdedup.commands.explain import explain_sample

    with session.workers(read_only=True) as workers:
        found = explain_sample(session.config, sample, workers, html=html, source=source)
    lines = found.lines()
    session.finish(lines=lines, sample=_known(asdict(found.sample)), page=None if html is None else str(html))
    if session.quiet or not session.log_json:
        for line in lines:
            click.echo(visible(line))

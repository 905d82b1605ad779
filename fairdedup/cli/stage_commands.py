"""The commands that make or change a run: all stages at once, or one stage alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from fairdedup.cli.help_format import ExampleCommand
from fairdedup.cli.options import (
    AMOUNT,
    CLUSTERING,
    DECISION,
    EMBEDDING,
    INPUT,
    MACHINE,
    PAGE,
    RESTART,
    RUN,
    option,
    options,
)
from fairdedup.cli.session import Session
from fairdedup.cli.value_types import FILE, PLACE, Fractions
from fairdedup.errors import UserError


@click.command(
    cls=ExampleCommand,
    examples=[
        "fairdedup run --keep 0.5",
        "fairdedup run photos/ --keep 0.5 --rule balanced --out my-run",
        "fairdedup run 'data-{00000..00014}.tar' --keep 0.5 --model ViT-B-16 --pretrained openai",
        "fairdedup run embeddings/ --keep 0.5 --rule semdedup",
        "fairdedup run new-photos/ --against my-run --out day-2",
    ],
)
@INPUT
@options(*AMOUNT, "out", *DECISION, "leftover", "collect", *PAGE, *EMBEDDING, *CLUSTERING, *MACHINE)
@RESTART
def run(restart: bool, **flags: Any) -> None:
    """Deduplicate images or embeddings: INPUT in, kept ids out.

    INPUT is a folder of images, WebDataset tars or Parquet files (braces and globs too) of images, paths or
    embeddings, img2dataset's output, a folder in clip-retrieval's layout, or one .npy. Without it, the built-in sample
    is used.
    """
    session = Session.open(flags)
    with session.workers(reads_input=True) as workers:
        from fairdedup.commands.run import run

        manifest = run(session.config, workers, restart=restart)
        page = session.make_page(workers, again=False)
    session.finish_run(manifest, page)


@click.command(cls=ExampleCommand, examples=["fairdedup refit day-30 --keep 0.5 --out new-line"])
@click.argument("runs", metavar="RUN...", required=True, nargs=-1, type=PLACE)
@options(
    *(
        *AMOUNT,
        "out",
        *DECISION,
        "leftover",
        "collect",
        *PAGE,
        "model",
        "pretrained",
        "id",
        "max_rejected",
        "threads",
    ),
    *("clusters", "seed", *MACHINE),
)
@RESTART
def refit(runs: tuple[Path, ...], restart: bool, **flags: Any) -> None:
    """Decide all samples of RUN and of the runs before it again.

    They are clustered again, but not embedded again. The result starts a new line of runs: later runs use it with
    --against. Rule, prototypes and model are those of RUN unless given.
    """
    session = Session.open(flags)
    from fairdedup.commands.refit import refit

    with session.workers() as workers:
        manifest = refit(session.config, runs, workers, restart=restart)
        page = session.make_page(workers, again=False)
    session.finish_run(manifest, page)


@click.command(
    cls=ExampleCommand,
    examples=["fairdedup embed photos/ --out my-run --model ViT-B-16 --pretrained openai"],
)
@INPUT
@options("out", *EMBEDDING, "against", *MACHINE)
def embed(**flags: Any) -> None:
    """Stage 1: embed images, or read ready-made embeddings."""
    session = Session.open(flags)
    with session.workers(reads_input=True) as workers:
        from fairdedup.commands.embed import embed_run

        embed_run(session.config, workers)
    session.finish(f"embeddings: {session.config.out / 'embeddings'}")


@click.command(cls=ExampleCommand, examples=["fairdedup cluster my-run --clusters 100"])
@RUN
@options(*CLUSTERING, "threads", *MACHINE)
def cluster(**flags: Any) -> None:
    """Stage 2: cluster the embeddings of RUN.

    RUN is ./fairdedup-run by default.
    """
    session = Session.open(flags)
    from fairdedup.commands.cluster import cluster_run

    with session.workers() as workers:
        cluster_run(session.config, workers)
    session.finish(f"clusters: {session.config.out / 'clusters'}")


@click.command(
    cls=ExampleCommand,
    examples=[
        "fairdedup prune my-run --keep 0.5",
        "fairdedup prune my-run --keep 0.3 --rule balanced",
        "fairdedup prune my-run --keep 0.3 --where \"path NOT LIKE 'drafts/%'\"",
    ],
)
@RUN
@options(*AMOUNT, *DECISION, "leftover", "collect", *PAGE, "seed", "against", "model", "pretrained", *MACHINE)
def prune(**flags: Any) -> None:
    """Stage 3: decide which samples of RUN are kept.

    RUN is ./fairdedup-run by default. It can be decided again with other options: nothing is embedded again.
    """
    session = Session.open(flags)
    from fairdedup.commands.prune import prune_run

    with session.workers() as workers:
        manifest = prune_run(session.config, workers)
        page = session.make_page(workers)
    session.finish_run(manifest, page)


@click.command(cls=ExampleCommand, examples=["fairdedup replace my-run --gone vanished.txt"])
@RUN
@option("--gone", required=True, type=FILE, help="File of the ids that no longer exist (.txt, .csv, .parquet).")
@options(*PAGE, *MACHINE)
def replace(gone: Path, **flags: Any) -> None:
    """Replace samples of RUN that no longer exist.

    RUN is a finished run, by default ./fairdedup-run. If a kept sample no longer exists, the most similar of the
    samples that were removed for it is kept instead.
    """
    session = Session.open(flags)
    from fairdedup.commands.replace import replace_in_run

    with session.workers() as workers:
        manifest = replace_in_run(session.config, gone, workers)
        page = session.make_page(workers)
    session.finish_run(manifest, page)


@click.command(
    cls=ExampleCommand,
    examples=[
        "fairdedup sweep my-run",
        "fairdedup sweep my-run --keep 0.3,0.5,0.8",
        "fairdedup sweep my-run --eps 0.01,0.05 --rule semdedup",
    ],
)
@RUN
@option("--keep", "fractions", type=Fractions(), help="Fractions, separated by commas.  [default: 0.1 to 0.9]")
@option("--eps", "values", type=Fractions("numbers", "0.01,0.05"), help="Values of eps instead.")
@option(
    "--examples/--no-examples",
    default=True,
    help="Show the least similar pair that each eps links, which takes a decision there.  [default: examples]",
)
@options(*DECISION, "seed", "model", "pretrained", *MACHINE)
def sweep(fractions: list[float] | None, values: list[float] | None, examples: bool, **flags: Any) -> None:
    """Print kept counts and eps of RUN at several fractions.

    RUN is ./fairdedup-run by default. Nothing is embedded again, and no result changes.
    """
    session = Session.open(flags)
    if fractions and values:
        raise UserError("--keep and --eps exclude each other. Give one of them.")
    from fairdedup.cli.run_summary import print_border_examples, print_sweep
    from fairdedup.commands.sweep import sweep_run

    with session.workers() as workers:
        found = sweep_run(session.config, fractions or (), workers, eps=values or (), examples=examples)
    pairs = {"examples": [asdict(pair) for pair in found.examples]} if examples else {}
    session.finish(sweep=[asdict(line) for line in found.lines], **pairs)
    if session.quiet or not session.log_json:  # the table is all that a sweep is for, so --quiet prints it too
        print_sweep(found.lines, session.console)
        print_border_examples(found.examples, session.console)
    if session.prints:
        for remark in found.remarks:
            session.console.print(f"note: {remark}", markup=False, soft_wrap=True)

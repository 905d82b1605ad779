"""The command that writes starter files."""

from __future__ import annotations

from pathlib import Path

import click

from fairdedup.cli.help_format import ExampleCommand
from fairdedup.cli.options import option
from fairdedup.cli.value_types import FILE
from fairdedup.errors import visible

KINDS = ("airflow", "slurm", "kubernetes", "cuda", "prototypes")


@click.command(
    cls=ExampleCommand,
    examples=["fairdedup init slurm", "fairdedup init prototypes --dest my-prototypes/"],
)
@click.argument("kind", metavar="KIND", type=click.Choice(KINDS))
@option("--dest", type=FILE, metavar="DIR", default=".", help="Folder to write to.  [default: the current folder]")
@option("--quiet", is_flag=True, help="Print nothing.")
def init(kind: str, dest: Path, quiet: bool) -> None:
    """Write starter files to edit.

    KIND is airflow (a DAG for every day), slurm, kubernetes or cuda (a command that starts a Dask cluster, and its
    YAML file), or prototypes (the captions that describe people). Nothing is overwritten.
    """
    from fairdedup.commands.starter_files import STARTERS, write_starter

    done = write_starter(kind, dest)
    if quiet:
        return
    for path in done.written:
        click.echo(visible(f"written: {path}"))
    for path in done.known:
        click.echo(visible(f"is there already: {path}"))
    click.echo(visible(STARTERS[kind].then))

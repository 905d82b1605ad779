"""What all commands share: the configuration, progress, workers, and the output of results.

Heavy modules are imported inside the methods, never before the command line has been checked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fairdedup.errors import visible

if TYPE_CHECKING:
    from rich.console import Console

    from fairdedup.config import RunConfig
    from fairdedup.progress import StageProgress
    from fairdedup.storage.manifest import RunManifest
    from fairdedup.workers import Workers

LOGGED = ("counts", "eps", "guarantees", "leftover", "warnings", "shares")  # keys of run.json in the last event


@dataclass(frozen=True)
class Session:
    """State of one call of a command.

    Attributes
    ----------
    config : RunConfig
        All options: those of the YAML file, overridden by the flags.
    progress : StageProgress
        Where progress and messages go.
    quiet : bool
        Whether `--quiet` was given.
    log_json : bool
        Whether `--log-json` was given.
    """

    config: RunConfig
    progress: StageProgress
    quiet: bool
    log_json: bool

    @classmethod
    def open(cls, flags: dict[str, Any]) -> Session:
        """Read the configuration from the flags of a command and its YAML file.

        Parameters
        ----------
        flags : dict
            Values that click has parsed: options of `RunConfig`, and `config_file`, `quiet` and `log_json`. None means
            that an option was not given.

        Raises
        ------
        UserError
            If a value is wrong.
        """
        from fairdedup.config import load_config

        given = {name: value for name, value in flags.items() if value != ()}
        file, quiet, log_json = given.pop("config_file"), given.pop("quiet"), given.pop("log_json")
        config = load_config(file, given)
        from fairdedup.progress import StageProgress

        context = click.get_current_context(silent=True)
        started = None if context is None else context.find_object(float)
        return cls(config, StageProgress(quiet, log_json, started=started), quiet, log_json)

    @contextmanager
    def workers(self, read_only: bool = False, reads_input: bool = False) -> Iterator[Workers]:
        """Show progress, lock the run directory, and yield the workers of this command.

        Parameters
        ----------
        read_only : bool
            Whether the command writes nothing into the run directory; then it is not locked.
        reads_input : bool
            Whether the command is going to read its input, so that a process for that starts already.
        """
        from fairdedup.worker_memory import check_address_space

        if self.config.scheduler is None:
            check_address_space(encoder=False)  # before libraries are imported, for which memory may lack
        from fairdedup.workers import open_workers

        with self.progress, open_workers(self.config, self.progress, read_only=read_only) as workers:
            if reads_input:
                workers.expect_input()
            yield workers

    @property
    def console(self) -> Console:
        """Console that results are printed on."""
        from rich.console import Console

        return Console(width=None if sys.stdout.isatty() else 110, highlight=False)

    @property
    def prints(self) -> bool:
        """Whether the result is printed for people."""
        return not (self.quiet or self.log_json)

    def finish(self, *lines: str, **values: Any) -> None:
        """Print the result of a command, or log it as the event "finished".

        Parameters
        ----------
        *lines
            Lines to print.
        **values
            Values of the event.
        """
        self.progress.log("finished", run=str(self.config.out), **values)
        if self.prints:
            for line in lines:
                click.echo(visible(line))

    def make_page(self, workers: Workers, *, again: bool = True) -> Path | None:
        """Make the page about a run that has just finished, and return its path; None with ``--no-report``.

        Parameters
        ----------
        workers : Workers
            Workers of the command.
        again : bool
            Whether a page that is there is made again.
        """
        if not self.config.report:
            return None
        from fairdedup.commands.report import make_page

        return make_page(self.config, workers, again=again)

    def finish_run(self, manifest: RunManifest, page: Path | None) -> None:
        """Print the summary of a finished run from its manifest and the path of its page, or log them."""
        values = manifest.to_json()
        self.progress.count_other()
        seconds = {name: round(each, 3) for name, each in self.progress.seconds.items()}
        logged = {name: values.get(name) for name in LOGGED}
        self.finish(**logged, page=None if page is None else str(page), seconds=seconds)
        if self.prints:
            from fairdedup.cli.run_summary import print_summary

            print_summary(manifest, self.config.out, self.console, page, seconds)

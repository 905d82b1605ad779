"""Starts a Dask cluster, runs one command of fairdedup on it, and stops the cluster. All starters share this module.

on_slurm.py, on_kubernetes.py and on_cuda.py define the clusters. Nothing here decides anything about the data: the
command is `fairdedup ... --scheduler ADDRESS`, and its output and exit code are passed on.
"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fairdedup import cli
from fairdedup.config import first_error, read_yaml
from fairdedup.ending_signals import Stopped, handle_stop_signals
from fairdedup.errors import FairdedupError, UserError
from fairdedup.open_files import allow_files
from fairdedup.option_types import Memory

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # each of them ends the command and stops the cluster
NANNY_MEMORY = 256 * 2**20  # bytes for the process that watches a worker, besides the worker's own

Adapt = tuple[int, int] | None  # least and most workers


class ClusterConfig(BaseModel):
    """The YAML file of a starter."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class QueuedConfig(ClusterConfig):
    """The YAML file of a cluster whose workers wait in a queue."""

    workers: int = Field(ge=1)
    memory: Memory = "4GiB"
    cpus: int = Field(1, ge=1)
    start_with: int = Field(1, ge=1)
    patience: float = Field(3600, gt=0)

    @model_validator(mode="after")
    def _check_start(self) -> QueuedConfig:
        if self.start_with > self.workers:
            raise ValueError(
                f"start_with must be at most the number of workers, {self.workers}; got {self.start_with}."
            )
        return self


Config = TypeVar("Config", bound=ClusterConfig)
StartCluster = Callable[[Config, Adapt], AbstractContextManager[Any]]


def make_command(
    kind: type[Config],
    describe: Callable[[Config, Adapt], str],
    start_cluster: StartCluster[Config],
    *,
    library: str,
    advice: str,
) -> click.Command:
    """Return the command of a starter.

    Parameters
    ----------
    kind : type
        The model of its YAML file.
    describe : callable
        Returns what --dry-run prints.
    start_cluster : callable
        Returns a context manager that yields a Dask cluster. A queued kind also has the option --adapt.
    library : str
        The package that must be installed. The extra of fairdedup that installs it has the name of the YAML file.
    advice : str
        Hint for the error message if no worker starts.
    """
    module = sys.modules[start_cluster.__module__]
    file_name = Path(module.__file__ or "").name
    extra = file_name.removeprefix("on_").removesuffix(".py")

    def start(file: Path, dry_run: bool, arguments: tuple[str, ...], adapt: Adapt = None) -> int:
        config = read_config(kind, file)
        if importlib.util.find_spec(library) is None:
            raise UserError(f"{library} is not installed. Run pip install '.[{extra}]'.")
        if adapt and adapt[0] > adapt[1]:
            raise UserError(f"--adapt needs the smaller number first; got {adapt[0]} {adapt[1]}.")
        if dry_run:
            click.echo(describe(config, adapt), nl=False)
            return 0
        verbose = check_command(arguments)
        allow_files()
        with _raise_on_signals() as handled, start_cluster(config, adapt) as cluster:
            try:
                _wait_for_workers(cluster, config, adapt, advice, verbose)
                return _run_command(arguments, cluster.scheduler_address)
            finally:  # nothing may interrupt stopping the cluster, or jobs and pods would remain
                for number in handled:
                    signal.signal(number, signal.SIG_IGN)

    options = [
        click.option(
            "--config", "file", type=click.Path(path_type=Path), required=True, help="YAML file of the cluster."
        ),
        click.option("--dry-run", is_flag=True, help="Print what would be started, and start nothing."),
        click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARGS]..."),
    ]
    if issubclass(kind, QueuedConfig):
        text = "Least and most workers: the cluster follows the work, instead of a fixed number."
        options.insert(1, click.option("--adapt", nargs=2, type=click.IntRange(1), metavar="MIN MAX", help=text))
    for option in reversed(options):
        start = option(start)
    example = f"Example: python pipelines/{file_name} --config configs/clusters/{extra}.yaml -- run INPUT --keep 0.5"
    return click.command(help=module.__doc__, epilog=example)(start)


@contextmanager
def _raise_on_signals() -> Iterator[list[int]]:
    """Let the signals that end this process raise KeyboardInterrupt or `Stopped`, and yield the list of them."""
    # Under nohup SIGHUP stays ignored.
    handled = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in handled}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    handle_stop_signals()
    try:
        yield handled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_config(kind: type[Config], file: Path) -> Config:
    """Read the YAML file of a cluster.

    Raises
    ------
    UserError
        If a value is wrong. The message names the key, its value and a remedy.
    """
    try:
        return kind(**read_yaml(file))
    except ValidationError as error:
        raise UserError(first_error(error, file, model=kind, documented="docs/clusters.md")) from None


def check_command(arguments: tuple[str, ...]) -> bool:
    """Check a command of fairdedup before anything is started, so that a typo does not wait in a queue.

    Returns
    -------
    bool
        Whether messages about the cluster may be printed: not with --quiet or --log-json.

    Raises
    ------
    UserError, click.UsageError
        If there is no such command, it needs no workers, or its options are wrong.
    """
    known = [name for name, command in cli.cli.commands.items() if "scheduler" in _parameter_names(command)]
    if not arguments or arguments[0] not in known:
        problem = f"{arguments[0]!r} needs no workers" if arguments else "there is no command to run"
        raise UserError(f"{problem}. After --, give one of {', '.join(known)}, such as -- run INPUT --keep 0.5.")
    name, *rest = arguments
    parent = click.Context(cli.cli, info_name="fairdedup")
    params = cli.cli.commands[name].make_context(name, rest, parent=parent).params
    for option in ("scheduler", "workers", "memory_limit"):
        if params[option] is not None:
            raise UserError(f"--{option.replace('_', '-')} {params[option]} is set by the cluster. Leave it out.")
    return not (params["quiet"] or params["log_json"])


def _parameter_names(command: click.Command) -> set[str | None]:
    return {parameter.name for parameter in command.params}


def _wait_for_workers(cluster: Any, config: ClusterConfig, adapt: Adapt, advice: str, verbose: bool) -> None:
    """Wait for the first workers. The others may join later."""
    if isinstance(config, QueuedConfig):
        first = min(config.start_with, adapt[0]) if adapt else config.start_with
        if verbose:
            click.echo(f"waiting for {first} of {adapt[1] if adapt else config.workers} workers", err=True)
        try:
            cluster.wait_for_workers(first, timeout=config.patience)
        except TimeoutError:
            raise FairdedupError(
                f"fewer than {first} workers came within {config.patience:g} seconds. {advice} Or raise `patience`."
            ) from None
    if verbose:
        click.echo(f"dashboard: {cluster.dashboard_link}", err=True)


def _run_command(arguments: tuple[str, ...], address: str) -> int:
    """Run a command of fairdedup on a scheduler and return its exit code. Signals that end it are passed on."""
    name, *rest = arguments
    words = [sys.executable, "-m", "fairdedup", name, "--scheduler", address, *rest]
    process = subprocess.Popen(words, start_new_session=True)  # so that Ctrl-C reaches it only once, through us
    stopped: Stopped | None = None
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
        except Stopped as error:
            stopped = error
            process.send_signal(error.number)
        else:
            if stopped and code == -stopped.number:  # it arrived before the command could handle it
                raise stopped
            if code == -signal.SIGINT:  # the command handled it, but CPython dies if it arrives during an `exec`
                return cli.EXIT_OTHER
            return code if code >= 0 else 128 - code

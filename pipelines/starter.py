"""Starts a Dask cluster, runs one command of fairdedup on it, and takes the cluster down: what all starters share.

What a cluster is made of is said in on_slurm.py, on_kubernetes.py and on_cuda.py. Nothing here decides anything about
the data: the command is `fairdedup ... --scheduler ADDRESS`, and its output and exit code are its own.
"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fairdedup import cli
from fairdedup.config import Memory, first_error, read_yaml
from fairdedup.errors import FairdedupError, UserError
from fairdedup.workers import allow_files

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NANNY_MEMORY = 256 * 2**20  # bytes beside each worker's own, for the process that watches over it

Adapt = tuple[int, int] | None


class ClusterConfig(BaseModel):
    """What a starter can be told in its YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class QueuedConfig(ClusterConfig):
    """Of a cluster whose workers come when there is room for them."""

    workers: int = Field(ge=1)
    memory: Memory = "4GiB"
    cpus: int = Field(1, ge=1)
    start_with: int = Field(1, ge=1)
    patience: float = Field(3600, gt=0)

    @model_validator(mode="after")
    def _check_start(self) -> QueuedConfig:
        if self.start_with > self.workers:
            raise ValueError(f"start_with {self.start_with} is more than the {self.workers} workers: lower it")
        return self


C = TypeVar("C", bound=ClusterConfig)
Started = Callable[[C, Adapt], AbstractContextManager[Any]]


def starter(
    kind: type[C], show: Callable[[C, Adapt], str], started: Started[C], library: str, look: str
) -> click.Command:
    """Return the command of a starter.

    Parameters
    ----------
    kind : type
        What its YAML file is read as.
    show : callable
        Returns what --dry-run prints.
    started : callable
        Returns a context that gives a Dask cluster; --adapt is offered where the kind is queued.
    library : str
        What has to be installed; its extra of fairdedup is named as the YAML file is.
    look : str
        Where to look if no worker comes.
    """
    name = Path(sys.modules[started.__module__].__file__ or "").name
    what = name.removeprefix("on_").removesuffix(".py")

    def start(file: Path, dry_run: bool, arguments: tuple[str, ...], adapt: Adapt = None) -> int:
        config = read(kind, file)
        if importlib.util.find_spec(library) is None:
            raise UserError(f"{library} is not installed: pip install '.[{what}]'")
        if adapt and adapt[0] > adapt[1]:
            raise UserError(f"--adapt {adapt[0]} {adapt[1]}: the first is the least, the second the most")
        if dry_run:
            click.echo(show(config, adapt), nl=False)
            return 0
        told = check(arguments)
        allow_files()
        heard = [n for n in ENDINGS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]  # as under nohup
        before = {number: signal.signal(number, signal.default_int_handler) for number in heard}
        try:
            with started(config, adapt) as cluster:
                try:
                    _wait(cluster, config, adapt, look, told)
                    return _carry_out(arguments, cluster.scheduler_address)
                finally:  # nothing stops the taking down: jobs and pods would stay
                    for number in heard:
                        signal.signal(number, signal.SIG_IGN)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    options = [
        click.option("--config", "file", type=click.Path(path_type=Path), required=True, help="YAML of the cluster."),
        click.option("--dry-run", is_flag=True, help="Print what would be started, and start nothing."),
        click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARGS]..."),
    ]
    if issubclass(kind, QueuedConfig):
        more = "Between so many workers, as there is work, in place of a fixed number."
        options.insert(1, click.option("--adapt", nargs=2, type=click.IntRange(1), metavar="MIN MAX", help=more))
    for option in reversed(options):
        start = option(start)
    example = f"Example: python pipelines/{name} --config configs/clusters/{what}.yaml -- run INPUT --keep 0.5"
    return click.command(help=sys.modules[started.__module__].__doc__, epilog=example)(start)


def read(kind: type[C], file: Path) -> C:
    """Read the YAML file of a cluster.

    Raises
    ------
    UserError
        Naming the key, its value and the mend.
    """
    try:
        return kind(**read_yaml(file))
    except ValidationError as error:
        raise UserError(first_error(error, file, model=kind, seen="docs/clusters.md")) from None


def check(arguments: tuple[str, ...]) -> bool:
    """Check a command of fairdedup before anything is started: a slip of the pen must not wait in a queue.

    Returns
    -------
    bool
        Whether it wants to be told of the cluster; not where it is to be quiet, or prints JSON.

    Raises
    ------
    UserError, click.UsageError
        If there is no such command, it needs no workers, or its options are wrong.
    """
    known = [name for name, command in cli.cli.commands.items() if "scheduler" in _parameters(command)]
    if not arguments or arguments[0] not in known:
        asked = f"{arguments[0]!r} needs no workers" if arguments else "there is nothing to run"
        raise UserError(f"{asked}: after --, give one of {', '.join(known)}, as -- run INPUT --keep 0.5")
    name, *rest = arguments
    parent = click.Context(cli.cli, info_name="fairdedup")
    params = cli.cli.commands[name].make_context(name, rest, parent=parent).params
    for option in ("scheduler", "workers", "memory_limit"):
        if params[option] is not None:
            raise UserError(f"--{option.replace('_', '-')} {params[option]} is for the cluster to say: leave it out")
    return not (params["quiet"] or params["log_json"])


def _parameters(command: click.Command) -> set[str | None]:
    return {parameter.name for parameter in command.params}


def _wait(cluster: Any, config: ClusterConfig, adapt: Adapt, look: str, told: bool) -> None:
    """Wait for the first workers; the others may join later."""
    if isinstance(config, QueuedConfig):
        wanted = min(config.start_with, adapt[0]) if adapt else config.start_with
        if told:
            click.echo(f"waiting for {wanted} of {adapt[1] if adapt else config.workers} workers", err=True)
        try:
            cluster.wait_for_workers(wanted, timeout=config.patience)
        except TimeoutError:
            raise FairdedupError(
                f"fewer than {wanted} workers came within {config.patience:g} seconds: {look}, or raise `patience`"
            ) from None
    if told:
        click.echo(f"dashboard: {cluster.dashboard_link}", err=True)


def _carry_out(arguments: tuple[str, ...], address: str) -> int:
    """Run a command of fairdedup on a scheduler and return its exit code; Ctrl-C is its to answer."""
    name, *rest = arguments
    words = [sys.executable, "-m", "fairdedup", name, "--scheduler", address, *rest]
    process = subprocess.Popen(words, start_new_session=True)  # a terminal's Ctrl-C reaches it once, from here
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
        else:
            if code == -signal.SIGINT:  # it has answered, but CPython dies of an interrupt that came in an `exec`
                return cli.EXIT_OTHER
            return code if code >= 0 else 128 - code

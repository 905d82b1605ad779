"""The entry point: runs a command, prints any error as one line, and returns an exit code."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from collections.abc import Iterable

import click

from fairdedup.cli import look_commands, plan_command, result_commands, setup_commands, stage_commands
from fairdedup.cli.command_group import CommandGroup
from fairdedup.cli.init_command import init
from fairdedup.ending_signals import Stopped, handle_stop_signals
from fairdedup.errors import NOT_TEXT, FairdedupError, UserError, first_line, flags_for_parameters, is_text, visible
from fairdedup.process_age import read_process_start
from fairdedup.storage.object_stores import check_url
from fairdedup.streams import replace_standard_streams
from fairdedup.worker_memory import check_address_space

EXIT_USER, EXIT_OTHER = 2, 1
COLLECT_AFTER = 200_000  # new objects between two garbage collections: imports make many, and none of them is garbage
_NO_NUMBER = re.compile(
    r"Invalid value for '(--[a-z-]+)'(?: / '[^']+')?: '(.*)' is not a valid (float|integer)(?: range)?"
)
_NUMBERS = {"float": "a number", "integer": "a whole number"}
_INTERRUPTED = ("Interrupted. Run the same command to resume.", EXIT_OTHER)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="fairdedup")
def cli() -> None:
    """Remove semantic duplicates from image-text data without dropping the people who were rare to begin with.

    `fairdedup run --keep 0.5` tries it on a sample that it draws; `fairdedup run FOLDER --keep 0.5` is the real thing.
    """


for _command in (
    stage_commands.run,
    stage_commands.refit,
    stage_commands.embed,
    stage_commands.cluster,
    stage_commands.prune,
    stage_commands.replace,
    stage_commands.sweep,
    look_commands.compare,
    look_commands.search,
    look_commands.explain,
    result_commands.report,
    result_commands.audit,
    result_commands.gate,
    result_commands.calibrate,
    result_commands.export,
    result_commands.sample,
    setup_commands.doctor,
    plan_command.plan,
    init,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and exit with its code."""
    gc.set_threshold(COLLECT_AFTER)
    stdout = replace_standard_streams()
    handle_stop_signals()
    code = call(sys.argv[1:], started=read_process_start())
    sys.stdout.flush()
    if (
        not code and stdout.failure and not isinstance(stdout.failure, BrokenPipeError)
    ):  # a broken pipe is no error: `head` does it
        message = (
            f"the command has finished, but its output could not be written (stdout: {stdout.failure.strerror}). "
            "Redirect stdout to another place, or use --quiet."
        )
        code = print_error(message, EXIT_OTHER, as_json="--log-json" in sys.argv)
    if "duckdb" not in sys.modules:  # it prints what is not collected
        gc.freeze()  # else Python's end looks for cycles in every object of the libraries, for up to half a second
    sys.exit(code)


def call(
    arguments: list[str], command: click.Command = cli, name: str = "fairdedup", *, started: float | None = None
) -> int:
    """Run a command line.

    Parameters
    ----------
    arguments : list of str
        Arguments after the name of the program.
    command : click.Command
        Command that parses them.
    name : str
        Name of the program, for help texts.
    started : float or None
        When the user's wait began, by the monotonic clock; None is when the command line has been parsed.

    Returns
    -------
    int
        Exit code: 0, 2 (the user's mistake), 143 or 129 (SIGTERM or SIGHUP) or 1 (any other failure).

    Raises
    ------
    Exception
        An unexpected error, if FAIRDEDUP_DEBUG is set.
    """
    try:
        for argument in arguments:  # first, before a message repeats the argument
            check_url(argument)
            if not is_text(argument):
                raise UserError(f"the argument {argument!r} {NOT_TEXT}")
        # Without standalone mode a command returns what --help and --version exit with.
        words = arguments or ["--help"]
        return int(command.main(words, prog_name=name, standalone_mode=False, obj=started) or 0)
    except Exception as error:
        message, code = _describe(error)
    except KeyboardInterrupt:
        message, code = _INTERRUPTED
    except Stopped as stopped:
        message = f"Ended by {signal.Signals(stopped.number).name}. Run the same command to resume."
        code = 128 + stopped.number
    if "--restart" in arguments:  # it would clear what is done
        message = message.replace("the same command", "the same command without --restart")
    return print_error(flags_for_parameters(message, _flag_names(command)), code, as_json="--log-json" in arguments)


def _describe(error: Exception) -> tuple[str, int]:
    """Return the message and the exit code of an error.

    Raises
    ------
    Exception
        An unexpected error, if FAIRDEDUP_DEBUG is set.
    """
    if isinstance(error, UserError):
        return str(error), EXIT_USER
    if isinstance(error, click.UsageError):
        message = re.sub(r"\s+", " ", error.format_message())  # click lists choices on lines of their own
        message = _NO_NUMBER.sub(lambda found: f"{found[1]} must be {_NUMBERS[found[3]]}; got {found[2]}", message)
        end = "" if message.endswith((".", "?", ")")) else "."
        return f"{message}{end} See {error.ctx.command_path if error.ctx else 'fairdedup'} --help.", EXIT_USER
    if isinstance(error, FairdedupError):
        return str(error), EXIT_OTHER
    if isinstance(error, click.Abort):
        if not isinstance(error.__cause__, EOFError):
            return _INTERRUPTED
        error = error.__cause__  # click reports the end of any file as an interrupt by the user
    if os.environ.get("FAIRDEDUP_DEBUG"):
        raise error
    if isinstance(error, (MemoryError, ImportError, OSError, SystemError)):
        try:
            check_address_space(encoder=False)  # for lack of it, libraries cannot be imported
        except UserError as limited:
            return str(limited), EXIT_USER
    first = first_line(str(error))
    return f"{type(error).__name__}: {first} (set FAIRDEDUP_DEBUG=1 to see the traceback)", EXIT_OTHER


def _flag_names(command: click.Command) -> set[str]:
    """Return the names of the long options of a command, or of all commands of a group, with underscores."""
    commands: Iterable[click.Command] = command.commands.values() if isinstance(command, click.Group) else (command,)
    flags = {flag for each in commands for parameter in each.params for flag in parameter.opts}
    return {flag.removeprefix("--").replace("-", "_") for flag in flags if flag.startswith("--")}


def print_error(message: str, code: int, as_json: bool = False) -> int:
    """Print an error as one line on stderr, and return the exit code.

    Parameters
    ----------
    message : str
        Message of the error.
    code : int
        Exit code.
    as_json : bool
        Whether to print the line as JSON.
    """
    if as_json:
        from fairdedup.progress import StageProgress

        StageProgress(log_json=True).log("error", text=visible(message), code=code)
    else:
        click.echo(f"fairdedup: error: {visible(message)}", err=True)
    return code


if __name__ == "__main__":
    main()

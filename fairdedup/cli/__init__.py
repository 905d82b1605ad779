"""The command line: it parses, calls and prints, and turns every error into one line and an exit code.

`options.py` declares the options, `session.py` has what all commands share, and the commands are in
`stage_commands.py`, `result_commands.py` and `setup_commands.py`. Nothing heavy is imported before a
command runs, so `--help` is fast.
"""

from fairdedup.cli.entry import EXIT_OTHER, EXIT_USER, call, cli, main
from fairdedup.errors import UserError

__all__ = ["EXIT_OTHER", "EXIT_USER", "UserError", "call", "cli", "main"]

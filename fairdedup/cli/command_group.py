"""The group of all commands: one that is unknown is answered by what was probably meant."""

from __future__ import annotations

import difflib
import os
import shlex

import click

_OF_PATHS = ("/", "\\", "*", "{", ".")  # what paths, globs and URLs have, and names of commands do not


class CommandGroup(click.Group):
    """A group of commands."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name, and the arguments that are left.

        Raises
        ------
        click.UsageError
            If there is no such command. The message names one.
        """
        name = args[0]
        if self.get_command(ctx, name) is not None or name.startswith("-"):
            return super().resolve_command(ctx, args)
        if os.path.lexists(name) or any(mark in name for mark in _OF_PATHS):
            meant = f"run {shlex.join(args)}"
        else:
            near = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            meant = shlex.join([*near, *args[1:]]) if near else ""
        question = f"; did you mean `{ctx.command_path} {meant}`?" if meant else ""
        raise click.UsageError(f"there is no command {name!r}{question}", ctx)

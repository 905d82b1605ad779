"""Formats `--help`: options under headings, then examples to copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

COMMAND_HEADING = "Options"
HEADINGS = (
    COMMAND_HEADING,
    "Amount to keep",
    "Input and output",
    "Rule",
    "Curation",
    "Result",
    "Encoder",
    "Clustering",
    "Machine and messages",
)


class GroupedOption(click.Option):
    """An option that `--help` lists under a heading."""

    def __init__(self, *args: Any, heading: str = COMMAND_HEADING, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class ExampleCommand(click.Command):
    """A command whose help lists its options under headings and ends with examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; of too many, which a shell makes of a pattern, the message names one.

        Raises
        ------
        click.UsageError
            If the arguments are not those of the command.
        """
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            arguments = [parameter for parameter in self.params if isinstance(parameter, click.Argument)]
            names = [argument.make_metavar(ctx).strip("[]") for argument in arguments]
            if "unexpected extra argument" not in error.message or len(names) != 1:
                raise
        more = self.make_parser(ctx).parse_args(given)[1]
        remedy = "Name a folder, or quote a pattern: 'photos/*.jpg'." if names == ["INPUT"] else f"Name one {names[0]}."
        raise click.UsageError(f"{names[0]} is one; got {len(more) + 1:,}, the second is {more[0]!r}. {remedy}", ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section of options for each heading."""
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections[getattr(parameter, "heading", COMMAND_HEADING)].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        formatter.write_paragraph()
        formatter.write_text("Examples:")
        with formatter.indentation():
            for line in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")

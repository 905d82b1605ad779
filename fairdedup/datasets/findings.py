"""What reading an input finds besides its samples: files that nothing reads, and damage. None of it is passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from fairdedup.datasets.filesystem import get_extension, to_valid_text
from fairdedup.errors import UserError, format_count

COMMONEST = 5  # endings that a message names


@dataclass
class Findings:
    """What reading one shard finds besides its samples.

    Attributes
    ----------
    unused : Counter of str
        How many files or members no sample uses, by ending, such as ".mp4"; see `name_ending`.
    damage : str or None
        Where and how the shard is damaged, if part of it was not read.
    """

    unused: Counter[str] = field(default_factory=Counter)
    damage: str | None = None

    def add_unused(self, name: str) -> None:
        """Count a file or member that no sample uses."""
        self.unused[name_ending(name)] += 1

    def add_damage(self, shard: str, place: str, *, skip: bool) -> None:
        """Note that the rest of a shard cannot be read.

        Parameters
        ----------
        shard : str
            The file, for the message.
        place : str
            Where the damage is, what it is, and how much was read before it.
        skip : bool
            Whether the user chose to go on without the rest.

        Raises
        ------
        UserError
            Unless `skip` is true.
        """
        if not skip:
            raise UserError(
                f"{shard!r} is damaged: {place}. Copy or write it again, or add --skip-damaged to go on with what can "
                "be read"
            )
        self.damage = place


def name_ending(name: str) -> str:
    """Return a file's ending for messages: ".mp4", or "without extension"."""
    extension = get_extension(name)
    return f".{to_valid_text(extension)}" if extension else "without extension"


def describe_unused(unused: Mapping[str, int]) -> str:
    """Return counts by ending, the commonest first: "12 files: 7 .mp4, 3 .pdf and 2 of other kinds"."""
    kinds = sorted(unused.items(), key=lambda item: (-item[1], item[0]))
    total, rest = sum(unused.values()), sum(count for _, count in kinds[COMMONEST:])
    named = ", ".join(f"{count:,} {kind}" for kind, count in kinds[:COMMONEST])
    more = f" and {rest:,} of other kinds" if rest else ""
    return f"{format_count(total, 'file')}: {named}{more}"

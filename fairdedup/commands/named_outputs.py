"""Files that a user names for a table, a drawing or a page: refused early if they cannot be written, replaced whole."""

from __future__ import annotations

from pathlib import Path

from fairdedup.errors import UserError
from fairdedup.storage.run_files import atomic_write


def check_output(path: Path | None, option: str, ending: str) -> None:
    """Refuse a folder in place of a file.

    Parameters
    ----------
    path : Path or None
        File to write; None passes.
    option : str
        Option that names it, for the message.
    ending : str
        Ending of such a file, for the message.

    Raises
    ------
    UserError
        If it is a folder, or something that is not a plain file.
    """
    if path is not None and path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a plain file"
        raise UserError(f"{option} {str(path)!r} is {kind}: name a file, for example {ending}")


def write_output(path: Path | None, text: str) -> None:
    """Write a text to a file that `check_output` has accepted; None writes nothing.

    Parameters
    ----------
    path : Path or None
        File to write.
    text : str
        What it will hold.
    """
    if path is not None:
        with atomic_write(path.absolute()) as aside:
            aside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")

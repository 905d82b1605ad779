"""Files that a user names for a table, a drawing or a page: refused early if they cannot be written, replaced whole."""

from __future__ import annotations

from pathlib import Path

from fairdedup.errors import UserError
from fairdedup.storage.run_files import atomic_write


def check_output(path: Path | None, option: str, example: str, *others: str) -> None:
    """Refuse a folder in place of a file, and a name that says another format.

    Parameters
    ----------
    path : Path or None
        File to write; None passes.
    option : str
        Option that names it, for the message.
    example : str
        A file name to suggest in the message. Its ending is the one that the file must have.
    *others : str
        Other endings that the file may have, such as ".parquet".

    Raises
    ------
    UserError
        If it is a folder, or something that is not a plain file, or its name has another ending.
    """
    if path is None:
        return
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a plain file"
        raise UserError(f"{option} {str(path)!r} is {kind}: name a file, for example {example}")
    endings = (Path(example).suffix, *others)
    if path.suffix.lower() not in endings:
        raise UserError(f"{option} {str(path)!r} must end in {' or '.join(endings)}: name a file such as {example}")


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

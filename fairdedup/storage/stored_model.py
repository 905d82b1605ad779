"""JSON files of a run as pydantic models: how each is checked when it is read, and how it is written.

Files of earlier versions of fairdedup have no `version` and count as version 1. Keys that a model does not know are
kept, so that a file that is read and written again loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.checked_json import check_content, damage, parse_json, write_json
from fairdedup.storage.object_stores import read_many
from fairdedup.storage.sealed_files import read_small_file

REMEDY = "upgrade it (pip install --upgrade fairdedup), or choose another run directory"


class NewerVersionError(UserError):
    """A file was written by a newer version of fairdedup, so nothing may be concluded from it."""


class StoredModel(BaseModel):
    """A part of a JSON file; keys that it does not know are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, protected_namespaces=())


class StoredFile(StoredModel):
    """A whole JSON file.

    Attributes
    ----------
    version : int
        Version of the file's format.
    """

    NEWEST: ClassVar[int] = 1

    version: int = 1

    @field_validator("version")
    @classmethod
    def _refuse_newer(cls, version: int) -> int:
        if version > cls.NEWEST:
            raise ValueError(f"{version} is newer than {cls.NEWEST}")
        return version

    def to_json(self) -> dict[str, Any]:
        """Return what the file holds but for its checksum: what was set, under the keys of the file."""
        return {"version": self.version, **self.model_dump(mode="json", by_alias=True, exclude_unset=True)}

    @classmethod
    def parse(cls, path: Path, content: Any) -> Self:
        """Return the model of a file's parsed content.

        Parameters
        ----------
        path : Path
            The file, for messages.
        content : object
            Its JSON, with its checksum if it has one.

        Raises
        ------
        NewerVersionError
            If a newer version of fairdedup wrote it.
        FairdedupError
            If it is damaged.
        """
        _check_version(cls, path, content)
        try:
            return cls.model_validate(check_content(path, content))
        except ValidationError as error:
            raise damage(path, _first_line(error)) from None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the model of a file, or None where there is no such file; raises as `parse`."""
        data = read_small_file(path)
        return None if data is None else cls.parse(path, parse_json(path, data))

    def write(self, path: Path) -> None:
        """Write the file."""
        write_json(path, self.to_json())


Stored = TypeVar("Stored", bound=StoredFile)


def read_stored_files(paths: Sequence[Path], model: type[Stored]) -> list[Stored | None]:
    """Read many small files, in a store several at a time; None for one that is missing or damaged.

    Raises
    ------
    NewerVersionError
        If a newer version of fairdedup wrote one of them.
    """
    return [
        None if data is None else _parse_undamaged(path, data, model)
        for path, data in zip(paths, read_many(list(paths)), strict=True)
    ]


def read_undamaged(path: Path, model: type[Stored]) -> Stored | None:
    """Return the model of a file, or None if it is missing or damaged.

    Raises
    ------
    NewerVersionError
        If a newer version of fairdedup wrote it.
    """
    data = read_small_file(path)
    return None if data is None else _parse_undamaged(path, data, model)


def _parse_undamaged(path: Path, data: bytes, model: type[Stored]) -> Stored | None:
    try:
        return model.parse(path, parse_json(path, data))
    except NewerVersionError:
        raise
    except FairdedupError:
        return None


def _check_version(model: type[StoredFile], path: Path, content: Any) -> None:
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > model.NEWEST:
        writer = content.get("fairdedup")
        name = f"fairdedup {writer}" if isinstance(writer, str) else "a newer fairdedup"
        raise NewerVersionError(
            f"{path} has version {version} and was written by {name}; this fairdedup reads up to version "
            f"{model.NEWEST}: {REMEDY}"
        )


def _first_line(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]

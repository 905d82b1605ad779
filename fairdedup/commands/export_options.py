"""Options and result of `fairdedup export`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Form = Literal["webdataset", "folder", "hf", "uids", "txt", "csv"]
ENDINGS: dict[Form, str] = {
    "webdataset": "",
    "folder": "-files",
    "hf": "-hf",
    "uids": ".npy",
    "txt": ".txt",
    "csv": ".csv",
}  # of the default places
FOLDERS = ("webdataset", "folder", "hf")  # the forms that are folders of samples, not files of ids
SHARD_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `fairdedup export`.

    Attributes
    ----------
    run : Path
        Run directory.
    form : {"webdataset", "folder", "hf", "uids", "txt", "csv"}
        What to write: tar shards of the samples, a tree of their files, Parquet with their images, an array of DataComp
        uids, one id per line, or a table of decisions.
    what : {"kept", "removed"}
        Which samples to write.
    dest : str or None
        File or folder to write, as the user gave it. None means next to the run, with its name.
    shard_samples : int
        Number of samples in each shard but the last.
    shard_bytes : int or None
        Largest size of a shard in bytes; replaces `shard_samples`. A larger sample gets a shard of its own.
    source : str or None
        Place of the input, if it has moved.
    copy : bool
        Whether a tree of files has copies, not links.
    keep_formulas : bool
        Whether cells of a CSV file that a spreadsheet would take for formulas stay as they are.
    """

    run: Path
    form: Form
    what: Literal["kept", "removed"] = "kept"
    dest: str | None = None
    shard_samples: int = SHARD_SAMPLES
    shard_bytes: int | None = None
    source: str | None = None
    copy: bool = False
    keep_formulas: bool = False

    @property
    def place(self) -> Path:
        """Absolute path of the file or folder to write."""
        root = self.run.absolute()
        default = root.with_name(f"{root.name}-{self.what}{ENDINGS[self.form]}")
        return default if self.dest is None else Path(self.dest).absolute()

    @property
    def shown(self) -> str:
        """Flag and place as the user gave them, for messages."""
        return f"--dest {self.dest or str(self.place)!r}"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What an export wrote.

    Attributes
    ----------
    path : Path
        File or folder that was written.
    samples : int
        Number of samples or ids.
    shards, bytes : int or None
        Number of tar shards or Parquet files, and their total size in bytes; None for a tree and for a file of ids.
    """

    path: Path
    samples: int
    shards: int | None = None
    bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the values under the keys that `--log-json` prints."""
        known = asdict(self) | {"path": str(self.path)}
        return {name: value for name, value in known.items() if value is not None}

"""config.json: which options each stage was run with, and which stages are done; it decides what can be used again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from fairdedup.errors import UserError
from fairdedup.storage.checked_json import damage, read_json, write_json
from fairdedup.storage.fence import NAME as FENCE
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.remedies import quote
from fairdedup.storage.stored_model import StoredFile, StoredModel

StageOptions = dict[str, Any]  # options by their names, and hashes of the files that they name


class InputRecord(StoredModel):
    """The input of a run.

    Attributes
    ----------
    source : str
    format : str
        Name of the format.
    kind : str
        "images" or "embeddings".
    fingerprint : str
        Hash of the names, sizes and times of its shards.
    column : str or None
        The column, or the ending of members of tars, that was read where there could have been another one.
    unused : dict of str to int
        How many files and members no sample uses, by ending.
    damaged : list of str
        Of each damaged shard, what was left out.
    remarks : list of str
        What the user should know about how the input was read.
    white : int or None
        Value that is white in 16-bit pictures; None if there are none.
    reduced : int or None
        Large JPEGs were decoded at a reduced size, whose shorter side has at least so many times the pixels of the
        model's input; None for ready embeddings, and of versions that decoded all files at their size.
    """

    source: str
    format: str
    kind: str
    fingerprint: str
    column: str | None = None
    unused: dict[str, int] = {}
    damaged: list[str] = []
    remarks: list[str] = []
    white: int | None = None
    reduced: int | None = None


class NamedModel(StoredModel):
    """A model as it was named: its name, and the tag or file of its weights."""

    model: str
    pretrained: str | None


class EncoderRecord(NamedModel):
    """The encoder that embedded the images; see `encoders.EncoderSpec`."""

    batch_size: int
    device: str
    dtype: str
    threads: int


class PrototypesRecord(StoredModel):
    """The embedded captions in prototypes.parquet.

    Attributes
    ----------
    made_of : str
        Hash of the file of captions and the encoder.
    seal : str
        Seal of prototypes.parquet.
    """

    made_of: str = Field(validation_alias="made of", serialization_alias="made of")
    seal: str


class StageTime(StoredModel):
    """Rows that a stage handled, and the seconds that it took."""

    rows: int
    seconds: float


class FinishedStages(StoredModel):
    """Results of the finished stages.

    Attributes
    ----------
    embed : int or None
        Number of embedding shards; None where the stage is not finished.
    cluster : str or None
        Hash of the embeddings that were clustered; None where the stage is not finished.
    """

    embed: int | None = None
    cluster: str | None = None


class ConfigRecord(StoredFile):
    """config.json.

    Attributes
    ----------
    options : dict of str to StageOptions
        Options of each stage that was started.
    done : FinishedStages
    device : str or None
        Device that ``--device auto`` was resolved to.
    dtype : str or None
        Number format that ``--dtype auto`` was resolved to.
    input : InputRecord or None
        None until the embed stage is finished; so are `encoder` and `named_model`.
    encoder : EncoderRecord or None
        None for ready embeddings.
    named_model : NamedModel or None
        Model that was named when the input was embedded.
    prototypes : PrototypesRecord or None
    sample : str or None
        Seal of the labels of the built-in sample.
    stages : dict of str to StageTime
    place : str or None
        Run directory, where it was when the runs of ``--against`` were recorded.
    """

    options: dict[str, StageOptions] = Field(validation_alias="asked", serialization_alias="asked")
    done: FinishedStages
    device: str | None = None
    dtype: str | None = None
    input: InputRecord | None = None
    encoder: EncoderRecord | None = None
    named_model: NamedModel | None = None
    prototypes: PrototypesRecord | None = None
    sample: str | None = None
    stages: dict[str, StageTime] = {}
    place: str | None = None

    def options_of(self, stage: str) -> StageOptions:
        """Return the options of a stage; none if it was never started."""
        return self.options.get(stage, {})

    def start_stage(self, stage: str, options: StageOptions) -> ConfigRecord:
        """Return the record with a stage that is started with these options, and not finished."""
        left = {name: value for name, value in self.done.model_dump(exclude_unset=True).items() if name != stage}
        return self.model_copy(
            update={"options": {**self.options, stage: options}, "done": FinishedStages.model_validate(left)}
        )

    def finish_stage(self, stage: str, value: int | str) -> ConfigRecord:
        """Return the record with a stage that is finished; `value` as `FinishedStages` has it."""
        return self.model_copy(update={"done": self.done.model_copy(update={stage: value})})


EMPTY_RECORD = ConfigRecord(options={}, done=FinishedStages())


def check_run_exists(root: Path) -> None:
    """Refuse a run directory that is not there, such as a mistyped one.

    Raises
    ------
    UserError
        If there is no such folder, or it is as a command makes it to lock it.
    """
    if not root.is_dir() or not any(entry.name != FENCE for entry in root.iterdir()):
        raise UserError(
            f"there is no run at {str(root)!r}: check the path, or create it with `fairdedup run INPUT --keep F "
            f"--out {quote(root)}`"
        )


def read_config_record(directory: RunDirectory) -> ConfigRecord:
    """Return config.json; an empty record where there is none.

    Raises
    ------
    FairdedupError
        If it is damaged, or a newer version of fairdedup wrote it.
    """
    return ConfigRecord.read(directory.config) or EMPTY_RECORD


def write_config_record(directory: RunDirectory, record: ConfigRecord) -> None:
    """Write config.json."""
    record.write(directory.config)


def read_input_fingerprints(directory: RunDirectory) -> dict[str, str] | None:
    """Return the fingerprint of each shard of the input that the run was started with, None before that."""
    known = read_json(directory.input)
    if known is None:
        return None
    shards = known.get("shards", known) if isinstance(known, dict) else None
    if isinstance(shards, str):  # an earlier version, and a shard of this name
        shards = known
    if not isinstance(shards, dict) or not all(isinstance(each, str) for each in shards.values()):
        raise damage(directory.input, "it does not name shards and their fingerprints")
    return dict(shards)


def write_input_fingerprints(directory: RunDirectory, fingerprints: dict[str, str]) -> None:
    """Write the fingerprint of each shard of the input."""
    write_json(directory.input, {"shards": fingerprints})


def describe_input_changes(directory: RunDirectory, fingerprints: dict[str, str]) -> list[str]:
    """Return in words how an input differs from the one that the run was started with; an empty list if it does not."""
    known = read_input_fingerprints(directory)
    if known is None:
        return []
    changes = [
        f"{name!r} {'has changed' if name in fingerprints else 'is gone'}"
        for name in known
        if fingerprints.get(name) != known[name]
    ]
    return changes + [f"{name!r} is new" for name in fingerprints if name not in known]

"""Checks before a command writes anything: the run directory, the input, and options that contradict each other."""

from __future__ import annotations

import pyarrow as pa

from fairdedup.config import RunConfig
from fairdedup.core.keep_fraction import parse_eps
from fairdedup.core.model import Options
from fairdedup.core.rules.registry import find_rule
from fairdedup.datasets import Dataset
from fairdedup.datasets.filesystem import to_valid_text
from fairdedup.datasets.parquet_shards import ParquetEmbeddingShard
from fairdedup.errors import UserError, visible
from fairdedup.preparation.kept_columns import choose_kept_columns
from fairdedup.preparation.stage_options import compare_options, list_prune_flags
from fairdedup.stages.curation import (
    CurationOptions,
    check_curation_columns,
    check_curation_names,
    check_curation_options,
)
from fairdedup.stages.scanned_columns import ScannedColumns
from fairdedup.storage.config_record import ConfigRecord, StageOptions, describe_input_changes, read_config_record
from fairdedup.storage.contents import Embedded
from fairdedup.storage.fence import NAME as FENCE
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.remedies import quote


def check_directory(directory: RunDirectory, options: dict[str, StageOptions]) -> None:
    """Refuse a folder with other files, and a run that was made with other options.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.
    options : dict of str to StageOptions
        Options of every stage.

    Raises
    ------
    UserError
        If the folder has other files, or an option differs from the recorded one.
    """
    root = directory.root
    _check_place(directory)
    if not directory.config.is_file():
        _check_empty(directory)
        return
    record = read_config_record(directory)
    changes = compare_options(record, _with_recorded_input(record, directory, options))
    if changes.unknown_stages:
        raise UserError(
            f"{root} was made by another version, with the stage {changes.unknown_stages[0]!r}: choose another --out"
        )
    if changes.texts:
        made = f"{root} was made with other options: {', '.join(compare_options(record, options).texts)}"
        flags = list_prune_flags(options["prune"]) if changes.stages == {"prune"} else None
        if flags is not None:
            raise UserError(
                f"{made}. Use `fairdedup prune {quote(root)} {flags}`, or choose another --out or --restart."
            )
        raise UserError(f"{made}. Choose another --out or --restart.")


def _with_recorded_input(
    record: ConfigRecord, directory: RunDirectory, options: dict[str, StageOptions]
) -> dict[str, StageOptions]:
    """Return the options with the recorded name of the input, which may have moved: `check_input` compares files."""
    recorded, own = record.options_of("embed"), options.get("embed", {})
    if None in (recorded.get("input"), own.get("input")) or not directory.input.is_file():
        return options
    return {**options, "embed": {**own, "input": recorded["input"]}}


def _check_place(directory: RunDirectory) -> None:
    """Refuse a path that cannot become a folder."""
    root = directory.root
    if isinstance(root, RemotePath):
        return
    for folder in (root, *root.parents):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {str(folder)!r} is a file: choose a folder")
        if folder.is_symlink() and not folder.exists():
            raise UserError(f"--out {str(folder)!r} is a broken link: fix it, or choose another --out")


def _check_empty(directory: RunDirectory) -> None:
    """Refuse a folder that is not a run directory and is not empty."""
    root = directory.root
    present = sorted(p.name for p in root.iterdir()) if isinstance(root, RemotePath) or root.is_dir() else []
    # A run that was killed early may have left its sample, its fence, or a temporary file.
    own = ("sample", FENCE)
    foreign = [name for name in present if name not in own and not (name[0] == "." and name.endswith(".tmp"))]
    if foreign:
        raise UserError(f"--out {str(root)!r} holds other files ({foreign[0]!r}): choose a new or empty folder")


def check_input(directory: RunDirectory, dataset: Dataset) -> None:
    """Refuse an input that is not that of the run directory.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.
    dataset : Dataset
        Input that the command names.

    Raises
    ------
    UserError
        If a file of the input has changed. The message names it.
    """
    changes = describe_input_changes(directory, dataset.fingerprints)
    if changes:
        more = f" and {len(changes) - 1:,} more" if len(changes) > 1 else ""
        raise UserError(
            f"{directory.root} was made of another input ({changes[0]}{more}): choose another --out, or --restart; a "
            "copy of its input must have the same sizes and times (cp -a)"
        )


def check_decision_options(config: RunConfig) -> None:
    """Refuse options of a decision that are incomplete, contradict each other, or name files that cannot be read.

    Parameters
    ----------
    config : RunConfig
        Options of the command.

    Raises
    ------
    UserError
        If no amount is given, a value is unknown or out of range, or options exclude each other.
    """
    if config.keep is None and config.at_most is None and config.eps is None and not config.against:
        raise UserError("Give one of --keep, --at-most or --eps, such as --keep 0.5.")
    build_options(config)
    check_curation_options(build_curation_options(config))
    if config.exclude_near is not None:
        find_exclusion_eps(config, 0 if config.against else None)
    elif config.exclude_near_eps is not None:
        raise UserError("--exclude-near-eps needs --exclude-near: name the evaluation samples too")
    if config.eps is not None:
        parse_eps(config.eps)
        if not find_rule(config.rule).has_eps:
            raise UserError(f"--rule {config.rule} has no eps: give --keep or --at-most in place of --eps")


def check_scanned_columns(config: RunConfig, columns: ScannedColumns) -> None:
    """Refuse options that do not fit the columns of the input, before anything is embedded.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    columns : ScannedColumns
        Columns that the metadata is going to have.

    Raises
    ------
    UserError
        If there is no such column, or it has a type that the option cannot use. The message lists those that there are.
    """
    check_curation_names(build_curation_options(config), columns.names, columns.schema)
    for column in config.collect:
        if column not in columns.names:
            raise UserError(
                f"--collect {column!r}: the metadata has no such column; give one of its columns: "
                f"{', '.join(map(visible, columns.names))}"
            )


def check_table_columns(config: RunConfig, dataset: Dataset) -> None:
    """Refuse options that name columns which no file of a table of vectors has, before a row of it is read.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    dataset : Dataset
        The input. Other formats tell their columns only while they are read.

    Raises
    ------
    UserError
        If there is no such column. The message lists those that there are.
    """
    files = {shard.columns: None for shard in dataset.shards if isinstance(shard, ParquetEmbeddingShard)}
    if files:
        captions = ["caption"] * any(own.caption is not None for own in files)
        others = [to_valid_text(new) for own in files for _, new in own.metadata]
        check_scanned_columns(config, ScannedColumns(list(dict.fromkeys(["id", *captions, *others])), pa.schema([])))


def check_columns(config: RunConfig, embedded: Embedded) -> None:
    """Refuse options that name columns which the metadata of the input does not have, or of another type.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    embedded : Embedded
        Embeddings of the run, with the metadata.

    Raises
    ------
    UserError
        If there is no such column. The message lists those that there are.
    """
    check_curation_columns(build_curation_options(config), embedded.schema)
    choose_kept_columns(embedded, config.collect)


def find_exclusion_eps(config: RunConfig, inherited: int | None) -> int:
    """Return the eps of ``--exclude-near`` in ten-thousandths.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    inherited : int or None
        Eps of the earlier runs in ten-thousandths.

    Raises
    ------
    UserError
        If neither an option nor an earlier run sets it.
    """
    if config.exclude_near_eps is not None:
        return parse_eps(config.exclude_near_eps, "exclude_near_eps")
    if config.eps is not None:
        return parse_eps(config.eps)
    if inherited is None:
        raise UserError(
            "--exclude-near needs an eps of its own, since that of --keep and --at-most is found later: add "
            "--exclude-near-eps 0.05"
        )
    return inherited


def build_options(config: RunConfig) -> Options:
    """Return the options of the decision, as core/ reads them.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    """
    return Options(
        rule=find_rule(config.rule),
        cover=config.cover,
        seed=config.seed,
        start=config.start,
        calibrate=config.calibrate,
        target=config.target,
        temperature=config.temperature,
        reserve=config.reserve,
        protected=config.always_keep is not None,
        reach=config.reach,
        reach_clusters=config.reach_clusters,
        within=config.within is not None,
    )


def build_curation_options(config: RunConfig) -> CurationOptions:
    """Return the options of the curation, without the evaluation samples.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    """
    return CurationOptions(
        where=config.where,
        drop=config.drop,
        always_keep=config.always_keep,
        prefer=config.prefer,
        within=config.within,
        may_leave_none=bool(config.against),
    )

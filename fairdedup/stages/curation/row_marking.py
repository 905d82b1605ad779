"""The curation stage: marks the rows of a clustered run for one command, and removes the marks when it ends."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.datasets.ids import read_ids, spell_out
from fairdedup.errors import UserError, format_count, visible
from fairdedup.stages.curation.curation_options import CurationOptions
from fairdedup.stages.curation.evaluation_samples import Evaluation
from fairdedup.stages.curation.group_marks import Criteria, GroupMarks, mark_group
from fairdedup.stages.curation.shard_keys import name_shards
from fairdedup.storage.condition import Condition, check_condition, list_columns_read
from fairdedup.storage.contents import Embedded
from fairdedup.storage.id_lists import check_any_known, describe_unknown, find_unknown, write_ids
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.marks import Marks
from fairdedup.storage.run_files import remove_folder
from fairdedup.storage.shard_files import read_shard_metadata
from fairdedup.storage.within_values import check_within
from fairdedup.tasks import Submit, map_groups

PIXELS, SIDES = "pixels", ("width", "height")  # what --prefer pixels multiplies
STALE_AFTER = 24 * 3600  # seconds after which no command can still be using its marks


@contextmanager
def mark_rows(embedded: Embedded, options: CurationOptions, submit: Submit) -> Iterator[Marks]:
    """Mark the rows of a clustered run for the block.

    Parameters
    ----------
    embedded : Embedded
    options : CurationOptions
    submit : Submit

    Raises
    ------
    UserError
        If a column or an id does not exist, or no row is left.
    """
    if not options.marks_rows:
        yield Marks()
        return
    run = embedded.directory
    _remove_stale(run)
    folder = run.curated / secrets.token_hex(4)
    try:
        yield _mark(embedded, options, folder, submit)
    finally:
        remove_folder(folder)
        with suppress(OSError):
            run.curated.rmdir()  # fails while another command has marks there


def _remove_stale(run: RunDirectory) -> None:
    """Remove the marks of commands that were killed; newer marks may be in use."""
    for left in run.curated.glob("*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_AFTER:
                remove_folder(left)


def _mark(embedded: Embedded, options: CurationOptions, folder: Path, submit: Submit) -> Marks:
    criteria = _build_criteria(embedded, options, folder)
    dropped = _write_list(options.drop, "--drop", criteria.drop)
    kept = _write_list(options.always_keep, "--always-keep", criteria.always_keep)
    mark = partial(map_groups, submit, "curate", mark_group, embedded.groups, embedded.directory.root, criteria)
    found = mark()
    matches: list[Callable[[_IdList, NDArray[np.int64]], pa.Array | None]] = [_spell_out]
    if not options.may_leave_none:  # a list may be of samples of earlier runs, whose keys may be those of others here
        matches.append(partial(_name_shards, embedded=embedded, submit=submit))
    for match in matches:  # ids that no sample has may be written in another way
        new_dropped = _match(dropped, [f.ids.dropped for f in found], match)
        new_kept = _match(kept, [f.ids.kept for f in found], match)
        if new_dropped is not dropped or new_kept is not kept:
            dropped, kept = new_dropped, new_kept
            found = mark()
    excluded, protected = sum(f.excluded for f in found), sum(f.protected for f in found)
    valid = embedded.valid
    warnings = []
    if dropped is not None:
        warnings += _check_dropped(dropped.ids, found, options)
    if kept is not None:
        warnings += _check_kept(kept.ids, found, kept.name)
    if np.sum(excluded) == valid and not options.may_leave_none:
        near_option = ", --exclude-near" if options.evaluation else ""
        raise UserError(f"--where{near_option} and --drop leave none of {format_count(valid, 'row')}: exclude fewer")
    if options.evaluation is not None:
        _write_evaluation_ids(options.evaluation, Marks(folder).evaluation)
        warnings.append(_describe_near(options.evaluation, sum(f.near for f in found)))
    reasons = (  # in the order of DROP, WHERE, NEAR
        f"drop: {visible(options.drop.name) if options.drop else ''}",
        f"where: {visible(options.where or '')}",
        "too near evaluation sample",
    )
    return Marks(folder, excluded, protected, reasons, warnings)


def check_curation_columns(options: CurationOptions, schema: pa.Schema) -> tuple[Condition | None, tuple[str, ...]]:
    """Check that the metadata has the columns that the options name.

    Parameters
    ----------
    options : CurationOptions
    schema : Schema
        Columns of the metadata.

    Returns
    -------
    where : Condition or None
    prefer : tuple of str
        Columns of numbers whose product is preferred.

    Raises
    ------
    UserError
        If a column does not exist, or has a type that the option cannot use.
    """
    where = None if options.where is None else check_condition(options.where, schema)
    prefer = () if options.prefer is None else _choose_numbers(options.prefer, schema)
    if options.within is not None:
        check_within(options.within, schema)
    return where, prefer


def check_curation_names(options: CurationOptions, names: list[str], schema: pa.Schema) -> None:
    """Check that the options fit the columns that there are, while not every type of a column is known.

    Parameters
    ----------
    options : CurationOptions
    names : list of str
        Columns that the metadata is going to have.
    schema : Schema
        Those whose type is known.

    Raises
    ------
    UserError
        If a column does not exist, or has a type that the option cannot use.
    """
    known = schema.names
    if options.where is not None and list_columns_read(options.where, names) <= set(known):
        check_condition(options.where, schema)
    wrong = "the metadata has no such column; give one of its columns: " + ", ".join(map(visible, names))
    if options.prefer is not None:
        if options.prefer not in (*names, PIXELS):
            raise UserError(f"--prefer {options.prefer!r}: {wrong}")
        if options.prefer in known:
            _choose_numbers(options.prefer, schema)
    if options.within is not None:
        if options.within not in names:
            raise UserError(f"--within {options.within!r}: {wrong}")
        if options.within in known:
            check_within(options.within, schema)


def _build_criteria(embedded: Embedded, options: CurationOptions, folder: Path) -> Criteria:
    schema = embedded.schema
    where, prefer = check_curation_columns(options, schema)
    columns = {"id", *prefer, *(where.columns if where else ())}
    return Criteria(
        folder=folder,
        where=where,
        prefer=prefer,
        within=options.within,
        schema=pa.schema([field for field in schema if field.name in columns]),
        evaluation=None if options.evaluation is None else options.evaluation.vectors(),
    )


class _IdList(NamedTuple):
    """A user's list of ids, with the option and file that name it, and the copy that every task can read."""

    ids: pa.Array
    file: Path
    option: str
    target: Path

    @property
    def name(self) -> str:
        return f"{self.option} {self.file}"


def _write_list(file: Path | None, option: str, target: Path) -> _IdList | None:
    """Write the ids of a user's file where every task can read them, and return them; None without a file."""
    if file is None:
        return None
    ids = read_ids(file, option)
    write_ids(target, ids)
    return _IdList(ids, file, option, target)


def _match(
    listed: _IdList | None,
    found: list[NDArray[np.int64]],
    match: Callable[[_IdList, NDArray[np.int64]], pa.Array | None],
) -> _IdList | None:
    """Write a list again if `match` knows its unknown ids in another form, and return it; else the list as it is."""
    unknown = np.zeros(0, np.int64) if listed is None else find_unknown(listed.ids, found)
    if listed is None or not len(unknown):
        return listed
    ids = match(listed, unknown)
    if ids is None:
        return listed
    write_ids(listed.target, ids)
    return listed._replace(ids=ids)


def _spell_out(listed: _IdList, unknown: NDArray[np.int64]) -> pa.Array | None:
    return spell_out(listed.ids, unknown)


def _name_shards(listed: _IdList, unknown: NDArray[np.int64], *, embedded: Embedded, submit: Submit) -> pa.Array | None:
    return name_shards(listed.ids, unknown, listed.file, listed.option, embedded, submit)


def _check_dropped(ids: pa.Array, found: Sequence[GroupMarks], options: CurationOptions) -> list[str]:
    """Refuse ids to drop of which the run has none; return a warning if it has only some.

    A run against earlier runs may have none: the list may be of samples of the days before.
    """
    what, unknown = f"--drop {options.drop}", find_unknown(ids, [f.ids.dropped for f in found])
    if not options.may_leave_none:
        check_any_known(ids, unknown, what)
    return [describe_unknown(ids, unknown, what)] if len(unknown) else []


def _check_kept(ids: pa.Array, found: Sequence[GroupMarks], what: str) -> list[str]:
    """Refuse ids to keep that the run does not have; return a warning if some are of rows that cannot be kept."""
    unknown = find_unknown(ids, [f.ids.kept for f in found])
    if len(unknown):
        raise UserError(
            f"{describe_unknown(ids, unknown, what)}; remove the ids that are not in the run, or give another file"
        )
    lost = np.unique(np.concatenate([f.ids.lost for f in found]))
    if not len(lost):
        return []
    first = ids[int(lost[0])].as_py()
    return [
        f"{what}: {format_count(len(lost), 'id is of a rejected row', 'ids are of rejected rows')} "
        f"and cannot be kept; the first is {first!r}"
    ]


def _write_evaluation_ids(evaluation: Evaluation, path: Path) -> None:
    theirs = evaluation.embedded
    ids = [read_shard_metadata(theirs.directory, record, ["id"]).column("id") for record in theirs.records]
    write_ids(
        path, pa.concat_arrays([pa.array([], pa.string()), *(chunk for column in ids for chunk in column.chunks)])
    )


def _describe_near(evaluation: Evaluation, near: int) -> str:
    unusable = sum(len(record.rejected) for record in evaluation.embedded.records)
    verb = "excludes" if unusable == 1 else "exclude"
    ignored = f"; {unusable:,} of its samples cannot be used and {verb} nothing" if unusable else ""
    return (
        f"--exclude-near {evaluation.name}: {format_count(near, 'row is', 'rows are')} too near and excluded{ignored}"
    )


def _choose_numbers(name: str, schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns whose product ``--prefer`` names: one, or width and height for "pixels" that is no column."""
    has_size = all(side in schema.names and _is_number(schema.field(side).type) for side in SIDES)
    if name == PIXELS and name not in schema.names and has_size:
        return SIDES
    if name not in schema.names:
        raise UserError(f"--prefer {name!r}: the metadata has no such column; {_list_numbers(schema)}")
    if not _is_number(schema.field(name).type):
        numbers = ", ".join(field.name for field in schema if _is_number(field.type)) or "none"
        raise UserError(
            f"--prefer {name!r} must be a column of numbers, and is {schema.field(name).type}: the columns of numbers "
            f"are {numbers}"
        )
    return (name,)


def _list_numbers(schema: pa.Schema) -> str:
    """Return in words which columns can be preferred by."""
    numbers = ", ".join(field.name for field in schema if _is_number(field.type))
    if not numbers:
        return "there is no column of numbers: leave --prefer out"
    return f"give one of its columns of numbers: {numbers}"


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))

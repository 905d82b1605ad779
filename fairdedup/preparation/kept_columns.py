"""Which columns kept/ gets: those of the metadata, and what a kept sample stands for."""

from __future__ import annotations

from collections.abc import Sequence

from fairdedup.datasets.reserved_columns import rename_reserved
from fairdedup.errors import UserError, visible
from fairdedup.storage.contents import Embedded
from fairdedup.storage.kept_samples import STANDS_FOR, KeptColumns, name_collected
from fairdedup.storage.manifest import RunManifest


def choose_kept_columns(embedded: Embedded, collect: Sequence[str]) -> KeptColumns:
    """Return the columns of kept/ of a run that is decided now.

    A column of the input that has the name of a column of ours is renamed, as `rename_reserved` does it.

    Parameters
    ----------
    embedded : Embedded
        Embeddings of the run, with the metadata.
    collect : sequence of str
        Columns of ``--collect``.

    Raises
    ------
    UserError
        If the metadata has no such column, or has the column already that it would become.
    """
    schema = embedded.schema
    names = tuple(rename_reserved(schema.names, (STANDS_FOR,)).values())
    for column in collect:
        if column not in schema.names:
            raise UserError(
                f"--collect {column!r}: the metadata has no such column; give one of its columns: "
                f"{', '.join(map(visible, schema.names))}"
            )
        if name_collected(column) in names:
            raise UserError(
                f"--collect {column!r}: the metadata has a column {name_collected(column)!r} already; leave --collect "
                f"{column!r} out, or give that column of the input another name"
            )
    return KeptColumns(schema, names, tuple(collect))


def find_kept_columns(embedded: Embedded, manifest: RunManifest) -> KeptColumns:
    """Return the columns of kept/ of a finished run.

    Parameters
    ----------
    embedded : Embedded
        Embeddings of the run, with the metadata.
    manifest : RunManifest
        Manifest of the run. Earlier versions knew no ``--collect``, and wrote the metadata alone.
    """
    collect = manifest.config.get("prune", {}).get("collect")
    if collect is None:
        return KeptColumns(embedded.schema, tuple(embedded.schema.names), None)
    return choose_kept_columns(embedded, collect)

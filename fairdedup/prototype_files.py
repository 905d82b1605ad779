"""Prototypes in files: what a run keeps of them, and the readers of vectors and labelled exemplars from users.

A Parquet file of vectors has one row for each concept and each absent prototype, with the columns `attribute`,
`concept`, `vector` and, optionally, `temperature` and `offset`. Captions are embedded elsewhere
(`stages.caption_embedding`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.prototypes import ABSENT, Attribute, Prototypes
from fairdedup.datasets.bounded_files import check_array_headers, read_bounded_table
from fairdedup.datasets.npy_arrays import without_warnings
from fairdedup.datasets.rows import cast_to_text
from fairdedup.datasets.zip_members import is_zip_damage
from fairdedup.errors import UserError, first_line, format_count
from fairdedup.prototype_rows import PrototypeRow, group_rows, read_rows, write_rows
from fairdedup.storage.contents import Embedded
from fairdedup.storage.plain_files import expect_plain_file, open_plain_file
from fairdedup.storage.sealed_files import Source, load_table
from fairdedup.storage.shard_files import open_shard_vectors, read_shard_metadata
from fairdedup.storage.shipped_files import find_shipped_prototypes

MOST_BYTES = 1 << 28  # of the vectors in a file of a user

ConceptVectors = Mapping[str, Mapping[str, NDArray[Any]]]
"""Attribute -> {concept: vector (d,)}; the concept ``absent`` may have several: (a, d)."""


def default_prototypes() -> Path:
    """Return the path of the default captions: perceived gender presentation, age and skin tone."""
    return find_shipped_prototypes("people")


def needs_text_tower(file: Path) -> bool:
    """Tell by a prototypes file's name whether it holds captions, which the encoder must embed."""
    return file.suffix in (".yaml", ".yml")


def write_prototypes(path: Path, prototypes: Prototypes) -> None:
    """Write prototypes exactly as the rules use them: unit vectors of float16 values, with temperatures and offsets.

    Parameters
    ----------
    path : Path
        The Parquet file to write. `read_prototypes` reads it, and users may pass it as a prototypes file.
    prototypes : Prototypes
        What to write.
    """
    rows = [
        PrototypeRow(attribute.name, concept, vector.astype(np.float32), attribute.temperature, offset)
        for attribute in prototypes.attributes
        for concept, vector, offset in [
            *zip(
                attribute.concepts,
                attribute.vectors,
                attribute.offsets or (None,) * len(attribute.concepts),
                strict=True,
            ),
            *((ABSENT, vector, None) for vector in attribute.absent),
        ]
    ]
    write_rows(path, rows, pa.float32(), always=("temperature",))


def write_vectors(
    path: Path,
    vectors: ConceptVectors,
    temperatures: Mapping[str, float] | None = None,
    offsets: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Write vectors of any length and precision as a prototypes file, which `read_vectors` reads.

    Parameters
    ----------
    path : Path
        The Parquet file to write.
    vectors : mapping of str to mapping of str to ndarray
        For each attribute, a vector (d,) for each concept, and one (d,) or several (a, d) for ``absent``.
    temperatures : mapping of str to float or None
        The temperature of each attribute that has one.
    offsets : mapping of str to mapping of str to float or None
        The offset of each concept, of each attribute that has any.
    """
    known, added = temperatures or {}, offsets or {}
    rows = [
        PrototypeRow(attribute, concept, vector, known.get(attribute), added.get(attribute, {}).get(concept))
        for attribute, concepts in vectors.items()
        for concept, own in concepts.items()
        for vector in np.atleast_2d(own)
    ]
    write_rows(path, rows, pa.float64())


def read_prototypes(source: Source) -> Prototypes:
    """Read what `write_prototypes` wrote, bit for bit: scaling the vectors again would round them again.

    Parameters
    ----------
    source : Seal or Unsealed
        A Parquet file of a run's state.

    Raises
    ------
    DamagedFileError
        If the file is missing or damaged.
    """
    attributes = []
    for name, rows in group_rows(read_rows(load_table(source), np.float16), source.path).items():
        vectors = np.stack(list(rows.concepts.values()))
        absent = np.stack(rows.absent) if rows.absent else np.zeros((0, vectors.shape[1]), np.float16)
        attributes.append(Attribute(name, tuple(rows.concepts), vectors, absent, rows.temperature, rows.list_offsets()))
    return Prototypes(tuple(attributes))


def read_own_vectors(source: Source) -> Prototypes:
    """Read what `write_vectors` wrote into a run; raises as `read_prototypes`.

    Parameters
    ----------
    source : Seal or Unsealed
        A Parquet file of vectors in a run.
    """
    return _group_vectors(load_table(source), source.path)


def check_vectors(file: Path) -> None:
    """Check a file of vectors or exemplars, as far as that is possible without embeddings.

    Parameters
    ----------
    file : Path
        A file as in `read_vectors`.

    Raises
    ------
    UserError
        As `read_vectors`, except for IDs that the run does not have.
    """
    found = _read(file)
    if not isinstance(found, pa.Table):
        Prototypes.of(found)


def read_vectors(file: Path, embedded: Embedded | None = None) -> Prototypes:
    """Read prototypes from vectors, or compute them as means over labelled exemplars of the run.

    Parameters
    ----------
    file : Path
        ``.npy`` holds (c, d). ``.npz`` holds an array (d,) for each ``attribute/concept``, and (d,) or (a, d) for
        ``attribute/absent``. ``.parquet`` holds vectors as `write_vectors` writes them, or exemplars in the columns id,
        attribute and concept; the prototype of a concept is then the mean of its exemplars' unit embeddings.
    embedded : Embedded, optional
        Embeddings of the run that contains the exemplars; needed for a file of exemplars.

    Raises
    ------
    UserError
        If the file cannot be read, has other columns, or names IDs that the run does not have.
    """
    found = _read(file)
    if not isinstance(found, pa.Table):
        return Prototypes.of(found)
    if embedded is None:
        raise UserError(
            f"prototypes {str(file)!r} hold ids of exemplars, but no run is given: give vectors or captions"
        )
    return Prototypes.of(_exemplar_means(found, file, embedded))


_UNREADABLE = (OSError, TypeError, KeyError, MemoryError, pa.ArrowException)  # and what `is_zip_damage` knows


def _read(file: Path) -> Any:
    """Return an array, a mapping attribute -> {concept: vector}, prototypes, or a table of exemplars."""
    expect_plain_file(file, f"prototypes {str(file)!r}")
    try:
        if file.suffix in (".npy", ".npz"):
            return _read_numpy(file)
        if file.suffix == ".parquet":
            return _from_table(read_bounded_table(str(file), MOST_BYTES), file)
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, _UNREADABLE) and not is_zip_damage(error):
            raise
        # numpy's own message advises to load the file unsafely.
        why = "not a plain array" if "allow_pickle" in str(error) else first_line(str(error) or "it is empty")
        raise UserError(f"prototypes {str(file)!r} cannot be read ({why}): write the file again") from None
    raise UserError(f"prototypes {str(file)!r}: unknown kind; give a .yaml, .parquet, .npz or .npy file")


def _read_numpy(file: Path) -> Any:
    check_array_headers(str(file), MOST_BYTES)
    with open_plain_file(file, f"prototypes {str(file)!r}") as stream, without_warnings():
        found = np.load(stream, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile) != (file.suffix == ".npz"):
            raise ValueError("its content is of another kind than its name says")
        if file.suffix == ".npy":
            return _expect_numbers(found, "the array", file)
        out: dict[str, dict[str, NDArray[Any]]] = {}
        for key, vector in dict(found).items():
            attribute, slash, concept = key.partition("/")
            if not slash:
                raise UserError(f"prototypes {str(file)!r}: array {key!r} has no attribute; name it attribute/concept")
            out.setdefault(attribute, {})[concept] = _expect_numbers(vector, f"array {key!r}", file)
        return out


def _expect_numbers(array: Any, name: str, file: Path) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        kind = getattr(array, "dtype", "no array")
        raise UserError(f"prototypes {str(file)!r}: {name} holds {kind}; give real numbers")
    return array


def _from_table(table: pa.Table, file: Path) -> pa.Table | Prototypes:
    """Return the prototypes in a table of vectors; check the columns of a table of exemplars, and return it."""
    names = set(table.column_names)
    for name in ("attribute", "concept", "vector" if "vector" in names else "id"):
        if name not in names:
            raise UserError(
                f"prototypes {str(file)!r} has columns {', '.join(table.column_names)}: "
                "give attribute, concept and vector, or attribute, concept and id"
            )
        if table.column(name).null_count:
            raise UserError(f"prototypes {str(file)!r}: column {name!r} has empty rows; fill them or remove them")
    if "vector" not in names:
        return table
    return _group_vectors(table, file)


def _group_vectors(table: pa.Table, file: Path) -> Prototypes:
    grouped = group_rows(read_rows(table, np.float64), file)
    vectors = {
        name: rows.concepts | ({ABSENT: np.vstack(rows.absent)} if rows.absent else {})
        for name, rows in grouped.items()
    }
    temperatures = {name: rows.temperature for name, rows in grouped.items() if rows.temperature is not None}
    offsets = {name: rows.list_offsets() for name, rows in grouped.items()}
    return Prototypes.of(vectors).with_temperatures(temperatures).with_offsets(offsets)


def _exemplar_means(table: pa.Table, file: Path, embedded: Embedded) -> ConceptVectors:
    run = embedded.directory
    names = cast_to_text(table.column("id")).to_pylist()
    wanted = set(names)
    found: dict[str, NDArray[np.float64]] = {}
    for record in embedded.records:
        ids = read_shard_metadata(run, record, ["id"]).column("id").to_pylist()
        places = [k for k, name in enumerate(ids) if name in wanted]
        if places:
            vectors = np.asarray(open_shard_vectors(run, record)[places], np.float64)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            found.update(zip([ids[k] for k in places], vectors, strict=True))
    missing = sorted(wanted - set(found))
    if missing:
        raise UserError(
            f"prototypes {str(file)!r} names id {missing[0]!r}, which is not in the run "
            f"({format_count(len(missing), 'such id')}): remove these rows"
        )
    groups: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    for name, line in zip(names, table.select(["attribute", "concept"]).to_pylist(), strict=True):
        groups.setdefault(line["attribute"], {}).setdefault(line["concept"], []).append(found[name])
    return {a: {c: np.mean(v, axis=0) for c, v in concepts.items()} for a, concepts in groups.items()}

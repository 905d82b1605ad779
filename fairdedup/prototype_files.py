"""From a prototypes file to vectors: captions through the run's text tower, ready vectors, or labelled exemplars."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fairdedup.core.prototypes import ABSENT, Prototypes
from fairdedup.encoders import EncoderSpec, load_encoder
from fairdedup.errors import UserError
from fairdedup.storage.contents import load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.run_files import read_array, read_table, write_table

BLANK = "{}"


class AttributeCaptions(BaseModel):
    """The captions of one attribute."""

    model_config = ConfigDict(extra="forbid")

    concepts: dict[str, list[str]]
    templates: list[str] | None = None
    absent: list[str] = []


class CaptionFile(BaseModel):
    """A file of captions: templates with a blank, and the words that fill it for each concept."""

    model_config = ConfigDict(extra="forbid")

    templates: list[str] = ["a photo of a {}"]
    attributes: dict[str, AttributeCaptions]


def default_prototypes() -> Path:
    """Return the captions that ship with fairdedup: perceived gender presentation, age and skin tone."""
    package = Path(__file__).parent
    shipped = package / "configs" / "prototypes" / "people.yaml"
    return shipped if shipped.is_file() else package.parent / "configs" / "prototypes" / "people.yaml"


def needs_text_tower(file: Path) -> bool:
    """Tell whether a prototypes file holds captions."""
    return file.suffix in (".yaml", ".yml")


def read_captions(file: Path) -> CaptionFile:
    """Read and check a YAML file of captions.

    Raises
    ------
    UserError
        If it cannot be read, or does not have the form of configs/prototypes/people.yaml.
    """
    try:
        known = yaml.safe_load(file.read_text(encoding="utf-8"))
        captions = CaptionFile.model_validate(known)
    except OSError as error:
        raise UserError(f"prototypes {str(file)!r}: {error.strerror}; give a .yaml, .parquet, .npz or .npy") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"prototypes {str(file)!r}, {place}: {first['msg'].lower()}; write it as people.yaml is written"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: wrong bytes, or a 13th month
        raise UserError(f"prototypes {str(file)!r} is no YAML: mend it, after configs/prototypes/people.yaml") from None
    if not captions.attributes:
        raise UserError(f"prototypes {str(file)!r} has no attributes: add one, as people.yaml does")
    for name, attribute in captions.attributes.items():
        if ABSENT in attribute.concepts:
            raise UserError(f"prototypes {str(file)!r}: {name!r} has a concept {ABSENT!r}: write it beside `concepts`")
        for template in attribute.templates or captions.templates:
            if BLANK not in template:
                raise UserError(f"prototypes {str(file)!r}: template {template!r} of {name!r} has no blank: add {{}}")
        if not attribute.concepts or not all(attribute.concepts.values()):
            raise UserError(f"prototypes {str(file)!r}: attribute {name!r} has a concept without words: add some")
    return captions


def embed_captions(captions: CaptionFile, spec: EncoderSpec) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return attribute -> {concept: the mean of its unit caption embeddings}; ``absent`` has one for each caption."""
    encoder = load_encoder(spec)

    def unit(texts: list[str]) -> NDArray[np.float64]:
        vectors = encoder.encode_texts(texts).astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    out: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, attribute in captions.attributes.items():
        templates = attribute.templates or captions.templates
        out[name] = {
            concept: unit([t.replace(BLANK, w) for t in templates for w in words]).mean(axis=0)
            for concept, words in attribute.concepts.items()
        }
        if attribute.absent:
            out[name][ABSENT] = unit(attribute.absent)
    return out


def check_vectors(file: Path) -> None:
    """Read prototypes that are vectors as far as that goes before there are embeddings; raises as `read_vectors`."""
    found = _read(file)
    if not isinstance(found, pa.Table):
        Prototypes.of(found)


def read_vectors(file: Path, run: RunDirectory) -> Prototypes:
    """Read prototypes that are vectors, or means over labelled exemplars of the run.

    ``.npy`` holds (c, d); ``.npz`` an array (d,) for each ``attribute/concept``, and (a, d) for ``attribute/absent``;
    Parquet either attribute, concept and vector (and temperature, one for each attribute), or id, attribute and
    concept: then a concept's prototype is the mean of the unit embeddings of the samples with those IDs.

    Raises
    ------
    UserError
        If the file cannot be read, has other columns, or names IDs that the run does not have.
    """
    found = _read(file)
    return Prototypes.of(_exemplar_means(found, file, run) if isinstance(found, pa.Table) else found)


def _read(file: Path) -> Any:
    """Return an array, a mapping attribute -> {concept: vector}, or a table of exemplars."""
    try:
        if file.suffix in (".npy", ".npz"):
            with open(file, "rb") as stream:
                found = np.load(stream, allow_pickle=False)
                if isinstance(found, np.lib.npyio.NpzFile) != (file.suffix == ".npz"):
                    raise ValueError("it is of another kind than its name says")
                if file.suffix == ".npz":
                    return _by_attribute(dict(found), file)
                return _numbers(found, "the array", file)
        if file.suffix == ".parquet":
            return _from_table(read_table(file), file)
    except UserError:
        raise
    except (OSError, EOFError, ValueError, TypeError, BadZipFile, pa.ArrowException) as error:
        # NumPy would have us load it unsafely.
        why = "no plain array" if "allow_pickle" in str(error) else (str(error) or "it is empty").splitlines()[0]
        raise UserError(f"prototypes {str(file)!r} cannot be read ({why}): mend it") from None
    raise UserError(f"prototypes {str(file)!r}: no known kind; give a .yaml, .parquet, .npz or .npy file")


def _numbers(array: Any, name: str, file: Path) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        kind = getattr(array, "dtype", "no array")
        raise UserError(f"prototypes {str(file)!r}: {name} holds {kind}; give real numbers")
    return array


def _by_attribute(arrays: dict[str, NDArray[Any]], file: Path) -> dict[str, dict[str, NDArray[Any]]]:
    out: dict[str, dict[str, NDArray[Any]]] = {}
    for key, vector in arrays.items():
        attribute, slash, concept = key.partition("/")
        if not slash:
            raise UserError(f"prototypes {str(file)!r}: array {key!r} has no attribute; name it attribute/concept")
        out.setdefault(attribute, {})[concept] = _numbers(vector, f"array {key!r}", file)
    return out


def _from_table(table: pa.Table, file: Path) -> Any:
    names = set(table.column_names)
    for name in ("attribute", "concept", "vector" if "vector" in names else "id"):
        if name not in names:
            raise UserError(
                f"prototypes {str(file)!r} has columns {', '.join(table.column_names)}: "
                "give attribute, concept and vector, or attribute, concept and id"
            )
        if table.column(name).null_count:
            raise UserError(f"prototypes {str(file)!r}: column {name!r} has empty rows; fill them or take them out")
    if "vector" not in names:
        return table
    out: dict[str, dict[str, Any]] = {}
    temperatures: dict[str, float] = {}
    for line in table.to_pylist():
        attribute, concept = line["attribute"], line["concept"]
        temperature = line.get("temperature")
        if temperature is not None and temperatures.setdefault(attribute, temperature) != temperature:
            raise UserError(f"prototypes {str(file)!r}: {attribute} has several temperatures; give it one")
        own = out.setdefault(attribute, {})
        if concept in own and concept != ABSENT:
            raise UserError(f"prototypes {str(file)!r}: {attribute}, {concept} stands twice; give one vector of each")
        vector = np.asarray(line["vector"], np.float64)
        own[concept] = np.vstack((own[concept], vector)) if concept in own else vector
    return Prototypes.of(out).at(temperatures)


def write_vectors(
    file: Path, vectors: dict[str, dict[str, NDArray[np.float64]]], temperatures: dict[str, float] | None = None
) -> None:
    """Write prototypes as `read_vectors` reads them, with the temperature of each attribute that has one."""
    known = temperatures or {}
    lines = [
        {"attribute": attribute, "concept": concept, "vector": vector}
        | ({"temperature": known.get(attribute)} if known else {})
        for attribute, concepts in vectors.items()
        for concept, own in concepts.items()
        for vector in np.atleast_2d(own).tolist()
    ]
    write_table(file, pa.Table.from_pylist(lines))


def _exemplar_means(table: pa.Table, file: Path, run: RunDirectory) -> dict[str, dict[str, NDArray[np.float64]]]:
    lines = table.to_pylist()
    wanted = {str(line["id"]) for line in lines}
    found: dict[str, NDArray[np.float64]] = {}
    for record in load_embedded(run).records:
        ids = read_table(run.metadata(record.number), ["id"]).column("id").to_pylist()
        places = [k for k, name in enumerate(ids) if name in wanted]
        if places:
            vectors = np.asarray(read_array(run.vectors(record.number))[places], np.float64)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            found.update(zip([ids[k] for k in places], vectors, strict=True))
    missing = sorted(wanted - set(found))
    if missing:
        raise UserError(
            f"prototypes {str(file)!r} names id {missing[0]!r}, which the run does not have ({len(missing)} such): "
            "take them out"
        )
    groups: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    for line in lines:
        groups.setdefault(line["attribute"], {}).setdefault(line["concept"], []).append(found[str(line["id"])])
    return {a: {c: np.mean(v, axis=0) for c, v in concepts.items()} for a, concepts in groups.items()}

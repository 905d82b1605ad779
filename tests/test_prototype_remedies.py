"""Messages about prototypes in files whose remedy is applied here, and succeeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairdedup.errors import UserError
from fairdedup.prototype_files import check_vectors, read_vectors
from fairdedup.stages.caption_embedding import read_captions

GOOD = {"attribute": ["age", "age"], "concept": ["old", "young"], "vector": [[1.0, 0.0], [0.0, 1.0]]}


def npy(array: Any) -> Callable[[Path], Path]:
    return lambda here: (np.save(here / "p.npy", array), here / "p.npy")[1]


def npz(**arrays: Any) -> Callable[[Path], Path]:
    return lambda here: (
        np.savez(here / "p.npz", **{k.replace("_", "/"): v for k, v in arrays.items()}),
        here / "p.npz",
    )[1]


def table(**columns: Any) -> Callable[[Path], Path]:
    return lambda here: (pq.write_table(pa.table({**GOOD, **columns}), here / "p.parquet"), here / "p.parquet")[1]


def only(*names: str) -> Callable[[Path], Path]:
    wanted = {**GOOD, "id": ["a", "b"]}
    return lambda here: (
        pq.write_table(pa.table({name: wanted[name] for name in names}), here / "p.parquet"), here / "p.parquet",
    )[1]  # fmt: skip


def text(name: str, content: str) -> Callable[[Path], Path]:
    return lambda here: ((here / name).write_text(content), here / name)[1]


VECTORS: dict[str, tuple[Callable[[Path], Path], str, Callable[[Path], Path]]] = {
    "another kind": (text("p.txt", "x"), "give a .yaml, .parquet, .npz or .npy file", npy(np.eye(2))),
    "an empty file": (text("p.npy", ""), "write the file again", npy(np.eye(2))),
    "no array": (text("p.npy", "words"), "(not a plain array): write the file again", npy(np.eye(2))),
    "no table": (text("p.parquet", "words"), "write the file again", table()),
    "words in an array": (npy(np.array([["a"]])), "holds <U1; give real numbers", npy(np.eye(2))),
    "complex": (npz(age_old=np.ones(2) + 1j), "give real numbers", npz(age_old=np.ones(2))),
    "no attribute": (npz(old=np.ones(2)), "name it attribute/concept", npz(age_old=np.ones(2))),
    "one vector": (npy(np.ones(2)), "give (concepts, d) or a dict", npy(np.ones((1, 2)))),
    "no concept": (only("attribute", "vector"), "give attribute, concept and vector, or", table()),
    "no vector": (only("attribute", "concept"), "or attribute, concept and id", only("attribute", "concept", "id")),
    "empty rows": (table(concept=["old", None]), "has empty rows; fill them or remove them", table()),
    "two temperatures": (table(temperature=[0.1, 0.2]), "has several temperatures; give it one",
                         table(temperature=[0.1, None])),
    "two vectors": (table(concept=["old", "old"]), "give one for each concept", table(concept=["old", "absent"])),
    "zero": (table(vector=[[0.0, 0.0], [1.0, 0.0]]), "give a vector of the encoder", table()),
    "two lengths": (table(vector=[[1.0], [1.0, 0.0]]), "every prototype is one vector of the same d values", table()),
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_the_remedy_of_a_message_about_vectors_works(name: str, tmp_path: Path) -> None:
    wrong, says, remedied = VECTORS[name]
    with pytest.raises(UserError) as caught:
        check_vectors(wrong(tmp_path))
    assert says in str(caught.value) and "\n" not in str(caught.value)
    check_vectors(remedied(tmp_path))


def test_exemplars_without_a_run_are_given_as_vectors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hold ids of exemplars, but no run is given: give vectors or captions"):
        read_vectors(only("attribute", "concept", "id")(tmp_path))
    assert read_vectors(table()(tmp_path)).dimension == 2


CAPTIONS = {
    "no YAML": ("a: [", "correct it; `fairdedup init prototypes` writes an example"),
    "no attributes": ("attributes: {}", "has no attributes: add one"),
    "no blank": ("templates: [a photo]\nattributes: {age: {concepts: {old: [man]}}}", "has no blank: add {}"),
    "a concept named absent": (
        "attributes: {age: {concepts: {old: [man], absent: [cat]}}}", "move it out of `concepts`, next to it"),
    "another form": ("attributes: {age: [old]}", "`fairdedup init prototypes` writes an example"),
    "an attribute twice": ("attributes: {age: {concepts: {a: [b]}}, age: {concepts: {c: [d]}}}", "remove one of them"),
}  # fmt: skip


@pytest.mark.parametrize("name", CAPTIONS)
def test_the_remedy_of_a_message_about_captions_works(name: str, tmp_path: Path) -> None:
    content, says = CAPTIONS[name]
    with pytest.raises(UserError) as caught:
        read_captions(text("p.yaml", content)(tmp_path))
    assert says in str(caught.value) and "\n" not in str(caught.value)
    good = "templates: ['a {}']\nattributes: {age: {concepts: {old: [man]}, absent: [a cat]}}"
    assert read_captions(text("p.yaml", good)(tmp_path)).attributes["age"].absent == ["a cat"]

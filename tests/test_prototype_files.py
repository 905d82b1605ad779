"""Prototypes files become vectors: from captions (by a text tower that one can compute by hand), vectors, exemplars."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import oracles
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray

from fairdedup.core.prototypes import Prototypes
from fairdedup.encoders import EncoderSpec
from fairdedup.errors import UserError
from fairdedup.prototype_files import (
    check_vectors,
    default_prototypes,
    needs_text_tower,
    read_prototypes,
    read_vectors,
    write_prototypes,
    write_vectors,
)
from fairdedup.stages import caption_embedding
from fairdedup.stages.caption_embedding import embed_captions, read_captions
from fairdedup.storage.checked_json import write_json
from fairdedup.storage.contents import load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import Rejection, ShardRecord, seal_files, write_shard_record
from fairdedup.storage.run_files import write_array, write_table
from fairdedup.storage.sealed_files import Unsealed

SPEC = EncoderSpec("model", None, 8, "cpu", "float32", 1)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Counting:
    """An encoder whose vector of a text is the count of each letter, times the text's length."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        self.seen += texts
        return np.array([[len(t) * t.count(letter) for letter in LETTERS] for t in texts], np.float32)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setattr(caption_embedding, "load_encoder", lambda spec: counting if spec == SPEC else None)
    return counting


def direction(text: str) -> NDArray[np.float64]:
    counts = np.array([text.count(letter) for letter in LETTERS], np.float64)
    return counts / np.linalg.norm(counts)


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "mine.yaml"


def mistake(read: object, *arguments: object) -> str:
    assert callable(read)
    with pytest.raises(UserError) as caught:
        read(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Captions


def test_a_prototype_is_the_mean_of_unit_captions_over_templates_and_words(tmp_path, encoder):
    file = written(tmp_path, """
        templates: ["a photo of {}", "{} and {}"]
        attributes:
          tone: {concepts: {light: [pale, fair], dark: [dark]}, absent: [nobody, an empty room]}
          age: {templates: ["face: {}"], concepts: {old: [old]}}
        """)  # fmt: skip
    found = embed_captions(read_captions(file), SPEC)
    light = ["a photo of pale", "a photo of fair", "pale and pale", "fair and fair"]
    assert set(light) | {"a photo of dark", "dark and dark", "nobody", "an empty room", "face: old"} == set(
        encoder.seen
    )
    assert {a: list(concepts) for a, concepts in found.items()} == {"tone": ["light", "dark", "absent"], "age": ["old"]}
    assert found["tone"]["light"] == pytest.approx(np.mean([direction(t) for t in light], axis=0))
    assert found["tone"]["dark"] == pytest.approx((direction("a photo of dark") + direction("dark and dark")) / 2)
    assert found["tone"]["absent"] == pytest.approx(np.stack([direction("nobody"), direction("an empty room")]))
    assert found["age"]["old"] == pytest.approx(direction("face: old"))


def test_without_templates_there_is_one(tmp_path, encoder):
    embed_captions(read_captions(written(tmp_path, "attributes: {a: {concepts: {x: [cat], y: [dog]}}}")), SPEC)
    assert encoder.seen == ["a photo of a cat", "a photo of a dog"]


def test_the_captions_that_ship_are_whole(encoder):
    assert needs_text_tower(default_prototypes())
    known = read_captions(default_prototypes())
    assert len(known.attributes) == 3 and all(a.absent and len(a.concepts) > 1 for a in known.attributes.values())
    found = embed_captions(known, SPEC)
    assert not any("{" in text for text in encoder.seen)
    assert all(np.linalg.norm(v) > 0 for concepts in found.values() for v in np.vstack(list(concepts.values())))


WRONG_CAPTIONS = {
    "not yaml": ("attributes: [", "is not valid YAML: correct it; `fairdedup init prototypes` writes an example"),
    "a tab": ("attributes:\n\t- a", "is not valid YAML"),
    "thirteenth month": ("attributes: 2024-13-45", "is not valid YAML"),
    "nested too deep": ("attributes: " + "[" * 5000, "is not valid YAML"),
    "code": ("attributes: !!python/object/apply:os.system [true]", "is not valid YAML"),
    "nothing": ("", "the file: input should be a valid dictionary"),
    "a list": ("- a", "the file: input should be a valid dictionary"),
    "another key": ("atributes: {}", "field required; `fairdedup init prototypes` writes an example"),
    "no attributes": ("attributes: {}", "has no attributes: add one"),
    "another key inside": ("attributes: {a: {concept: {x: [cat]}}}", "attributes.a.concepts: field required"),
    "no list of words": ("attributes: {a: {concepts: {x: cat}}}",
                         "attributes.a.concepts.x: input should be a valid list"),
    "a number": ("attributes: {a: {concepts: {x: [1]}}}", "attributes.a.concepts.x.0: input should be a valid string"),
    "no words": ("attributes: {a: {concepts: {x: []}}}", "attribute 'a' has a concept without words: add some"),
    "no concepts": ("attributes: {a: {concepts: {}}}", "attribute 'a' has a concept without words: add some"),
    "no blank": ("{templates: [a photo], attributes: {a: {concepts: {x: [cat]}}}}",
                 "template 'a photo' of 'a' has no blank: add {}"),
    "no blank of its own": ("attributes: {a: {templates: ['x{'], concepts: {x: [cat]}}}", "template 'x{' of 'a'"),
    "absent as a concept": ("attributes: {a: {concepts: {x: [cat], absent: [none]}}}", "move it out of `concepts`"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_CAPTIONS)
def test_a_wrong_file_of_captions_is_named_with_the_place(tmp_path, case):
    text, expected = WRONG_CAPTIONS[case]
    message = mistake(read_captions, written(tmp_path, text))
    assert message.startswith("prototypes '") and "mine.yaml'" in message and expected in message


def test_a_file_of_captions_that_cannot_be_read(tmp_path):
    assert "No such file or directory; give a .yaml" in mistake(read_captions, tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not valid YAML" in mistake(read_captions, tmp_path / "bytes.yaml")


# Vectors


@pytest.fixture
def vectors() -> dict[str, dict[str, NDArray[np.float64]]]:
    rng = np.random.default_rng(0)
    return {
        "race/ethnicity": {"Hispanic/Latino": rng.normal(size=4), "other": rng.normal(size=4)},
        "age": {"old": rng.normal(size=4), "absent": rng.normal(size=(2, 4))},
    }


def test_vectors_come_back_from_parquet_whatever_their_names(tmp_path, vectors):
    write_vectors(tmp_path / "p.parquet", vectors)
    check_vectors(tmp_path / "p.parquet")
    found = read_vectors(tmp_path / "p.parquet")
    assert found.concepts == ["race/ethnicity=Hispanic/Latino", "race/ethnicity=other", "age=old"]
    assert found.dimension == 4
    for attribute, concepts in zip(found.attributes, vectors.values(), strict=True):
        named = np.stack([v for c, v in concepts.items() if c != "absent"])
        assert np.array_equal(attribute.vectors, oracles.unit16(named))
    assert np.array_equal(found.attributes[1].absent, oracles.unit16(vectors["age"]["absent"]))
    assert found.attributes[0].absent.shape == (0, 4)


def test_prototypes_in_use_come_back_bit_for_bit_with_their_temperatures(tmp_path, vectors):
    known = Prototypes.of(vectors).with_temperatures({"age": 0.25})
    write_prototypes(tmp_path / "p.parquet", known)
    assert read_prototypes(Unsealed(tmp_path / "p.parquet", "a test")).same_as(known)
    assert pq.read_schema(tmp_path / "p.parquet").names == ["attribute", "concept", "vector", "temperature"]


def test_offsets_come_back_from_both_files_and_columns_exist_only_where_there_are_any(tmp_path, vectors):
    known = Prototypes.of(vectors).with_temperatures({"age": 0.25}).with_offsets({"age": [0.125]})
    write_prototypes(tmp_path / "p.parquet", known)
    assert read_prototypes(Unsealed(tmp_path / "p.parquet", "a test")).same_as(known)
    assert not known.same_as(known.with_offsets({"age": []}))
    assert pq.read_table(tmp_path / "p.parquet").column("offset").to_pylist() == [None, None, 0.125, None, None]
    write_vectors(tmp_path / "v.parquet", vectors, None, {"race/ethnicity": {"other": -0.5}})
    found = read_vectors(tmp_path / "v.parquet").attributes
    assert [a.offsets for a in found] == [(0.0, -0.5), ()]


@pytest.mark.parametrize("given", [{"height": [0.1]}, {"age": [0.1, 0.2]}, {"age": [float("nan")]}, {"age": ["0.1"]}])
def test_offsets_of_no_attribute_or_of_another_number_are_refused(vectors, given):
    with pytest.raises(UserError, match="offset"):
        Prototypes.of(vectors).with_offsets(given)


def test_a_file_without_temperatures_is_read_by_both_readers(tmp_path, vectors):
    known = Prototypes.of(vectors)
    write_prototypes(tmp_path / "new.parquet", known)
    older = pq.read_table(tmp_path / "new.parquet").drop_columns(["temperature"])
    pq.write_table(older, tmp_path / "p.parquet")
    assert read_prototypes(Unsealed(tmp_path / "p.parquet", "a test")).same_as(known)
    assert read_vectors(tmp_path / "p.parquet").concepts == known.concepts


def test_vectors_are_written_unrounded_and_their_temperatures_only_where_there_are_any(tmp_path, vectors):
    write_vectors(tmp_path / "p.parquet", vectors)
    written = pq.read_table(tmp_path / "p.parquet")
    assert written.column_names == ["attribute", "concept", "vector"]
    assert written.column("vector").to_pylist()[0] == vectors["race/ethnicity"]["Hispanic/Latino"].tolist()
    write_vectors(tmp_path / "t.parquet", vectors, {"age": 0.5})
    assert pq.read_table(tmp_path / "t.parquet").column("temperature").to_pylist() == [None, None, 0.5, 0.5, 0.5]
    assert [a.temperature for a in read_vectors(tmp_path / "t.parquet").attributes] == [None, 0.5]


def test_one_caption_of_absence_comes_back(tmp_path, vectors):
    vectors["age"]["absent"] = vectors["age"]["absent"][:1]
    write_vectors(tmp_path / "p.parquet", vectors)
    assert read_vectors(tmp_path / "p.parquet").attributes[1].absent.shape == (1, 4)


def test_vectors_of_npz_and_npy(tmp_path, vectors):
    rows = {"age/old": vectors["age"]["old"], "age/absent": vectors["age"]["absent"], "tone/a/b": np.arange(1, 5)}
    np.savez(tmp_path / "p.npz", **rows)  # type: ignore[arg-type]
    found = read_vectors(tmp_path / "p.npz")
    assert found.concepts == ["age=old", "tone=a/b"]
    assert np.array_equal(found.attributes[0].absent, oracles.unit16(vectors["age"]["absent"]))
    np.save(tmp_path / "p.npy", np.eye(3, dtype=np.float32))
    assert read_vectors(tmp_path / "p.npy").concepts == ["concept=0", "concept=1", "concept=2"]


def test_no_file_of_vectors_needs_a_text_tower():
    assert [needs_text_tower(Path(f"p.{kind}")) for kind in ("npy", "npz", "parquet", "yml")] == [
        False,
        False,
        False,
        True,
    ]


def flagged(path: Path, flag: int) -> Path:
    """Write an npz with a text whose member has a flag of zip: 1 means encrypted, 32 patched data."""
    data = bytearray(_zip(path).read_bytes())
    for start, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(start) + offset] |= flag
    path.write_bytes(data)
    return path


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **{name.replace("__", "/"): np.asarray(a) for name, a in arrays.items()})
    return path


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def raw(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def npy(path: Path, array: object) -> Path:
    np.save(path, np.asarray(array))
    return path


def cut_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.npy", b"x" * 100)
    return raw(path, path.read_bytes()[:60])


AB = {"attribute": ["a", "a"], "concept": ["x", "y"]}
WRONG_VECTORS = {
    "no such file": (lambda t: t / "none.npy", "cannot be read (", "none.npy"),
    "a folder": (lambda t: t, "unknown kind; give a .yaml, .parquet, .npz or .npy"),
    "another kind": (lambda t: raw(t / "p.csv", b"a,b"), "p.csv': unknown kind; give a .yaml"),
    "an empty npy": (lambda t: raw(t / "p.npy", b""), "p.npy' cannot be read (", "): write the file again"),
    "an empty npz": (lambda t: raw(t / "p.npz", b""), "cannot be read ("),
    "an empty parquet": (lambda t: raw(t / "p.parquet", b""), "cannot be read ("),
    "no npy": (lambda t: raw(t / "p.npy", b"no array"), "cannot be read (not a plain array): write the file again"),
    "no npz": (lambda t: raw(t / "p.npz", b"no array"), "cannot be read (not a plain array): write the file again"),
    "a cut npz": (lambda t: cut_zip(t / "p.npz"), "cannot be read ("),
    "an encrypted npz": (lambda t: flagged(t / "p.npz", 1), "password required for extraction"),
    "an npz of patched data": (lambda t: flagged(t / "p.npz", 32), "cannot be read (compressed patched data"),
    "an npz named npy": (
        lambda t: npz(t / "x.npz", a__x=np.ones(3)).rename(t / "p.npy"), "of another kind than its name"
    ),
    "an npy named npz": (lambda t: npy(t / "x.npy", np.eye(3)).rename(t / "p.npz"), "of another kind than its name"),
    "an npz of something else": (lambda t: _zip(t / "p.npz"), "'a/b.txt' holds no array; give real numbers"),
    "no parquet": (lambda t: raw(t / "p.parquet", b"no table at all, only text"), "cannot be read ("),
    "objects in npy": (lambda t: npy(t / "p.npy", np.array([{}], object)), "not a plain array"),
    "objects in npz": (lambda t: npz(t / "p.npz", a__x=np.array([{}], object)), "not a plain array"),
    "text": (lambda t: npy(t / "p.npy", [["a", "b"]]), "the array holds <U1; give real numbers"),
    "complex numbers": (lambda t: npz(t / "p.npz", a__x=[1j]), "array 'a/x' holds complex128; give real numbers"),
    "one vector alone": (lambda t: npy(t / "p.npy", np.ones(3)), "have shape (3,): give (concepts, d)"),
    "no attribute": (lambda t: npz(t / "p.npz", x=np.ones(3)), "array 'x' has no attribute; name it attribute/concept"),
    "nothing in npz": (lambda t: npz(t / "p.npz"), "`prototypes` are empty"),
    "absent alone": (lambda t: npz(t / "p.npz", a__absent=np.ones(3)), "`prototypes`['a'] names no concept"),
    "a zero vector": (lambda t: npz(t / "p.npz", a__x=np.zeros(3)), "`prototypes`['a']['x']: vector is zero"),
    "no number": (lambda t: npz(t / "p.npz", a__x=[np.nan, 1]), "value that is not finite"),
    "two dimensions": (lambda t: npz(t / "p.npz", a__x=np.ones(3), b__x=np.ones(4)), "[3, 4] dimensions"),
    "absent of another dimension": (lambda t: npz(t / "p.npz", a__x=np.ones(3), a__absent=np.ones(4)), "[3, 4] dim"),
    "other columns": (lambda t: parquet(t / "p.parquet", a=[1]),
                      "has columns a: give attribute, concept and vector, or attribute, concept and id"),
    "neither vectors nor ids": (lambda t: parquet(t / "p.parquet", **AB), "has columns attribute, concept: give"),
    "an empty concept": (lambda t: parquet(t / "p.parquet", attribute=["a"], concept=pa.array([None], pa.string()),
                                           vector=[[1.0]]), "column 'concept' has empty rows"),
    "an empty vector": (lambda t: parquet(t / "p.parquet", **AB, vector=[[1.0], None]),
                        "column 'vector' has empty rows"),
    "vectors of text": (lambda t: parquet(t / "p.parquet", **AB, vector=["x", "y"]), "cannot be read ("),
    "vectors of two lengths": (lambda t: parquet(t / "p.parquet", **AB, vector=[[1.0, 2.0], [1.0]]), "has shape (1,)"),
    "two temperatures": (lambda t: parquet(t / "p.parquet", **AB, vector=[[1.0], [2.0]], temperature=[0.1, 0.2]),
                         "a has several temperatures; give it one"),
    "a concept twice": (lambda t: parquet(t / "p.parquet", attribute=["a", "a"], concept=["x", "x"],
                                          vector=[[1.0], [2.0]]), "a, x has two vectors; give one for each concept"),
}  # fmt: skip


def _zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", b"text")
    return path


@pytest.mark.parametrize("case", WRONG_VECTORS)
def test_a_wrong_file_of_vectors_is_found_before_anything_is_embedded(tmp_path, case):
    make, *expected = WRONG_VECTORS[case]
    file = make(tmp_path)
    message = mistake(check_vectors, file)
    assert all(text in message for text in expected), message
    assert mistake(read_vectors, file) == message
    assert "allow_pickle" not in message and "unsafe" not in message


# Exemplars


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Return a run of two embedding shards, ids k0 to k7, with one rejected row."""
    run = RunDirectory(tmp_path / "run")
    x = oracles.unit16(np.random.default_rng(0).normal(size=(8, 4)))
    for number, rows in enumerate(([0, 1, 2], [3, 4, 5, 6, 7])):
        write_array(run.vectors(number), x[rows])
        write_table(run.metadata(number), pa.table({"id": [f"k{row}" for row in rows]}))
        rejected = [] if number else [Rejection(3, "bad", "", "")]
        record = ShardRecord(
            number=number,
            name="",
            fingerprint="",
            input=len(rows) + len(rejected),
            valid=len(rows),
            rejected=rejected,
            seals=seal_files(run.shard_files(number)),
        )
        write_shard_record(run, record)
    write_json(run.config, {"asked": {}, "done": {"embed": 2}})
    return run


def test_a_concept_is_the_mean_of_the_unit_embeddings_of_its_exemplars(tmp_path, run):
    file = parquet(tmp_path / "e.parquet", id=["k6", "k0", "k2", "k2"], attribute=["a", "a", "b", "a"],
                   concept=["x", "x", "z", "y"])  # fmt: skip
    check_vectors(file)
    found = read_vectors(file, load_embedded(run))
    x = np.concatenate([np.load(run.vectors(k)) for k in range(2)]).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert found.concepts == ["a=x", "a=y", "b=z"]
    assert np.array_equal(found.attributes[0].vectors, oracles.unit16(np.stack([(x[6] + x[0]) / 2, x[2]])))
    assert np.array_equal(found.attributes[1].vectors, oracles.unit16(x[[2]]))


def test_exemplars_that_the_run_does_not_have_are_named(tmp_path, run):
    file = parquet(tmp_path / "e.parquet", id=["k6", "bad", "other"], attribute=["a"] * 3, concept=["x", "y", "y"])
    check_vectors(file)  # the ids are not known yet
    assert mistake(read_vectors, file, load_embedded(run)) == (
        f"prototypes {str(file)!r} names id 'bad', which is not in the run (2 such ids): remove these rows"
    )
    empty = parquet(tmp_path / "n.parquet", id=pa.array([None], pa.string()), attribute=["a"], concept=["x"])
    assert "column 'id' has empty rows" in mistake(check_vectors, empty)


def test_the_file_that_ships_is_plain_yaml():
    assert set(yaml.safe_load(default_prototypes().read_text(encoding="utf-8"))) == {"templates", "attributes"}

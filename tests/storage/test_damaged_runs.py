"""Each command notices a damaged file that it reads, before it changes anything, and the repair that it names works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from remedies import Advice, call, check
from runs import contents, product, read_plain, write_embeddings

from fairdedup.errors import UserError
from fairdedup.stages.sample_shares import check_sample_labels
from fairdedup.storage.config_record import read_config_record, write_config_record
from fairdedup.storage.earlier_samples import EarlierSamples
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import read_manifest

OWN = "--rule semdedup --eps 0.1"
FIRST = f"run t.parquet {OWN} --clusters 4 --out r"
NEXT = "run y.npy --against r --out s"
WITH_PROTOTYPES = "run t.parquet --rule fairdedup --prototypes p.npz --eps 0.1 --clusters 4 --out r"
EMBED = r"(?P<embed>embed)` with (?P<out>--out \S+) again"
CLUSTER = r"run `fairdedup (?P<cluster>cluster \S+)` again, with its own options"
PRUNE = r"run `fairdedup (?P<prune>prune \S+)` again, with its own options"
REPLACE = "replace r --gone some.txt"
REFIT = f"refit r {OWN} --clusters 3 --out new"


def flip(name: str, place: float = 0.5):
    """Return a change that flips a bit of a file; its size stays."""

    def change(here: Path) -> None:
        data = bytearray((here / name).read_bytes())
        data[int(place * len(data))] ^= 4
        (here / name).write_bytes(data)

    return change


def of_record(wrong: str, name: str, says: str, then: str, **more) -> Advice:
    return Advice(
        f"{FIRST} && {wrong}", rf"{name}\S* is missing or damaged: .*{says}", [then], flip(f"r/{name}"), **more
    )


STATE = ["centroids.npy", *(f"run-0000/{name}" for name in ("offsets_0.npy", "checksums_0.npy", "ids_0.arrow",
                                                            "sizes.npy", "concepts.npy"))]  # fmt: skip
VECTORS, METADATA = "embeddings/img_emb/img_emb_0.npy", "embeddings/metadata/metadata_0.parquet"
DECISIONS, REJECTED = "decisions/part-00000.parquet", "rejected/part-00000.parquet"
AFTER_EMBED = f"embed t.parquet {{out}} && prune r {OWN} && "
AFTER_CLUSTER = f"{{cluster}} --clusters 4 && prune r {OWN} && "
TABLE = {
    # replace
    **{f"replace: {name}": of_record(REPLACE, name, PRUNE, f"{{prune}} {OWN} && {REPLACE}")
       for name in (DECISIONS, REJECTED, "state/state.json")},
    **{f"replace: {name}": of_record(REPLACE, name, CLUSTER, f"{AFTER_CLUSTER}{REPLACE}")
       for name in ("clusters/centroids.npy",)},
    **{f"replace: {name}": Advice(f"{FIRST} && {REPLACE}", rf"clusters/vectors_0\.npy or another file .*{CLUSTER}",
                                  [f"{AFTER_CLUSTER}{REPLACE}"], flip(f"r/{name}"))
       for name in ("clusters/rows_0.npy", "clusters/vectors_0.npy", "clusters/offsets_0.npy",
                    "clusters/records/record_0.json")},
    **{f"replace: {name}": of_record(REPLACE, name, EMBED, f"{AFTER_EMBED}{REPLACE}") for name in (VECTORS, METADATA)},
    "replace: state/prototypes.parquet": Advice(
        f"{WITH_PROTOTYPES} && {REPLACE}", rf"prototypes\.parquet is missing or damaged: {PRUNE}",
        [f"{{prune}} --rule fairdedup --prototypes p.npz --eps 0.1 && {REPLACE}"], flip("r/state/prototypes.parquet"),
    ),
    # run --against
    **{f"against: {name}": of_record(NEXT, f"state/{name}", PRUNE, f"{{prune}} {OWN} && {NEXT}") for name in STATE},
    "against: state/prototypes.parquet": Advice(
        f"{WITH_PROTOTYPES} && {NEXT}", rf"prototypes\.parquet is missing or damaged: {PRUNE}",
        [f"{{prune}} --rule fairdedup --prototypes p.npz --eps 0.1 && {NEXT}"], flip("r/state/prototypes.parquet"),
    ),
    "against a run of a line: sums of the first": Advice(
        f"{FIRST} && {NEXT} && run x.npy --against s --out u",
        rf"{PRUNE} .*, then `fairdedup (?P<then>prune \S+)` with",
        [f"{{prune}} {OWN} && {{then}} && run x.npy --against s --out u"], flip("s/state/run-0000/sizes.npy"),
    ),
    # prune, sweep, cluster
    **{f"{name}: centroids": Advice(
        f"{FIRST} && {words}", rf"clusters/centroids\.npy is missing or damaged: {CLUSTER}",
        [f"{{cluster}} --clusters 4 && {words}"], flip("r/clusters/centroids.npy"),
    ) for name, words in {"prune": f"prune r {OWN}", "sweep": "sweep r --keep 0.5 --rule semdedup"}.items()},
    "prune: mark of the centroids": Advice(
        f"{FIRST} && prune r {OWN}", rf"clusters/centroids\.npy is missing or damaged: {CLUSTER}",
        [f"{{cluster}} --clusters 4 && prune r {OWN}"], flip("r/clusters/centroids.json"),
    ),
    "prune: sizes": Advice(
        f"{FIRST} && prune r {OWN}", rf"clusters/sizes\.json is damaged: {CLUSTER}",
        [f"{{cluster}} --clusters 4 && prune r {OWN}"], flip("r/clusters/sizes.json"),
    ),
    **{f"cluster: {name}": of_record("cluster r --clusters 3", name, EMBED, "embed t.parquet {out} && cluster r")
       for name in (VECTORS, METADATA)},
    "prune: vectors of exclude-near": Advice(
        f"{FIRST} && embed y.npy --out e && prune r {OWN} --exclude-near e",
        rf"e/{VECTORS} is missing or damaged: .*{EMBED}",
        [f"embed y.npy {{out}} && prune r {OWN} --exclude-near e"], flip(f"e/{VECTORS}"),
    ),
    # refit, audit, calibrate
    **{f"refit: {name}": of_record(REFIT, name, EMBED, f"{AFTER_EMBED}{REFIT}") for name in (VECTORS, METADATA)},
    "audit: vectors": of_record(
        "audit r --prototypes p.npz", VECTORS, EMBED, f"{AFTER_EMBED}audit r --prototypes p.npz",
    ),
    "audit: prototypes": Advice(
        f"{WITH_PROTOTYPES} && audit r", rf"prototypes\.parquet is missing or damaged: {PRUNE}",
        ["{prune} --rule fairdedup --prototypes p.npz --eps 0.1 && audit r"], flip("r/state/prototypes.parquet"),
    ),
    "audit: decisions": of_record(
        "audit r --labels labels.csv", DECISIONS, PRUNE, f"{{prune}} {OWN} && audit r --labels labels.csv",
    ),
    **{f"calibrate: {name}": of_record(
        "calibrate r --labels labels.csv --prototypes p.npz --out c.parquet", name, EMBED,
        "embed t.parquet {out} && calibrate r --labels labels.csv --prototypes p.npz --out c.parquet",
    ) for name in (VECTORS, METADATA)},
    "run: fingerprints of the input": Advice(
        f"{FIRST} && {FIRST}", r"input\.json is damaged .*: bring it back, or make the whole run again: "
        r"`fairdedup (?P<run>run)` with (?P<restart>--restart)", [f"{FIRST} {{restart}} && prune r {OWN}"],
        flip("r/embeddings/records/input.json"), code=1,
    ),
    # export, gate
    "export: decisions": of_record("export r --to txt", DECISIONS, PRUNE, f"{{prune}} {OWN} && export r --to txt"),
    **{f"{words}: run.json": Advice(
        f"{FIRST} && {words}", rf"run\.json is damaged: {PRUNE}", [f"{{prune}} {OWN} && {words}"], flip("r/run.json"),
    ) for words in ("export r --to txt", "gate r --max-rejected 0.1", REPLACE)},
    "gate: report": Advice(
        f"{FIRST} && audit r --labels labels.csv && gate r --min-retention 0.1",
        r"is not the report of an audit: run `fairdedup (?P<audit>audit \S+)` again",
        ["{audit} --labels labels.csv && gate r --min-retention 0.1"], flip("r/report/audit.json"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_damage_is_named_and_its_repair_works(case, place):
    check(TABLE[case], place)


@pytest.mark.parametrize(
    "name", [DECISIONS, REJECTED, METADATA, VECTORS, "clusters/rows_0.npy", "clusters/vectors_0.npy"]
)
def test_a_replacement_notices_damage_before_it_changes_anything(name, place):
    call(FIRST)
    flip(f"r/{name}")(place)
    before = contents(place / "r")
    shown = call(REPLACE)
    assert shown.code == 2 and shown.err.count("\n") == 1, shown.err
    after = contents(place / "r")
    assert {n: b for n, b in after.items() if not n.startswith("replaced/")} == before


def test_a_damaged_list_of_removed_samples_is_noticed_before_the_decisions_change(place):
    call(f"{FIRST} && {REPLACE}")
    flip("r/gone/gone_0.parquet")(place)
    before = contents(place / "r")
    shown = call("prune r --keep 0.4 --rule semdedup")
    assert shown.code == 2 and "gone_0.parquet, the list of removed samples, is damaged" in shown.err
    assert contents(place / "r") == before


def test_no_bit_of_the_header_of_earlier_vectors_changes_what_is_read(place):
    """Each cluster has a checksum, but the header is in none of them."""

    def read() -> list[tuple[bytes, list[int]]]:
        samples = EarlierSamples(place / "s", 0, 4)
        found = [samples.cluster(k, 16) for k in range(4)]
        return [(of.unit.tobytes() + str((of.unit.shape, of.unit.dtype)).encode(), of.names.tolist()) for of in found]

    call(f"{FIRST} && {NEXT}")
    path = place / "s" / "state" / "run-0000" / "vectors_0.npy"
    data, known, noticed = path.read_bytes(), read(), 0
    path.unlink()  # a link
    for bit in range(8 * 128):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = read()
        except UserError as error:
            assert "vectors_0.npy is" in str(error) and "then make this run again: `fairdedup run`" in str(error)
            noticed += 1
            continue
        assert found == known, bytes(flipped[:128])
    assert noticed > 300


def test_labels_of_the_sample_are_verified_before_a_decision(place):
    call("embed t.parquet --out r && cluster r --clusters 4")
    (place / "r" / "sample").mkdir()
    (place / "r" / "sample" / "labels.parquet").write_bytes(b"altered")
    directory = RunDirectory(place / "r")
    check_sample_labels(directory)  # of an earlier version: nothing is known of them
    write_config_record(directory, read_config_record(directory).model_copy(update={"sample": "7-abc"}))
    with pytest.raises(UserError, match=r"labels\.parquet is missing or damaged: .*`fairdedup run` with --restart"):
        check_sample_labels(directory)
    shown = call(f"prune r {OWN}")
    assert shown.code == 2 and "labels.parquet" in shown.err and not (place / "r" / "decisions").exists()


def test_what_is_damaged_is_never_sealed(place):
    """A seal in run.json is that of the undisturbed file, or the command fails."""
    call(FIRST)
    whole = read_manifest(RunDirectory(place / "r"))
    for name in ("clusters/centroids.npy", "clusters/vectors_0.npy", "clusters/rows_0.npy"):
        shutil.copytree(place / "r", place / "copy")
        flip(f"copy/{name}")(place)
        assert call(f"prune copy {OWN}").code == 2
        found = read_manifest(RunDirectory(place / "copy"))
        assert found is not None and whole is not None and found.files == whole.files
        shutil.rmtree(place / "copy")


# Records


def alter_record(here: Path, *, earlier: bool) -> None:
    """Change which samples are rejected; without its checksum the record is one of an earlier version."""
    path = here / "r" / "embeddings" / "records" / "record_0.json"
    content = json.loads(path.read_text()) if not earlier else read_plain(path)
    assert [each[0] for each in content["rejected"]] == [7]
    content["rejected"][0][0] = 8
    path.write_text(json.dumps(content))


@pytest.fixture
def faulty(place: Path) -> Path:
    """Return the folder with vectors of which some are rejected."""
    write_embeddings(place / "v")
    np.savez(place / "v.npz", **{"a/p": np.ones(16), "a/q": -np.ones(16)})
    call(f"run v {OWN} --clusters 4 --out r")
    return place


@pytest.mark.parametrize("words", [f"prune r {OWN}", "cluster r --clusters 4", "audit r --prototypes v.npz", REFIT])
def test_an_altered_list_of_positions_is_named_and_the_shard_is_made_again(words, faulty):
    before = product(faulty / "r")
    alter_record(faulty, earlier=False)
    shown = call(words)
    assert shown.code == 2 and "record_0.json is missing or damaged: run `fairdedup embed` with --out" in shown.err
    assert call(f"embed v --out r && prune r {OWN} && {words}").code == 0
    assert words.startswith("cluster") or product(faulty / "r") == before


def test_an_altered_record_without_a_checksum_contradicts_the_clusters(faulty):
    before = product(faulty / "r")
    alter_record(faulty, earlier=True)
    for words in (f"prune r {OWN}", "sweep r --keep 0.5 --rule semdedup"):
        shown = call(words)
        assert shown.code == 2 and "contradict each other" in shown.err
        assert "make the whole run again: `fairdedup run` with --restart" in shown.err
    assert product(faulty / "r") == before
    assert call(f"run v {OWN} --clusters 4 --out r --restart && prune r {OWN}").code == 0
    assert product(faulty / "r") == before


def test_a_run_of_an_earlier_version_without_checksums_is_read(place):
    """Its JSON files have no checksum, and sizes.json is a plain list."""
    call(f"{FIRST} && prune r {OWN}")
    before = product(place / "r")
    for path in (place / "r").rglob("*.json"):
        if path.name != "state.json":  # sealed in run.json
            path.write_text(json.dumps(read_plain(path)))
    sizes = place / "r" / "clusters" / "sizes.json"
    sizes.write_text(json.dumps(read_plain(sizes)["sizes"]))
    shards = place / "r" / "embeddings" / "records" / "input.json"
    shards.write_text(json.dumps(read_plain(shards)["shards"]))
    assert call(f"prune r {OWN}").code == 0
    assert product(place / "r") == before
    assert call(f"{FIRST} && {REPLACE} && {NEXT} && audit r --labels labels.csv && export r --to txt").code == 0

"""What the messages of commands, the curation and the audit advise works: it is read from the message and applied."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from remedies import Advice, call, check, manifest_of

from fairdedup.encoders import EncoderSpec, load_encoder

RUN = "run t.parquet --rule semdedup --eps 0.1 --clusters 4 --out r"
WITH_PROTOTYPES = f"{RUN.replace('semdedup', 'balanced')} --prototypes p.npz"
ALWAYS = "run t.parquet --rule semdedup --clusters 4 --out r --keep 0.5 --always-keep"


def flip(name: str):
    """Return a change that flips a bit in the middle of a file."""

    def change(here: Path) -> None:
        data = bytearray((here / name).read_bytes())
        data[len(data) // 2] ^= 4
        (here / name).write_bytes(data)

    return change


def write(name: str, text: str):
    """Return a change that writes a file."""
    return lambda here: (here / name).write_text(text)


def labels(**changes: str):
    """Return a change of the header and of single labels."""

    def change(here: Path) -> None:
        text = (here / "labels.csv").read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        (here / "wrong.csv").write_text(text)

    return change


def uids(here: Path) -> None:
    table = pa.table({"uid": [f"{row:032x}" for row in range(60)], "vector": list(np.load(here / "x.npy"))})
    pq.write_table(table, here / "u.parquet")


CALIBRATE = f"{WITH_PROTOTYPES} && calibrate r --labels"

TABLE = {
    # prune, sweep, gate, audit
    "sweep at random": Advice(
        f"{RUN} && sweep r --keep 0.5 --rule random", r"no eps to sweep: choose another --rule",
        ["sweep r --keep 0.5 --rule semdedup"],
    ),
    "a gate of nothing": Advice(
        f"{RUN} && gate r", r"give (?P<a>--max-rejected), (?P<b>--max-drift) or (?P<c>--min-retention)",
        ["gate r {a} 0.5", "run y.npy --against r --out s && gate s {b} 9", f"{WITH_PROTOTYPES} --restart && audit r "
         "&& gate r {c} 0"],
    ),
    "a gate out of range": Advice(
        f"{RUN} && gate r --max-rejected 5", r"give 0 to 1, such as (?P<value>\S+)", ["gate r --max-rejected {value}"],
    ),
    "a gate of drift out of range": Advice(
        f"{RUN} && run y.npy --against r --out s && gate s --max-drift nan", r"give 0 or more, such as (?P<value>\S+)",
        ["gate s --max-drift {value}"],
    ),
    "a gate without an audit": Advice(
        f"{WITH_PROTOTYPES} && gate r --min-retention 0 --max-rejected 1",
        r"run `fairdedup (?P<audit>audit \S+)`, or leave --min-retention out",
        ["gate r --max-rejected 1", "{audit} && gate r --min-retention 0"],
    ),
    "a damaged audit": Advice(
        f"{WITH_PROTOTYPES} && audit r && gate r --min-retention 0", r"run `fairdedup (?P<audit>audit \S+)` again",
        ["{audit} && gate r --min-retention 0"], write("r/report/audit.json", "{"),
    ),
    "an attribute that is none": Advice(
        f"{RUN} && audit r --labels labels.csv --attributes c", r"labels are (?P<a>\w+), (?P<b>\w+)",
        ["audit r --labels labels.csv --attributes {a},{b}"],
    ),
    "an attribute that no prototype has": Advice(
        f"{WITH_PROTOTYPES} && audit r --attributes c", r"there are (?P<a>\w+), (?P<b>\w+)",
        ["audit r --attributes {a},{b}"],
    ),
    "one attribute crossed": Advice(
        f"{RUN} && audit r --labels labels.csv --intersections a",
        r"give two attributes, for example gender,age, or (?P<none>none)",
        ["audit r --labels labels.csv --intersections a,b", "audit r --labels labels.csv --intersections {none}"],
    ),
    "labels of other samples": Advice(
        f"{RUN} && audit r --labels wrong.csv", r"the first is 'nobody0': check the column id",
        ["audit r --labels labels.csv"], labels(**{"\nk": "\nnobody"}),
    ),
    "suggested labels to a folder": Advice(
        f"{WITH_PROTOTYPES} && audit r --suggest-labels 5 --out r", r"name a file, for example (?P<file>\S+\.csv)",
        ["audit r --suggest-labels 5 --out {file}"],
    ),
    # calibrate
    "labels of no attribute": Advice(
        f"{CALIBRATE} wrong.csv --out c.parquet", r"rename a column to '(?P<a>\w+)' or '(?P<b>\w+)'",
        ["calibrate r --labels {a}.csv --out c.parquet", "calibrate r --labels {b}.csv --out c.parquet"],
        labels(**{"id,a,b": "id,c,d"}),
        lambda here: [(here / f"{n}.csv").write_text((here / "wrong.csv").read_text().replace(f",{m}", f",{n}", 1))
                      for n, m in (("a", "c"), ("b", "d"))],
    ),
    "labels of another run": Advice(
        f"{CALIBRATE} wrong.csv --out c.parquet", r"give labels of this run",
        ["calibrate r --labels labels.csv --out c.parquet"], labels(**{"\nk": "\nnobody"}),
    ),
    "a label that is no concept": Advice(
        f"{CALIBRATE} wrong.csv --out c.parquet", r"write (?P<a>\w+), (?P<b>\w+), or leave it empty",
        ["calibrate r --labels empty.csv --out c.parquet", "calibrate r --labels a.csv --out c.parquet"],
        labels(**{"k5,q": "k5,z"}),
        lambda here: [(here / f"{n}.csv").write_text((here / "wrong.csv").read_text().replace("k5,z", f"k5,{v}"))
                      for n, v in (("empty", ""), ("a", "p"))],
    ),
    "too few labels of a concept": Advice(
        f"{CALIBRATE} few.csv --out c.parquet", r"give at least [0-9]+ of each concept",
        ["calibrate r --labels labels.csv --out c.parquet"],
        lambda here: (here / "few.csv").write_text("".join((here / "labels.csv").read_text().splitlines(True)[:3])),
    ),
    "one concept alone": Advice(
        f"{WITH_PROTOTYPES.replace('p.npz', 'one.npz')} && calibrate r --labels wrong.csv --out c.parquet",
        r"'a' has only one concept: leave its column out", ["calibrate r --labels b.csv --out c.parquet"],
        labels(**{",q,": ",p,"}),
        lambda here: (here / "b.csv").write_text(re.sub(",[apq],", ",", (here / "labels.csv").read_text())),
    ),
    # curation
    "excluded all": Advice(
        f"{RUN} --where 'width < 0'", r"exclude fewer", [f"{RUN} --where 'width < 9'"],
    ),
    "always keep what is not there": Advice(
        f"{ALWAYS} strange.txt", r"the first is '(?P<id>\w+)'; remove the ids that are not in the run, or give another",
        [f"{ALWAYS} some.txt"], write("strange.txt", "k1\nnobody\n"),
    ),
    "always keep more than fit": Advice(
        f"{ALWAYS.replace('0.5', '0.05')} some.txt", r"fewer than the 2 rows always kept and one for each.*: give at "
        r"least (?P<keep>--keep [0-9.]+)", [f"{ALWAYS.replace('--keep 0.5', '{keep}')} some.txt"],
    ),
    "always keep by a rule that cannot": Advice(
        f"{ALWAYS.replace('semdedup', 'semdedup-chain')} some.txt", r"choose one of .*(?P<rule>semdedup)[,\n]",
        [f"{ALWAYS.replace('semdedup', '{rule}')} some.txt"],
    ),
    "prefer an unknown column": Advice(
        f"{RUN.replace('semdedup', 'prefer')} --prefer heigth", r"give one of .*(?P<column>width)",
        [f"{RUN.replace('semdedup', 'prefer')} --prefer {{column}}"],
    ),
    "prefer words": Advice(
        f"{RUN.replace('semdedup', 'prefer')} --prefer word", r"columns of numbers are (?P<column>\w+)",
        [f"{RUN.replace('semdedup', 'prefer')} --prefer {{column}}"],
    ),
    # evaluation samples
    "evaluation samples of another dimension": Advice(
        f"{RUN} --exclude-near wide.npy", r"both must come from one model", [f"{RUN} --exclude-near y.npy"],
    ),
    "evaluation samples of another model": Advice(
        f"embed y.npy --model ViT-B-32 --pretrained openai --out e && {RUN} --prototypes p.npz --model ViT-B-16 "
        "--pretrained openai --exclude-near e",
        r"was embedded by 'ViT-B-32' .* this run by 'ViT-B-16' .*: both must come from one model",
        ["embed y.npy --model ViT-B-16 --pretrained openai --out f && "
         f"{RUN} --prototypes p.npz --model ViT-B-16 --pretrained openai --exclude-near f"],
    ),
    # export of ids
    "shards of a run without images": Advice(
        f"{RUN} && export r --to webdataset", r"use (?P<txt>--to txt) or (?P<uids>--to uids)", ["export r {txt}"],
    ),
    "ids that are no uids": Advice(
        f"{RUN} && export r --to uids", r"write (?P<txt>--to txt)", ["export r {txt}"],
    ),
    "an export to a URL": Advice(
        f"{RUN} && export r --to txt --dest s3://bucket/x.txt", r"give a local path",
        ["export r --to txt --dest x.txt"],
    ),
    "an export into the run": Advice(
        f"{RUN} && export r --to txt --dest r/x.txt", r"choose a place outside it", ["export r --to txt --dest x.txt"],
    ),
    "an export below a file": Advice(
        f"{RUN} && export r --to txt --dest some.txt/x.txt", r"choose another place",
        ["export r --to txt --dest x.txt"],
    ),
    "an export of ids to a folder": Advice(
        f"{RUN} && export r --to txt --dest .", r"such as (?P<dest>--dest \S+)", ["export r --to txt {dest}"],
    ),
    "an export over another": Advice(
        f"{RUN} && export r --to txt --dest some.txt", r"choose another file, or remove it",
        ["export r --to txt --dest new.txt", "export r --to txt --dest some.txt"], None,
        lambda here: (here / "some.txt").unlink(),
    ),
    "an export of a damaged run": Advice(
        f"{RUN} && export r --to txt", r"run `fairdedup (?P<prune>prune \S+)` again, with its own options",
        ["{prune} --rule semdedup --eps 0.1 && export r --to txt"], flip("r/decisions/part-00000.parquet"),
    ),
    "an audit of a damaged run": Advice(
        f"{RUN} && audit r --labels labels.csv", r"run `fairdedup (?P<prune>prune \S+)` again, with its own options",
        ["{prune} --rule semdedup --eps 0.1 && audit r --labels labels.csv"], flip("r/decisions/part-00000.parquet"),
    ),
    # conditions
    "an empty condition": Advice(f"{RUN} --where ' '", r"as in (?P<where>--where .+)\n", [f"{RUN} {{where}}"]),
    "a condition that is none": Advice(f"{RUN} --where width=", r"as in (?P<where>--where .+)\n", [f"{RUN} {{where}}"]),
    "two conditions": Advice(
        f"{RUN} --where 'true), (true'", r"more than one.*as in (?P<where>--where .+)\n", [f"{RUN} {{where}}"],
    ),
    "two statements": Advice(
        f"{RUN} --where 'true); SELECT (true'", r"more than one.*as in (?P<where>--where .+)\n", [f"{RUN} {{where}}"],
    ),
    "a query": Advice(
        f"{RUN} --where 'width in (select 1)'", r"own row.*as in (?P<where>--where .+)\n", [f"{RUN} {{where}}"],
    ),
    "a number": Advice(
        f"{RUN} --where 'width + 1'", r"must be true or false.*as in (?P<where>--where .+)\n", [f"{RUN} {{where}}"],
    ),
    "an unknown function": Advice(
        f"{RUN} --where 'nothing(width)'", r"cannot be evaluated.*as in (?P<where>--where .+)\n", [f"{RUN} {{where}}"],
    ),
    "a random condition": Advice(
        f"{RUN} --where 'width > 3 AND random() < 2'", r"calls random, .*: remove it", [f"{RUN} --where 'width > 3'"],
    ),
    "age until now": Advice(
        f"{RUN} --where \"age(DATE '2000-01-01') > INTERVAL 1 DAY\"", r"give it two times",
        [f"{RUN} --where \"age(DATE '2001-01-01', DATE '2000-01-01') > INTERVAL 1 DAY\""],
    ),
    "age of a column until now": Advice(
        f"{RUN} --where \"age(DATE '2000-01-01' + width::INT) > INTERVAL 1 DAY\"", r"give it two times",
        [f"{RUN} --where \"age(DATE '2001-01-01', DATE '2000-01-01' + width::INT) > INTERVAL 1 DAY\""],
    ),
    "a word that is no number": Advice(
        f"{RUN} --where 'CAST(word AS INT) = 7'", r"use (?P<cast>TRY_CAST), which gives null",
        [f"{RUN} --where '{{cast}}(word AS INT) = 7'"],
    ),
    "a column that does not exist": Advice(
        f"{RUN} --where 'widht > 3'", r"the metadata has .*(?P<column>width)", [f"{RUN} --where '{{column}} > 3'"],
    ),
    "two columns of one name in SQL": Advice(
        f"{RUN} --where 'width > 3 AND \"Width\" IS NOT NULL'", r"one name in SQL: rename a column",
        [f"{RUN} --where 'width > 3 AND other IS NOT NULL' --restart"], None,
        lambda here: pq.write_table(
            (t := pq.read_table("t.parquet")).rename_columns(
                ["other" if n == "Width" else n for n in t.column_names]), "t.parquet"),
    ),
    "a column in neither case": Advice(
        f"{RUN} --where 'WIDTH IS NOT NULL'", r"write '(?P<a>\w+)' or '(?P<b>\w+)', in the column's case",
        [f"{RUN} --where '{{a}} IS NOT NULL'", f"{RUN} --restart --where '{{b}} IS NOT NULL'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_what_a_message_advises_works(case, place):
    check(TABLE[case], place)


def test_vague_memberships_are_remedied_by_the_commands_of_the_warning(place):
    """Of two concepts whose prototypes are nearly one, labels make two."""
    x = np.load("x.npy").astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    np.savez("vague.npz", **{"a/p": x[0], "a/q": x[0] + 1e-7 * x[1]})
    place_on_axis = x @ np.linalg.svd(x - x.mean(axis=0))[2][0]  # along the first component, where they differ most
    low, high = np.quantile(place_on_axis, [0.4, 0.6])  # those between would make the fit unsure
    names = np.select([place_on_axis < low, place_on_axis > high], ["p", "q"], "")
    rows = "".join(f"k{row},{name}\n" for row, name in enumerate(names) if name)
    (place / "sides.csv").write_text(f"id,a\n{rows}")
    assert call(f"{WITH_PROTOTYPES.replace('p.npz', 'vague.npz')}").code == 0
    (warning,) = [w for w in manifest_of(place / "r")["warnings"] if "barely separates p and q" in w]
    audit, calibrate = re.findall(r"\(fairdedup (\w+ RUN --labels FILE)\)", warning)
    for words in (audit, f"{calibrate} --out c.parquet"):
        assert call(words.replace("RUN", "r").replace("FILE", "sides.csv")).code == 0
    assert call("prune r --rule balanced --eps 0.1 --prototypes c.parquet").code == 0
    assert not [w for w in manifest_of(place / "r")["warnings"] if "barely separates" in w]


def test_ids_that_cannot_be_lines_are_in_kept(place):
    table = pq.read_table("t.parquet")
    odd = table.set_column(0, "id", pa.array([f"k\n{row}" for row in range(60)]))
    pq.write_table(odd, "t.parquet")
    assert call(RUN).code == 0
    shown = call("export r --to txt")
    found = re.search(r"take the ids from (?P<folder>kept)/ or (?P<other>decisions)/", shown.err)
    assert shown.code == 2 and found, shown.err
    kept, decided = (pq.read_table(place / "r" / folder)["id"].to_pylist() for folder in found.groups())
    assert len(kept) == manifest_of(place / "r")["counts"]["kept"] and set(kept) < set(decided)
    assert sorted(decided) == sorted(odd["id"].to_pylist())


def test_an_audit_of_a_run_without_prototypes_leads_to_labels(place):
    assert call(RUN).code == 0
    shown = call("audit r")
    found = re.search(r"(--labels)", shown.err)
    assert shown.code == 2 and found, shown.err
    assert call(f"audit r {found[1]} labels.csv").code == 0


@pytest.mark.parametrize("remedy", ["model", "prototypes", "rule"])
def test_a_rule_without_prototypes_gets_them_or_is_another(place, remedy):
    """The captions of the named model are embedded by its own text tower."""
    builtin = EncoderSpec("fairdedup-small", None, 8, "cpu", "float32", 1)
    width = load_encoder(builtin).encode_texts(["a"]).shape[1] if remedy == "model" else 16
    np.save("v.npy", np.random.default_rng(0).normal(size=(20, width)))
    wrong = "run v.npy --rule balanced --keep 0.5 --clusters 1 --out r"
    shown = call(wrong)
    says = r"name it \((?P<model>--model) .* \((?P<prototypes>--prototypes) .* \((?P<rule>--rule \S+)\)"
    found = re.search(says, shown.err)
    assert shown.code == 2 and found, shown.err
    value = {"model": " fairdedup-small --device cpu", "prototypes": " p.npz", "rule": ""}[remedy]
    right = wrong.replace("--rule balanced ", "") if remedy == "rule" else wrong
    assert call(f"{right} {found[remedy]}{value}").code == 0

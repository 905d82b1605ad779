"""Labels that teach nothing change no prototypes; FairFace's own file is read; tables fit a narrow terminal."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from remedies import call
from rich.console import Console
from runs import done

from fairdedup.audit.report_files import read_audit_report
from fairdedup.cli.audit_summary import print_audit
from fairdedup.prototype_files import read_vectors
from fairdedup.storage.layout import RunDirectory

AGES = ("0-2", "3-9", "10-19", "20-29", "more than 70")
RUN = "run t.parquet --rule balanced --prototypes p.npz --keep 0.5 --clusters 3 --out r"


@pytest.fixture
def unit(place: Path) -> np.ndarray:
    x = np.load("x.npy").astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def write_labels(groups: list[str]) -> None:
    Path("l.csv").write_text("id,a\n" + "".join(f"k{row},{group}\n" for row, group in enumerate(groups)))


def test_calibration_never_writes_prototypes_that_predict_worse(place, unit):
    assert call(RUN).code == 0
    given = {key: vector for key, vector in np.load("p.npz").items() if key.startswith("a/")}
    old = np.stack([vector / np.linalg.norm(vector) for vector in given.values()])
    write_labels([str(g) for g in np.random.default_rng(0).choice(["p", "q"], 60)])  # nothing to learn
    shown = done("calibrate", "r", "--labels", "l.csv", "--out", "c.parquet")
    assert "a: 60 labels" in shown.out and "so its prototypes stay as they were" in shown.out
    np.testing.assert_allclose(read_vectors(Path("c.parquet")).attributes[0].vectors, old, atol=1e-3)
    score = unit @ (unit[5] - unit.mean(axis=0))  # a direction that the prototypes do not have
    write_labels(["pq"[int(is_high)] for is_high in score > np.median(score)])
    shown = done("calibrate", "r", "--labels", "l.csv", "--out", "c.parquet")
    assert "stay as they were" not in shown.out
    assert np.abs(read_vectors(Path("c.parquet")).attributes[0].vectors - old).max() > 0.05
    assert call("prune r --rule balanced --keep 0.5 --prototypes c.parquet").code == 0


@pytest.mark.parametrize("folder", ["val/", ""])
def test_the_audit_reads_the_labels_of_fairface_as_they_are(folder, place):
    """A run of the folder `val` has the ids 1.jpg; one of the folder above has val/1.jpg."""
    ids = [f"{folder}{k}.jpg" for k in range(60)]
    pq.write_table(pa.table({"id": ids, "vector": list(np.load("x.npy"))}), "f.parquet")
    assert call("run f.parquet --rule semdedup --keep 0.5 --clusters 2 --out r").code == 0
    lines = [f"val/{k}.jpg,{AGES[k % 5]},{('Male', 'Female')[k % 2]},{k % 3 == 0}\n" for k in range(60)]
    Path("fairface_label_val.csv").write_text(f"file,age,gender,service_test\n{''.join(lines)}")
    done("audit", "r", "--labels", "fairface_label_val.csv", "--min-count", 5)
    report = read_audit_report(RunDirectory(place / "r"))
    assert report is not None
    (ages,) = [each for each in report.attributes if each.attribute == "age"]
    assert [group.group for group in ages.groups] == list(AGES) and sum(group.before for group in ages.groups) == 60


def test_the_table_of_an_audit_names_every_group_at_any_width(place):
    assert call("run t.parquet --rule semdedup --keep 0.5 --clusters 3 --out r").code == 0
    names = ["a group of a long name", "another"]
    write_labels([names[k % 2] for k in range(60)])
    done("audit", "r", "--labels", "l.csv", "--min-count", 5)
    report = read_audit_report(RunDirectory(place / "r"))
    assert report is not None
    for width in (60, 80, 110, 200):
        page = io.StringIO()
        print_audit(report, Path("r"), Console(file=page, width=width))
        lines = page.getvalue().splitlines()
        for name in names:
            (line,) = [line for line in lines if line.startswith(name)]
            assert "…" not in line and "%" in line and len(line) <= width
        assert ("a wider terminal also has: skew" in page.getvalue()) == (width < 110)

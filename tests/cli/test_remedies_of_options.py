"""Messages of the command line whose remedy is applied here, and succeeds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import command, done, raw_vectors

RUN = "run x.parquet --rule semdedup --clusters 2 --quiet --scheduler DASK "
PRUNE = "prune old --rule semdedup --quiet --scheduler DASK "
NEXT = "run new.npy --against old --out next --quiet --scheduler DASK "


@dataclass(frozen=True)
class Remedy:
    """Wrong words, the message, and the words that it advises. "|" separates words that hold blanks."""

    wrong: str
    says: str
    remedied: str
    prepare: Callable[[Path], object] = lambda here: None


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda here: (here / name).write_text(text)


def link(name: str) -> Callable[[Path], object]:
    return lambda here: (here / name).symlink_to("gone")


TABLE: dict[str, Remedy] = {
    # How much
    "no amount": Remedy(RUN, "Give one of --keep, --at-most or --eps, such as --keep 0.5.", RUN + "--keep 0.5"),
    "per cent": Remedy(RUN + "--keep 50", "For 50 %, write 0.5.", RUN + "--keep 0.5"),
    "few per cent": Remedy(RUN + "--keep 5", "For 5 %, write 0.05.", RUN + "--keep 0.05"),
    "no fraction": Remedy(RUN + "--keep inf", "Write a fraction, such as 0.5.", RUN + "--keep 0.5"),
    "two amounts": Remedy(RUN + "--keep 0.5 --eps 0.1", "Give one of --keep, --at-most or --eps.", RUN + "--eps 0.1"),
    "eps out of range": Remedy(RUN + "--eps 3", "such as 0.05; got 3.", RUN + "--eps 0.05"),
    "eps below its grid": Remedy(
        RUN + "--eps 1e-5", "--eps 1e-05 is not a whole number of ten-thousandths: give --eps 0.0001 or --eps 0 "
        "(removes nothing), the nearest values on the grid of 0.0001", RUN + "--eps 0.0001"),
    "eps below its grid, then 0": Remedy(RUN + "--eps 1e-5", "--eps 0 (removes nothing)", RUN + "--eps 0"),
    "eps between two values": Remedy(RUN + "--eps 0.00016", "give --eps 0.0002 or --eps 0.0001", RUN + "--eps 0.0002"),
    "less than the clusters": Remedy(
        RUN + "--keep 0.01", "fewer than one for each of 2 clusters: give at least --keep 0.025 or use fewer clusters",
        RUN + "--keep 0.025"),
    "more clusters than rows": Remedy(
        "run x.parquet --rule semdedup --quiet --scheduler DASK --keep 0.5 --clusters 9999",
        "more than the 60 valid rows: give at most 30 (one for each of the 30 rows to keep), or auto",
        "run x.parquet --rule semdedup --quiet --scheduler DASK --keep 0.5 --clusters 30"),
    "more clusters than rows, then auto": Remedy(
        "run x.parquet --rule semdedup --quiet --scheduler DASK --keep 0.5 --clusters 9999", "or auto",
        "run x.parquet --rule semdedup --quiet --scheduler DASK --keep 0.5 --clusters auto"),
    "clusters in words": Remedy(RUN + "--keep 0.5 --clusters many", "must be a whole number or auto; got 'many'.",
                                RUN + "--keep 0.5 --clusters auto"),
    # The rule
    "eps of random": Remedy("run x.parquet --rule random --quiet --scheduler DASK --eps 0.1",
                            "give --keep or --at-most in place of --eps",
                            "run x.parquet --rule random --quiet --scheduler DASK --at-most 0.1"),
    "cover of random": Remedy("run x.parquet --keep 0.5 --rule random --cover --quiet --scheduler DASK",
                              "choose one of fairdedup, balanced, semdedup",
                              "run x.parquet --keep 0.5 --rule semdedup --cover --quiet --scheduler DASK"),
    "no prototypes": Remedy("run x.parquet --keep 0.5 --rule fairdedup --quiet --scheduler DASK",
                            "or use a rule that needs none (--rule semdedup)", RUN + "--keep 0.5"),
    "no prototypes, then vectors": Remedy("run x.parquet --keep 0.5 --rule fairdedup --quiet --scheduler DASK",
                                          "give prototype vectors (--prototypes FILE)",
                                          "run x.parquet --keep 0.5 --quiet --scheduler DASK --prototypes two.npz"),
    "no such prototypes": Remedy("run x.parquet --keep 0.5 --quiet --scheduler DASK --prototypes none.npz",
                                 "or a .yaml, .parquet, .npz or .npy file",
                                 "run x.parquet --keep 0.5 --quiet --scheduler DASK --prototypes two.npz"),
    "prefer without a column": Remedy("run x.parquet --keep 0.5 --rule prefer --quiet --scheduler DASK",
                                      "Name a column of numbers, such as --prefer width.",
                                      "run x.parquet --keep 0.5 --rule prefer --prefer width --quiet --scheduler DASK"),
    "prefer with another rule": Remedy(RUN + "--keep 0.5 --prefer width", "Leave one of them out.",
                                       "run x.parquet --keep 0.5 --prefer width --quiet --scheduler DASK"),
    "prefer a column that is not there": Remedy(
        "run x.parquet --keep 0.5 --prefer size --quiet --scheduler DASK",
        "the metadata has no such column; give one of its columns: id, caption, width",
        "run x.parquet --keep 0.5 --prefer width --quiet --scheduler DASK"),
    "prefer where there are no numbers": Remedy(
        "run new.npy --keep 0.5 --prefer size --quiet --scheduler DASK", "no column of numbers: leave --prefer out",
        "run new.npy --keep 0.5 --rule semdedup --quiet --scheduler DASK"),
    "prefer words": Remedy("run x.parquet --keep 0.5 --prefer caption --quiet --scheduler DASK",
                           "the columns of numbers are width",
                           "run x.parquet --keep 0.5 --prefer width --quiet --scheduler DASK"),
    "collect a column that is not there": Remedy(
        RUN + "--keep 0.5 --collect text", "has no such column; give one of its columns: id, caption, width",
        RUN + "--keep 0.5 --collect caption --collect width"),
    "collect what is collected": Remedy(
        "run kept.parquet --rule semdedup --clusters 2 --quiet --scheduler DASK --keep 0.5 --collect caption",
        "the metadata has a column 'caption_collected' already; leave --collect 'caption' out",
        "run kept.parquet --rule semdedup --clusters 2 --quiet --scheduler DASK --keep 0.5"),
    # Curation
    "nothing is left": Remedy(RUN + "--keep 0.5 --where width<0", "leave none of 60 rows: exclude fewer",
                              RUN + "--keep 0.5 --where width<40"),
    "no takedown is found": Remedy(
        RUN + "--keep 0.5 --drop wrong.txt", "--drop wrong.txt: 2 of 2 ids are not in the run; the first are 'a', 'b': "
        "give ids as the column id of kept/ and rejected/ has them, with the shard before the key where --id is "
        "shard/key, or leave the option out",
        RUN + "--keep 0.5 --drop ids.txt"),
    "no takedown is found, then none": Remedy(RUN + "--keep 0.5 --drop wrong.txt", "or leave the option out",
                                              RUN + "--keep 0.5"),
    "always keep somebody else": Remedy(RUN + "--keep 0.5 --always-keep wrong.txt",
                                        "remove the ids that are not in the run, or give another file",
                                        RUN + "--keep 0.5 --always-keep ids.txt"),
    "always keep in a chain": Remedy(
        "run x.parquet --keep 0.5 --rule semdedup-chain --always-keep ids.txt --quiet --scheduler DASK",
        "choose one of fairdedup", RUN + "--keep 0.5 --always-keep ids.txt"),
    "ids of another kind": Remedy(RUN + "--keep 0.5 --drop two.npz", "give a .txt (one id per line), .csv or .parquet",
                                  RUN + "--keep 0.5 --drop ids.txt"),
    "ids without a column": Remedy(RUN + "--keep 0.5 --drop bad.csv", "give one named id, uid or key",
                                   RUN + "--keep 0.5 --drop good.csv"),
    "near what": Remedy(RUN + "--keep 0.5 --exclude-near-eps 0.05", "name the evaluation samples too",
                        RUN + "--keep 0.5 --exclude-near-eps 0.05 --exclude-near new.npy"),
    "how near": Remedy(RUN + "--keep 0.5 --exclude-near new.npy", "add --exclude-near-eps 0.05",
                       RUN + "--keep 0.5 --exclude-near new.npy --exclude-near-eps 0.05"),
    "no such variable": Remedy(RUN + "--keep 0.5 --drop $NOPE_/ids.txt", "or write the path without it.",
                               RUN + "--keep 0.5 --drop ids.txt"),
    # Folders
    "--out is a file": Remedy(RUN + "--keep 0.5 --out ids.txt", "choose a folder", RUN + "--keep 0.5 --out folder"),
    "--out with other files": Remedy(RUN + "--keep 0.5 --out .", "choose a new or empty folder",
                                     RUN + "--keep 0.5 --out new-folder"),
    "--out is a broken link": Remedy(RUN + "--keep 0.5 --out broken", "fix it, or choose another --out",
                                     RUN + "--keep 0.5 --out whole", link("broken")),
    "--out is empty": Remedy(RUN + "--keep 0.5 --out EMPTY", "Give a name or leave it out.", RUN + "--keep 0.5"),
    "--out cannot be written to": Remedy(RUN + "--keep 0.5 --out http://h/run", "give a local folder",
                                         RUN + "--keep 0.5 --out folder"),
    "other options": Remedy(RUN + "--keep 0.4 --out old", "choose another --out or --restart.",
                            RUN + "--keep 0.4 --out other"),
    "other options, then again": Remedy(RUN + "--keep 0.4 --out old", "--restart",
                                        RUN + "--keep 0.4 --out old --restart"),
    "other options, then prune": Remedy(RUN + "--keep 0.4 --out old", "old --keep 0.4 --rule semdedup`, or choose",
                                        PRUNE + "--keep 0.4"),
    "other clusters": Remedy("run x.parquet --rule semdedup --clusters 3 --quiet --scheduler DASK --keep 0.5 --out old",
                             "Choose another --out or --restart.",
                             "run x.parquet --rule semdedup --clusters 3 --quiet --scheduler DASK --keep 0.5 --out old "
                             "--restart"),
    "input in the run": Remedy("run old/embeddings --rule semdedup --keep 0.5 --out old --restart --quiet",
                               "choose another --out", "run old/embeddings --rule semdedup --keep 0.5 --out fresh "
                               "--quiet --scheduler DASK"),
    "workers of a scheduler": Remedy(RUN + "--keep 0.5 --workers 2", "Leave --workers out.", RUN + "--keep 0.5"),
    "memory in words": Remedy(RUN + "--keep 0.5 --memory-limit much", "such as 4GiB, or auto; got 'much'.",
                              RUN + "--keep 0.5 --memory-limit 4GiB"),
    "temperature": Remedy(RUN + "--keep 0.5 --temperature hot", "must be a number or auto; got 'hot'.",
                          RUN + "--keep 0.5 --temperature auto"),
    # Earlier runs
    "against nothing": Remedy(NEXT.replace("old", "nowhere"), "holds no finished run", NEXT),
    "keep against a run": Remedy(NEXT + "--keep 0.5", "leave it out, or limit the new rows with --at-most 0.5", NEXT),
    "keep against a run, at most": Remedy(NEXT + "--keep 0.5", "limit the new rows with --at-most 0.5",
                                          NEXT + "--at-most 0.5"),
    "eps against a run": Remedy(NEXT + "--eps 1.5", "leave it out", NEXT),
    "start against a run": Remedy(NEXT + "--start zero", "leave it out", NEXT),
    "start against a run, then refit": Remedy(
        NEXT + "--start zero", "start a new line with it: `fairdedup refit old --keep F --out NEW`",
        "refit old --start zero --keep 0.5 --out next --quiet --scheduler DASK"),
    "clusters against a run": Remedy(NEXT + "--clusters 7", "leave it out", NEXT),
    "prototypes against a run": Remedy(NEXT + "--prototypes two.npz", "leave it out", NEXT),
    "random against a run": Remedy(NEXT + "--rule random", "choose one of fairdedup", NEXT + "--rule random-neighbour"),
    "fair against a run": Remedy(NEXT + "--rule fairdedup", "choose a rule that needs none", NEXT + "--rule semdedup"),
    "refit in the line": Remedy("refit old --keep 0.5 --out old --quiet --scheduler DASK", "choose another --out",
                                "refit old --keep 0.5 --out next --quiet --scheduler DASK"),
    "prune against": Remedy(PRUNE + "--keep 0.5 --against next", "leave --against out", PRUNE + "--keep 0.5"),
    # Commands that use a run
    "prune without an amount": Remedy(PRUNE, "such as --keep 0.5.", PRUNE + "--keep 0.5"),
    "no vanished is found": Remedy("replace old --gone wrong.txt --quiet --scheduler DASK",
                                   "--gone wrong.txt: 2 of 2 ids are not in the run",
                                   "replace old --gone ids.txt --quiet --scheduler DASK"),
    "sweep over words": Remedy("sweep old --keep a --rule semdedup --quiet --scheduler DASK", "such as 0.3,0.5,0.8",
                               "sweep old --keep 0.3,0.5,0.8 --rule semdedup --quiet --scheduler DASK"),
    "sweep out of range": Remedy("sweep old --keep 50 --rule semdedup --quiet --scheduler DASK",
                                 "give a fraction, such as --keep 0.5 for 50 %",
                                 "sweep old --keep 0.5 --rule semdedup --quiet --scheduler DASK"),
    "calibrate to another kind": Remedy("calibrate old --labels labels.csv --prototypes two.npz --out two.npy",
                                        "--out must end with .parquet", "calibrate old --labels labels.csv "
                                        "--prototypes two.npz --out fitted.parquet --quiet --scheduler DASK"),
    "two sizes": Remedy("export old --to webdataset --shard-size 5 --shard-bytes 1GB", "Give one of them.",
                        "export old --to txt --quiet --scheduler DASK"),
    "a size of lines": Remedy("export old --to txt --shard-size 5", "not with --to txt. Leave it out.",
                              "export old --to txt --quiet --scheduler DASK"),
    "a size in words": Remedy("export old --to webdataset --shard-bytes big", "such as 1GB or 512MiB; got 'big'.",
                              "export old --to txt --quiet --scheduler DASK"),
    "names without a name": Remedy("audit old --labels labels.csv --attributes age,",
                                   "such as gender,age; got 'age,'.",
                                   "audit old --labels labels.csv --attributes age --quiet --scheduler DASK"),
    "audit without labels": Remedy("audit old --quiet --scheduler DASK", "give --labels FILE",
                                   "audit old --labels labels.csv --quiet --scheduler DASK"),
    "audit without labels, then prototypes": Remedy("audit old --quiet --scheduler DASK",
                                                    "vectors (--prototypes FILE)",
                                                    "audit old --prototypes two.npz --quiet --scheduler DASK"),
    "labels of others": Remedy("audit old --labels others.csv --quiet --scheduler DASK", "check the column id",
                               "audit old --labels labels.csv --quiet --scheduler DASK"),
    "a gate without a bound": Remedy("gate old", "--max-rejected, --max-drift or --min-retention",
                                     "gate old --max-rejected 0.1"),
    "sample into a full folder": Remedy("sample old", "Choose a new folder.", "sample faces --rows 200 --quiet"),
}  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    """Return a folder with inputs, lists and a finished run."""
    here = tmp_path_factory.mktemp("remedies")
    x = raw_vectors(60)
    columns = {"id": [f"k{k}" for k in range(60)], "embedding": x.tolist(), "width": range(60), "caption": ["c"] * 60}
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), here / "x.parquet")
    columns["caption_collected"] = [[]] * 60
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), here / "kept.parquet")
    np.save(here / "new.npy", raw_vectors(60, seed=9)[:20])
    np.savez(here / "two.npz", **{"age/old": x[0], "age/young": x[1]})
    texts = {"ids.txt": "k3\nk5\n", "wrong.txt": "a\nb\n", "bad.csv": "name\nk3\n", "good.csv": "id\nk3\n",
             "labels.csv": "id,age\n" + "".join(f"k{k},{('old', 'young')[k % 2]}\n" for k in range(60)),
             "others.csv": "id,age\nz,old\n"}  # fmt: skip
    for name, text in texts.items():
        (here / name).write_text(text)
    done("run", here / "x.parquet", "--keep", 0.5, "--rule", "semdedup", "--clusters", 2, "--out", here / "old",
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    return here


@pytest.mark.parametrize("name", TABLE)
def test_the_remedy_of_a_message_works(
    name: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    here, case = tmp_path / "here", TABLE[name]
    shutil.copytree(workplace, here)
    monkeypatch.chdir(here)
    case.prepare(here)
    known = {"DASK": scheduler, "EMPTY": "", "x.parquet": str(workplace / "x.parquet")}
    shown = command(*(known.get(word, word) for word in case.wrong.split()))
    assert shown.code == 2 and shown.err.count("\n") == 1, shown.err
    assert case.says in shown.err, shown.err
    done(*(known.get(word, word) for word in case.remedied.split()))

"""The page that repeats the paper: its commands run or parse, its block writes the ids, its money is arithmetic.

Commands of fairdedup run as they are written, but for models that would have to be downloaded, a scheduler, and the
sizes of real data.
"""

from __future__ import annotations

import re
import shlex
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from remedies import InProcess
from runs import command, raw_vectors, sample, write_tar

from fairdedup import workers
from fairdedup.encoders import batch_encoder
from fairdedup.stages import caption_embedding

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "repeat-the-paper.md").read_text(encoding="utf-8")
sys.path.insert(0, str(ROOT / "benchmarks"))

import evaluate_faces  # noqa: E402
import facet  # noqa: E402
import paper_costs  # noqa: E402
from faces import parse_checkpoint  # noqa: E402

WORDS = (
    (r" --scheduler tcp://\w+:8786", ""),
    (" --model ViT-B-16 --pretrained openai", ""),
    (" --model ViT-L-14 --pretrained openai", " --model fairdedup-small"),
    (r"\{00000\.\.39999\}", "{00000..00001}"),
    ("--clusters 50000", "--clusters 3"),
)
LAION, DATACOMP = PAGE.split("\n## DataComp, small\n")


class Quarters:
    """An encoder that averages the colours of each quarter; a caption has `dim` values that depend on its letters."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode_images(self, images: list[Any]) -> np.ndarray:
        return np.stack([np.asarray(i.resize((2, 2)), np.float32).reshape(-1) + 1 for i in images])

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        seeded = [np.random.default_rng(list(text.encode())) for text in texts]
        return np.stack([rng.uniform(50, 200, self.dim) for rng in seeded]).astype(np.float32)


def read_commands(text: str, program: str) -> list[str]:
    """Return the lines of the shell blocks that begin with a program."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(f"{program} ")]


def run_commands(text: str) -> None:
    lines = read_commands(text, "fairdedup")
    assert len(lines) > 5
    for line in lines:
        for old, new in WORDS:
            line = re.sub(old, new, line)
        shown = command(*shlex.split(line)[1:])
        assert shown.code == 0, (line, shown.err)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """Go to an empty folder, where commands run in this process."""
    monkeypatch.setattr(workers, "Workers", InProcess)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use(encoder: Quarters, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (batch_encoder, caption_embedding):
        monkeypatch.setattr(module, "load_encoder", lambda _: encoder)


def test_half_of_the_downloaded_shards_is_exported_by_each_rule(here, monkeypatch):
    use(Quarters(12), monkeypatch)
    for shard in range(2):
        members: dict[str, bytes] = {}
        keys = [f"{shard:05d}{k:04d}" for k in range(20)]
        for k, key in enumerate(keys):
            members |= sample(key, 3 * k + shard, status="success", similarity=0.3)
        write_tar(here / "laion400m-data" / f"{shard:05d}.tar", members)
        table = pa.table({"key": keys, "status": ["success"] * 20, "similarity": [0.3] * 20})
        pq.write_table(table, here / "laion400m-data" / f"{shard:05d}.parquet")  # as img2dataset writes beside a tar
        (here / "laion400m-data" / f"{shard:05d}_stats.json").write_text('{"count": 20}')
    run_commands(LAION)
    sizes = [read_size(here / rule) for rule in ("semdedup", "fairdedup", "balanced")]
    assert sizes == [20, 20, 20]
    assert "shard-{00000..19999}.tar" in PAGE and (here / "fairdedup" / "shard-00000.tar").is_file()


def read_size(folder: Path) -> int:
    """Return the number of samples in the shards of a folder."""
    captions = 0
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as archive:
            captions += sum(name.endswith(".txt") for name in archive.getnames())
    return captions


def test_datacomp_s_pool_becomes_arrays_of_the_ids_that_were_downloaded(here, monkeypatch):
    use(Quarters(16), monkeypatch)
    uids = [f"{k:032x}" for k in np.random.default_rng(0).permutation(48)]
    x = raw_vectors(48)
    lost = set(uids[::6])
    for part in range(2):
        own = slice(24 * part, 24 * part + 24)
        arrays = {f"{model}_{kind}": x[own] for model in ("b32", "l14") for kind in ("img", "txt")}
        folder = here / "small" / "metadata"
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"part{part}.npz", **{name: value.astype(np.float16) for name, value in arrays.items()})
        scores = np.linspace(0.2, 0.4, 24)
        table = {"uid": uids[own], "url": ["x"] * 24, "text": ["caption"] * 24, "clip_l14_similarity_score": scores}
        pq.write_table(pa.table(table), folder / f"part{part}.parquet")
        shards = here / "small" / "shards"
        shards.mkdir(exist_ok=True)
        status = ["failed_to_download" if uid in lost else "success" for uid in uids[own]]
        pq.write_table(pa.table({"uid": uids[own], "status": status}), shards / f"{part:08d}.parquet")
    (block,) = re.findall(r"```python\n(.*?)```", DATACOMP, re.DOTALL)
    exec(block, {})
    assert set((here / "missing.txt").read_text().split()) == lost
    run_commands(DATACOMP)
    for rule in ("semdedup", "fairdedup", "balanced", "random"):
        kept = np.load(here / f"{rule}.npy")
        assert kept.dtype == np.dtype("u8,u8") and len(kept) == 20  # half of the 40 that were downloaded
        assert (np.sort(kept) == kept).all()
        names = {f"{high:016x}{low:016x}" for high, low in kept.tolist()}
        assert names <= set(uids) - lost
    where = re.search(r'`(--where "[^"]+")`', DATACOMP)
    assert where is not None
    words = shlex.split(f"prune small-run --keep 0.5 --rule semdedup --published --drop missing.txt {where[1]}")
    assert command(*words).code == 0


def test_open_clip_takes_the_options_of_the_training():
    params = pytest.importorskip("open_clip_train.params")
    (line,) = [line for line in read_commands(LAION, "torchrun") if "open_clip_train.main" in line]
    launcher, _, options = line.partition(" -m open_clip_train.main ")
    args = params.parse_args(shlex.split(options))
    gpus = int(re.search(r"--nproc_per_node (\d+)", launcher)[1])
    assert gpus * args.batch_size * args.accum_freq == 33_792
    assert (args.model, args.epochs, args.train_num_samples) == ("ViT-B-16", 32, 200_000_000)
    assert f"{args.logs}/{args.name}/checkpoints/epoch_{args.epochs}.pt" in PAGE


def test_the_evaluations_take_the_options_of_the_page():
    scripts = {"evaluate_faces.py": evaluate_faces, "facet.py": facet}
    lines = [line for line in read_commands(LAION, "python") if "benchmarks/" in line]
    assert len(lines) == 2
    for line in lines:
        _, script, *words = shlex.split(line)
        args = scripts[Path(script).name].make_parser().parse_args(words)
        assert all(parse_checkpoint(word)[1].startswith("ViT-B-16:") for word in args.checkpoint)
    (datacomp,) = re.findall(r"`(\w+=ViT-B-32:[^`]+)`", DATACOMP)
    assert parse_checkpoint(datacomp)[0] == "fairdedup"


def test_the_tables_of_costs_are_those_of_the_script():
    assert len(paper_costs.PLACE.findall(PAGE)) == 2
    assert paper_costs.fill_tables(PAGE) == PAGE, "run python benchmarks/paper_costs.py"


def test_hours_and_dollars_by_hand():
    assert paper_costs.training_hours(10_700, 200e6 * 32) == pytest.approx(5_350)
    assert paper_costs.training_hours(4_600, 12.8e6) == pytest.approx(4.6)
    laion, small = "\n".join(paper_costs.laion_table()), "\n".join(paper_costs.small_table())
    assert "| 30 each on 176 GPUs | 32,100 |" in laion  # 5,350 / 176, and 3 · 5,350 · 2
    assert "| 19.8 | 317 |" in laion  # 400e6 / 700 / 8 / 3600, and that · 8 · 2
    assert "| 85 | 68 |" in laion  # 400e6 / 1300 / 3600, and that · 16 · 0.05
    assert "| 14 on 8 GPUs | 230 |" in small  # 25 · 4.6 / 8, and 25 · 4.6 · 2


def test_hours_to_decide_are_those_of_the_plan_with_clustering_once():
    needs = paper_costs.plan_small()
    hours = {stage.name: stage.hours or 0.0 for stage in needs.stages if stage.name != "embed"}
    once = hours["train k-means"] + hours["assign"]
    assert paper_costs.decide_hours(needs, 1) == pytest.approx(sum(hours.values()))
    assert paper_costs.decide_hours(needs, 3) == pytest.approx(once + 3 * (sum(hours.values()) - once))


def test_prices_and_rates_of_the_page_are_those_of_the_script():
    for price in (paper_costs.GPU_HOUR, paper_costs.CORE_HOUR, paper_costs.GIGABYTE_MONTH):
        assert f"${price:.2f}" in PAGE
    for number in (paper_costs.B16_HOURS, paper_costs.B32_HOURS, paper_costs.LAION, paper_costs.DOWNLOADED_PER_SECOND):
        assert f"{number:,}" in PAGE
    plan = next(line for line in read_commands(LAION, "fairdedup") if line.startswith("fairdedup plan "))
    size = (
        f"--gpus {paper_costs.GPUS} --workers {paper_costs.WORKERS} --images-per-second {paper_costs.IMAGES_PER_SECOND}"
    )
    assert size in plan and "--rows 400e6" in plan and "--clusters 50000" in plan

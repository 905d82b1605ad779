"""The commands of docs/object-stores.md run in their order, against the bucket of moto's S3."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from remedies import InProcess
from runs import command, sample, write_tar
from stores import Store

from fairdedup import workers
from fairdedup.storage.object_stores import as_path
from fairdedup.storage.remote_path import RemotePath

PAGE = Path(__file__).parents[2] / "docs" / "object-stores.md"
MODEL = " --model ViT-B-16 --pretrained openai"  # would be downloaded; without it the model is the built-in one
SHARDS, SAMPLES = "{00000..00041}", 8


def test_the_commands_of_the_page_run_in_its_order(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.setattr(workers, "Workers", InProcess)
    for name in ("photos", "runs"):
        RemotePath(f"s3://{name}").fs.mkdir(name)
    for day in (1, 2):
        for shard in range(2):
            members: dict[str, bytes] = {}
            for k in range(SAMPLES):
                members |= sample(f"d{day}s{shard}k{k}", 40 * day + 8 * k + shard)
            write_tar(tmp_path / f"day-{day}" / f"{shard:05d}.tar", members)
        Store(bucket.proxy, "", "s3://photos").put(tmp_path / f"day-{day}", f"day-{day}")
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for line in block.splitlines() if line.startswith("fairdedup ")]
    assert len(lines) == 3 and SHARDS in lines[0] and MODEL in lines[0]
    for line in lines:
        _, *words = shlex.split(line.replace(MODEL, "").replace(SHARDS, "{00000..00001}"))
        ended = command(*words)
        assert ended.code == 0 and ended.out, (line, ended.err)
    first, second = (json.loads(as_path(f"s3://runs/day-{day}/run.json").read_bytes()) for day in (1, 2))
    counts = [first["counts"], second["counts"]]
    assert counts[0]["kept"] == round(0.3 * 2 * SAMPLES)
    assert all(own["kept"] + own["removed"] + own["rejected"] == own["input"] == 2 * SAMPLES for own in counts)

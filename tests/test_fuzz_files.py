"""Files that a user names survive damage too: lists, labels, prototypes, configurations, folders of models."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from damage import CHANGES, Change, changed
from encoders.model_folders import CONFIG, write_model
from hypothesis import HealthCheck, given, settings
from runs import write_prototypes

from fairdedup.config import load_config
from fairdedup.datasets.ids import read_ids
from fairdedup.datasets.labels import read_labels
from fairdedup.encoders.model_folder import check_model_folder
from fairdedup.errors import UserError
from fairdedup.prototype_files import default_prototypes, read_vectors, write_vectors
from fairdedup.stages.caption_embedding import read_captions

LONGEST = 10.0  # seconds of the processor for one file
IDS = ["a", "b", "7", "ünï"]
LABELS = {"id": IDS, "tone": ["light", "dark", None, "dark"], "age": ["30-39", "3-9", "", "3-9"]}


@dataclass(frozen=True)
class Named:
    """A kind of file: how one is written, and how it is read."""

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]


def ids(path: Path) -> Any:
    return read_ids(path, "--drop")


def labels(path: Path) -> Any:
    return read_labels(path, None)


def config(path: Path) -> Any:
    return load_config(path, {})


def folder(path: Path) -> Any:
    return check_model_folder(f"local-dir:{path.parent}", path.parent)


def vectors(path: Path) -> Any:
    rows = {"tone": {"light": np.eye(4)[0], "dark": np.eye(4)[1]}}
    return write_vectors(path, rows, {"tone": 0.1})


FILES = {
    "ids, text": Named("ids.txt", lambda p: p.write_text("\n".join(IDS)), ids),
    "ids, CSV": Named("ids.csv", lambda p: pd.DataFrame(LABELS).to_csv(p, index=False), ids),
    "ids, Parquet": Named("ids.parquet", lambda p: pd.DataFrame(LABELS).to_parquet(p), ids),
    "labels, CSV": Named("labels.csv", lambda p: pd.DataFrame(LABELS).to_csv(p, index=False), labels),
    "labels, Parquet": Named("labels.parquet", lambda p: pd.DataFrame(LABELS).to_parquet(p), labels),
    "captions": Named("people.yaml", lambda p: p.write_bytes(default_prototypes().read_bytes()), read_captions),
    "prototypes, npz": Named("prototypes.npz", write_prototypes, read_vectors),
    "prototypes, Parquet": Named("prototypes.parquet", vectors, read_vectors),
    "configuration": Named(
        "c.yaml", lambda p: p.write_text("keep: 0.5\nrule: balanced\ntarget: {tone: {light: 0.3, dark: 0.7}}\n"), config
    ),
    "folder of a model": Named(CONFIG, lambda p: write_model(p.parent), folder),
}


def survives(named: Named, place: Path, examples: int, **options: Any) -> Counter[str]:
    """Let Hypothesis search for damage that ends in anything but a value or an error of one line."""
    place.mkdir(parents=True)
    path = place / named.name
    named.write(path)
    whole, ends = path.read_bytes(), Counter[str]()
    named.read(path)

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), **options)
    @given(CHANGES)
    def attempt(changes: list[Change]) -> None:
        path.write_bytes(changed(whole, changes))
        started = time.process_time()
        try:
            named.read(path)
            ends["value"] += 1
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 4_000
            ends["error"] += 1
        assert time.process_time() - started < LONGEST

    attempt()
    return ends


@pytest.mark.parametrize("kind", FILES)
def test_no_change_of_bytes_makes_the_reader_of_a_named_file_fail_or_hang(kind: str, tmp_path: Path) -> None:
    assert survives(FILES[kind], tmp_path / "files", 40)["error"]


@pytest.mark.soak
def test_half_an_hour_of_changes_of_named_files(tmp_path: Path) -> None:
    until = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "1800"))
    tried: Counter[str] = Counter()
    turn = 0
    while time.monotonic() < until:
        for kind, named in FILES.items():
            tried += survives(named, tmp_path / f"{kind} {turn}", 300, derandomize=False)
        turn += 1
    print(f"{tried.total():,} damaged files: {dict(tried)}")

"""`--prototypes people` and `--prototypes fairface` name the files of captions that ship with fairdedup."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairdedup.config import load_config
from fairdedup.prototype_files import default_prototypes
from fairdedup.stages.caption_embedding import read_captions
from fairdedup.storage.shipped_files import PROTOTYPES


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", PROTOTYPES)
@pytest.mark.parametrize("place", ["flag", "file"])
def test_a_name_is_that_of_a_shipped_file(name: str, place: str, here: Path) -> None:
    (here / "c.yaml").write_text(f"prototypes: {name}\n")
    config = load_config(here / "c.yaml", {}) if place == "file" else load_config(None, {"prototypes": Path(name)})
    assert config.prototypes is not None and config.prototypes.name == f"{name}.yaml"
    assert read_captions(config.prototypes).attributes


def test_people_are_the_default(here: Path) -> None:
    assert load_config(None, {"prototypes": Path("people")}).prototypes == default_prototypes()


def test_a_file_of_that_name_wins(here: Path) -> None:
    (here / "people").write_text("mine")
    assert load_config(None, {"prototypes": Path("people")}).prototypes == Path("people")

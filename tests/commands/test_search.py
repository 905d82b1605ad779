"""`fairdedup search`: the order is that of float64 cosines over all samples, and nothing in the run changes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from runs import Decided, command, done, files, picture, table


def search(run: Path, *flags: object) -> list[dict[str, Any]]:
    """Return what a search has found."""
    found: list[dict[str, Any]] = json.loads(done("search", run, *flags, "--log-json").err.splitlines()[-1])["found"]
    return found


def test_the_most_similar_samples_are_those_of_float64_cosines(finished):
    before = files(finished)
    run = Decided(finished)
    decisions = run.decisions
    cosines = oracles.cosine_matrix(run.unit, run.unit)
    for place in (0, 57, 236):  # in the first, the second and the last shard
        order = np.lexsort((np.arange(len(cosines)), -cosines[place]))[:30]
        found = search(finished, "--id", decisions["id"][place], "--top", 30)
        assert [each["id"] for each in found] == decisions["id"].to_numpy()[order].tolist()
        assert [each["cosine"] for each in found] == pytest.approx(cosines[place][order].tolist(), abs=0)
        kept, again = decisions["kept"].to_numpy()[order], decisions["readmitted"].to_numpy()[order]
        states = np.where(again, "re-admitted", np.where(kept, "kept", "removed"))
        assert [each["state"] for each in found] == states.tolist()
    assert files(finished) == before


def test_blocks_do_not_change_what_is_found(finished, monkeypatch):
    whole = search(finished, "--id", "k30")
    monkeypatch.setattr("fairdedup.stages.similar_rows.BLOCK", 7)
    assert search(finished, "--id", "k30") == whole


def test_the_table_names_rank_cosine_id_state_and_caption(finished):
    header, first, *_ = done("search", finished, "--id", "k31", "--top", 3, "--quiet").out.splitlines()
    assert header.split() == ["rank", "cosine", "id", "state", "caption"]
    assert first.split()[:3] == ["1", "1.0000", "k31"] and first.rstrip().endswith("caption 31")


def test_a_sample_that_an_option_left_out_is_found_and_said_so(again, tmp_path, prototypes):
    (tmp_path / "drop.txt").write_text("k31\n")
    done("prune", again, "--keep", 0.5, "--drop", tmp_path / "drop.txt", "--prototypes", prototypes, "--quiet")
    assert search(again, "--id", "k31", "--top", 1)[0]["state"] == "left out"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "Give one of --image FILE, --text TEXT and --id X."),
        (("--id", "k1", "--text", "x"), "Give one of --image FILE, --text TEXT and --id X."),
        (("--id", "nobody"), "--id 'nobody' is not in .*: give an id as the column id of kept/ or decisions/ has it"),
        (("--id", "k7"), r"--id 'k7' is a rejected sample without a vector \(.*not finite\): give another id"),
        (("--text", "x"), r"--text needs the model of these embeddings, .* or look for a sample of the run by --id X"),
    ],
    ids=str,
)
def test_what_cannot_be_looked_for_is_one_line(finished, flags, says):
    refused = command("search", finished, *flags, "--quiet")
    assert refused.code == 2 and re.fullmatch(f"fairdedup: error: {says}\n", refused.err), refused.err


def test_pictures_and_texts_are_embedded_by_the_model_of_the_run(images_run, scheduler, tmp_path):
    """The picture of a sample finds the sample itself, and its page shows it."""
    (tmp_path / "mine.png").write_bytes(picture(3 * 5))
    page = tmp_path / "found.html"
    flags = ("--scheduler", scheduler, "--top", 4)
    found = search(images_run, "--image", tmp_path / "mine.png", "--html", page, *flags)
    assert found[0]["id"] == "0005" and found[0]["cosine"] > 0.9999 and found[0]["caption"] == "caption of 0005"
    text = page.read_text(encoding="utf-8")
    assert text.count('src="data:image/jpeg;base64,') == 4 and "<script" not in text
    assert "default-src 'none'; img-src data:;" in text and "caption of 0005" in text
    cosines = [each["cosine"] for each in search(images_run, "--text", "a red square", *flags)]
    assert cosines == sorted(cosines, reverse=True) and cosines[0] < 0.9
    (tmp_path / "broken.png").write_bytes(b"no picture")
    refused = command("search", images_run, "--image", tmp_path / "broken.png", "--scheduler", scheduler)
    assert refused.code == 2 and "is not a picture that can be decoded" in refused.err
    refused = command("search", images_run, "--image", tmp_path / "none.png", "--scheduler", scheduler)
    assert refused.code == 2 and "No such file" in refused.err


def test_a_page_of_rows_without_pictures_shows_captions_as_text(again, tmp_path):
    page = tmp_path / "found.html"
    done("search", again, "--id", "k31", "--top", 2, "--html", page, "--quiet")
    text = page.read_text(encoding="utf-8")
    assert "caption 31" in text and "data:image" not in text and len(table(again / "decisions")) > 2

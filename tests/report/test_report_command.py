"""`fairdedup report` and the page that a run makes: what is in it, and that it disturbs nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_pages import HOSTILE, HOSTILE_NAME, draw_picture, read_data
from runs import command, contents, done, manifest, table


@pytest.fixture
def own_pictures_run(pictures_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the run over pictures, to be changed."""
    shutil.copytree(pictures_run, tmp_path / "copy")
    return tmp_path / "copy"


class Tags(HTMLParser):
    """Collects the tags of a page, and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_a_run_makes_a_page_and_says_where(again, prototypes, scheduler):
    words = ("prune", again, "--keep", 0.5, "--prototypes", prototypes, "--scheduler", scheduler)
    shown = done(*words, "--report")
    page = again / "report" / "index.html"
    assert shown.out.endswith(f"See it: {page}\n")
    assert json.loads(done(*words, "--report", "--log-json").err.splitlines()[-1])["page"] == str(page)
    assert "See it" not in done(*words, "--no-report").out
    assert not page.exists()  # the decisions have been made again, and it is about the former ones
    assert done("report", again, "--scheduler", scheduler).out == f"See it: {page}\n"


def test_the_page_has_the_numbers_of_the_run(again, scheduler):
    before = {name: data for name, data in contents(again).items() if not name.startswith("report/")}
    done("report", again, "--scheduler", scheduler)
    after = contents(again)
    text = after.pop("report/index.html").decode()
    assert after == before
    counts, decisions = manifest(again)["counts"], table(again / "decisions")
    assert f"Of {counts['valid']} samples, {counts['kept']} are kept" in text
    for reason in ("not finite", "zero"):
        assert reason in text  # of the rows that were rejected
    data = read_data(again / "report" / "index.html")
    removed = decisions[~decisions["kept"]]
    sizes = removed["representative"].value_counts()
    assert [each["size"] for each in data["gallery"]] == [sizes[each["row"]] for each in data["gallery"]]
    assert data["gallery"][0]["size"] == sizes.max()
    similarity = dict(zip(removed["row"], removed["similarity"], strict=True))
    for each in data["gallery"]:
        assert each["members"] == [[row, pytest.approx(similarity[row], abs=1e-6)] for row, _ in each["members"]]
        assert each["least"] == pytest.approx(removed.loc[removed["representative"] == each["row"], "similarity"].min())
    outliers = decisions.nsmallest(12, ["centroid_similarity", "row"])
    assert data["outliers"] == outliers["row"].tolist()
    top = round(10_000 * data["bands"][-1]["high"])
    in_bands = sum(round(10_000 * cosine) <= top for cosine in similarity.values())
    assert sum(band["count"] or 0 for band in data["bands"]) == in_bands
    assert "perceived" in text and "tone" in text
    assert "There are too few clusters, or samples of a group, for intervals." in text


def test_vectors_without_captions_and_prototypes_have_a_page(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 8))
    np.save(tmp_path / "x.npy", np.concatenate([x, x + 0.01]).astype(np.float32))
    done("run", tmp_path / "x.npy", "--keep", 0.5, "--rule", "semdedup", "--out", tmp_path / "run", "--report")
    data = read_data(tmp_path / "run" / "report" / "index.html")
    assert sum(each["size"] for each in data["gallery"]) <= 40
    assert data["outliers"]


def test_pairs_of_the_borderline_lie_in_their_bands(again, scheduler):
    done("report", again, "--scheduler", scheduler)
    data, decisions = read_data(again / "report" / "index.html"), table(again / "decisions").set_index("row")
    threshold = 1 - manifest(again)["eps"]
    for band in data["bands"]:
        for first, second, cosine in band["pairs"]:
            assert band["low"] - 1e-4 <= cosine <= band["high"] + 1e-4
            one = decisions.loc[first]
            if band["count"] is None:
                assert one["kept"] and decisions.loc[second]["kept"] and cosine <= threshold
            else:
                assert (one["kept"], one["representative"]) == (False, second)
                assert cosine == pytest.approx(one["similarity"], abs=1e-6)


def test_the_page_is_one_file_that_may_load_nothing(pictures_run):
    text = (pictures_run / "report" / "index.html").read_text(encoding="utf-8")
    tags = Tags(text).tags
    assert {name for name, _ in tags} & {"link", "iframe", "object", "embed", "base", "form", "img"} == set()
    assert [own.get("src") for name, own in tags if name == "script"] == [None, None]
    policy = next(own["content"] for name, own in tags if own.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert not re.search(r'(?:src|href)="(?!#|data:)', text.partition('id="data"')[0])


def test_hostile_names_and_captions_come_back_as_they_were(pictures_run):
    data = read_data(pictures_run / "report" / "index.html")
    ids, captions = (json.loads(zlib.decompress(base64.b64decode(data["map"][name]))) for name in ("ids", "captions"))
    assert HOSTILE_NAME in ids and len(ids) == 60
    assert {text.strip() for text in HOSTILE} <= set(captions)
    samples = data["samples"].values()
    assert samples and all(sample["url"].startswith("data:image/jpeg;base64,") for sample in samples)


def test_without_images_there_is_none(own_pictures_run, scheduler):
    done("report", own_pictures_run, "--no-images", "--scheduler", scheduler)
    text = (own_pictures_run / "report" / "index.html").read_text(encoding="utf-8")
    assert "data:image" not in text
    assert '"id":"picture ' in text


def test_points_of_the_map_have_small_pictures_of_their_own_samples(own_pictures_run, scheduler, monkeypatch):
    """Without any shown sample, all pictures are those of points."""
    monkeypatch.setattr("fairdedup.commands.report._order_rows", lambda figures: iter(()))
    done("report", own_pictures_run, "--scheduler", scheduler)
    found = read_data(own_pictures_run / "report" / "index.html")["map"]
    ids = json.loads(zlib.decompress(base64.b64decode(found["ids"])))
    assert sorted(map(int, found["pictures"])) == list(range(60)) and found["before"] == "data:image/webp;base64,"
    for place, text in found["pictures"].items():
        if ids[int(place)] != HOSTILE_NAME:
            seed = int(re.search(r"\d+", ids[int(place)])[0])
            shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"), float)
            drawn = np.asarray(Image.open(io.BytesIO(draw_picture(seed))).convert("RGB"), float)
            assert shown.shape == drawn.shape == (32, 32, 3)
            assert np.abs(shown.mean(axis=(0, 1)) - drawn.mean(axis=(0, 1))).max() < 12, "another picture"
    text = (own_pictures_run / "report" / "index.html").read_text(encoding="utf-8")
    assert "Pointing shows the picture of 60 of these points" in text


def test_no_images_with_a_command_that_decides_makes_a_page_without_any(own_pictures_run, pictures, scheduler):
    page = own_pictures_run / "report" / "index.html"
    assert "data:image" in page.read_text(encoding="utf-8")
    done("run", pictures, "--eps", 0.1, "--max-rejected", 0.2, "--out", own_pictures_run, "--no-images",
         "--scheduler", scheduler, "--report")  # fmt: skip
    assert "data:image" not in page.read_text(encoding="utf-8"), "a finished run has its page made again"
    done("prune", own_pictures_run, "--eps", 0.2, "--no-images", "--scheduler", scheduler, "--report")
    assert "data:image" not in page.read_text(encoding="utf-8")


def test_an_input_that_has_moved_is_said_and_can_be_named(own_pictures_run, pictures, scheduler, tmp_path):
    page, moved = own_pictures_run / "report" / "index.html", tmp_path / "moved"
    shutil.copytree(pictures, moved)
    pictures.rename(pictures.with_name("away"))
    try:
        done("report", own_pictures_run, "--scheduler", scheduler)
        assert "Pictures are not shown: the input cannot be opened" in page.read_text(encoding="utf-8")
        done("report", own_pictures_run, "--input", moved, "--scheduler", scheduler)
        assert "data:image/jpeg" in page.read_text(encoding="utf-8")
    finally:
        pictures.with_name("away").rename(pictures)


def test_a_page_that_cannot_be_made_is_one_warning_and_the_run_is_finished(again, scheduler, monkeypatch):
    monkeypatch.setattr("fairdedup.commands.report.gather_figures", lambda *_: 1 / 0)
    shown = command("prune", again, "--keep", 0.4, "--rule", "semdedup", "--scheduler", scheduler, "--report")
    warnings = [line for line in shown.err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and "index.html could not be made (division by zero)" in warnings[0]
    assert manifest(again)["counts"]["kept"] == 95 and "See it" not in shown.out


@pytest.mark.parametrize("rule", ["random", "semdedup-chain"])
def test_every_rule_has_a_page(rule, again, scheduler):
    done("prune", again, "--keep", 0.5, "--rule", rule, "--scheduler", scheduler, "--report", "--leftover", 0)
    data = read_data(again / "report" / "index.html")
    assert bool(data["bands"]) == (rule != "random")
    assert data["map"]["n"] == 237


def test_a_run_of_a_line_has_a_page(again, embeddings, scheduler, tmp_path):
    done("run", embeddings, "--against", again, "--out", tmp_path / "day-2", "--id", "shard/key", "--scheduler",
         scheduler, "--report")  # fmt: skip
    assert "0 are kept" in (tmp_path / "day-2" / "report" / "index.html").read_text(encoding="utf-8")


def test_a_run_that_is_not_finished_has_no_page(tmp_path):
    (tmp_path / "notes.txt").write_text("of another kind")
    refused = command("report", tmp_path)
    assert refused.code == 2 and "holds no finished run" in refused.err


def test_an_input_that_is_not_there_leaves_the_page_as_it_is(own_pictures_run, tmp_path, scheduler):
    done("report", own_pictures_run, "--scheduler", scheduler)
    page = (own_pictures_run / "report" / "index.html").read_bytes()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a.png").write_bytes(draw_picture(0))
    for place, said in (("nowhere", "no such file or folder"), ("others", "is not the input of the run")):
        refused = command("report", own_pictures_run, "--input", tmp_path / place, "--scheduler", scheduler)
        assert refused.code == 2 and said in refused.err and refused.err.count("\n") == 1, refused.err
        assert (own_pictures_run / "report" / "index.html").read_bytes() == page

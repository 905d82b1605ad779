"""What the built-in encoder perceives is shown for drawn pictures, and for no others."""

from __future__ import annotations

from runs import done, manifest, picture, write_tar


def test_the_built_in_encoder_says_nothing_of_pictures_that_are_not_drawn(tmp_path, scheduler):
    write_tar(tmp_path / "x.tar", {f"{k}.png": picture(20 * k) for k in range(6)})
    asked = ("run", tmp_path / "x.tar", "--keep", 0.5, "--clusters", 1, "--scheduler", scheduler)
    shown = done(*asked, "--rule", "balanced", "--out", tmp_path / "run")
    found = manifest(tmp_path / "run")
    assert found["shares"] == [] and len(found["absent"]) == 3
    assert (
        "warning: Shares of perceived groups are left out: the built-in encoder knows drawn pictures only. "
        "Name a model of photographs (--model).\n"
    ) in shown.out
    assert "barely separates" not in shown.out and "share of each group" not in shown.out


def test_drawn_pictures_have_shares_wherever_they_lie(tmp_path, scheduler):
    done("sample", tmp_path / "people", "--rows", 200)
    shown = done(
        "run",
        tmp_path / "people",
        "--keep",
        0.5,
        "--max-rejected",
        0.5,
        "--scheduler",
        scheduler,
        "--out",
        tmp_path / "run",
    )
    assert "share of each group" in shown.out and len(manifest(tmp_path / "run")["shares"]) == 8

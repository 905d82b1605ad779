"""`export --to folder`: a tree of links to the kept files, or of copies; nothing is lost and nothing overwritten."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from exports import all_members, ids
from in_process import Here
from runs import command, contents, done, manifest, picture, table

from fairdedup import UserError
from fairdedup.commands.export import export_samples
from fairdedup.commands.export_options import ExportOptions, ExportResult
from fairdedup.stages.sample_export.folder_export import make_safe


def export(run: Path, dest: Path, what: str = "kept", **options: object) -> ExportResult:
    """Export a tree of files in this process."""
    known = ExportOptions(run=run, form="folder", what=what, dest=str(dest), **options)  # type: ignore[arg-type]
    return export_samples(known, Here())  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, bytes]:
    """Return the files of an export without its own."""
    return {name: data for name, data in contents(folder).items() if not name.startswith(".fairdedup/")}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, scheduler: str, weights: Path) -> tuple[Path, Path]:
    """Return a folder of pictures with companions, and a finished run over it."""
    folder = tmp_path_factory.mktemp("photos") / "in"
    for k in range(16):
        path = folder / ("a.b" if k % 2 else "cats é") / f"{k:02d}.v1.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(5 * k))
        os.utime(path, ns=(10**18, 10**18 + k))
        if k % 3 == 0:
            path.with_suffix(".txt").write_text(f"a cat {k}")
    (folder / "bad.png").write_bytes(picture(3)[:50])
    (folder / "50%.png").write_bytes(picture(500))
    run = folder.parent / "run"
    done("run", folder, "--keep", 0.5, "--rule", "semdedup", "--model", "fairdedup-small", "--pretrained", weights,
         "--clusters", 2, "--max-rejected", 0.5, "--out", run, "--scheduler", scheduler, "--quiet")  # fmt: skip
    return folder, run


def test_links_lead_to_the_kept_files_and_their_companions(photos, tmp_path):
    folder, run = photos
    result = export(run, tmp_path / "kept")
    expected = {
        name for id_ in ids(run, True) for name in (id_, str(Path(id_).with_suffix(".txt"))) if (folder / name).exists()
    }
    assert set(tree(tmp_path / "kept")) == expected and any(name.endswith(".txt") for name in expected)
    for name in expected:
        link = tmp_path / "kept" / name
        assert link.is_symlink() and os.readlink(link) == str(folder / name)
    assert result.samples == manifest(run)["counts"]["kept"] == len(ids(run, True)) and result.shards is None


def test_kept_removed_and_rejected_are_the_input(photos, tmp_path):
    folder, run = photos
    for copy in (False, True):
        kept, removed = tmp_path / f"kept {copy}", tmp_path / f"removed {copy}"
        counts = [export(run, kept, copy=copy).samples, export(run, removed, "removed", copy=copy).samples]
        assert not tree(kept).keys() & tree(removed).keys()
        rejected = {name: (folder / name).read_bytes() for name in table(run / "rejected")["id"]}
        assert set(rejected) == {"bad.png"}
        assert tree(kept) | tree(removed) | rejected == contents(folder)
        assert sum(counts) + len(rejected) == manifest(run)["counts"]["input"] == 18


def test_copies_have_the_times_of_their_files_and_are_no_links(photos, tmp_path):
    folder, run = photos
    export(run, tmp_path / "kept", copy=True)
    for name in tree(tmp_path / "kept"):
        copied = tmp_path / "kept" / name
        assert not copied.is_symlink() and copied.stat().st_mtime_ns == (folder / name).stat().st_mtime_ns


@pytest.mark.parametrize("copy", [False, True])
def test_a_stopped_export_goes_on_and_the_same_again_changes_nothing(copy, photos, tmp_path):
    _, run = photos
    out = tmp_path / "kept"
    export(run, out, copy=copy)
    whole = contents(out)
    first, second = sorted(name for name in tree(out))[:2]
    (out / first).unlink()
    (out / ".fairdedup" / "manifest.json").unlink()
    (out / f"{Path(second).parent}" / ".x.png.0123abcd.tmp").write_bytes(b"half")  # as a killed worker may leave it
    before = os.lstat(out / second)
    export(run, out, copy=copy)
    assert contents(out) == whole
    export(run, out, copy=copy)
    assert contents(out) == whole
    if not copy:
        assert os.lstat(out / second).st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("copy", [False, True])
def test_another_file_in_a_place_is_refused_and_stays(copy, photos, tmp_path):
    _, run = photos
    out = tmp_path / "kept"
    export(run, out, copy=copy)
    first = out / min(tree(out))
    first.unlink()
    first.write_bytes(b"mine")
    with pytest.raises(UserError, match=f"'{re.escape(str(first))}' is another file already: remove it, or choose"):
        export(run, out, copy=copy)
    assert first.read_bytes() == b"mine"
    first.unlink()  # the remedy
    export(run, out, copy=copy)


def test_other_folders_and_other_exports_are_refused(photos, tmp_path):
    _, run = photos
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("mine")
    with pytest.raises(UserError, match="holds other files \\('a'\\): choose a new or empty folder"):
        export(run, tmp_path / "full")
    export(run, tmp_path / "kept")
    for changes in ({"what": "removed"}, {"copy": True}):
        with pytest.raises(UserError, match="has another export"):
            export(run, tmp_path / "kept", **changes)  # type: ignore[arg-type]
    assert contents(tmp_path / "full") == {"a": b"mine"}


def test_members_of_tars_are_copied_and_cannot_be_links(shards, images_run, tmp_path):
    with pytest.raises(UserError, match="are not files of a local folder, so no link can lead to them: add --copy"):
        export(images_run, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    export(images_run, tmp_path / "kept", copy=True)
    kept = ids(images_run, True)
    expected = {name: data for name, data in all_members(shards).items() if name.split(".")[0] in kept}
    assert tree(tmp_path / "kept") == expected


def test_a_file_that_has_gone_is_named(photos, tmp_path):
    folder, run = photos
    moved = shutil.copytree(folder, tmp_path / "in")
    first = min(ids(run, True))
    for copy in (False, True):
        os.rename(moved / first, tmp_path / "away")
        (moved / first).symlink_to(tmp_path / "nowhere")
        with pytest.raises(UserError, match="is not the input of"):
            export(run, tmp_path / f"kept {copy}", copy=copy, source=str(moved))
        (moved / first).unlink()
        os.rename(tmp_path / "away", moved / first)
    export(run, tmp_path / "from there", source=str(moved))
    assert os.readlink(tmp_path / "from there" / first) == str(moved / first)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.c.png", "a/b.c.png"),
        ("é %.png", "é %.png"),
        ("../a.png", "%2E%2E/a.png"),
        ("/etc/a.png", "%2Fetc%2Fa.png"),
        ("a//b.png", "a%2F%2Fb.png"),
        ("a/../../b.png", "a/%2E%2E/%2E%2E/b.png"),
        ("./a.png", "./a.png"),
    ],
)
def test_no_path_leads_out_of_the_tree(name, expected):
    assert make_safe(name) == expected


def test_the_flag_belongs_to_folder_alone_and_the_default_place_is_beside_the_run(photos, tmp_path, scheduler):
    _, run = photos
    shown = command("export", run, "--to", "txt", "--copy")
    assert shown.code == 2 and "--copy works only with --to folder, not with --to txt. Leave it out." in shown.err
    here = shutil.copytree(run, tmp_path / "run")
    shown = done("export", here, "--to", "folder", "--scheduler", scheduler)
    assert shown.out == f"kept samples: {len(ids(run, True))}, in {tmp_path / 'run-kept-files'}\n"

"""Commands work if the package and the home are read-only, as in a container, and on a read-only finished run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runs import CLUSTERS, files, manifest

import fairdedup

PACKAGE = Path(fairdedup.__file__).parent
CONFIGS = PACKAGE.parent / "configs"
# Root may write anywhere until it gives up its capabilities.
POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def can_be_powerless() -> bool:
    known = not POWERLESS or shutil.which(POWERLESS[0])
    return bool(known) and subprocess.run([*POWERLESS, "true"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not can_be_powerless(), reason="root may write anywhere, and setpriv does not help")
Python = Callable[..., subprocess.CompletedProcess[str]]


def locked(folder: Path) -> None:
    """Make a folder and its content read-only."""
    for place in (*folder.rglob("*"), folder):
        place.chmod(place.stat().st_mode & 0o555)


def unlocked(folder: Path) -> None:
    for place in (folder, *folder.rglob("*")):
        place.chmod(place.stat().st_mode | 0o200)


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a copy of the package and a home, both read-only."""
    root = tmp_path_factory.mktemp("read-only")
    shutil.copytree(PACKAGE, root / "fairdedup", ignore=shutil.ignore_patterns("__pycache__"))
    if CONFIGS.is_dir():
        shutil.copytree(CONFIGS, root / "configs")
    (root / "home").mkdir()
    locked(root)
    yield root
    unlocked(root)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture
def python(read_only: Path) -> Python:
    """Run Python with that package and that home."""

    def run(*words: object, temporary: Path) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
        own = {"PYTHONPATH": str(read_only), "HOME": str(read_only / "home"), "TMPDIR": str(temporary)}
        return subprocess.run(
            [*POWERLESS, sys.executable, *map(str, words)],
            cwd=temporary,
            capture_output=True,
            text=True,
            env=kept | own,
        )

    return run


def test_deduplicate_and_a_run_need_neither_the_package_nor_the_home(python, read_only, temporary, embeddings):
    code = """
import numpy as np, fairdedup
kept = fairdedup.deduplicate(np.eye(4)[[0, 0, 1, 2]], eps=0.1, rule="semdedup", clusters=1)
print(fairdedup.__file__, len(kept.kept))
"""
    ended = python("-c", code, temporary=temporary)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{read_only}/fairdedup/__init__.py 3\n"
    run = temporary / "run"
    asked = (
        "run",
        embeddings,
        "--keep",
        0.5,
        "--rule",
        "semdedup",
        "--clusters",
        CLUSTERS,
        "--out",
        run,
        "--workers",
        1,
    )
    ended = python("-m", "fairdedup", *asked, "--quiet", temporary=temporary)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert manifest(run)["counts"]["kept"] == 119
    assert {p.name for p in temporary.iterdir()} == {f"fairdedup-numba-{os.geteuid()}", "run"} | {
        p.name for p in temporary.glob("dask*")
    }


WHERE = """
import fairdedup.core.compiled, numba, os
print(os.environ["NUMBA_CACHE_DIR"] == numba.config.CACHE_DIR, numba.config.CACHE_DIR)
"""


def test_compiled_code_is_kept_for_this_user_alone(python, tmp_path):
    folder = tmp_path / f"fairdedup-numba-{os.geteuid()}"
    for _ in range(2):
        assert python("-c", WHERE, temporary=tmp_path).stdout == f"True {folder}\n"
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("made", ["by another user", "for all to write", "as a link", "as a file"])
def test_code_that_another_user_may_have_put_there_is_not_loaded(made, python, tmp_path):
    folder = tmp_path / f"fairdedup-numba-{os.geteuid()}"
    if made == "as a link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "theirs")
    elif made == "as a file":
        folder.touch(0o700)
    else:
        folder.mkdir()
        folder.chmod(0o700 if made == "by another user" else 0o777)
    if made == "by another user":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, 65534, 65534)
    there = sorted(tmp_path.iterdir())
    same, _, found = python("-c", WHERE, temporary=tmp_path).stdout.rstrip("\n").partition(" ")
    assert same == "True" and Path(found).parent == tmp_path and Path(found) != folder
    assert sorted(tmp_path.iterdir()) == there, "it is left behind"


@pytest.mark.parametrize(("name", "words"), [
    *((name, "run EMBEDDINGS --eps 0.1 --rule semdedup --out RUN --restart") for name in ("", "report", "state")),
    ("report", "embed EMBEDDINGS --out RUN"), ("state", "cluster RUN"),
])  # fmt: skip
def test_a_run_that_this_user_may_not_change_is_an_error_of_one_line_and_stays(
    name, words, again, embeddings, tmp_path
):
    (again / "report").mkdir(exist_ok=True)
    (again / "report" / "audit.json").write_text("{}")
    before = files(again)
    place = again / name
    place.chmod(0o555)
    known = {"RUN": str(again), "EMBEDDINGS": str(embeddings)}
    asked = [known.get(word, word) for word in words.split()]
    ended = subprocess.run(
        [*POWERLESS, sys.executable, "-m", "fairdedup", *asked, "--workers", "1", "--quiet"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    place.chmod(0o755)
    message = f"cannot write {place}: Permission denied; ask its owner, or choose another place"
    assert (ended.returncode, ended.stderr) == (1, f"fairdedup: error: {message}\n")
    assert files(again) == before

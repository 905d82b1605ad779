"""Data are only data: nothing of them is run, and nothing reaches a terminal unescaped."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from inputs import (
    HOSTILE,
    HTML,
    STATUS,
    downloaded,
    write,
)
from rich.console import Console
from runs import command, picture

import fairdedup
from fairdedup.cli.entry import print_error
from fairdedup.cli.run_summary import print_summary
from fairdedup.errors import UserError
from fairdedup.storage.manifest import RunManifest


def test_nothing_of_the_data_reaches_a_terminal_unescaped(
    tmp_path: Path, folder: Path, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    files: dict[str, bytes | str] = {}
    for k, name in enumerate([HOSTILE.replace("/", ""), "\u202ename", "a\nb"]):
        files |= {f"{name}.png": picture(10 * k), f"{name}.txt": HOSTILE}
        files[f"{name}.json"] = json.dumps({HOSTILE: HOSTILE})
    source = write(tmp_path / "hostile", {**files, f"bad{HOSTILE.replace('/', '')}.png": HTML})
    manifest = RunManifest.model_validate(run(source))
    print_summary(manifest, Path(f"run{HOSTILE}"), Console(width=110, highlight=False))
    shutil.rmtree(tmp_path / "run")
    unknown = command("run", tmp_path / HOSTILE, "--keep", 1)
    downloads = downloaded(table={**STATUS, "error_message": [None, HOSTILE, None, HOSTILE]})
    with pytest.raises(UserError) as caught:  # the commonest reasons, which are the data's own words
        run(downloads(folder), max_rejected=0)
    assert HOSTILE[:9] in str(caught.value) and print_error(str(caught.value), 2) == 2
    assert (unknown.code, "\\x1b" in unknown.err) == (2, True)
    for text in (*capsys.readouterr(), unknown.err):
        assert text and all(c.isprintable() or c == "\n" for c in text), text


def test_the_package_runs_nothing_that_data_could_say() -> None:
    for path in sorted(Path(fairdedup.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.partition(".")[0] for alias in node.names} | {getattr(node, "module", "") or ""}
                # Calls and their results go through pickle, between the command and processes of its own.
                assert path.name == "child_processes.py" or not names & {
                    "pickle",
                    "cloudpickle",
                    "dill",
                    "joblib",
                    "marshal",
                    "shelve",
                }, place
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert called not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), place
            assert given.get("allow_pickle", "False") == "False" and given.get("shell", "False") == "False", place
            assert not called.endswith(("yaml.load", "unsafe_load", "full_load", "read_pickle")), place
            if called.endswith("torch.load"):
                assert given.get("weights_only") == "True", place
            if called.endswith(("np.load", "numpy.load")):  # numpy refuses pickles by itself, too
                assert "allow_pickle" not in given or given["allow_pickle"] == "False", place

"""Imports point down only, as the design says, and nothing heavy loads before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fairdedup

PACKAGE = Path(fairdedup.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

STAGES_USE = {"core", "encoders", "datasets", "storage", "report", "errors"}
WITH_STORAGE = {"storage", "errors"}
MAY_IMPORT = {  # room or module directly in the package -> what of ours it may use besides itself
    "errors": set(),
    "core": {"errors"},
    "streams": set(),
    "datasets": WITH_STORAGE,
    "encoders": {"core", "errors"},
    "storage": {"errors"},
    "sample": {"errors"},
    "report": {"core", "storage", "errors"},
    "config": WITH_STORAGE | {"core"},
    "progress": {"errors"},
    "stages": STAGES_USE,
    "prototype_files": STAGES_USE,
    "audit": STAGES_USE | {"stages"},
    "calibrated": {"prototype_files", "core", "datasets", "storage", "errors"},
    "increments": STAGES_USE | {"config", "stages"},
    "drift": {"storage"},
    "tasks": set(),
    "workers": {"stages", "storage", "progress", "errors"},
    "ledger": STAGES_USE | {"config", "increments", "progress", "stages", "workers"},
    "models": STAGES_USE | {"prototype_files", "config", "increments", "ledger", "stages", "workers"},
    "gate": {"audit", "drift", "storage", "errors"},
    "handover": {"stages", "datasets", "storage", "workers", "errors"},
    "arrays": {"errors"},
    "in_memory": {"arrays", "core"},
    "api": {"arrays", "core", "errors", "in_memory"},
    "__init__": {"api", "errors"},
    "__main__": {"cli"},
}  # fmt: skip
NOT_FROM_PIPELINE = {"cli", "api", "__main__"}
LAZY = {"faiss", "torch", "fairlearn", "scipy"}  # inside functions only
CORE_MAY_LOAD = {"numpy", "numba", "threadpoolctl"} | LAZY
HEAVY = ("torch", "open_clip", "pandas", "numba", "distributed", "faiss", "fairlearn", "scipy")


def imported(path: Path) -> list[tuple[str, bool]]:
    """Return the modules that a file imports anywhere, and whether it does so at its top level."""
    tree = ast.parse(path.read_text())
    at_top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(name.name, id(node) in at_top) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts[: -node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            # `from fairdedup import pipeline` names a module, `from fairdedup.core.cover import graph` a thing in it.
            names = [f"{module}.{name.name}" if module == "fairdedup" else module for name in node.names]
            found += [(name, id(node) in at_top) for name in names]
    return found


def room(module: str) -> str:
    """Return the folder or module directly in the package: "core" of "fairdedup.core.leader_sweep"."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def ours(path: Path) -> set[str]:
    return {name for name, _ in imported(path) if name.split(".")[0] == "fairdedup"}


def of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    here, used = of(path), {room(module) for module in ours(path)}
    everything = {of(other) for other in MODULES}
    allowed = {"cli": everything - {"__main__"}, "pipeline": everything - NOT_FROM_PIPELINE}.get(here)
    if allowed is None:
        assert here in MAY_IMPORT, f"{here} is new: say in MAY_IMPORT what it may use"
        allowed = MAY_IMPORT[here]
    assert used <= allowed | {here}, f"{name(path)} imports {sorted(used - allowed - {here})}"


@pytest.mark.parametrize("path", [p for p in MODULES if of(p) == "stages"], ids=name)
def test_a_stage_imports_no_other_stage(path: Path) -> None:
    assert not {module for module in ours(path) if room(module) == "stages"}


@pytest.mark.parametrize("path", [p for p in MODULES if of(p) == "core"], ids=name)
def test_the_core_knows_arrays_only(path: Path) -> None:
    for module, at_top in imported(path):
        library = module.split(".")[0]
        assert library in CORE_MAY_LOAD | sys.stdlib_module_names | {"fairdedup"}
        assert not at_top or library not in LAZY


def test_every_rule_above_is_about_something() -> None:
    assert {"core", "datasets", "encoders", "storage", "stages", "api", "cli", "pipeline"} <= {of(p) for p in MODULES}
    assert "fairdedup.core.similarity" in ours(PACKAGE / "core" / "leader_sweep.py")
    assert room("fairdedup.core.leader_sweep") == "core"
    assert "fairdedup.pipeline" in ours(PACKAGE / "cli" / "session.py")  # imported inside functions


def loaded_after(code: str) -> set[str]:
    """Return which heavy libraries a fresh process has loaded after running this code."""
    tail = f"\nimport sys\nprint(*[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_command_line_loads_nothing_heavy() -> None:
    assert loaded_after("import fairdedup, fairdedup.cli, fairdedup.errors") == set()


@pytest.mark.parametrize(
    "arguments", ["--help", "run --help", "prune --help", "sweep --help", "audit --help", "--version"]
)
def test_help_loads_nothing_heavy(arguments: str) -> None:
    code = f"""
import sys
sys.argv = ["fairdedup", *{arguments.split()!r}]
from fairdedup.cli import main
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
"""
    assert loaded_after(code) == set()


def test_help_of_the_installed_command_works() -> None:
    done = subprocess.run([sys.executable, "-m", "fairdedup", "--help"], capture_output=True, text=True, check=True)
    assert "run" in done.stdout
    assert done.stderr == ""


def test_deduplicate_loads_neither_torch_nor_an_encoder() -> None:
    code = """
import numpy as np
from fairdedup import deduplicate
deduplicate(np.random.default_rng(0).normal(size=(50, 4)), keep=0.5, rule="semdedup", clusters=2)
"""
    assert not loaded_after(code) & {"torch", "open_clip", "distributed", "fairlearn"}


def test_the_package_names_its_public_things_and_no_others() -> None:
    for public in fairdedup.__all__:
        assert getattr(fairdedup, public)
    with pytest.raises(AttributeError, match="no attribute 'dedupe'"):
        fairdedup.dedupe  # noqa: B018

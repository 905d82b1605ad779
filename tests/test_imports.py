"""Imports point down only, as docs/design.md requires, and heavy libraries load only when they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fairdedup

PACKAGE = Path(fairdedup.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Folders and modules directly in the package, from the bottom to the top. Each may import itself and what its line
# names. Only `cli` may import `commands`.
STAGES_USE = {"core", "encoders", "datasets", "storage", "prototype_files", "tasks", "errors", "yaml_files"}
PREPARATION_USES = STAGES_USE | {"config", "config_errors", "incremental", "progress", "sample", "stages", "workers"}
MAY_IMPORT = {
    "errors": set(),
    "streams": set(),
    "ending_signals": set(),
    "yaml_files": set(),
    "path_expansion": {"errors"},
    "tasks": set(),
    "core": {"errors"},
    "storage": {"tasks", "errors"},
    "datasets": {"storage", "errors"},
    "encoders": {"core", "errors"},
    "sample": {"errors"},
    "stage_names": set(),
    "progress": {"errors", "progress_bars", "stage_names"},
    "progress_bars": {"errors", "stage_names"},
    "process_age": set(),
    "option_types": {"core", "storage"},
    "config_errors": set(),
    "config": {"config_errors", "core", "option_types", "path_expansion", "storage", "yaml_files", "errors"},
    "open_files": {"errors"},
    "dask_calls": {"storage", "tasks", "errors"},
    "stage_tasks": {"progress", "tasks", "errors"},
    "child_processes": {"ending_signals", "progress", "stage_tasks", "storage", "tasks", "errors"},
    "workers": {
        *(
            "child_processes",
            "config",
            "core",
            "dask_calls",
            "open_files",
            "ending_signals",
            "progress",
            "stage_tasks",
            "storage",
            "tasks",
        ),
        *("worker_memory", "worker_watch", "errors"),
    },
    "worker_memory": {"errors"},
    "worker_watch": {"errors"},
    "prototype_files": {"prototype_rows", "core", "datasets", "storage", "errors"},
    "prototype_rows": {"core", "storage", "errors"},
    "stages": STAGES_USE,
    "audit": STAGES_USE | {"stages"},
    "report": STAGES_USE | {"audit", "stage_names", "stages"},
    "planning": {"core", "stages", "storage"},
    "incremental": STAGES_USE | {"config", "stages"},
    "preparation": PREPARATION_USES,
    "commands": PREPARATION_USES | {"audit", "open_files", "planning", "preparation", "report", "worker_memory"},
    "cli": {
        "audit",
        "commands",
        "config",
        "core",
        "ending_signals",
        "option_types",
        "path_expansion",
        "planning",
        "process_age",
        "progress",
        "progress_bars",
        "report",
        "sample",
        "storage",
        "stage_names",
        "streams",
        "worker_memory",
        "workers",
    }
    | {"errors"},
    "id_arrays": {"errors"},
    "argument_checks": {"errors"},
    "arrays": {"errors", "id_arrays"},
    "row_inputs": {"arrays", "core", "id_arrays"},
    "in_memory": {"arrays", "core", "row_inputs"},
    "leftover_in_memory": {"core", "in_memory", "row_inputs"},
    "picture_inputs": {"argument_checks", "datasets", "encoders", "progress", "errors"},
    "result": {"argument_checks", "core", "report", "errors"},
    "decision_in_memory": {
        *("argument_checks", "core", "id_arrays", "in_memory", "leftover_in_memory", "result", "row_inputs"),
    },
    "api": {
        "argument_checks",
        "arrays",
        "core",
        "decision_in_memory",
        "errors",
        "in_memory",
        "picture_inputs",
        "result",
        "row_inputs",
    },
    "warm_up": {"api", "core"},
    "__init__": {"api", "errors"},
    "__main__": {"cli"},
}
LAZY = {"faiss", "torch", "fairlearn", "scipy"}  # inside functions only
CORE_MAY_LOAD = {"numpy", "numba", "llvmlite", "threadpoolctl"} | LAZY
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
            # `from fairdedup import api` names a module, `from fairdedup.core.cover import graph` a thing in it.
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
def test_a_module_imports_only_what_is_below_it(path: Path) -> None:
    here, used = of(path), {room(module) for module in ours(path)}
    assert here in MAY_IMPORT, f"{here} is new: list in MAY_IMPORT what it may import"
    allowed = MAY_IMPORT[here]
    assert used <= allowed | {here}, f"{name(path)} imports {sorted(used - allowed - {here})}"


@pytest.mark.parametrize("path", [p for p in MODULES if of(p) == "stages"], ids=name)
def test_a_stage_imports_no_other_stage(path: Path) -> None:
    own = path.relative_to(PACKAGE / "stages").parts[0].removesuffix(".py")
    others = {module.split(".")[2] for module in ours(path) if room(module) == "stages"}
    assert others <= {own, "values"}


@pytest.mark.parametrize("path", [p for p in MODULES if of(p) == "core"], ids=name)
def test_the_core_knows_arrays_only(path: Path) -> None:
    for module, at_top in imported(path):
        library = module.split(".")[0]
        assert library in CORE_MAY_LOAD | sys.stdlib_module_names | {"fairdedup"}
        assert not at_top or library not in LAZY


def test_every_line_of_the_table_is_about_something() -> None:
    assert set(MAY_IMPORT) == {of(path) for path in MODULES}
    assert "fairdedup.core.similarity" in ours(PACKAGE / "core" / "leader_sweep.py")
    assert room("fairdedup.core.leader_sweep") == "core"
    assert "fairdedup.commands.run" in ours(PACKAGE / "cli" / "stage_commands.py")  # imported inside functions


def test_no_two_modules_differ_by_their_folder_alone() -> None:
    names = [path.name for path in MODULES if path.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


def imported_when_run(path: Path) -> set[str]:
    """Return the modules of ours that a file imports anywhere but for its annotations alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    names = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES}
    graph = {names[path]: imported_when_run(path) & set(names.values()) for path in MODULES}
    order = TopologicalSorter(graph)
    order.prepare()  # raises CycleError, which lists the modules


def loaded_after(code: str) -> set[str]:
    """Return the heavy libraries that a new process has loaded after running some code."""
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

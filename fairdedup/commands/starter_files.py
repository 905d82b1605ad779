"""`fairdedup init`: writes starter files to edit, which the package brings along. It never overwrites a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fairdedup.errors import UserError
from fairdedup.storage.run_files import atomic_write
from fairdedup.storage.shipped_files import find_shipped

_CLUSTER = "Edit {yaml}, then: python {script} --config {yaml} -- run INPUT --keep 0.5"


@dataclass(frozen=True)
class Starter:
    """Files to start from.

    Attributes
    ----------
    files : tuple of str
        Their paths in the sources of fairdedup; the package has them at the same paths.
    then : str
        What to do with them, for people.
    """

    files: tuple[str, ...]
    then: str


def _cluster(kind: str) -> Starter:
    script, yaml = f"on_{kind}.py", f"{kind}.yaml"
    return Starter(
        (f"pipelines/{script}", "pipelines/starter.py", f"configs/clusters/{yaml}"),
        _CLUSTER.format(script=script, yaml=yaml),
    )


STARTERS = {
    "airflow": Starter(
        ("pipelines/airflow_dag.py",),
        "Copy airflow_dag.py into the folder of DAGs, and set FAIRDEDUP_HOME and FAIRDEDUP_START where Airflow runs.",
    ),
    "slurm": _cluster("slurm"),
    "kubernetes": _cluster("kubernetes"),
    "cuda": _cluster("cuda"),
    "prototypes": Starter(
        ("configs/prototypes/people.yaml", "configs/prototypes/fairface.yaml"),
        "Edit people.yaml, then: fairdedup run INPUT --keep 0.5 --prototypes people.yaml",
    ),
}


@dataclass(frozen=True)
class WrittenStarter:
    """What was done.

    Attributes
    ----------
    written, known : list of Path
        Files that were written, and files that were there already with the same content.
    """

    written: list[Path]
    known: list[Path]


def write_starter(kind: str, folder: Path) -> WrittenStarter:
    """Write the starter files of a kind into a folder, flat.

    Parameters
    ----------
    kind : str
        A key of `STARTERS`.
    folder : Path
        It is made if it is missing.

    Raises
    ------
    UserError
        If the folder is a file, or another file has one of the names. Then nothing is written.
    """
    contents = {folder / Path(name).name: find_shipped(name).read_bytes() for name in STARTERS[kind].files}
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--dest {str(folder)!r} is a file. Choose a folder.")
    known = [path for path, data in contents.items() if path.is_file() and path.read_bytes() == data]
    for path in contents:
        if (path.exists() or path.is_symlink()) and path not in known:
            raise UserError(f"{str(path)!r} is there already with other content. Choose another --dest, or rename it.")
    written = [path for path in contents if path not in known]
    for path in written:
        with atomic_write(path) as aside:
            aside.write_bytes(contents[path])
    return WrittenStarter(written, known)

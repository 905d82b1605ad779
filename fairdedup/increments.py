"""New rows beside earlier runs (`--against`): what is taken over from them, and what is left for the next.

Centroids, eps, prototypes and encoder are those of the first run of the line; docs/rules.md has the rule, docs/
increments.md the use. Nothing here reads an input or decides a row.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.config import RunConfig
from fairdedup.core.keep_fraction import parse_eps
from fairdedup.core.model import Inherited, Options
from fairdedup.core.moments import MembershipMoments, Moments
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules.registry import find_rule, sweeping_names
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.encoders import EncoderSpec
from fairdedup.errors import UserError
from fairdedup.stages.record_state import read_prototypes, write_prototypes, write_segments
from fairdedup.storage.layout import RunDirectory, manifest_of
from fairdedup.storage.object_stores import any_in, as_path, protocol_of
from fairdedup.storage.run_files import (
    clear,
    is_sealed,
    read_array,
    read_json,
    seal,
    sha256_of,
    write_array,
    write_json,
)
from fairdedup.storage.run_state import StateDirectory, listed, read_state, take_over, write_earlier

SEAL_OF_STATE = "state/state.json"  # among the files of run.json
ONE_LINE = ("eps", "dimension", "encoder", "prototypes", "temperatures", "moments")  # what several runs must share
FROM_RUN = ("start", "calibrate", "temperature")  # options that sums of earlier runs rest on


@dataclass(frozen=True)
class Ground:
    """The runs that new rows are decided against.

    Attributes
    ----------
    sources : list of (Path, dict)
        Run directories, with their state.json.
    """

    sources: list[tuple[Path, dict[str, Any]]]

    @property
    def root(self) -> Path:
        """The run that everything but kept rows comes from."""
        return self.sources[0][0]

    @property
    def known(self) -> dict[str, Any]:
        """Its state.json."""
        return self.sources[0][1]

    @property
    def centroids(self) -> Path:
        """float32 (k, d)."""
        return StateDirectory(self.root).centroids

    def prototypes(self) -> Prototypes | None:
        """Return the prototypes of the line."""
        return read_prototypes(StateDirectory(self.root).prototypes) if self.known["prototypes"] else None

    def inherited(self) -> Inherited:
        """Return what the decision of new rows takes over."""
        runs = {run["identity"]: run for _, known in self.sources for run in known["runs"]}
        sums = [[_memberships(m) for m in run["memberships"]] for run in runs.values() if run["memberships"]]
        return Inherited(
            self.known["eps"], tuple(self.known["temperatures"]),
            tuple(sum(own[1:], own[0]) for own in zip(*sums, strict=True)),
            _moments(self.known["moments"]),
        )  # fmt: skip


def _memberships(known: dict[str, Any]) -> MembershipMoments:
    return MembershipMoments(known["count"], tuple(known["sums"]), tuple(map(tuple, known["products"])))


def _moments(known: dict[str, Any] | None) -> Moments | None:
    return None if known is None else Moments(known["count"], tuple(known["sums"]), tuple(known["squares"]))


def sources_of(config: RunConfig) -> list[tuple[Path, dict[str, Any]]]:
    """Return the runs that are named, with their states.

    Raises
    ------
    UserError
        If one is not finished or damaged.
    """
    sources: list[tuple[Path, dict[str, Any]]] = []
    for folder in config.against:
        root = folder.absolute()
        if any_in([root], config.out):
            raise UserError(f"--against {str(folder)!r} is the run itself: choose another --out")
        manifest = manifest_of(RunDirectory(root))
        if manifest is None:
            raise UserError(f"--against {str(folder)!r} holds no finished run: finish it, or name another folder")
        sources.append((root, read_state(root, manifest.get("files", {}).get(SEAL_OF_STATE))))
    return sources


def ground_of(config: RunConfig) -> Ground | None:
    """Read the states of the runs of --against; None without any.

    Raises
    ------
    UserError
        If one is not finished or damaged, or they are of different lines.
    """
    sources = sources_of(config)
    if not sources:
        return None
    first = sources[0][1]
    if first["eps"] is None:
        raise UserError(f"--against {str(config.against[0])!r} was decided by 'random', which has no eps: name another")
    for folder, (_, known) in zip(config.against, sources, strict=True):
        differing = [name for name in ONE_LINE if known[name] != first[name]]
        differing += ["centroids"] if known["files"]["centroids.npy"] != first["files"]["centroids.npy"] else []
        if differing:
            raise UserError(
                f"--against {str(folder)!r} has another {differing[0]} than {str(config.against[0])!r}: name runs of "
                "one line, all made --against the same first run"
            )
    return Ground(sources)


def seals_of(config: RunConfig) -> list[str | None]:
    """Return the seal of each earlier run's state, as its manifest has it."""
    manifests = [manifest_of(RunDirectory(folder.absolute())) or {} for folder in config.against]
    return [m.get("files", {}).get(SEAL_OF_STATE) for m in manifests]


def inherit(config: RunConfig, ground: Ground) -> RunConfig:
    """Return the configuration with what comes from the earlier runs; refuse what would contradict them.

    Raises
    ------
    UserError
        Naming the option.
    """
    given, known, name = config.model_fields_set, ground.known, str(config.against[0])
    if config.keep is not None:
        raise UserError(
            f"--keep {config.keep:g} does not go with --against, where nothing is re-admitted: leave it out, or cap "
            f"the new rows by --at-most {config.keep:g}"
        )
    if config.eps is not None and parse_eps(config.eps) != known["eps"]:
        raise UserError(
            f"--eps {config.eps:g}: {name!r} has eps {known['eps'] / EPS_UNIT:g}, and so have new rows: leave it out"
        )
    options = known["options"]
    update: dict[str, Any] = {"eps": None}
    if "rule" not in given:
        update |= {n: options[n] for n in ("rule", "prefer") if n not in given}
    update |= {n: options[n] for n in ("cover", "target") if n not in given}
    for option in FROM_RUN:
        if option in given and getattr(config, option) != options[option]:
            raise UserError(
                f"--{option} {getattr(config, option)} is not that of {name!r} ({options[option]}): leave it out, or "
                "begin anew by `fairdedup refit`"
            )
        update[option] = options[option]
    rule = find_rule(update.get("rule", config.rule))
    if not rule.sweeps:
        raise UserError(f"--rule {rule.name} does not go with --against: choose one of {', '.join(sweeping_names())}")
    if rule.needs_prototypes and known["prototypes"] is None:
        raise UserError(f"--rule {rule.name} needs prototypes and {name!r} has none: choose a rule that needs none")
    prototypes = known["prototypes"] or {}
    if config.prototypes is not None and (sha256_of(config.prototypes) or "") != prototypes.get("file"):
        raise UserError(f"--prototypes {str(config.prototypes)!r} is not what {name!r} was decided by: leave it out")
    check_clusters(config, ground)
    if config.model is None and config.pretrained is None:
        update |= {n: known["named"][n] for n in ("model", "pretrained") if known["named"]}
        update |= {n: known["spec"][n] for n in ("batch_size", "dtype", "threads") if known["spec"] and n not in given}
    return config.model_copy(update=update)


def refitted(config: RunConfig, runs: Sequence[Path]) -> RunConfig:
    """Return the configuration of a run that clusters and decides anew what all runs of some lines have embedded.

    Rule, prototypes and model are those of the first, unless they are given.

    Raises
    ------
    UserError
        If a run has no state, or a run of its line is not where it was made.
    """
    named = config.model_copy(update={"against": tuple(runs)})
    sources = sources_of(named)
    known = sources[0][1]
    days = list(dict.fromkeys(run["run"] for _, state in sources for run in state["runs"][:-1]))
    days = list(dict.fromkeys([*days, *(str(root) for root, _ in sources)]))
    if any_in(days, config.out):
        raise UserError(f"--out {str(config.out)!r} is a run of the line, whose embeddings are read: choose another")
    for day in days:
        own = RunDirectory(as_path(day))
        if not own.vectors(0).parent.is_dir():
            raise UserError(f"the embeddings of {day!r} are not there: bring that run back to where it was made")
        gone = (manifest_of(own) or {}).get("replaced")
        if gone and config.drop is None:
            count = sum(each["gone"] for each in gone)
            raise UserError(
                f"{count:,} samples of {day!r} have vanished and would come back: name them by --drop FILE, "
                f"as {own.gone(0)}"
            )
    folders = [f"{day}/embeddings" for day in days]
    if len({protocol_of(day) for day in days}) > 1:
        raise UserError("the runs of the line lie in different stores: bring their embeddings to one place")
    if len(folders) > 1:
        common, *rest = (re.sub(r"([{},\\])", r"\\\1", f) for f in _apart(folders))
        folders = [os.path.join(common, f"{{{','.join(rest)}}}")]
    given, options = config.model_fields_set, known["options"]
    update: dict[str, Any] = {"input": folders[0], "against": (), "column": None}  # these are of runs, not of this one
    if "rule" not in given:
        update |= {n: options[n] for n in ("rule", "prefer") if n not in given}
    update |= {n: options[n] for n in ("cover", "target", "reserve", *FROM_RUN) if n not in given}
    if config.model is None and known["named"]:
        update |= known["named"]
    if config.prototypes is None and known["prototypes"]:
        update["prototypes"] = StateDirectory(sources[0][0]).prototypes
    return config.model_copy(update=update)


def _apart(folders: list[str]) -> list[str]:
    """Return what paths have in common, and then the rest of each."""
    start = folders[0].partition("://")[0] + "://" if "://" in folders[0] else ""
    bare = [folder.removeprefix(start) for folder in folders]
    common = os.path.commonpath(bare)
    return [start + common, *(os.path.relpath(folder, common) for folder in bare)]


def check_encoder(kind: str, named: bool, spec: EncoderSpec | None, ground: Ground) -> None:
    """Refuse vectors of another encoder than the earlier runs'.

    Parameters
    ----------
    kind : str
        Of the input: images or embeddings.
    named : bool
        Whether the command names the model; otherwise it is the earlier runs'.
    spec : EncoderSpec or None
        What embeds images, or has made the embeddings, if that is known.

    Raises
    ------
    UserError
        Naming both.
    """
    theirs, ours, root = ground.known["encoder"], encoder_identity(spec), ground.root
    if kind == "images" and theirs is None:
        raise UserError(
            f"--against {str(root)!r}: nothing says which model made its embeddings, so images cannot be embedded as "
            "they were: give embeddings, or run it again with --model"
        )
    if kind == "embeddings" and ground.known["kind"] == "images" and not named:
        raise UserError(
            f"nothing says which model made these embeddings, and {str(root)!r} was embedded by {_called(theirs)}: "
            "name the one that made them (--model, --pretrained)"
        )
    if theirs is not None and ours is not None and ours != theirs:
        raise UserError(
            f"the encoder is {_called(ours)} and that of {str(root)!r} was {_called(theirs)}: new rows need the "
            "same one"
        )


def encoder_identity(spec: EncoderSpec | None) -> dict[str, Any] | None:
    """Return what makes two encoders the same: the model, and the tag or the hash of its weights."""
    return None if spec is None else {name: spec.identity()[name] for name in ("model", "pretrained")}


def _called(encoder: dict[str, Any]) -> str:
    return " ".join(repr(str(v)) for v in encoder.values() if v is not None)


def check_clusters(config: RunConfig, ground: Ground) -> None:
    """Refuse another number of clusters than the earlier runs'."""
    clusters = ground.known["clusters"]
    if config.clusters not in ("auto", clusters):
        raise UserError(
            f"--clusters {config.clusters}: the {clusters} clusters are those of {str(ground.root)!r}: leave it out"
        )


def check_dimension(width: int | None, ground: Ground) -> None:
    """Refuse vectors of another length than the centroids."""
    if width is not None and width != ground.known["dimension"]:
        raise UserError(
            f"the embeddings have {width} dimensions and those of {str(ground.root)!r} {ground.known['dimension']}: "
            "all must come from one model"
        )


@dataclass(frozen=True)
class Line:
    """The runs before this one, linked into its own state, and what is taken over from them."""

    runs: list[dict[str, Any]]
    inherited: Inherited | None = None


def begin(directory: RunDirectory, ground: Ground) -> Line:
    """Link what earlier runs left into this run's state/, for the decision to read."""
    target = StateDirectory(directory.root)
    runs = take_over(target, ground.sources)
    shape = read_array(target.of_run(0) / "concepts.npy").shape
    sums, begun = np.zeros((shape[0], shape[2]), np.int64), np.zeros(shape[0], np.bool_)
    for number, run in enumerate(runs):
        sizes, concepts = (_whole(target.of_run(number), f"{n}.npy", run) for n in ("sizes", "concepts"))
        new = ~begun & (sizes[:, 0] > 0)
        if ground.known["options"]["start"] == "cluster":
            sums[new] = np.rint(concepts[new, 0] / sizes[new, :1]).astype(np.int64)
        begun |= new
        sums += concepts[:, 1]
    write_earlier(target, runs, sums, begun)
    return Line(runs, ground.inherited())


def _whole(folder: Path, name: str, run: dict[str, Any]) -> NDArray[np.int64]:
    if not is_sealed(folder / name, run["files"][name]):
        raise UserError(f"{folder / name} is damaged: prune the run that it came from again ({run['run']})")
    return np.asarray(read_array(folder / name))


@dataclass(frozen=True)
class Settled:
    """What a decision leaves for the runs after it, besides whom it kept.

    Attributes
    ----------
    eps : int or None
        Of the line, in ten-thousandths.
    options : Options
    prefer : str or None
    prototypes : Prototypes or None
    prototypes_file : str or None
        Its hash.
    temperatures : tuple of float
    memberships : tuple of MembershipMoments
        Of the rows of this run.
    moments : Moments or None
    kind : str
    spec : EncoderSpec or None
        That embedded images.
    named : EncoderSpec or None
        That embedded images or made the embeddings, if that is known.
    """

    eps: int | None
    options: Options
    prefer: str | None
    prototypes: Prototypes | None
    prototypes_file: str | None
    temperatures: tuple[float, ...]
    memberships: tuple[MembershipMoments, ...]
    moments: Moments | None
    kind: str
    spec: EncoderSpec | None
    named: EncoderSpec | None


def write_state(
    directory: RunDirectory, line: Line, settled: Settled, submit: Callable[..., list[Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Write this run's state/, and return it and the seal of every file in it."""
    target = StateDirectory(directory.root)
    centroids = np.asarray(read_array(directory.centroids))
    write_array(target.centroids, centroids)
    files = {"centroids.npy": seal(target.centroids)}
    known_prototypes = None
    if settled.prototypes is not None:
        write_prototypes(target.prototypes, settled.prototypes)
        files["prototypes.parquet"] = seal(target.prototypes)
        known_prototypes = {"file": settled.prototypes_file, "vectors": files["prototypes.parquet"]}
    clear(target.of_run(len(line.runs)))  # what this run wrote before
    own = write_segments(
        directory, len(line.runs), len(centroids), settled.prototypes, settled.moments, submit
    )  # fmt: skip
    clear(target.of_run(len(line.runs) + 1))
    own["memberships"] = [asdict(m) for m in settled.memberships]
    options = settled.options
    known = {
        "eps": settled.eps,
        "clusters": centroids.shape[0],
        "dimension": centroids.shape[1],
        "kind": settled.kind,
        "encoder": encoder_identity(settled.named),
        "named": None if settled.named is None else {n: getattr(settled.named, n) for n in ("model", "pretrained")},
        "spec": None if settled.spec is None else asdict(settled.spec),
        "prototypes": known_prototypes,
        "options": {
            "rule": options.rule.name, "prefer": settled.prefer, "cover": options.cover, "target": options.target,
            "start": options.start, "calibrate": options.calibrate, "temperature": options.temperature,
            "reserve": options.reserve,
        },
        "temperatures": list(settled.temperatures),
        "moments": None if settled.moments is None else asdict(settled.moments),
        "files": files,
        "runs": [*line.runs, own],
    }  # fmt: skip
    write_json(target.file, known)
    target.stale.unlink(missing_ok=True)
    seals = {f"state/{name}": each for name, each in listed(known).items()}
    return known, {**seals, SEAL_OF_STATE: seal(target.file)}


def renew_state(directory: RunDirectory, submit: Callable[..., list[Any]]) -> dict[str, Any]:
    """Write the state of a finished run anew after a replacement, and return what changes in its manifest, if any.

    The old one is kept as stale.json until run.json names the new one.
    """
    target = StateDirectory(directory.root)
    known, manifest = read_json(target.stale), manifest_of(directory)
    if known is None or manifest is None:
        return {}
    *runs, own = known["runs"]
    again = write_segments(
        directory, len(runs), known["clusters"],
        read_prototypes(target.prototypes) if known["prototypes"] else None,
        _moments(known["moments"]), submit,
    )  # fmt: skip
    known["runs"] = [*runs, {**again, "run": own["run"], "memberships": own["memberships"]}]
    write_json(target.file, known)
    seals = {f"state/{name}": each for name, each in listed(known).items()} | {SEAL_OF_STATE: seal(target.file)}
    changed = {"files": {**manifest["files"], **seals}}
    write_json(directory.manifest, {**manifest, **changed})
    target.stale.unlink()
    return changed

"""New rows beside earlier runs (`--against`): what is taken over from them, and what is left for the next.

Centroids, eps, prototypes and encoder are those of the first run of the line; docs/rules.md has the rule, docs/
increments.md the use. Nothing here reads an input or decides a row.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.config import RunConfig
from fairdedup.core.keep_fraction import parse_eps
from fairdedup.core.moments import MembershipMoments, Moments
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules import NEEDS_PROTOTYPES, SWEEPING
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.core.survey import Inherited, Options
from fairdedup.encoders import EncoderSpec
from fairdedup.errors import UserError
from fairdedup.stages.record_state import read_prototypes, write_prototypes, write_segments
from fairdedup.storage.config_record import EncoderRecord, NamedModel
from fairdedup.storage.contents import Embedded
from fairdedup.storage.earlier_samples import link_runs, write_earlier
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import read_manifest, write_manifest
from fairdedup.storage.object_stores import any_in, as_path, protocol_of
from fairdedup.storage.run_files import (
    compute_sha256,
    is_sealed,
    read_array,
    remove_folder,
    seal,
    write_array,
)
from fairdedup.storage.run_state import (
    DecisionOptions,
    KeptRun,
    MembershipSums,
    RunState,
    SimilaritySums,
    StatePrototypes,
    require_run_state,
)
from fairdedup.storage.state_directory import StateDirectory
from fairdedup.tasks import Submit

SEAL_OF_STATE = "state/state.json"  # among the files of run.json
ONE_LINE = ("eps", "dimension", "encoder", "prototypes", "temperatures", "moments")  # what several runs must share
FROM_RUN = ("start", "calibrate", "temperature")  # options that sums of earlier runs rest on


@dataclass(frozen=True)
class Ground:
    """The runs that new rows are decided against.

    Attributes
    ----------
    sources : list of (Path, RunState)
        Run directories, with their state.json.
    """

    sources: list[tuple[Path, RunState]]

    @property
    def root(self) -> Path:
        """The run that everything but kept rows comes from."""
        return self.sources[0][0]

    @property
    def known(self) -> RunState:
        """Its state.json."""
        return self.sources[0][1]

    @property
    def centroids(self) -> Path:
        """float32 (k, d)."""
        return StateDirectory(self.root).centroids

    def prototypes(self) -> Prototypes | None:
        """Return the prototypes of the line."""
        return read_prototypes(StateDirectory(self.root).prototypes) if self.known.prototypes else None

    def inherited(self) -> Inherited:
        """Return what the decision of new rows takes over."""
        assert self.known.eps is not None
        runs = {run.identity: run for _, state in self.sources for run in state.runs}
        sums = [[_memberships(m) for m in run.memberships] for run in runs.values() if run.memberships]
        return Inherited(
            self.known.eps,
            tuple(self.known.temperatures),
            tuple(sum(own[1:], own[0]) for own in zip(*sums, strict=True)),
            _moments(self.known.moments),
        )


def _memberships(known: MembershipSums) -> MembershipMoments:
    return MembershipMoments(known.count, known.sums, known.products)


def _moments(known: SimilaritySums | None) -> Moments | None:
    return None if known is None else Moments(known.count, known.sums, known.squares)


def sources_of(config: RunConfig) -> list[tuple[Path, RunState]]:
    """Return the runs that are named, with their states.

    Raises
    ------
    UserError
        If one is not finished or damaged.
    """
    sources: list[tuple[Path, RunState]] = []
    for folder in config.against:
        root = folder.absolute()
        if any_in([root], config.out):
            raise UserError(f"--against {str(folder)!r} is the run itself: choose another --out")
        manifest = read_manifest(RunDirectory(root))
        if manifest is None:
            raise UserError(f"--against {str(folder)!r} holds no finished run: finish it, or name another folder")
        sources.append((root, require_run_state(root, manifest.files.get(SEAL_OF_STATE))))
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
    if first.eps is None:
        raise UserError(f"--against {str(config.against[0])!r} was decided by 'random', which has no eps: name another")
    for folder, (_, known) in zip(config.against, sources, strict=True):
        differing = [name for name in ONE_LINE if getattr(known, name) != getattr(first, name)]
        differing += ["centroids"] if known.files["centroids.npy"] != first.files["centroids.npy"] else []
        if differing:
            raise UserError(
                f"--against {str(folder)!r} has another {differing[0]} than {str(config.against[0])!r}: name runs of "
                "one line, all made --against the same first run"
            )
    return Ground(sources)


def seals_of(config: RunConfig) -> list[str | None]:
    """Return the seal of each earlier run's state, as its manifest has it."""
    manifests = [read_manifest(RunDirectory(folder.absolute())) for folder in config.against]
    return [None if manifest is None else manifest.files.get(SEAL_OF_STATE) for manifest in manifests]


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
    assert known.eps is not None
    if config.eps is not None and parse_eps(config.eps) != known.eps:
        raise UserError(
            f"--eps {config.eps:g}: {name!r} has eps {known.eps / EPS_UNIT:g}, and so have new rows: leave it out"
        )
    options = known.options
    update: dict[str, Any] = {"eps": None}
    if "rule" not in given:
        update |= {n: getattr(options, n) for n in ("rule", "prefer") if n not in given}
    update |= {n: getattr(options, n) for n in ("cover", "target") if n not in given}
    for option in FROM_RUN:
        theirs = getattr(options, option)
        if option in given and getattr(config, option) != theirs:
            raise UserError(
                f"--{option} {getattr(config, option)} is not that of {name!r} ({theirs}): leave it out, or "
                "begin anew by `fairdedup refit`"
            )
        update[option] = theirs
    rule = update.get("rule", config.rule)
    if rule not in SWEEPING:
        raise UserError(f"rule {rule!r} does not go with --against: choose one of {', '.join(SWEEPING)}")
    if rule in NEEDS_PROTOTYPES and known.prototypes is None:
        raise UserError(f"rule {rule!r} needs prototypes and {name!r} has none: choose a rule that needs none")
    file = None if known.prototypes is None else known.prototypes.file
    if config.prototypes is not None and (compute_sha256(config.prototypes) or "") != file:
        raise UserError(f"--prototypes {str(config.prototypes)!r} is not what {name!r} was decided by: leave it out")
    check_clusters(config, ground)
    if config.model is None and config.pretrained is None:
        if known.named is not None:
            update |= {n: getattr(known.named, n) for n in ("model", "pretrained")}
        if known.spec is not None:
            update |= {n: getattr(known.spec, n) for n in ("batch_size", "dtype", "threads") if n not in given}
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
    days = list(dict.fromkeys(run.run for _, state in sources for run in state.runs[:-1]))
    days = list(dict.fromkeys([*days, *(str(root) for root, _ in sources)]))
    if any_in(days, config.out):
        raise UserError(f"--out {str(config.out)!r} is a run of the line, whose embeddings are read: choose another")
    for day in days:
        own = RunDirectory(as_path(day))
        if not own.vectors(0).parent.is_dir():
            raise UserError(f"the embeddings of {day!r} are not there: bring that run back to where it was made")
        manifest = read_manifest(own)
        if manifest is not None and manifest.replaced and config.drop is None:
            count = sum(each.gone for each in manifest.replaced)
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
    given, options = config.model_fields_set, known.options
    update: dict[str, Any] = {"input": folders[0], "against": (), "column": None}  # these are of runs, not of this one
    if "rule" not in given:
        update |= {n: getattr(options, n) for n in ("rule", "prefer") if n not in given}
    update |= {n: getattr(options, n) for n in ("cover", "target", "reserve", *FROM_RUN) if n not in given}
    if config.model is None and known.named is not None:
        update |= {n: getattr(known.named, n) for n in ("model", "pretrained")}
    if config.prototypes is None and known.prototypes is not None:
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
    theirs, ours, root = ground.known.encoder, encoder_identity(spec), ground.root
    if kind == "images" and theirs is None:
        raise UserError(
            f"--against {str(root)!r}: nothing says which model made its embeddings, so images cannot be embedded as "
            "they were: give embeddings, or run it again with --model"
        )
    if kind == "embeddings" and ground.known.kind == "images" and not named:
        assert theirs is not None
        raise UserError(
            f"nothing says which model made these embeddings, and {str(root)!r} was embedded by {_called(theirs)}: "
            "name the one that made them (--model, --pretrained)"
        )
    if theirs is not None and ours is not None and ours != theirs:
        raise UserError(
            f"the encoder is {_called(ours)} and that of {str(root)!r} was {_called(theirs)}: new rows need the "
            "same one"
        )


def encoder_identity(spec: EncoderSpec | None) -> NamedModel | None:
    """Return what makes two encoders the same: the model, and the tag or the hash of its weights."""
    if spec is None:
        return None
    known = spec.identity()
    return NamedModel(model=known["model"], pretrained=known["pretrained"])


def _called(encoder: NamedModel) -> str:
    return " ".join(repr(name) for name in (encoder.model, encoder.pretrained) if name is not None)


def check_clusters(config: RunConfig, ground: Ground) -> None:
    """Refuse another number of clusters than the earlier runs'."""
    clusters = ground.known.clusters
    if config.clusters not in ("auto", clusters):
        raise UserError(
            f"--clusters {config.clusters}: the {clusters} clusters are those of {str(ground.root)!r}: leave it out"
        )


def check_dimension(width: int | None, ground: Ground) -> None:
    """Refuse vectors of another length than the centroids."""
    if width is not None and width != ground.known.dimension:
        raise UserError(
            f"the embeddings have {width} dimensions and those of {str(ground.root)!r} {ground.known.dimension}: "
            "all must come from one model"
        )


@dataclass(frozen=True)
class Line:
    """The runs before this one, linked into its own state, and what is taken over from them."""

    runs: list[KeptRun]
    inherited: Inherited | None = None


def begin(directory: RunDirectory, ground: Ground) -> Line:
    """Link what earlier runs left into this run's state/, for the decision to read."""
    target = StateDirectory(directory.root)
    runs = link_runs(target, ground.sources)
    shape = read_array(target.run_folder(0) / "concepts.npy").shape
    sums, begun = np.zeros((shape[0], shape[2]), np.int64), np.zeros(shape[0], np.bool_)
    for number, run in enumerate(runs):
        sizes, concepts = (_whole(target.run_folder(number), f"{n}.npy", run) for n in ("sizes", "concepts"))
        new = ~begun & (sizes[:, 0] > 0)
        if ground.known.options.start == "cluster":
            sums[new] = np.rint(concepts[new, 0] / sizes[new, :1]).astype(np.int64)
        begun |= new
        sums += concepts[:, 1]
    write_earlier(target, runs, sums, begun)
    return Line(runs, ground.inherited())


def _whole(folder: Path, name: str, run: KeptRun) -> NDArray[np.int64]:
    if not is_sealed(folder / name, run.files[name]):
        raise UserError(f"{folder / name} is damaged: prune the run that it came from again ({run.run})")
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


def write_state(embedded: Embedded, line: Line, settled: Settled, submit: Submit) -> tuple[RunState, dict[str, str]]:
    """Write this run's state/, and return it and the seal of every file in it."""
    directory = embedded.directory
    target = StateDirectory(directory.root)
    centroids = np.asarray(read_array(directory.centroids))
    write_array(target.centroids, centroids)
    files = {"centroids.npy": seal(target.centroids)}
    known_prototypes = None
    if settled.prototypes is not None:
        write_prototypes(target.prototypes, settled.prototypes)
        files["prototypes.parquet"] = seal(target.prototypes)
        vectors = files["prototypes.parquet"]
        known_prototypes = StatePrototypes(file=settled.prototypes_file, vectors=vectors)
    remove_folder(target.run_folder(len(line.runs)))  # what this run wrote before
    own = write_segments(embedded, len(line.runs), len(centroids), settled.prototypes, settled.moments, submit)
    remove_folder(target.run_folder(len(line.runs) + 1))
    memberships = [MembershipSums(count=m.count, sums=m.sums, products=m.products) for m in settled.memberships]
    own = own.model_copy(update={"memberships": memberships})
    options, named, moments = settled.options, settled.named, settled.moments
    state = RunState(
        eps=settled.eps,
        clusters=centroids.shape[0],
        dimension=centroids.shape[1],
        kind=settled.kind,
        encoder=encoder_identity(named),
        named=None if named is None else NamedModel(model=named.model, pretrained=named.pretrained),
        spec=None if settled.spec is None else EncoderRecord(**asdict(settled.spec)),
        prototypes=known_prototypes,
        options=DecisionOptions(
            rule=options.rule,
            prefer=settled.prefer,
            cover=options.cover,
            target=options.target,
            start=options.start,
            calibrate=options.calibrate,
            temperature=options.temperature,
            reserve=options.reserve,
        ),
        temperatures=list(settled.temperatures),
        moments=None
        if moments is None
        else SimilaritySums(count=moments.count, sums=moments.sums, squares=moments.squares),
        files=files,
        runs=[*line.runs, own],
    )
    state.write(target.file)
    target.stale.unlink(missing_ok=True)
    return state, seals_of_state(target, state)


def seals_of_state(target: StateDirectory, state: RunState) -> dict[str, str]:
    """Return the seal of every file of a state, by its path below the run directory."""
    return {f"state/{name}": sealed for name, sealed in state.list_files().items()} | {SEAL_OF_STATE: seal(target.file)}


def renew_state(embedded: Embedded, submit: Submit) -> dict[str, dict[str, str]]:
    """Write the state of a finished run anew after a replacement, and return what changes in its manifest, if any.

    The old one is kept as stale.json until run.json names the new one.
    """
    directory = embedded.directory
    target = StateDirectory(directory.root)
    state, manifest = RunState.read(target.stale), read_manifest(directory)
    if state is None or manifest is None:
        return {}
    *runs, own = state.runs
    prototypes = read_prototypes(target.prototypes) if state.prototypes else None
    again = write_segments(embedded, len(runs), state.clusters, prototypes, _moments(state.moments), submit)
    again = again.model_copy(update={"run": own.run, "memberships": own.memberships})
    state = state.model_copy(update={"runs": [*runs, again]})
    state.write(target.file)
    changed = {"files": {**manifest.files, **seals_of_state(target, state)}}
    write_manifest(directory, manifest.model_copy(update=changed))
    target.stale.unlink()
    return changed

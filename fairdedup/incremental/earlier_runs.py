"""Reads and checks the runs of ``--against``, and refuses new rows that do not fit them.

Centroids, eps, prototypes and encoder are those of the first run of the line; docs/rules.md defines the rule, and
docs/increments.md shows how to use it. This module never reads an input or decides a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fairdedup.config import RunConfig
from fairdedup.core.model import Inherited
from fairdedup.core.moments import MembershipMoments, Moments
from fairdedup.core.prototypes import Prototypes
from fairdedup.encoders import EncoderSpec
from fairdedup.errors import UserError, format_count
from fairdedup.prototype_files import read_prototypes
from fairdedup.storage.config_record import NamedModel
from fairdedup.storage.inherited_state import InheritedState
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import read_manifest
from fairdedup.storage.object_stores import any_in
from fairdedup.storage.remedies import quote
from fairdedup.storage.run_state import (
    STATE_FILE,
    MembershipSums,
    RunState,
    SimilaritySums,
    require_run_state,
    state_file,
)
from fairdedup.storage.sealed_files import Seal

PROTOTYPES = "prototypes.parquet"
SHARED = (
    "eps",
    "dimension",
    "encoder",
    "prototypes",
    "temperatures",
    "moments",
)  # fields that are equal in all runs of a line


@dataclass(frozen=True)
class EarlierRuns:
    """Finished runs of one line, against which new rows are decided.

    Attributes
    ----------
    sources : list of (Path, RunState)
        Run directories and their states, in the order of the option; at least one.
    """

    sources: list[tuple[Path, RunState]]

    @property
    def root(self) -> Path:
        """Run directory of the first run, from which everything but kept samples is taken."""
        return self.sources[0][0]

    @property
    def state(self) -> RunState:
        """State of the first run."""
        return self.sources[0][1]

    @property
    def eps(self) -> int:
        """Eps of the line in ten-thousandths."""
        assert self.state.eps is not None  # `find_earlier_runs` refuses runs without one
        return self.state.eps

    @property
    def centroids(self) -> Seal:
        """The centroids with their seal: float32 (k, d)."""
        return state_file(self.root, self.state, "centroids.npy")

    def read_prototypes(self) -> Prototypes | None:
        """Return the prototypes of the line, None if it has none."""
        return read_prototypes(state_file(self.root, self.state, PROTOTYPES)) if self.state.prototypes else None

    def build_inherited(self) -> Inherited:
        """Return what the earlier runs hand down to the decision of new rows."""
        runs = {run.identity: run for _, state in self.sources for run in state.runs}
        sums = [[_membership_moments(m) for m in run.memberships] for run in runs.values() if run.memberships]
        return Inherited(
            eps=self.eps,
            temperatures=tuple(self.state.temperatures),
            memberships=tuple(sum(own[1:], own[0]) for own in zip(*sums, strict=True)),
            moments=similarity_moments(self.state.moments),
        )


def _membership_moments(known: MembershipSums) -> MembershipMoments:
    return MembershipMoments(known.count, known.sums, known.products)


def similarity_moments(known: SimilaritySums | None) -> Moments | None:
    """Return the moments that state.json has recorded, None if there are none.

    Parameters
    ----------
    known : SimilaritySums or None
        Sums in state.json.
    """
    return None if known is None else Moments(known.count, known.sums, known.squares)


def read_sources(config: RunConfig) -> list[tuple[Path, RunState]]:
    """Return the runs of ``--against`` with their states.

    Parameters
    ----------
    config : RunConfig
        Names the runs, in `against`.

    Raises
    ------
    UserError
        If a run is not finished or damaged, or is the run directory to write.
    """
    sources: list[tuple[Path, RunState]] = []
    for folder in config.against:
        root = folder.absolute()
        if any_in([root], config.out):
            raise UserError(f"--against {str(folder)!r} is the run itself: choose another --out")
        manifest = read_manifest(RunDirectory(root))
        if manifest is None:
            raise UserError(
                f"--against {str(folder)!r} holds no finished run: finish it, or name another folder{_without(config)}"
            )
        sources.append((root, require_run_state(root, manifest.files.get(STATE_FILE))))
    return sources


def _without(config: RunConfig) -> str:
    """Return a remedy for a run whose earlier runs are missing, if it has all that is needed of them."""
    if not InheritedState.path(config.out).is_file():
        return ""
    return f"; {config.out} has what it needs of earlier runs: `fairdedup prune {quote(config.out)}` decides it again"


def find_earlier_runs(config: RunConfig) -> EarlierRuns | None:
    """Read the runs of ``--against``; return None if none is named.

    Parameters
    ----------
    config : RunConfig
        Names the runs, in `against`.

    Raises
    ------
    UserError
        If a run is not finished or damaged, or the runs belong to different lines.
    """
    sources = read_sources(config)
    if not sources:
        return None
    first = sources[0][1]
    if first.eps is None:
        raise UserError(
            f"--against {str(config.against[0])!r} was decided by 'random', which has no eps: name another run"
        )
    for folder, (_, state) in zip(config.against, sources, strict=True):
        differing = [name for name in SHARED if getattr(state, name) != getattr(first, name)]
        differing += ["centroids"] if state.files["centroids.npy"] != first.files["centroids.npy"] else []
        if differing:
            raise UserError(
                f"--against {str(folder)!r} has another {differing[0]} than {str(config.against[0])!r}: name runs of "
                "one line, which were all made --against the same first run"
            )
    return EarlierRuns(sources)


def list_state_seals(config: RunConfig) -> list[str | None]:
    """Return the seal of the state of each run of ``--against``, read from its manifest.

    Parameters
    ----------
    config : RunConfig
        Names the runs, in `against`.
    """
    manifests = [read_manifest(RunDirectory(folder.absolute())) for folder in config.against]
    return [None if manifest is None else manifest.files.get(STATE_FILE) for manifest in manifests]


def check_encoder(kind: str, spec: EncoderSpec | None, earlier: EarlierRuns, *, model_named: bool) -> None:
    """Refuse vectors of another encoder than that of the earlier runs.

    Parameters
    ----------
    kind : str
        Kind of the input: "images" or "embeddings".
    spec : EncoderSpec or None
        Encoder of the images or of the ready-made embeddings; None if it is not known.
    earlier : EarlierRuns
        Runs whose encoder is needed.
    model_named : bool
        Whether the command names the model; otherwise the earlier runs do.

    Raises
    ------
    UserError
        If the encoders differ, or the needed one is not known. The message names both encoders.
    """
    theirs, ours, root = earlier.state.encoder, identify_encoder(spec), earlier.root
    if kind == "images" and theirs is None:
        raise UserError(
            f"--against {str(root)!r}: the model of its embeddings is not known, so images cannot be embedded by "
            "it: give embeddings, or run it again with --model and --restart"
        )
    if kind == "embeddings" and earlier.state.kind == "images" and not model_named:
        assert theirs is not None
        raise UserError(
            f"the model of these embeddings is not known, and {str(root)!r} was embedded by "
            f"{describe_encoder(theirs)}: name the model that made them (--model, --pretrained)"
        )
    if theirs is not None and ours is not None and ours != theirs:
        raise UserError(
            f"the encoder is {describe_encoder(ours)} and that of {str(root)!r} was {describe_encoder(theirs)}: embed "
            "new rows by that one"
        )


def identify_encoder(spec: EncoderSpec | None) -> NamedModel | None:
    """Return the model and the tag or hash of its weights: two encoders are the same if these are equal.

    Parameters
    ----------
    spec : EncoderSpec or None
        An encoder; None if it is not known.
    """
    if spec is None:
        return None
    known = spec.identity()
    return NamedModel(model=known["model"], pretrained=known["pretrained"])


def describe_encoder(encoder: NamedModel) -> str:
    """Return the model of an encoder and the tag or hash of its weights, for messages."""
    return " ".join(repr(name) for name in (encoder.model, encoder.pretrained) if name is not None)


def check_cluster_count(config: RunConfig, earlier: EarlierRuns) -> None:
    """Refuse a ``--clusters`` that is not the number of clusters of the earlier runs.

    Parameters
    ----------
    config : RunConfig
        Names the number of clusters, or "auto".
    earlier : EarlierRuns
        Runs whose clusters are used.

    Raises
    ------
    UserError
        If the numbers differ.
    """
    clusters = earlier.state.clusters
    if config.clusters not in ("auto", clusters):
        raise UserError(
            f"--clusters {config.clusters}: {str(earlier.root)!r} has {format_count(clusters, 'cluster')}, "
            "and new rows get the same ones: leave it out"
        )


def check_dimension(width: int | None, earlier: EarlierRuns) -> None:
    """Refuse vectors that do not have the dimension of the centroids.

    Parameters
    ----------
    width : int or None
        Dimension of the vectors; None if there is no vector.
    earlier : EarlierRuns
        Runs whose centroids are used.

    Raises
    ------
    UserError
        If the dimensions differ.
    """
    if width is not None and width != earlier.state.dimension:
        raise UserError(
            f"the embeddings have {format_count(width, 'dimension')} and those of {str(earlier.root)!r} "
            f"{earlier.state.dimension}: all must come from one model"
        )

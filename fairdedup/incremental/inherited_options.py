"""Options of a run ``--against`` earlier runs, or of `fairdedup refit`: the earlier runs set some and forbid others."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairdedup.config import WITHIN_CLUSTERS, RunConfig
from fairdedup.core.keep_fraction import parse_eps
from fairdedup.core.rules.registry import find_rule, sweeping_names
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.errors import UserError, format_count
from fairdedup.incremental.earlier_runs import PROTOTYPES, EarlierRuns, check_cluster_count, read_sources
from fairdedup.storage.contents import load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import read_manifest
from fairdedup.storage.moved_runs import find_run
from fairdedup.storage.object_stores import any_in, as_path, protocol_of
from fairdedup.storage.remedies import quote
from fairdedup.storage.run_files import compute_sha256
from fairdedup.storage.run_state import RunState, state_file
from fairdedup.tasks import Submit

# Options that cannot change: sums of earlier runs, the clusters that their samples reach or their codes depend on them.
FIXED = ("start", "calibrate", "temperature", "reach", "reach_clusters", "within")


def inherit_options(config: RunConfig, earlier: EarlierRuns) -> RunConfig:
    """Return the configuration, completed by the options of the earlier runs.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    earlier : EarlierRuns
        Runs of ``--against``.

    Raises
    ------
    UserError
        If an option contradicts the earlier runs.
    """
    given, state, name = config.model_fields_set, earlier.state, str(config.against[0])
    _check_amount(config, earlier, name)
    update: dict[str, Any] = {"eps": None}
    if "rule" not in given:
        update |= {n: getattr(state.options, n) for n in ("rule", "prefer") if n not in given}
    update |= {n: getattr(state.options, n) for n in ("cover", "target") if n not in given}
    rule = find_rule(update.get("rule", config.rule))
    if not rule.sweeps:
        raise UserError(
            f"--rule {rule.name} cannot be combined with --against: choose one of {', '.join(sweeping_names())}"
        )
    for option in FIXED:
        theirs = getattr(state.options, option)
        if option in given and getattr(config, option) != theirs:
            flag = "--" + option.replace("_", "-")
            shown = "none" if theirs is None else theirs
            raise UserError(
                f"{flag} {getattr(config, option)} differs from that of {name!r} ({shown}): leave it out, or "
                f"start a new line with it: `fairdedup refit {quote(name)} --keep F --out NEW`"
            )
        update[option] = theirs
    if rule.needs_prototypes and state.prototypes is None:
        raise UserError(f"--rule {rule.name} needs prototypes, and {name!r} has none: choose a rule that needs none")
    file = None if state.prototypes is None else state.prototypes.file
    if config.prototypes is not None and (compute_sha256(config.prototypes) or "") != file:
        raise UserError(
            f"--prototypes {str(config.prototypes)!r} is not the file that {name!r} was decided with: leave it out"
        )
    check_cluster_count(config, earlier)
    if config.model is None and config.pretrained is None:
        if state.named is not None:
            update |= {n: getattr(state.named, n) for n in ("model", "pretrained")}
        if state.spec is not None:
            update |= {n: getattr(state.spec, n) for n in ("batch_size", "dtype", "threads") if n not in given}
    return config.model_copy(update=update)


def _check_amount(config: RunConfig, earlier: EarlierRuns, name: str) -> None:
    """Refuse an amount that contradicts the eps of the line."""
    if config.keep is not None:
        raise UserError(
            f"--keep {config.keep:g} cannot be combined with --against, where nothing is re-admitted: leave it out, or "
            f"limit the new rows with --at-most {config.keep:g}"
        )
    if config.eps is not None and parse_eps(config.eps) != earlier.eps:
        raise UserError(
            f"--eps {config.eps:g}: new rows have the eps of {name!r}, {earlier.eps / EPS_UNIT:g}: leave it out"
        )


def build_refit_config(config: RunConfig, runs: Sequence[Path], submit: Submit) -> RunConfig:
    """Return the configuration of a run over the embeddings of all runs of some lines.

    Rule, prototypes and model are those of the first run unless given.

    Parameters
    ----------
    config : RunConfig
        Options of the command.
    runs : sequence of Path
        Finished runs; the last of each line.
    submit : Submit
        Runs the tasks that verify the embeddings of all runs of the lines, which become the input.

    Raises
    ------
    UserError
        If a run has no state, or the embeddings of a run of its line are missing or damaged.
    """
    sources = read_sources(config.model_copy(update={"against": tuple(runs)}))
    state = sources[0][1]
    days = _find_days(sources, runs)
    _check_embeddings(config, days)
    for day in days:
        load_embedded(RunDirectory(as_path(day)), submit)
    given, options = config.model_fields_set, state.options
    # Options of the daily runs, for example from the YAML file, that do not apply to this one.
    update: dict[str, Any] = {"input": _join_inputs(days), "against": (), "column": None}
    if "rule" not in given:
        update |= {n: getattr(options, n) for n in ("rule", "prefer") if n not in given}
    update |= {n: getattr(options, n) for n in ("cover", "target", "reserve", *FIXED) if n not in given}
    if not find_rule(update.get("rule", config.rule)).sweeps:
        update |= {n: within for n, within in WITHIN_CLUSTERS.items() if n not in given}
    if config.model is None and state.named is not None:
        update |= {n: getattr(state.named, n) for n in ("model", "pretrained")}
    if config.prototypes is None and state.prototypes is not None:
        update["prototypes"] = state_file(sources[0][0], state, PROTOTYPES).path  # `read_sources` has verified it
    return config.model_copy(update=update)


def _find_days(sources: Sequence[tuple[Path, RunState]], names: Sequence[Path]) -> list[str]:
    """Return the directories of all runs of some lines, wherever they are now."""
    named = {state.runs[-1].identity: root for root, state in sources}
    days: list[str] = []
    for root, state in sources:
        for run in state.runs[:-1]:
            place = find_run(run, root, state, named)
            if place is None:
                raise UserError(
                    f"the embeddings of {run.run!r} are missing: restore the folder of that run, or name its new place "
                    f"too, such as `fairdedup refit {' '.join(map(quote, names))} NEW/PLACE`"
                )
            days.append(str(place))
    return list(dict.fromkeys([*days, *(str(root) for root, _ in sources)]))


def _check_embeddings(config: RunConfig, days: Sequence[str]) -> None:
    """Refuse runs of a line whose embeddings are missing, would be overwritten, or include vanished samples."""
    if any_in(days, config.out):
        raise UserError(
            f"--out {str(config.out)!r} is a run of the line, and its embeddings are read: choose another --out"
        )
    vanished: dict[str, int] = {}  # by run
    for day in days:
        directory = RunDirectory(as_path(day))
        if not directory.vectors(0).parent.is_dir():
            raise UserError(f"the embeddings of {day!r} are missing: restore the folder of that run")
        manifest = read_manifest(directory)
        if manifest is not None and manifest.replaced:
            vanished[day] = sum(each.gone for each in manifest.replaced)
    if vanished and config.drop is None:
        lists = [
            str(file)
            for day in vanished
            for file in sorted(RunDirectory(as_path(day)).gone(0).parent.glob("*.parquet"))
        ]
        files = f"such as {lists[0]}" if len(lists) == 1 else f"a file of all ids in {', '.join(lists)}"
        count = sum(vanished.values())
        verb, them = ("has", "it") if count == 1 else ("have", "them")
        raise UserError(
            f"{format_count(count, 'sample')} of {', '.join(map(repr, vanished))} {verb} vanished and would come back: "
            f"exclude {them} with --drop FILE, {files}"
        )


def _join_inputs(days: Sequence[str]) -> str:
    """Return one input, with braces if there are several runs, that names the embeddings of all runs."""
    if len({protocol_of(day) for day in days}) > 1:
        raise UserError(
            "the runs of the line are in different stores: copy their embeddings to one, and `fairdedup run` them"
        )
    folders = [f"{day}/embeddings" for day in days]
    if len(folders) == 1:
        return folders[0]
    common, *rest = (re.sub(r"([{},\\])", r"\\\1", part) for part in _split_common(folders))
    return os.path.join(common, f"{{{','.join(rest)}}}")


def _split_common(folders: Sequence[str]) -> list[str]:
    """Return the common parent of the folders, then the path of each folder below it."""
    start = folders[0].partition("://")[0] + "://" if "://" in folders[0] else ""
    bare = [folder.removeprefix(start) for folder in folders]
    common = os.path.commonpath(bare)
    return [start + common, *(os.path.relpath(folder, common) for folder in bare)]

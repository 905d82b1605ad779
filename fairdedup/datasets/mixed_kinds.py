"""Refuses a folder that holds several kinds of input, and says what to give for each of them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

from fairdedup.datasets.clip_retrieval import FOLDER
from fairdedup.datasets.filesystem import Entry, get_extension
from fairdedup.datasets.folder_tree import RUN_ENTRIES
from fairdedup.datasets.input_format import InputFormat, InputSource, ReadOptions, ShardFormat
from fairdedup.errors import UserError, format_count
from fairdedup.storage.remedies import quote

NAMED = 8  # files that a pattern names one by one


def choose_kind(
    source: InputSource, found: InputFormat, formats: Iterable[InputFormat], options: ReadOptions
) -> InputFormat:
    """Return the format of a folder's samples, if it holds samples of one format only.

    Files that accompany those of another format, and tables without samples such as labels, are no kind of their own.

    Parameters
    ----------
    source : InputSource
        The folder.
    found : InputFormat
        The first format that recognises it.
    formats : iterable of InputFormat
        All formats.
    options : ReadOptions
        How to read the input.

    Raises
    ------
    UserError
        If there are several kinds. Each is named, with its count and the pattern that reads it.
    """
    by_rank = sorted(formats, key=lambda known: known.is_fallback)
    kinds = {known: paths for known in by_rank if (paths := known.files_in(source))}
    for known, paths in kinds.items():
        if not known.is_fallback:
            source.expect_plain(paths)
    if any(isinstance(known, ShardFormat) and known.names_images(source, kinds[known], options) for known in kinds):
        kinds = {known: paths for known, paths in kinds.items() if not known.is_fallback}
    if len(kinds) < 2 or source.tree is None:
        return found
    alone = {
        known: _left_over(paths, [(other, shards) for other, shards in kinds.items() if other is not known])
        for known, paths in kinds.items()
    }
    alone = {known: paths for known, paths in alone.items() if paths}
    if len(alone) < 2:
        return found
    holding = {
        known: [path for path in paths if known.can_hold_samples(source, path)] for known, paths in alone.items()
    }
    alone = {known: paths for known, paths in holding.items() if paths} or alone
    if len(alone) == 1:
        return next(iter(alone))
    titles = [(known.folder_title or known.name, len(paths)) for known, paths in alone.items()]
    counts = [format_count(count, title.removesuffix("s"), title) for title, count in titles]
    everything = source.tree.files
    patterns = [(known, _pattern(source.text, paths, everything, known)) for known, paths in alone.items()]
    given = [f"{pattern!r} for the {known.folder_title or known.name}" for known, pattern in patterns if pattern]
    choices = f"give {_enumerate(given, 'or')}, or " if given else ""
    raise UserError(
        f"folder {source.text!r} holds {_enumerate(counts, 'and')}: {choices}move one kind to a folder of its own"
    )


def expect_no_embeddings_below(source: InputSource) -> None:
    """Raise an error if sub-folders of a folder are clip-retrieval's output, which is given as a whole.

    Parameters
    ----------
    source : InputSource
        A folder that has no ``img_emb`` itself.

    Raises
    ------
    UserError
        If there are such folders; the message has the folder or the pattern to give.
    """
    arrays = source.with_endings((".npy",))
    found = [e.folder for e in arrays if posixpath.basename(e.folder) == FOLDER and e.name.startswith(f"{FOLDER}_")]
    roots = list(dict.fromkeys(map(posixpath.dirname, found)))
    if roots:
        given = _below(source.text, roots[0] if len(roots) == 1 else f"{{{','.join(roots)}}}")
        if source.tree is not None and {entry.name for entry in source.tree.top} >= RUN_ENTRIES:
            raise UserError(
                f"folder {source.text!r} is a run: `fairdedup prune {quote(source.text)} --keep F` decides it again, "
                f"and {given!r} are its vectors"
            )
        raise UserError(
            f"folder {source.text!r} holds embeddings of clip-retrieval in "
            f"{format_count(len(roots), 'sub-folder')}: give {given!r}"
        )


def _left_over(paths: list[str], others: Sequence[tuple[InputFormat, list[str]]]) -> list[str]:
    """Return the files that accompany no shard of another format."""
    for other, shards in others:
        paths = other.without_companions(paths, shards)
    return paths


def _pattern(text: str, paths: list[str], everything: list[Entry], known: InputFormat) -> str | None:
    """Return a pattern that names these files of a folder and no others; None if there is none."""
    wanted = set(paths)
    chosen = [entry for entry in everything if entry.path in wanted]
    endings = sorted({_ending(entry.name, known) for entry in chosen})
    matched = {entry.path for entry in everything if entry.name.endswith(tuple(endings))}
    if all(endings) and matched == wanted:
        some = endings[0] if len(endings) == 1 else f".{{{','.join(ending[1:] for ending in endings)}}}"
        return _below(text, f"**/*{some}")
    names = [entry.relative for entry in chosen]
    if len(names) > NAMED or any(letter in name for name in names for letter in "{}*?[],"):
        return None
    return _below(text, names[0] if len(names) == 1 else f"{{{','.join(names)}}}")


def _ending(name: str, known: InputFormat) -> str:
    """Return the extension of a file, with the dot and as it is written; "" without one."""
    ending = next((ending for ending in known.extensions if name.lower().endswith(ending)), "")
    length = len(ending) or (len(get_extension(name)) + 1 if get_extension(name) else 0)
    return name[-length:] if length else ""


def _below(text: str, pattern: str) -> str:
    """Return INPUT with a pattern in its folder, also where INPUT is a chained URL such as zip://::x.zip."""
    first, chain, rest = text.partition("::")
    slash = "" if first.endswith("/") else "/"
    return f"{first}{slash}{pattern}{chain}{rest}"


def _enumerate(names: list[str], last: str) -> str:
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))

"""What repairs each file of a run, for messages. Tests apply every repair as it is printed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

MAKE_AGAIN = "bring it back, or make the whole run again: `fairdedup run` with --restart"


def quote(path: object) -> str:
    """Return a path as a word of a command: in quotes, if a shell would read it otherwise.

    Parameters
    ----------
    path : path or str
        A file, a folder or a URL.
    """
    return shlex.quote(str(path))


def embed_again(root: object) -> str:
    """Return how to make a damaged embedding shard of a run again; undamaged ones are used again.

    Parameters
    ----------
    root : path or str
        Run directory.
    """
    return f"run `fairdedup embed` with --out {quote(root)} again"


def cluster_again(root: object) -> str:
    """Return how to make the damaged files of the clusters of a run again.

    Parameters
    ----------
    root : path or str
        Run directory.
    """
    return f"run `fairdedup cluster {quote(root)}` again, with its own options"


def decide_again(root: object) -> str:
    """Return how to write the decisions of a run again; without its own options they would become others.

    Parameters
    ----------
    root : path or str
        Run directory.
    """
    moved = "" if "://" in str(root) or os.path.isdir(str(root)) else " (it was there, and has moved since)"
    return f"run `fairdedup prune {quote(root)}` again{moved}, with its own options (`prune` in config.json)"


def decide_in_turn(roots: Sequence[object]) -> str:
    """Return how to write a file that several runs of a line share again: each of them in its turn.

    Parameters
    ----------
    roots : sequence of path or str
        Run directories: first that of the run whose samples the file holds, then those that have linked it.
    """
    first, *others = dict.fromkeys(map(str, roots))
    then = "".join(f", then `fairdedup prune {quote(root)}` with its own" for root in others)
    return decide_again(first) + then


def finish_replacement(root: object) -> str:
    """Return how to complete a replacement that was stopped.

    Parameters
    ----------
    root : path or str
        Run directory.
    """
    return (
        "a replacement was stopped; finish it by its own `fairdedup run` command, or by "
        f"`fairdedup replace {quote(root)} --gone FILE` with the same file"
    )


def restore_list(root: object) -> str:
    """Return how to repair a damaged list of removed samples of a run.

    Parameters
    ----------
    root : path or str
        Run directory.
    """
    return (
        "restore it, or make the whole run again: `fairdedup run` with --restart and then "
        f"`fairdedup replace {quote(root)} --gone FILE`"
    )

"""Remedies that several messages name. `tests/storage/test_remedies.py` applies them as they are printed."""

from __future__ import annotations

import os
import shlex

MAKE_AGAIN = "bring it back, or make the whole run again: `fairdedup run` with --restart"


def quote(path: object) -> str:
    """Return a path as a word of a command: in quotes, if a shell would read it otherwise.

    Parameters
    ----------
    path : path or str
        A file, a folder or a URL.
    """
    return shlex.quote(str(path))


def decide_again(root: object) -> str:
    """Return how to write the decisions of a run again; without its own options they would become others.

    Parameters
    ----------
    root : path or str
        Run directory.
    """
    moved = "" if "://" in str(root) or os.path.isdir(str(root)) else " (it was there, and has moved since)"
    return f"run `fairdedup prune {quote(root)}` again{moved}, with its own options (`prune` in config.json)"

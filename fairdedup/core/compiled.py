"""The decorator that compiles the kernels of this folder, and the folder in which compiled code is cached.

numba caches what it compiles in the package, or in the user's home. If it can write to neither, as in some containers,
it refuses to compile. This module then gives it a private temporary folder, before the first kernel is compiled.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

import numba as nb


def njit(function: Any = None, /, **options: Any) -> Any:
    """Compile a function that runs without the interpreter lock, and cache the result.

    Parameters
    ----------
    function : callable, optional
        Function to compile; omitted where the decorator has options.
    **options
        Options of `numba.njit`.
    """
    return nb.njit(function, nogil=True, cache=True, **options)


def _has_no_cache_folder() -> bool:
    """Tell whether numba finds no folder for its cache."""
    try:
        nb.njit(cache=True)(_has_no_cache_folder)  # looks for a folder, and compiles nothing
    except RuntimeError:
        return True
    return False


def _make_private_folder() -> str:
    """Return a temporary folder that only this user can write to: numba unpickles, so executes, its contents."""
    folder = Path(tempfile.gettempdir(), f"fairdedup-numba-{os.geteuid()}")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            own = tempfile.mkdtemp(prefix="fairdedup-numba-")
            atexit.register(shutil.rmtree, own, ignore_errors=True)
            return own
    return str(folder)


if _has_no_cache_folder():
    os.environ["NUMBA_CACHE_DIR"] = _make_private_folder()  # worker processes inherit it
    nb.config.reload_config()

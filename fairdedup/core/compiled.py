"""The decorator that compiles the kernels of this folder, and the place of the cache of compiled code.

numba keeps what it compiles in the package, else in the user's home. Where it can write to neither, as in a container,
it refuses the decorated functions. This module then gives it a private temporary folder, before the first kernel.
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
    """Compile a function without the interpreter lock, and cache the result; `options` are those of `numba.njit`."""
    return nb.njit(function, nogil=True, cache=True, **options)


def _has_no_place() -> bool:
    """Tell whether numba finds no folder for its cache."""
    try:
        nb.njit(cache=True)(_has_no_place)  # looks for a place, and compiles nothing
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


if _has_no_place():
    os.environ["NUMBA_CACHE_DIR"] = _make_private_folder()  # worker processes inherit it
    nb.config.reload_config()

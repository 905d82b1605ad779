"""Arrays in, arrays out: the rules of semantic deduplication, with no files, no Dask and no configuration.

Only numba keeps files, of what it compiles: in the package, else in the user's home. Where it can write to neither, as
in a container, it refuses to import the modules of this folder: so it is given another place here, before any of them.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path

import numba as nb


def _kept_nowhere() -> bool:
    try:
        nb.njit(cache=True)(_kept_nowhere)  # looks for a place, and compiles nothing
    except RuntimeError:
        return True
    return False


def _private_folder() -> str:
    """Return a temporary folder that nobody else can write to: numba unpickles, so executes, what lies there."""
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


if _kept_nowhere():
    os.environ["NUMBA_CACHE_DIR"] = _private_folder()  # the workers that this process starts have it too
    nb.config.reload_config()

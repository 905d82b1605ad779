"""Which method places the points of the map: PaCMAP or UMAP where one is installed, else the plane of PCA.

Both packages are optional, and neither is a dependency. Their seed is fixed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

PCA = "PCA"
PACKAGES = {"PaCMAP": "pacmap", "UMAP": "umap"}  # methods and their packages, the first one that is installed is used
FEWEST, MOST = 50, 100_000  # points that they place; it takes a minute or more for the most
SEED = 0


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # half removed, or replaced in sys.modules
        return False


def choose_method(points: int, is_installed: Callable[[str], bool] = _is_installed) -> str:
    """Return the method that places the points of a map: "PaCMAP", "UMAP" or "PCA".

    Parameters
    ----------
    points : int
        Number of points.
    is_installed : callable
        Whether a package can be imported, by its name.
    """
    if not FEWEST <= points <= MOST:
        return PCA
    return next((method for method, package in PACKAGES.items() if is_installed(package)), PCA)


def place_points(method: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the places (n, 2) of vectors (n, d) by PaCMAP or UMAP.

    Parameters
    ----------
    method : {"PaCMAP", "UMAP"}
    vectors : ndarray of shape (n, d), float32

    Raises
    ------
    Exception
        Whatever the package raises.
    """
    package = import_module(PACKAGES[method])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both warn that a seed costs speed
        model: Any = (
            package.PaCMAP(n_components=2, random_state=SEED)
            if method == "PaCMAP"
            else package.UMAP(n_components=2, random_state=SEED, n_jobs=1)
        )
        places = np.asarray(model.fit_transform(vectors), np.float32)
    if places.shape != (len(vectors), 2) or not np.isfinite(places).all():
        raise ValueError(f"{method} returned no places")
    return places

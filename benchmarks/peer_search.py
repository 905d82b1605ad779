"""Remove duplicates among vectors by one tool, in a Python that has it. benchmarks/peers.py runs this as a child.

    python benchmarks/peer_search.py semhash vectors.npy kept.npy --eps 0.2 --warm-up 1000

It imports numpy and that tool alone, and prints JSON lines: `warm` (rows and seconds of the warm-up), then `done`; or
`missing`. What is timed begins with unit vectors in memory and ends with the rows that are kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

import numpy as np

BLOCK = 4096  # rows that are looked up at a time
ITERATIONS = 20  # of the k-means of the published procedure
ROWS_PER_CLUSTER = 1000
ENOUGH = 150  # seconds after which a call is not repeated any more

Search = Callable[[np.ndarray, float], np.ndarray]


def search_fairdedup(x: np.ndarray, eps: float) -> np.ndarray:
    """Return the rows that fairdedup keeps, across clusters, with its own number of clusters."""
    from fairdedup import deduplicate

    return np.asarray(deduplicate(x, eps=eps, rule="semdedup", leftover=0).kept)


def search_semhash(x: np.ndarray, eps: float) -> np.ndarray:
    """Return the rows that SemHash keeps, of vectors that are given."""
    from semhash import SemHash

    class NoModel:
        def encode(self, inputs: Any, **options: Any) -> np.ndarray:
            raise AssertionError("the vectors are given")

    records = [str(row) for row in range(len(x))]
    index = SemHash.from_embeddings(embeddings=x, records=records, model=NoModel())
    return np.array([int(record) for record in index.self_deduplicate(threshold=1 - eps).selected])


def search_faiss(x: np.ndarray, eps: float) -> np.ndarray:
    """Return the rows that are kept if each row in turn removes the later ones that FAISS's range search finds."""
    import faiss

    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    kept = np.ones(len(x), bool)
    for start in range(0, len(x), BLOCK):
        bounds, _, found = index.range_search(x[start : start + BLOCK], 1 - eps)
        for row in range(start, min(start + BLOCK, len(x))):
            if kept[row]:
                near = found[int(bounds[row - start]) : int(bounds[row - start + 1])]
                kept[near[near > row]] = False
    return np.flatnonzero(kept)


def search_imagededup(x: np.ndarray, eps: float) -> np.ndarray:
    """Return the rows that imagededup's CNN method keeps; its network is not loaded, since the vectors are given."""
    from imagededup.methods import CNN

    search = CNN.__new__(CNN)
    search.logger, search.verbose = logging.getLogger("imagededup"), False
    found = search.find_duplicates_to_remove(
        encoding_map={str(row): vector for row, vector in enumerate(x)}, min_similarity_threshold=float(1 - eps)
    )
    kept = np.ones(len(x), bool)
    kept[[int(row) for row in found]] = False
    return np.flatnonzero(kept)


def search_published(x: np.ndarray, eps: float) -> np.ndarray:
    """Return the rows that SemDeDup's procedure keeps, as arXiv 2303.09540 describes it: dense products in clusters.

    Rows of a cluster are in ascending order of their similarity to the centroid. One is removed if it is more similar
    than 1 - eps to any before it, removed or not. There is a cluster for 1,000 rows.
    """
    centroids = _train(x, max(1, len(x) // ROWS_PER_CLUSTER))
    labels = _assign(x, centroids)
    kept = []
    for cluster, centroid in enumerate(centroids):
        rows = np.flatnonzero(labels == cluster)
        rows = rows[np.argsort(x[rows] @ centroid, kind="stable")]
        similar = np.triu(x[rows] @ x[rows].T, 1)
        kept.append(rows[similar.max(axis=0, initial=-1) <= 1 - eps])
    return np.sort(np.concatenate(kept))


def _train(x: np.ndarray, clusters: int) -> np.ndarray:
    """Return the unit centroids (k, d) of spherical k-means."""
    rng = np.random.default_rng(0)
    centroids = x[rng.choice(len(x), clusters, replace=False)]
    for _ in range(ITERATIONS):
        labels = _assign(x, centroids)
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        sums = np.add.reduceat(x[order], starts, axis=0)
        centroids = centroids.copy()
        centroids[present] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return centroids


def _assign(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [(x[start : start + BLOCK] @ centroids.T).argmax(axis=1) for start in range(0, len(x), BLOCK)]
    )


SEARCHES: dict[str, tuple[str, Search]] = {  # name -> the module that it needs, and the function
    "fairdedup": ("fairdedup", search_fairdedup),
    "semhash": ("semhash", search_semhash),
    "faiss": ("faiss", search_faiss),
    "imagededup": ("imagededup", search_imagededup),
    "published": ("numpy", search_published),
}


def find_version(module: str) -> str | None:
    """Return the version of the distribution of a module."""
    try:
        return version(packages_distributions().get(module, [module])[0])
    except PackageNotFoundError:
        return None


def say(event: str, **values: Any) -> None:
    """Print an event as a line of JSON."""
    print(json.dumps({"event": event, **values}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SEARCHES)
    parser.add_argument("vectors")
    parser.add_argument("kept")
    parser.add_argument("--eps", type=float, required=True)
    parser.add_argument("--warm-up", type=int, default=1000, help="rows of the call before the one that is timed")
    parser.add_argument("--repeats", type=int, default=1, help="of the call that is timed")
    parser.add_argument("--memory", type=int, help="bytes of data that this process may hold")
    args = parser.parse_args()
    module, search = SEARCHES[args.name]
    if args.memory:
        resource.setrlimit(resource.RLIMIT_DATA, (args.memory, args.memory))
    try:
        __import__(module)
    except ImportError as error:
        say("missing", reason=f"{type(error).__name__}: {error}")
        return
    x = np.load(args.vectors).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for _ in range(2):  # the first call compiles and loads
        started = time.perf_counter()
        search(x[: args.warm_up], args.eps)
        warm = time.perf_counter() - started
    say("warm", rows=min(args.warm_up, len(x)), seconds=warm)
    seconds = []
    while len(seconds) < args.repeats and sum(seconds) < ENOUGH:
        started = time.perf_counter()
        kept = search(x, args.eps)
        seconds.append(time.perf_counter() - started)
    np.save(args.kept, np.asarray(kept, np.int64))
    say("done", seconds=float(np.median(seconds)), repeats=len(seconds), version=find_version(module))


if __name__ == "__main__":
    main()

"""Fsspec's file systems of object stores: their packages, set up before they are imported, and ranges of objects."""

from __future__ import annotations

import errno
import logging
import os
from functools import cache
from typing import TYPE_CHECKING

from fairdedup.errors import UserError
from fairdedup.storage.store_errors import describe_error, no_credentials
from fairdedup.storage.urls import AZURE, GOOGLE, explain_missing_package

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


@cache
def file_system(protocol: str) -> AbstractFileSystem:
    """Return fsspec's file system of a protocol, without its cache of listings: other processes write too.

    Parameters
    ----------
    protocol : str
        The part of a URL before ``://``.

    Raises
    ------
    UserError
        If its package is not installed.
    """
    import fsspec

    prepare_package(protocol)
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        raise UserError(f"{protocol}://: {explain_missing_package(protocol, str(error))}") from None
    try:
        return fsspec.filesystem(protocol, use_listings_cache=False)
    except Exception as error:  # each package has errors of its own; adlfs raises ValueError without credentials
        raise UserError(
            f"{protocol}:// cannot be opened ({describe_error(error)}): {no_credentials(protocol)}"
        ) from None


def prepare_package(protocol: str) -> None:
    """Set up the package of a protocol before it is imported, so that it prints nothing and asks only the store itself.

    Parameters
    ----------
    protocol : str
        The part of a URL before ``://``.
    """
    if protocol in GOOGLE:
        # Zonal and hierarchical buckets need an API of their own, and asking for it takes a request for each bucket.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    if "GCSFS_DEBUG" not in os.environ:  # they print a stack for each request that fails
        for name in {**dict.fromkeys(GOOGLE, ("gcsfs", "google")), **dict.fromkeys(AZURE, ("azure",))}.get(
            protocol, ()
        ):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def read_range(fs: AbstractFileSystem, name: str, start: int = 0, stop: int | None = None) -> bytes:
    """Return the bytes of an object, or a range of them, by one request.

    Parameters
    ----------
    fs : AbstractFileSystem
        The store.
    name : str
        The object's path on it.
    start, stop : int
        The range, in bytes; a stop of None is the end of the object. A range behind the end gives no bytes.
    """
    try:
        return bytes(fs.cat_file(name, start=start, end=stop))
    except Exception as error:  # S3 and Azure refuse a range behind the end, and so every range of an empty object
        if _is_range_refused(error) and fs.size(name) <= start:
            return b""
        raise


def _is_range_refused(error: Exception) -> bool:
    return getattr(error, "errno", None) == errno.EINVAL or getattr(error, "error_code", None) == "InvalidRange"

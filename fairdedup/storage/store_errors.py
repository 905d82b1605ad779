"""Turns what the libraries that speak to stores raise into one line that names the object and says what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fairdedup.errors import FairdedupError, visible

_TRANSPORT_ERRORS = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "HTTPClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
)
"""Module and name of the base classes; a library that is not loaded has raised nothing."""


def is_transport_error(error: BaseException) -> bool:
    """Tell whether an error comes from one of the libraries that speak to stores."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _TRANSPORT_ERRORS)
    return isinstance(error, tuple(kind for kind in found if kind is not None))


def describe_error(error: BaseException) -> str:
    """Return what is wrong as one line, for people."""
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    text = str(error.strerror or error) if isinstance(error, OSError) else str(error)
    return visible(f"{type(error).__name__}: {text.strip() or 'no message'}".splitlines()[0])


@contextmanager
def explain_errors(path: object, action: str) -> Iterator[None]:
    """Turn an error of a store, raised in the block, into one line that names the object.

    A FileNotFoundError stays as it is, and so does an error that is not one of input or output.

    Parameters
    ----------
    path : object
        The object, as the message names it.
    action : str
        What the block does, as an infinitive: "read".

    Raises
    ------
    FairdedupError
        In place of the store's own error.
    """
    try:
        yield
    except (FileNotFoundError, FairdedupError):
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not is_transport_error(error):
            raise
        remedy = "check the credentials and what they allow" if isinstance(error, PermissionError) else "try again"
        raise FairdedupError(
            f"cannot {action} {path} ({describe_error(error)}): {remedy}; run the same command to resume"
        ) from error

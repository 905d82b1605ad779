"""Turns what the libraries that speak to stores raise into one line that names the object and says what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fairdedup.errors import FairdedupError, visible
from fairdedup.storage.urls import AZURE, GOOGLE

_TRANSPORT_ERRORS = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "HTTPClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
)
"""Module and name of the base classes; a library that is not loaded has raised nothing."""
_REFUSALS = {
    "PermissionError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "GoogleAuthError",
    "ClientAuthenticationError",
}
_CREDENTIALS = {
    **dict.fromkeys(("s3", "s3a"), "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
    **dict.fromkeys(GOOGLE, "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`"),
    **dict.fromkeys(
        AZURE,
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING",
    ),
}
"""Where the package of a protocol looks for credentials."""


def is_transport_error(error: BaseException) -> bool:
    """Tell whether an error comes from one of the libraries that speak to stores."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _TRANSPORT_ERRORS)
    return isinstance(error, tuple(kind for kind in found if kind is not None))


def describe_error(error: BaseException) -> str:
    """Return what is wrong as one line, for people."""
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return "no credentials"
    text = str(error.strerror or error) if isinstance(error, OSError) else str(error)
    return visible(f"{type(error).__name__}: {text.strip() or 'no message'}".splitlines()[0])


def find_remedy(error: BaseException, protocol: str) -> str:
    """Return what to do about an error of a store.

    Parameters
    ----------
    error : Exception
        What the store's package raised.
    protocol : str
        The part of the URL before ``://``.
    """
    return no_credentials(protocol) if _is_refusal(error) else "try again"


def no_credentials(protocol: str) -> str:
    """Return what to do where credentials are missing or refused.

    Parameters
    ----------
    protocol : str
        The part of the URL before ``://``.
    """
    how = _CREDENTIALS.get(protocol)
    return f"check the credentials and what they allow{f' ({how})' if how else ''}"


def _is_refusal(error: BaseException) -> bool:
    """Tell whether a store refused the credentials, or its package found none."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    names = ("code",) if "HttpError" in kinds else ("status", "status_code")  # of gcsfs; of aiohttp and Azure
    codes = {str(getattr(error, name, None)) for name in names}
    return bool(kinds & _REFUSALS or codes & {"401", "403"}) or str(error).startswith("Forbidden")  # which gcsfs raises


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
        remedy = find_remedy(error, str(path).partition("://")[0].lower())
        raise FairdedupError(
            f"cannot {action} {path} ({describe_error(error)}): {remedy}; run the same command to resume"
        ) from error

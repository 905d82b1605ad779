"""URLs: which protocol they name, and no credentials in them.

Credentials come from the environment or the store's own configuration files; none is read, kept or printed here.
"""

from __future__ import annotations

import re

from fairdedup.errors import UserError, visible

OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")  # an object appears whole or not at all
WEB = ("http", "https")
GOOGLE = ("gs", "gcs")
AZURE = ("az", "abfs", "abfss")
PACKAGES = {  # protocol -> what fsspec needs for it
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(GOOGLE, "gcsfs"),
    **dict.fromkeys(AZURE, "adlfs"),
    **dict.fromkeys(WEB, "aiohttp"),
}

_URL = re.compile(r"(?:[a-z0-9+.-]+::)*([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_BEGINS = re.compile(r"(?:--[a-z-]+=)?\{?[a-z0-9+.:-]+://", re.IGNORECASE)  # a URL, or an option with a URL as value
_IN_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)([^:]*)", re.IGNORECASE)


def protocol_of(text: str) -> str | None:
    """Return the protocol of a URL in lower case, of a chain the last one; None for a local path."""
    found = _URL.fullmatch(text)
    return None if found is None else found[1].lower()


def check_url(text: str) -> None:
    """Refuse a URL that has credentials in it, without repeating them.

    Parameters
    ----------
    text : str
        A URL, a local path, or an option with either as its value.

    Raises
    ------
    UserError
        If there is a name with a secret before the host, or a query behind the path; or if a URL of Azure names its
        account, which only the environment can.
    """
    for protocol, host, rest in _IN_URL.findall(text) if _BEGINS.match(text) else ():
        web = protocol.lower() in WEB
        user = host.rpartition("@")[0] if "@" in host else ""
        secret = ":" in user or (web and (user or re.search(r":(?![0-9]*$)", host)))
        if protocol.lower() in OBJECT_STORES and not host.startswith("arn:"):  # a secret may hold a slash
            secret = secret or ":" in host
        if secret or re.search(r"\?.*=", rest):
            place = visible(host.rpartition("@")[2].partition(":")[0] if not secret or web else "")
            raise UserError(
                f"the URL {protocol}://{place}... has credentials in it (NAME:SECRET@, or a signature behind '?'), "
                "which would be stored with the run: remove them, and set them in the environment or the store's own "
                "configuration (docs/object-stores.md)"
            )
        if protocol.lower() in AZURE and "@" in host:
            container, _, server = host.partition("@")
            account = visible(server.partition(".")[0])
            raise UserError(
                f"the URL {protocol}://{visible(host)}{visible(rest)} names an account, which is read from the "
                f"environment only: set AZURE_STORAGE_ACCOUNT_NAME={account} and give "
                f"{protocol}://{visible(container)}{visible(rest)}"
            )


def explain_missing_package(protocol: str, reason: str) -> str:
    """Return what to install for a protocol whose package is missing.

    Parameters
    ----------
    protocol : str
        The part of a URL before ``://``.
    reason : str
        What fsspec says, which is returned if it is not known here what the protocol needs.
    """
    if protocol in PACKAGES:
        return f"{protocol}:// needs a package that is not installed: pip install {PACKAGES[protocol]}"
    return reason.rstrip(".")

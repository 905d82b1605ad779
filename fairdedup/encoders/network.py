"""Tells within seconds that weights cannot be downloaded: the libraries themselves try again for minutes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fairdedup.errors import LastingError, first_line

ANSWER_WITHIN = 5.0  # seconds
OFFLINE = "HF_HUB_OFFLINE is set"
URL_CACHE = Path("~/.cache/clip")  # where open_clip keeps what does not come from the hub


@contextmanager
def nothing_fetched() -> Iterator[None]:
    """Keep the libraries of Hugging Face from the network in the block."""
    from huggingface_hub import constants

    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


@contextmanager
def no_long_wait() -> Iterator[str]:
    """Yield why the hub cannot be reached, an empty text if it can; else only its cache is read in the block."""
    from huggingface_hub import constants

    obstacle = OFFLINE if constants.HF_HUB_OFFLINE else find_obstacle(constants.ENDPOINT)
    if not obstacle:
        yield ""
        return
    with nothing_fetched():
        yield obstacle


def find_obstacle(url: str) -> str:
    """Return why a server cannot be reached, an empty text if it answers, whatever it answers.

    Parameters
    ----------
    url : str
        An address on the server.
    """
    from huggingface_hub.utils import get_session

    try:
        get_session().head(url, timeout=ANSWER_WITHIN)
    except Exception as error:  # noqa: BLE001
        return f"{urlsplit(url).netloc} cannot be reached: {first_line(error)}"
    return ""


def check_download(known: Mapping[str, Any] | None, what: str) -> None:
    """Refuse weights of a web server that are neither on this machine nor within reach; the hub is not looked at.

    Parameters
    ----------
    known : mapping or None
        What open_clip knows about a tag.
    what : str
        The weights, for the message.

    Raises
    ------
    LastingError
        If the server cannot be reached.
    """
    url = "" if known is None or known.get("hf_hub") else str(known.get("url") or "")
    if not url or (URL_CACHE.expanduser() / url.rpartition("/")[2]).is_file():
        return
    obstacle = find_obstacle(url)
    if obstacle:
        raise LastingError(describe_failure(what, obstacle))


def describe_failure(what: str, reason: str) -> str:
    """Return the message about weights that could not be downloaded.

    Parameters
    ----------
    what : str
        The weights.
    reason : str
        Why.
    """
    return (
        f"Could not download the weights of {what} ({reason}). Check the network, or download them elsewhere and give "
        "the file with --pretrained."
    )

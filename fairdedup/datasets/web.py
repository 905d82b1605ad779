"""Reads files from web servers with fsspec, and repeats failed requests, which fsspec does not do.

A transient fault is never reported as a missing file, which would cost a sample.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
from fsspec.asyn import sync, sync_wrapper
from fsspec.implementations.http import HTTPFile, HTTPFileSystem

ATTEMPTS, FIRST_WAIT, LONGEST_WAIT = 6, 0.5, 10.0  # seconds
IN_MEMORY = 1 << 26  # bytes of a file that is kept in memory; a larger file goes to the local disk
PIECE = 1 << 20
STAMPS = ("ETag", "Last-Modified")

FileInfo = dict[str, Any]
"""fsspec's description of a file: name, type, size and what identifies its version."""


def retry_waits() -> Iterator[float]:
    """Yield the seconds to wait between attempts: doubled each time, then reduced by a random part of up to a half."""
    for k in range(ATTEMPTS - 1):
        yield min(LONGEST_WAIT, FIRST_WAIT * 2**k) * random.uniform(0.5, 1)


def is_transient(error: BaseException) -> bool:
    """Tell whether a failed request may succeed later: after a dropped connection, too many requests or a timeout."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in (408, 425, 429) or error.status >= 500
    return isinstance(error, aiohttp.ClientError | TimeoutError | asyncio.TimeoutError | ConnectionError)


async def retry(function: Callable[..., Any], *args: Any) -> Any:
    """Await a request, and repeat it if it fails in a transient way.

    Parameters
    ----------
    function : callable
        An async function that makes the request.
    *args
        Its arguments.
    """
    for wait in retry_waits():
        try:
            return await function(*args)
        except Exception as error:
            if not is_transient(error):
                raise
        await asyncio.sleep(wait)
    return await function(*args)


class _File(HTTPFile):
    """A file that is read in ranges."""

    async def async_fetch_range(self, start: int, end: int) -> bytes:
        return bytes(await retry(super().async_fetch_range, start, end))

    _fetch_range = sync_wrapper(async_fetch_range)


class WebFileSystem(HTTPFileSystem):
    """fsspec's file system for web servers, with repeated requests; file sizes come from a request for one byte."""

    def __init__(self, **options: Any) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        super().__init__(**{"client_kwargs": {"timeout": timeout}, **options})

    async def _info(self, url: str, **kwargs: Any) -> FileInfo:
        return dict(await retry(self._first_byte, url))

    async def _first_byte(self, url: str) -> FileInfo:
        session = await self.set_session()
        async with session.get(self.encode_url(url), **self._request_options(Range="bytes=0-0")) as answer:
            self._check(answer, url)
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if answer.status == 200:
                total = answer.headers.get("Content-Length", "")
            found = {
                "name": url,
                "type": "file",
                "size": int(total) if total.isdigit() else None,
                "partial": answer.status == 206,
            }
            return found | {name: answer.headers[name] for name in STAMPS if name in answer.headers}

    def _request_options(self, **headers: str) -> Any:
        """Return the options of a request: those of the user's fsspec configuration, and these headers."""
        return self.kwargs | {"headers": self.kwargs.get("headers", {}) | {"Accept-Encoding": "identity"} | headers}

    def _check(self, answer: aiohttp.ClientResponse, url: str) -> None:
        if answer.status in (404, 410):
            raise FileNotFoundError(url)
        if answer.status in (401, 403):
            raise PermissionError(f"{url}: {answer.status} {answer.reason}")
        if answer.status != 416:  # an empty file has no first byte
            answer.raise_for_status()

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        try:
            await self._info(path)
        except FileNotFoundError:
            return False
        return True

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return bytes(await retry(super()._cat_file, url, start, end))

    async def _ls_real(self, url: str, detail: bool = True, **kwargs: Any) -> Any:
        return await retry(super()._ls_real, url, detail)

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        info = self.info(path)
        if info["partial"] and info["size"]:
            session = sync(self.loop, self.set_session)
            return _File(
                self,
                path,
                session=session,
                block_size=block_size or self.block_size,
                size=info["size"],
                cache_type="readahead",
                loop=self.loop,
                **self.kwargs,
            )
        return sync(self.loop, retry, self._download, path)

    async def _download(self, url: str) -> Any:
        """Return a complete file, for servers that do not send ranges."""
        session = await self.set_session()
        file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        async with session.get(self.encode_url(url), **self._request_options()) as answer:
            self._check(answer, url)
            async for piece in answer.content.iter_chunked(PIECE):
                file.write(piece)
        file.seek(0)
        return file

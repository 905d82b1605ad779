"""Servers for the tests of stores: moto's S3 behind a proxy that records and fails on purpose, and files over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Fault = Literal["drop", "cut", "slow down", "internal", "forbidden"] | None
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
FORBIDDEN = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
ANSWERS = {"slow down": (503, SLOW_DOWN), "internal": (500, INTERNAL), "forbidden": (403, FORBIDDEN)}

MOTO = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""

GOOGLE = """
import sys
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
server.start()  # returns when it has an address
print(*server._api._httpd.server_address[:2], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Request:
    """A request to a server."""

    method: str
    path: str
    range: str
    copies: bool

    @property
    def lists(self) -> bool:
        """Whether the request is a listing."""
        query = urlsplit(self.path).query
        return self.method == "GET" and ("list-type" in parse_qs(query) or "prefix" in parse_qs(query))

    @property
    def key(self) -> str:
        """Bucket and key of the requested object."""
        return unquote(urlsplit(self.path).path).lstrip("/")


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that disconnect are part of the tests."""


class Served:
    """A server that runs in threads of this process.

    Attributes
    ----------
    requests : list of Request
    fault : callable
        Returns what must go wrong with a request, if anything.
    """

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler], **more: Any) -> None:
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Fault] = lambda request: None
        self._server = _Server(("127.0.0.1", 0), type("Handler", (handler,), {"served": self, **more}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Served:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextlib.contextmanager
    def failing(self, fault: Callable[[Request], Fault]) -> Iterator[None]:
        """Make requests fail while the block runs."""
        self.fault = fault
        try:
            yield
        finally:
            self.fault = lambda request: None

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[Request]]:
        """Yield the list of requests that are made while the block runs."""
        found: list[Request] = []
        before = len(self.requests)
        yield found
        found += self.requests[before:]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    served: Served

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self) -> tuple[int, list[tuple[str, str]], bytes]:
        raise NotImplementedError

    def handle_one(self) -> None:
        headers = self.headers
        request = Request(self.command, self.path, headers.get("Range", ""), "x-amz-copy-source" in headers)
        self.body = self.rfile.read(int(headers.get("Content-Length") or 0))
        self.served.requests.append(request)
        fault = self.served.fault(request)
        if fault == "drop":
            self.close_connection = True
            return
        if fault in ANSWERS:
            status, body = ANSWERS[fault]
            answered: list[tuple[str, str]] = [("Content-Type", "application/xml")]
        else:
            status, answered, body = self.answer()
        self.send_response(status)
        for name, value in answered:
            if name.lower() not in ("connection", "content-length", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        known = next((value for name, value in answered if name.lower() == "content-length"), "0")
        self.send_header("Content-Length", known if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.close_connection = self.close_connection or fault == "cut"

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one


class _Proxy(_Handler):
    target: tuple[str, int]

    def answer(self) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self.target)
        hop = ("connection", "expect", "transfer-encoding")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in hop}
        connection.request(self.command, self.path, self.body or None, headers)
        answer = connection.getresponse()
        found = answer.status, answer.getheaders(), answer.read()
        connection.close()
        return found


class _Files(_Handler):
    """A server of the files in a folder, with or without ranges, and with pages that list the folder."""

    folder: Path
    ranges: bool

    def answer(self) -> tuple[int, list[tuple[str, str]], bytes]:
        path = self.folder / unquote(urlsplit(self.path).path).lstrip("/")
        if path.is_dir():
            names = sorted(p.name + "/" * p.is_dir() for p in path.iterdir())
            return 200, [("Content-Type", "text/html")], "".join(f'<a href="{n}">{n}</a>\n' for n in names).encode()
        if not path.is_file():
            return 404, [], b""
        data = path.read_bytes()
        told = [("Content-Type", "application/octet-stream"), ("ETag", f'"{len(data)}-{path.stat().st_mtime_ns}"')]
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers.get("Range", ""))
        if not self.ranges or asked is None:
            return 200, [*told, ("Content-Length", str(len(data)))], data
        first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        if first > last:
            return 416, [*told, ("Content-Range", f"bytes */{len(data)}")], b""
        return 206, [*told, ("Content-Range", f"bytes {first}-{last}/{len(data)}")], data[first : last + 1]


@contextlib.contextmanager
def _behind_proxy(command: list[str], log: Path, address: str) -> Iterator[Served]:
    """Yield a proxy in front of a server that prints its host and port in a line that matches `address`."""
    with open(log, "wb") as errors, subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            found = None
            while found is None:
                line = server.stdout.readline()
                assert line, log.read_text()
                found = re.search(address, line)
            with Served(_Proxy, target=(found[1], int(found[2]))) as proxy:
                yield proxy
        finally:
            server.kill()


def s3(folder: Path) -> contextlib.AbstractContextManager[Served]:
    """Return a proxy in front of moto's server."""
    return _behind_proxy([sys.executable, "-c", MOTO], folder / "moto.log", r"^([0-9.]+) ([0-9]+)$")


def google(folder: Path) -> contextlib.AbstractContextManager[Served]:
    """Return a proxy in front of an emulator of Google's store, which has a bucket "bucket"."""
    return _behind_proxy([sys.executable, "-c", GOOGLE], folder / "google.log", r"^([0-9.]+) ([0-9]+)$")


def azure(folder: Path, program: str) -> contextlib.AbstractContextManager[Served]:
    """Return a proxy in front of Microsoft's emulator of its own store."""
    command = [
        program,
        "--blobPort",
        "0",
        "--inMemoryPersistence",
        "--skipApiVersionCheck",
        "--disableTelemetry",
        "--silent",
    ]
    return _behind_proxy(command, folder / "azure.log", r"listens on http://([0-9.]+):([0-9]+)")


def files_over_http(folder: Path, ranges: bool = True) -> Served:
    """Return a server of the files in a folder."""
    return Served(_Files, folder=folder, ranges=ranges)


def once_each(*kinds: Fault, of: Callable[[Request], bool] = lambda request: True) -> Callable[[Request], Fault]:
    """Return a fault for the first request of each object and method, of alternating kinds; the second one succeeds."""
    seen: set[tuple[str, str]] = set()
    lock = threading.Lock()

    def fault(request: Request) -> Fault:
        with lock:
            what = (request.method, request.path)
            if what in seen or not of(request):
                return None
            seen.add(what)
            return kinds[len(seen) % len(kinds)]

    return fault

"""A real headless Chromium, driven by its own protocol over a pipe: no driver and no package is needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WITHIN = 60.0  # seconds for any answer
START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""  # the browser reads from 3 and writes to 4
FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader"),
    *("--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
)


def find_browser() -> str | None:
    """Return the path of Chromium; None where it is not installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """A tab of a browser.

    Attributes
    ----------
    problems : list of str
        What the console has shown as errors or warnings, and every request that was not for the page itself.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._number, self._rest = write, read, 0, b""
        self._session: str | None = None
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol, and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        ends = time.monotonic() + WITHIN
        while time.monotonic() < ends:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer)
        raise TimeoutError(method)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 16)
            assert data, "the browser has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        kind, what = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(what["exceptionDetails"]))
        elif (kind == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert")) or (
            kind == "Log.entryAdded"
            and what["entry"]["level"] in ("error", "warning")
            and what["entry"]["source"] != "rendering"
        ):
            self.problems.append(json.dumps(what))
        elif kind == "Network.requestWillBeSent" and not what["request"]["url"].startswith(("file:", "data:")):
            self.problems.append(what["request"]["url"])

    def open(self, file: Path, width: int = 1280, height: int = 900, *, mobile: bool = False) -> None:
        """Open a page in a window of this size, and wait until its script is ready."""
        self.resize(width, height, mobile=mobile)
        self.call("Page.navigate", url=file.absolute().as_uri())
        self.wait("document.readyState === 'complete' && document.documentElement.dataset.ready === 'yes'")

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Set the size of the window, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def prefer(self, scheme: str) -> None:
        """Prefer "light" or "dark" colours, as the system does."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression in the page is true."""
        ends = time.monotonic() + WITHIN
        while not self.run(f"Boolean({expression})"):
            assert time.monotonic() < ends, f"never true: {expression}"
            time.sleep(0.05)

    def press(self, key: str, text: str = "", *, times: int = 1) -> None:
        """Press a key: "Tab", "ArrowRight", or one with a text."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
        own = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **own)
            self.call("Input.dispatchKeyEvent", type="keyUp", **own)

    def write(self, text: str) -> None:
        """Insert a text where the focus is."""
        self.call("Input.insertText", text=text)

    def move(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Move the pointer over an element, to a place in it."""
        self.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.run(
            f"(b => [b.left, b.top, b.width, b.height])(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + x * box[2], y=box[1] + y * box[3])

    def take_picture(self, selector: str = "", height: float = 0, scale: float = 1, margin: float = 0) -> bytes:
        """Return a PNG of the window, or of an element with a margin and at most so much of its height (CSS pixels)."""
        if not selector:
            return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        left, top, width, own = self.run(
            f"(b => [b.left + scrollX, b.top + scrollY, b.width, b.height])"
            f"(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        size = {"width": width + 2 * margin, "height": min(height or own, own) + margin}
        clip = {"x": left - margin, "y": top - margin, **size, "scale": scale}
        found = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(found["data"])


@contextmanager
def open_browser(folder: Path) -> Iterator[Page]:
    """Yield a tab of a new browser whose profile is in a folder."""
    browser = find_browser()
    assert browser is not None
    from_us, to_us = os.pipe(), os.pipe()
    words = [sys.executable, "-c", START, str(from_us[0]), str(to_us[1]), browser, *FLAGS, f"--user-data-dir={folder}"]
    process = subprocess.Popen(
        [*words, "about:blank"], pass_fds=(from_us[0], to_us[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(from_us[0])
    os.close(to_us[1])
    try:
        yield Page(from_us[1], to_us[0])
    finally:
        os.close(from_us[1])
        os.close(to_us[0])
        process.kill()
        process.wait()

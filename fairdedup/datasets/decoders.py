"""Two ways to decode the pictures of a shard: within the process, and in a child process that may die.

The child is for a shard whose worker has died before. A picture that kills the child, needs too much memory or takes
too long is an unusable picture. Both ways give the same values, bit by bit. The processes exchange JSON and plain
bytes, so that a picture that takes over the child cannot run anything in its parent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NamedTuple

from fairdedup.datasets import images
from fairdedup.datasets.decoder_messages import Message, receive, receive_answer, send
from fairdedup.datasets.images import BadImage, Facts, Picture
from fairdedup.storage.memory_limit import limit_memory

MEMORY = 2 << 30
"""Bytes that a child process may use for one picture, besides what it uses at its start."""

TIME_LIMIT = 120.0
"""Seconds that a child process may take for one picture."""

Prepare = Callable[[Any], Any]


class Prepared(NamedTuple):
    """A picture, ready for an encoder.

    Attributes
    ----------
    value : object
        What the function that prepares pictures has returned, or the picture itself without one.
    facts : Facts
    """

    value: Any
    facts: Facts


class Decoder:
    """Decodes pictures within the process.

    Parameters
    ----------
    prepare : callable or None
        What is done with each decoded picture.
    white : int
        Value that becomes white in 16-bit pictures.
    detail : int
        Pixels of the shorter side that are needed; larger JPEGs are decoded at a reduced size. 0 decodes all of them.
    """

    def __init__(self, prepare: Prepare | None, white: int, detail: int = 0) -> None:
        self.prepare, self.white, self.detail = prepare, white, detail

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        """Release what the decoder holds."""

    def load(self, data: bytes) -> Prepared:
        """Decode and prepare a picture.

        Raises
        ------
        BadImage
            If it cannot be decoded or prepared.
        """
        picture = self.decode(data)
        if self.prepare is None:
            return Prepared(picture.image, picture.facts)
        try:
            return Prepared(self.prepare(picture.image), picture.facts)
        except MemoryError:
            raise
        except Exception as error:  # transforms of models raise errors of their own on odd shapes
            width, height = picture.facts.width, picture.facts.height
            raise BadImage(f"{width} x {height} pixels cannot be prepared ({type(error).__name__})") from None

    def decode(self, data: bytes) -> Picture:
        """Decode a picture; see `images.decode_picture`."""
        return images.decode_picture(data, self.white, self.detail)

    def read_facts(self, data: bytes) -> Facts:
        """Return what an image file is, without decoding it if possible; see `images.read_facts`."""
        return images.read_facts(data)

    def measure_peak(self, data: bytes) -> int:
        """Return the largest value of a 16-bit picture; 0 for others."""
        return images.measure_peak(data)


class IsolatedDecoder(Decoder):
    """Decodes pictures in a child process; it must be closed by using it as a context."""

    _child: subprocess.Popen[bytes] | None = None

    def __exit__(self, *_: object) -> None:
        """End the child process."""
        self._end()

    def decode(self, data: bytes) -> Picture:
        """Decode a picture; see `Decoder.decode`. One that its child process dies of is unusable."""
        answer = self._call("decode", data)
        if answer.picture is None:
            raise BadImage("its decoder gave no picture")
        return Picture(answer.picture, _read_facts(answer.values["facts"]))

    def read_facts(self, data: bytes) -> Facts:
        """Return what an image file is; see `Decoder.read_facts`."""
        return _read_facts(self._call("read_facts", data).values["facts"])

    def measure_peak(self, data: bytes) -> int:
        """Return the largest value of a 16-bit picture; 0 for others, and for one that its child process dies of."""
        try:
            return int(self._call("measure_peak", data).values["peak"])
        except BadImage:
            return 0

    def _call(self, method: str, data: bytes) -> Message:
        """Return what a method of a `Decoder` returns in the child process, as `_answer` has it."""
        child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None
        too_long = threading.Event()

        def stop() -> None:
            too_long.set()
            _kill(child)

        timer = threading.Timer(TIME_LIMIT, stop)
        timer.start()
        try:
            send(child.stdin, Message({"method": method, "white": self.white, "detail": self.detail}, data))
            answer = receive_answer(child.stdout)
        except (OSError, EOFError, ValueError):
            answer = None
        finally:
            timer.cancel()
        if answer is None:
            code = self._end()
            late = f"took longer than {TIME_LIMIT:g} seconds" if too_long.is_set() else _describe_end(code)
            raise BadImage(f"its decoder {late}")
        if "error" in answer.values:
            raise BadImage(str(answer.values["error"]))
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(folder for folder in sys.path if folder)
        # -P: a module in the current folder must not replace one of Python's own.
        command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"]
        self._child = child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that its fork can be killed with it
            env={**os.environ, "PYTHONPATH": path},
        )
        return child

    def _end(self) -> int:
        """End the child process and return its exit status."""
        child, self._child = self._child, None
        if child is None:
            return 0
        for pipe in (child.stdin, child.stdout):
            with suppress(OSError):  # what is buffered cannot reach a process that has died
                if pipe is not None:
                    pipe.close()
        try:
            return child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            _kill(child)
            return child.wait()


def open_decoder(prepare: Prepare | None, white: int, detail: int = 0, *, isolated: bool) -> Decoder:
    """Return a decoder, to be used as a context.

    Parameters
    ----------
    prepare : callable or None
        What is done with each decoded picture, in this process.
    white, detail : int
        As in `Decoder`.
    isolated : bool
        Whether a picture may kill the process that decodes it.
    """
    return (IsolatedDecoder if isolated else Decoder)(prepare, white, detail)


def serve() -> None:
    """Answer the calls of an `IsolatedDecoder`; this is the child process.

    It loads its libraries once and forks for each picture, so that the next picture need not wait after a death.
    """
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print must not get among the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            call = receive(calls)
        except EOFError:
            return
        send(answers, _answer_in_fork(call) if hasattr(os, "fork") else _answer(call))


def _answer(call: Message) -> Message:
    """Return what a method of a `Decoder` returns, or the words of the `BadImage` that it raises."""
    decoder = Decoder(None, int(call.values["white"]), int(call.values["detail"]))
    method = call.values["method"]
    try:
        if method == "decode":
            picture = decoder.decode(call.data)
            return Message({"facts": asdict(picture.facts), "size": picture.image.size}, picture.image.tobytes())
        if method == "read_facts":
            return Message({"facts": asdict(decoder.read_facts(call.data))})
        return Message({"peak": decoder.measure_peak(call.data)})
    except BadImage as error:
        return Message({"error": str(error)})
    except MemoryError:
        return Message({"error": f"it needs more than {MEMORY >> 30} GiB of memory to decode"})


def _answer_in_fork(call: Message) -> Message:
    """Return the answer to a call from a fork of this process, or that the fork has died."""
    reading, writing = os.pipe()
    fork = os.fork()
    if not fork:
        code = 1
        try:
            os.close(reading)
            limit_memory(MEMORY)
            with os.fdopen(writing, "wb") as pipe:
                send(pipe, _answer(call))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        try:
            answer = receive(pipe)
        except (EOFError, ValueError):
            answer = None
    code = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
    return Message({"error": f"its decoder {_describe_end(code)}"}) if answer is None else answer


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a child process and its fork."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _read_facts(values: dict[str, Any]) -> Facts:
    """Return the facts that a child process has sent."""
    return Facts(int(values["width"]), int(values["height"]), str(values["format"]))

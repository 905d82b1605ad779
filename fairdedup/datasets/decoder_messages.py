"""Messages between a process that reads pictures and its child that decodes them: JSON and plain bytes.

A child may be taken over by a picture, so nothing in a message can run, and what it claims is checked.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any, NamedTuple

from PIL import Image

from fairdedup.datasets.images import MAX_PIXELS

_LENGTHS = struct.Struct("<QQ")  # of the JSON and of the bytes of a message
_AT_ONCE = 1 << 20  # pixels that are received at a time


class Message(NamedTuple):
    """A call or an answer.

    Attributes
    ----------
    values : dict
        What is written as JSON.
    data : bytes
        An image file, or pixels.
    picture : PIL.Image.Image or None
        The picture of the pixels, in an answer that was received.
    """

    values: dict[str, Any]
    data: bytes = b""
    picture: Image.Image | None = None


def send(pipe: IO[bytes], message: Message) -> None:
    """Write a message to a pipe."""
    values = json.dumps(message.values).encode()
    pipe.write(_LENGTHS.pack(len(values), len(message.data)))
    pipe.write(values)
    pipe.write(message.data)
    pipe.flush()


def receive_answer(pipe: IO[bytes]) -> Message:
    """Return the next answer of a child process. Its pixels become a picture row by row: twice they would not fit."""
    length, rest = _LENGTHS.unpack(_read(pipe, _LENGTHS.size))
    values = json.loads(_read(pipe, length))
    if "size" not in values:
        return Message(values, _read(pipe, rest))
    width, height = map(int, values["size"])
    if min(width, height) < 1 or width * height > MAX_PIXELS or rest != 3 * width * height:
        raise ValueError("not a picture")
    picture, rows = Image.new("RGB", (width, height)), max(1, _AT_ONCE // width)
    for top in range(0, height, rows):
        size = (width, min(rows, height - top))
        picture.paste(Image.frombytes("RGB", size, _read(pipe, 3 * size[0] * size[1])), (0, top))
    return Message(values, picture=picture)


def _read(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError
    return data


def receive(pipe: IO[bytes]) -> Message:
    """Return the next message of a pipe; raise an EOFError if the other process has ended."""
    length, rest = _LENGTHS.unpack(_read(pipe, _LENGTHS.size))
    return Message(json.loads(_read(pipe, length)), _read(pipe, rest))

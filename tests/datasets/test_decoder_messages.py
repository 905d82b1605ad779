"""What a child process that decodes pictures sends is checked, and its pixels are received row by row."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fairdedup.datasets import decoder_messages
from fairdedup.datasets.decoder_messages import Message, receive, receive_answer, send


def sent(message: Message) -> io.BytesIO:
    pipe = io.BytesIO()
    send(pipe, message)
    pipe.seek(0)
    return pipe


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (40, 3), (3, 40)])
def test_a_picture_arrives_as_it_was_sent(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_messages, "_AT_ONCE", 20)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    found = receive_answer(sent(Message({"size": size}, pixels.tobytes()))).picture
    assert found is not None and found.mode == "RGB" and type(found) is Image.Image
    np.testing.assert_array_equal(np.asarray(found), pixels)


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-2, -2), (2, 3), (100_000, 100_000)])
def test_a_size_that_does_not_fit_the_pixels_is_an_error(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a picture"):
        receive_answer(sent(Message({"size": size}, bytes(12))))


def test_other_messages_arrive_whole_and_an_early_end_is_noticed() -> None:
    message = Message({"peak": 3}, b"abc")
    assert receive(sent(message)) == receive_answer(sent(message)) == message
    for length in (0, 4, 20, len(sent(message).getvalue()) - 1):
        for read in (receive, receive_answer):
            with pytest.raises(EOFError):
                read(io.BytesIO(sent(message).getvalue()[:length]))

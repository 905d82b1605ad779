"""A machine without a network is told within seconds that weights cannot be downloaded, and nothing is tried again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from fairdedup.dask_calls import call_on_worker
from fairdedup.encoders import network
from fairdedup.encoders.loading import load_encoder
from fairdedup.encoders.spec import EncoderSpec
from fairdedup.errors import LastingError
from fairdedup.stage_tasks import RETRIES, call_again

CLOSED = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Put the hub where nobody answers, with an empty cache."""
    monkeypatch.setattr(constants, "ENDPOINT", CLOSED)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_server_that_does_not_answer_is_named_at_once():
    started = time.monotonic()
    assert network.find_obstacle(f"{CLOSED}/a").startswith("127.0.0.1:9 cannot be reached: ")
    assert time.monotonic() - started < network.ANSWER_WITHIN + 1


def test_only_the_cache_is_read_where_the_hub_is_out_of_reach(nowhere):
    with network.no_long_wait() as obstacle:
        assert constants.HF_HUB_OFFLINE and "cannot be reached" in obstacle
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(("model", "says"), [
    ("ViT-B-16", r"Could not download the weights of --model ViT-B-16 --pretrained openai \(127\.0\.0\.1:9 cannot be "
                 r"reached: .*\)\. Check the network, or .* give the file with --pretrained\.$"),
    ("hf-hub:a/b", r"cannot be downloaded \(127\.0\.0\.1:9 cannot be reached: "),
])  # fmt: skip
def test_weights_that_cannot_be_downloaded_are_one_line_within_seconds(model, says, nowhere):
    tag = None if model.startswith("hf-hub:") else "openai"
    started = time.monotonic()
    with pytest.raises(LastingError, match=says) as caught:
        load_encoder(EncoderSpec(model, tag, 4, "cpu", "float32", 1))
    assert time.monotonic() - started < 20 and "\n" not in str(caught.value)


def test_weights_of_a_web_server_are_looked_for_on_this_machine_first(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "URL_CACHE", tmp_path)
    known = {"url": f"{CLOSED}/w.pt", "hf_hub": ""}
    with pytest.raises(LastingError, match="Could not download the weights of x"):
        network.check_download(known, "x")
    (tmp_path / "w.pt").write_bytes(b"")
    network.check_download(known, "x")
    network.check_download({"url": f"{CLOSED}/v.pt", "hf_hub": "a/b"}, "x")  # it comes from the hub


def test_an_error_that_would_last_is_not_tried_again():
    tries: list[type[Exception]] = []

    def fail(kind: type[Exception]) -> None:
        tries.append(kind)
        raise kind("no network")

    for kind, times in ((LastingError, 1), (OSError, 1 + RETRIES)):
        tries.clear()
        with pytest.raises(kind):
            call_again(fail, kind)
        assert len(tries) == times
    assert isinstance(call_on_worker(None, fail, LastingError), LastingError)  # Dask would try it again

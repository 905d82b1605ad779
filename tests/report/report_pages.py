"""Shared by the tests of the report: hostile texts, and a reader of what a page holds."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '<img src=x onerror="window.hacked = 1">',
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; \u2028 ' \" `",
)
HOSTILE_NAME = '"><img src=x onerror=hacked=1> & {{x}}.png'


def draw_picture(seed: int, side: int = 32) -> bytes:
    """Return a PNG of two colours with noise; the ten pictures of equal tens have more and more of it."""
    shape, noise = np.random.default_rng(seed // 10), np.random.default_rng(seed)
    pixels = np.empty((side, side, 3))
    pixels[:] = shape.integers(0, 256, 3)
    left, top = shape.integers(0, side // 2, 2)
    pixels[top : top + side // 2, left : left + side // 2] = shape.integers(0, 256, 3)
    pixels += noise.normal(0, 2 + 6 * (seed % 10), pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def read_data(page: Path) -> Any:
    """Return the JSON that a page holds."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])

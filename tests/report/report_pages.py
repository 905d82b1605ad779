"""Shared by the tests of the report: hostile texts, and a reader of what a page holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '<img src=x onerror="window.hacked = 1">',
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; \u2028 ' \" `",
)
HOSTILE_NAME = '"><img src=x onerror=hacked=1> & {{x}}.png'


def read_data(page: Path) -> Any:
    """Return the JSON that a page holds."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])

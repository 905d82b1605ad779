"""What people see in place of the name of a stage, on a terminal and on the page about a run.

run.json and JSON lines have the name itself.
"""

from __future__ import annotations

SHOWN = {
    "start": "start up",
    "other": "between stages",
    "device": "look for a GPU",
    "dtype": "choose a precision",
    "verify": "check files",
    "sample": "take a sample of rows",
    "assign": "assign to clusters",
    "curate": "mark rows",
    "list": "list rows",
    "survey": "compare groups",
    "round": "decide across clusters",
    "cards": "read candidates",
    "links": "find links",
    "reach": "find near clusters",
    "shares": "count groups",
    "leftover": "look for duplicates",
    "export": "write decisions",
    "represent": "list removed rows",
    "state": "save for later runs",
    "reshard": "write shards",
    "weigh": "score samples",
    "why": "look for causes",
    "report": "make the page",
    "pictures": "read pictures",
}


def show_name(stage: str) -> str:
    """Return the name of a stage as people see it."""
    return SHOWN.get(stage, stage)

"""The errors that fairdedup raises on purpose; each message is one line: what, where, the mend."""

from __future__ import annotations


class FairdedupError(Exception):
    """Something failed for good; the message names the place and the reason (exit code 1)."""


class UserError(FairdedupError, ValueError):
    """The user's mistake; the message names the value, the place and the mend (exit code 2)."""

"""Fixtures for all tests of the starters."""

from starters import same_limit, slurm

__all__ = ["same_limit", "slurm"]

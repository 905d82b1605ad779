"""What is raised of parameters is printed of flags."""

from __future__ import annotations

import pytest

from fairdedup.errors import flags_for_parameters

OPTIONS = {"keep", "at_most", "rule", "always_keep", "eps", "cover"}


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("give `keep` or `at_most`", "give --keep or --at-most"),
        (
            "`keep=0.5` of 10 rows is 5: give at least `keep=0.6`",
            "--keep 0.5 of 10 rows is 5: give at least --keep 0.6",
        ),
        ("`rule=semdedup-chain` and `always_keep`", "--rule semdedup-chain and --always-keep"),
        ("`embeddings` have shape (3,)", "`embeddings` have shape (3,)"),  # no option of the command line
        ("`seed=3`", "`seed=3`"),
        ("run `fairdedup prune RUN --keep 0.5`", "run `fairdedup prune RUN --keep 0.5`"),
        ("`eps=`", "--eps "),
        ("`cover=True` or `cover=False`", "--cover or --no-cover"),
        ("no quotes: keep", "no quotes: keep"),
        ("`keep", "`keep"),
    ],
)
def test_parameters_in_backquotes_become_flags(message: str, printed: str) -> None:
    assert flags_for_parameters(message, OPTIONS) == printed

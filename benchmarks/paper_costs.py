"""Write the tables of hours and money in docs/repeat-the-paper.md from published rates, `fairdedup plan` and prices.

python benchmarks/paper_costs.py [--check]

Each assumption is a constant here and stands on the page. Nothing here was measured by running these steps.
"""

from __future__ import annotations

import argparse
import re

from results_file import ROOT

from fairdedup.commands.plan import PlanOptions, plan_run
from fairdedup.planning.run_needs import RunNeeds

PAGE = ROOT / "docs" / "repeat-the-paper.md"
PLACE = re.compile(r"(<!-- costs: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
GPU_HOUR, CORE_HOUR, GIGABYTE_MONTH = 2.00, 0.05, 0.02  # dollars, assumed
IMAGES_PER_SECOND = 700  # of a GPU that embeds with ViT-B/16, assumed
DOWNLOADED_PER_SECOND, DOWNLOAD_CORES = 1300, 16  # img2dataset's page on LAION-400M
LAION, LAION_BYTES = 400_000_000, 10e12  # img2dataset's page on LAION-400M
EPOCHS, B16_HOURS, B32_HOURS = 32, 10_700, 4_600  # open_clip's page of weights: A100 hours on LAION-400M
KEEP, RULES, WORKERS, GPUS = 0.5, 3, 64, 8
SMALL, SMALL_METADATA, SMALL_SHARDS = 12_800_000, 78e9, 450e9  # DataComp's README: pool, and bytes
SMALL_MODELS, SEEDS = 5, 5
ONCE = ("train k-means", "assign")  # stages that all rules share
HEAD = ("| step | amount | source | hours | dollars |", "|---|---|---|---|---|")


def plan_laion() -> RunNeeds:
    """Return what `fairdedup plan` says of LAION-400M."""
    images = round(LAION_BYTES / LAION)
    return plan_run(
        PlanOptions(LAION, 512, KEEP, 50_000, None, WORKERS, GPUS, float(IMAGES_PER_SECOND), image_bytes=images)
    )


def plan_small() -> RunNeeds:
    """Return what `fairdedup plan` says of DataComp's small pool, whose embeddings are ready."""
    return plan_run(PlanOptions(SMALL, 768, KEEP, workers=GPUS))


def decide_hours(needs: RunNeeds, rules: int) -> float:
    """Return the hours of clustering once and of deciding by several rules, without stages that were not measured."""
    known = {stage.name: stage.hours for stage in needs.stages if stage.hours is not None and stage.name != "embed"}
    once = sum(hours for name, hours in known.items() if name in ONCE)
    return once + rules * (sum(known.values()) - once)


def training_hours(full: float, seen: float) -> float:
    """Return GPU hours of a training that sees some samples, from those of 32 epochs of LAION-400M."""
    return full * seen / (EPOCHS * LAION)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _money(dollars: float) -> str:
    return f"{dollars:,.0f}" if dollars >= 1 else f"{dollars:.1f}"


def laion_table() -> list[str]:
    """Return the costs of one model of each rule on half of LAION-400M."""
    needs = plan_laion()
    download = LAION / DOWNLOADED_PER_SECOND / 3600
    embed = next(stage.hours for stage in needs.stages if stage.name == "embed") or 0.0
    decide = decide_hours(needs, RULES)
    train = training_hours(B16_HOURS, KEEP * LAION * EPOCHS)
    disk = LAION_BYTES * (1 + RULES * KEEP) + needs.disk
    stages = name_not_measured(needs)
    month = disk / 1e9 * GIGABYTE_MONTH
    return [
        *HEAD,
        _row("download", f"{LAION:,} images",
             f"published, {DOWNLOADED_PER_SECOND:,} a second on {DOWNLOAD_CORES} cores",
             f"{download:.0f}", _money(download * DOWNLOAD_CORES * CORE_HOUR)),
        _row("embed", f"{GPUS} GPUs", f"assumed, {IMAGES_PER_SECOND} images a second a GPU", f"{embed:.1f}",
             _money(embed * GPUS * GPU_HOUR)),
        _row("cluster, and decide by three rules", f"{WORKERS} cores",
             f"`fairdedup plan`, scaled{stages}", f"over {decide:.1f}",
             f"over {_money(decide * WORKERS * CORE_HOUR)}"),
        _row("train three models", f"{RULES} × {train:,.0f} GPU hours", "half of the published hours",
             f"{train / 176:.0f} each on 176 GPUs", _money(RULES * train * GPU_HOUR)),
        _row("evaluate", "3 checkpoints", "not measured", "", ""),
        _row("disk", f"{disk / 1e12:.0f} TB", "published, and `fairdedup plan`", "a month", _money(month)),
    ]  # fmt: skip


def name_not_measured(needs: RunNeeds) -> str:
    """Return the stages whose hours are not in the sum, as the end of a sentence; empty without one."""
    return f"; {', '.join(needs.not_measured)} not measured" if needs.not_measured else ""


def small_table() -> list[str]:
    """Return the costs of DataComp's small track: five training sets with five seeds each."""
    needs = plan_small()
    download = SMALL / DOWNLOADED_PER_SECOND / 3600
    decide = decide_hours(needs, RULES)
    train = training_hours(B32_HOURS, SMALL)
    models = SMALL_MODELS * SEEDS
    disk = SMALL_METADATA + SMALL_SHARDS * (1 + (SMALL_MODELS - 1) * KEEP) + needs.disk
    stages = name_not_measured(needs)
    return [
        *HEAD,
        _row("download", f"{SMALL:,} images", "at the rate above, which is for smaller images",
             f"over {download:.1f}", f"over {_money(download * DOWNLOAD_CORES * CORE_HOUR)}"),
        _row("cluster, and decide by three rules", f"{GPUS} cores",
             f"`fairdedup plan`, scaled{stages}", f"over {decide:.1f}",
             f"over {_money(decide * GPUS * CORE_HOUR)}"),
        _row(f"train {models} models", f"{models} × {train:.1f} GPU hours",
             "published hours of ViT-B/32 on LAION-400M, by samples seen",
             f"{models * train / GPUS:.0f} on {GPUS} GPUs", _money(models * train * GPU_HOUR)),
        _row("38 evaluations", f"{models} checkpoints", "not measured", "", ""),
        _row("disk", f"{disk / 1e12:.1f} TB", "DataComp's README, and `fairdedup plan`", "a month",
             _money(disk / 1e9 * GIGABYTE_MONTH)),
    ]  # fmt: skip


TABLES = {"laion": laion_table, "datacomp": small_table}


def fill_tables(page: str) -> str:
    """Return the page with its tables written anew."""
    return PLACE.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if the page differs")
    args = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    if args.check and fill_tables(text) != text:
        raise SystemExit(f"{PAGE.name} differs: run python benchmarks/paper_costs.py")
    if not args.check:
        PAGE.write_text(fill_tables(text), encoding="utf-8")


if __name__ == "__main__":
    main()

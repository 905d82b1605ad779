"""Renders the page: one HTML file that holds all that it needs, and loads nothing.

Text of the data is escaped by Jinja or set as text by the script. Only the page's own script may run: its hash is in
the page's policy, which forbids everything else, the network included.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from markupsafe import Markup, escape

from fairdedup.errors import format_count, format_seconds, visible
from fairdedup.report import plots
from fairdedup.report.html_templates import read_template, render
from fairdedup.report.map_columns import PackedMap, pack_map
from fairdedup.report.pictures import Thumbnails
from fairdedup.report.report_figures import Neighbourhood, ReportFigures, ShownSample
from fairdedup.stage_names import show_name

MOST_BYTES = 15_000_000  # of the page
RESERVE = 20_000  # bytes of the sentences that depend on the map
STAGES = 12


def render_page(
    figures: ReportFigures,
    thumbnails: Thumbnails,
    *,
    leftover: list[str],
    guarantees: list[tuple[bool, str]],
    removed: str = "",
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    figures : ReportFigures
    thumbnails : Thumbnails
    leftover : list of str
        Sentences about what is left.
    guarantees : list of (bool, str)
        What was checked, and whether it holds.
    removed : str
        Sentence about removed samples that are no near-duplicates; empty without one.
    """
    data, empty = _build_data(figures, thumbnails), PackedMap(None, [], 0)
    words: dict[str, Any] = {"leftover": leftover, "guarantees": guarantees, "removed": removed}
    if figures.map is None:
        return _render(figures, thumbnails, data, empty, **words)
    bare = _render(figures, thumbnails, data, empty, **words)
    room = MOST_BYTES - RESERVE - len(bare.encode("utf-8", "backslashreplace"))
    return _render(figures, thumbnails, data, pack_map(figures.map, thumbnails.small, room), **words)


def _render(
    figures: ReportFigures,
    thumbnails: Thumbnails,
    data: dict[str, Any],
    packed: PackedMap,
    *,
    leftover: list[str],
    guarantees: list[tuple[bool, str]],
    removed: str,
) -> str:
    script = read_template("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render(
        "report.html",
        figures=figures,
        manifest=figures.manifest,
        counts=figures.manifest.counts,
        options=figures.options,
        sentence=describe_run(figures),
        facts=_list_facts(figures),
        plots=_draw_plots(figures),
        leftover=leftover,
        guarantees=guarantees,
        remarks=[_mark_options(line) for line in (removed, figures.suggestion) if line],
        remark=thumbnails.remark,
        noun=_noun(figures),
        close=int(figures.similarities[19_500:].sum()),
        seconds=format_seconds(sum(time.seconds for time in figures.manifest.stages.values())),
        style=Markup(read_template("report.css")),
        script=Markup(script),
        digest=digest,
        data=_embed_json({**data, "map": packed.data}),
        packed=packed,
        has_pictures=bool(thumbnails.urls),
    )


def _noun(figures: ReportFigures) -> str:
    return "pictures" if figures.manifest.input.kind == "images" else "samples"


def describe_run(figures: ReportFigures) -> str:
    """Return one sentence that says what the run did."""
    counts, eps = figures.manifest.counts, figures.manifest.eps
    noun = _noun(figures)
    kept = f"Of {counts.valid:,} {noun if counts.valid != 1 else noun[:-1]}, {counts.kept:,} are kept"
    if not counts.removed:
        return f"{kept}: nothing was removed."
    whole = figures.manifest.guarantees.every_removed_has_a_kept_representative
    if eps is None or not whole:
        return f"{kept} and {counts.removed:,} removed, by the rule {figures.options['rule']}."
    others = f"each of the other {counts.removed:,}" if counts.removed > 1 else "the other one"
    return f"{kept}; {others} resembles a kept one, with a cosine above {1 - eps:.4g}."


def _list_facts(figures: ReportFigures) -> list[tuple[str, str]]:
    """Return what a reader needs to know of the run, by its name."""
    manifest, options = figures.manifest, figures.options
    facts = [("rule", str(options["rule"]))]
    if manifest.eps is not None:
        facts.append(("eps", f"{manifest.eps:.4f}"))
    if manifest.encoder is not None:
        tag = f", {manifest.encoder.pretrained}" if manifest.encoder.pretrained else ""
        facts.append(("encoder", f"{manifest.encoder.model}{tag}"))
    facts.append(("clusters", f"{manifest.clusters:,}"))
    if options.get("within"):
        facts.append(("within", str(options["within"])))
    drawn = manifest.input.format == "sample"
    facts.append(("input", "the built-in sample" if drawn else visible(manifest.input.source)))
    if manifest.fairdedup:
        facts.append(("version", manifest.fairdedup))
    return facts


def _mark_options(sentence: str) -> Markup:
    """Return a sentence in which an option and its value are code, which is not broken at the end of a line."""
    return Markup(re.sub(r"--[a-z-]+ [\d.]+", r"<code>\g<0></code>", str(escape(sentence))))


def _draw_plots(figures: ReportFigures) -> dict[str, Any]:
    manifest = figures.manifest
    removed = bool(figures.similarities.any())
    stages = [(show_name(name), time.seconds) for name, time in manifest.stages.items() if time.seconds >= 0.05]
    if len(stages) > STAGES + 1:  # the longest, in their order
        floor = sorted((seconds for _, seconds in stages), reverse=True)[STAGES - 1]
        rest = [(name, seconds) for name, seconds in stages if seconds < floor]
        stages = [(name, seconds) for name, seconds in stages if seconds >= floor]
        stages.append((format_count(len(rest), "other"), sum(seconds for _, seconds in rest)))
    threshold = None if manifest.eps is None else 1 - manifest.eps
    return {
        "curve": plots.draw_curve(figures.similarities, manifest.counts.valid, manifest.eps)
        if removed and manifest.eps
        else None,
        "histogram": plots.draw_histogram(figures.similarities, threshold) if removed else None,
        "sizes": plots.draw_cluster_sizes(figures.sizes) if figures.sizes[:, 0].any() else None,
        "stages": plots.draw_stages(stages) if stages else None,
        "groups": []
        if figures.groups is None
        else [(each.attribute, plots.draw_groups(each)) for each in figures.groups.attributes],
    }


def _embed_json(data: dict[str, Any]) -> Markup:
    """Return JSON that cannot end the element that it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _build_data(figures: ReportFigures, thumbnails: Thumbnails) -> dict[str, Any]:
    return {
        "eps": figures.manifest.eps,
        "valid": figures.manifest.counts.valid,
        "kept": figures.manifest.counts.kept,
        "removed": figures.manifest.counts.removed,
        "noun": _noun(figures),
        "samples": {row: _pack_sample(sample, thumbnails) for row, sample in figures.samples.items()},
        "gallery": [_pack_neighbourhood(each) for each in figures.gallery],
        "bands": [
            {
                "low": round(band.low, 4),
                "high": round(band.high, 4),
                "count": band.count,
                "pairs": [[pair.first, pair.second, round(pair.cosine, 6)] for pair in band.pairs],
            }
            for band in figures.bands
        ],
        "outliers": figures.outliers,
    }


def _pack_sample(sample: ShownSample, thumbnails: Thumbnails) -> dict[str, Any]:
    packed: dict[str, Any] = {
        "id": sample.id,
        "kept": sample.kept,
        "again": sample.readmitted,
        "cluster": sample.cluster,
        "owner": sample.representative,
        "cosine": None if sample.similarity is None else round(sample.similarity, 6),
        "centre": round(sample.centroid_similarity, 4),
        "caption": sample.caption,
        "width": sample.width,
        "height": sample.height,
        "bytes": sample.bytes,
        "url": thumbnails.urls.get(sample.row),
    }
    return {name: value for name, value in packed.items() if value is not None and value is not False}


def _pack_neighbourhood(each: Neighbourhood) -> dict[str, Any]:
    lost = None if each.lost is None else [each.lost.attribute, each.lost.group, each.lost.loss]
    members = [[row, round(cosine, 6)] for row, cosine in each.members]
    return {"row": each.row, "size": each.size, "least": round(each.least, 6), "lost": lost, "members": members}

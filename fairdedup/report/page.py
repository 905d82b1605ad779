"""Renders the page: one HTML file that holds all that it needs, and loads nothing.

Text of the data is escaped by Jinja or set as text by the script. Only the page's own script may run: its hash is in
the page's policy, which forbids everything else, the network included.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from fairdedup.errors import format_count, visible
from fairdedup.report import plots
from fairdedup.report.html_templates import read_template, render
from fairdedup.report.pictures import Thumbnails
from fairdedup.report.report_figures import EmbeddingMap, Neighbourhood, ReportFigures, ShownSample
from fairdedup.stage_names import show_name

WITH_LINKS = 250_000  # points up to which the map knows who stands for each
MOST_TEXT = 2_600_000  # bytes that all ids, or all captions, may take on the page; else only those shown are searched
STAGES = 12
NONE = 65_535


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
        seconds=plots.format_seconds(sum(time.seconds for time in figures.manifest.stages.values())),
        style=Markup(read_template("report.css")),
        script=Markup(script),
        digest=digest,
        data=_embed_json(_build_data(figures, thumbnails)),
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
        "map": None if figures.map is None else _pack_map(figures.map),
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


def _pack_map(points: EmbeddingMap) -> dict[str, Any]:
    """Return the columns of the map, each compressed and as base64."""
    number = len(points.rows)
    columns: dict[str, Any] = {
        "x": points.x,
        "y": points.y,
        "kept": points.kept.astype(np.uint8),
        "cluster": (points.cluster % NONE).astype(np.uint16),
        "step": np.diff(points.rows, prepend=0).astype(np.uint32),
    }
    if number <= WITH_LINKS:
        place = np.searchsorted(points.rows, points.representative).clip(max=number - 1)
        known = (points.representative >= 0) & (points.rows[place] == points.representative)
        columns["owner"] = np.where(known, place, -1).astype(np.int32)
        units = np.where(np.isnan(points.similarity), NONE, np.rint((points.similarity + 1) * 10_000))
        columns["cosine"] = units.clip(0, NONE).astype(np.uint16)
    packed: dict[str, Any] = {
        "n": number,
        "among": points.among,
        "explained": round(points.explained, 4),
        "columns": {name: _compress(values.tobytes()) for name, values in columns.items()},
        "groups": [
            {"name": name, "groups": points.names[name], "codes": _compress(codes.tobytes())}
            for name, codes in points.groups.items()
        ],
    }
    for name, texts in (("ids", points.ids), ("captions", points.captions)):
        if texts is not None:
            column = _compress(json.dumps(texts, ensure_ascii=False).encode("utf-8", "backslashreplace"))
            if len(column) <= MOST_TEXT:
                packed[name] = column
    return packed


def _compress(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()

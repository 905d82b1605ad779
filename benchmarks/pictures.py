"""Draw the pictures of the documentation: the committed figures of the sample, the rules, the parts of the package.

python benchmarks/pictures.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from architecture_picture import draw_architecture
from results_file import RESULTS, ROOT, read_results
from study_pictures import draw_study
from svg_parts import MONO, text, wrap

PLACE = ROOT / "docs" / "img"
STUDY = "train_on_subsets"  # its results come after its plan


def draw_result(results: dict[str, Any]) -> str:
    """Return the bars of the sample: rare people among those kept, and kept samples that still have a duplicate.

    Parameters
    ----------
    results : dict
        Content of benchmarks/results/sample.json.
    """
    group = results["groups"]["dark or older (any rare)"]
    left, top, step, wide = 186, 84, 30, 250
    most, before = 34.0, group["before"]
    body = [
        text(24, 32, "Half of a sample is kept. Who is in it?", more=' font-size="17" font-weight="600"'),
        text(left, 62, f"rare people among those kept (before: {before:.1f} %)", "soft"),
        text(left + wide + 110, 62, "kept pictures with a kept duplicate", "soft"),
    ]
    for k, (rule, rest) in enumerate(results["duplicates left"].items()):
        y = top + k * step
        share = group[rule]["share"]
        body += [
            text(24, y + 14, rule, more=f' font-family="{MONO}" font-size="12"'),
            f'<rect class="bar" x="{left}" y="{y}" width="{wide * share / most:.1f}" height="18" rx="3"/>',
            text(left + wide * share / most + 6, y + 14, f"{share:.1f} %"),
            f'<rect class="{"good" if rest < 0.5 else "bad"}" x="{left + wide + 110}" y="{y}" '
            f'width="{max(2, 180 * rest / 20):.1f}" height="18" rx="3"/>',
            text(left + wide + 116 + max(2, 180 * rest / 20), y + 14, f"{rest:.1f} %"),
        ]
    bottom = top + step * len(results["duplicates left"])
    x = left + wide * before / most
    body += [
        f'<path class="line" stroke-dasharray="3 3" d="M{x:.1f} {top - 6}V{bottom - 8}"/>',
        text(24, bottom + 14, f"Drawn pictures, {results['repeats']} clusterings each. --published is the papers' own "
             "procedure; the last three have the defaults.", "soft", ' font-size="12"'),
    ]  # fmt: skip
    title = "The share of rare people, and of duplicates, in what each rule keeps of the drawn sample"
    return wrap(860, bottom + 30, title, body)


# The rules, in small pictures. Each has the same seven points, of which three are rare (diamonds).

POINTS = ((62, 72), (84, 52), (84, 92), (56, 102), (78, 116), (96, 72), (108, 106))
RARE = (5, 6)
CENTRE = (190, 98)
OUTSIDE = ((160, 62), (168, 142))


def draw_points(kept: Sequence[int]) -> list[str]:
    """Return the points of a cluster: filled where they are kept, and ringed; the cross is the centroid."""
    out = [f'<path class="line" stroke-width="2" d="M{CENTRE[0] - 6} {CENTRE[1]}h12m-6 -6v12"/>']
    for k, (x, y) in enumerate(POINTS):
        kind = "bad" if k in RARE else "bar"
        shape = (
            f'<path class="{kind}" d="M{x} {y - 8}L{x + 8} {y}L{x} {y + 8}L{x - 8} {y}Z"/>'
            if k in RARE
            else f'<circle class="{kind}" cx="{x}" cy="{y}" r="6.5"/>'
        )
        out.append(shape if k in kept else shape.replace('"/>', '" fill-opacity=".35"/>'))
        if k in kept:
            out.append(f'<circle class="kept" cx="{x}" cy="{y}" r="12"/>')
    for x, y in OUTSIDE:
        out.append(f'<circle class="open" cx="{x}" cy="{y}" r="6.5"/>')
    return out


def draw_rules() -> str:
    """Return who is kept of one neighbourhood by four rules."""
    panels = (
        ("semdedup", ("the leader:", "farthest from the centroid"), (3,)),
        ("fairdedup", ("most like the concept", "that has had the least so far"), (5,)),
        ("balanced", ("rare in the whole data set,", "and still like its neighbours"), (6,)),
        ("prefer", ("the highest value", "of a column of yours"), (1,)),
    )
    body = []
    for k, (rule, why, kept) in enumerate(panels):
        body += [
            f'<g transform="translate({14 + 222 * k} 38)">',
            text(8, 0, rule, more=f' font-family="{MONO}" font-size="15" font-weight="600"'),
            *(text(8, 18 + 15 * line, words, "soft", ' font-size="12"') for line, words in enumerate(why)),
            '<g transform="translate(0 12)">',
            '<circle class="area" cx="80" cy="88" r="54"/>',
            *draw_points(kept),
            "</g></g>",
        ]
    return wrap(912, 206, "One neighbourhood, and which member each rule keeps", body)


def draw_cover() -> str:
    """Return what cover changes: the kept one removes its own duplicates, and a member that is none stays."""
    body = []
    panels = (
        ("--no-cover (--published)", "the whole neighbourhood of the leader is removed", (6,), None),
        (
            "--cover (default)",
            "it removes its own duplicates; another step takes the rest",
            (6, 1),
            POINTS[6],
        ),
    )
    for k, (name, why, kept, reach) in enumerate(panels):
        around = [] if reach is None else [f'<circle class="area" cx="{reach[0]}" cy="{reach[1]}" r="58"/>']
        body += [
            f'<g transform="translate({24 + 400 * k} 46)">',
            text(8, 0, name, more=f' font-family="{MONO}" font-size="14" font-weight="600"'),
            text(8, 20, why, "soft", ' font-size="11"'),
            '<circle class="area" cx="56" cy="102" r="58"/>',
            *around,
            *draw_points(kept),
            "</g>",
        ]
    return wrap(840, 226, "Without cover a removed sample may be no duplicate of the kept one", body)


def draw_across() -> str:
    """Return two duplicates on both sides of a border between clusters."""
    body = []
    for k, (name, why) in enumerate(
        (
            ("within clusters (--reach 0)", "both are kept: they are not compared"),
            ("across clusters (default)", "they are near the border, so they are compared"),
        )
    ):
        x = 24 + 400 * k
        body += [
            f'<g transform="translate({x} 46)">',
            text(8, 0, name, more=' font-size="14" font-weight="600"'),
            text(8, 20, why, "soft", ' font-size="12"'),
            '<path class="line" stroke-dasharray="6 4" d="M190 36V176"/>',
            *(f'<path class="line" stroke-width="2" d="M{c} 106h12m-6 -6v12"/>' for c in (84, 286)),
            *(
                f'<circle class="open" cx="{a}" cy="{b}" r="6.5"/>'
                for a, b in ((60, 70), (110, 140), (70, 150), (300, 66), (320, 140), (260, 160))
            ),
            '<circle class="bar" cx="178" cy="104" r="6.5"/>',
            '<circle class="kept" cx="178" cy="104" r="12"/>',
            f'<circle class="bar" cx="204" cy="110" r="6.5" fill-opacity="{0.35 if k else 1}"/>',
            *(['<path class="line" stroke-width="2" d="M188 106L198 108"/>'] if k else []),
            *([] if k else ['<circle class="kept" cx="204" cy="110" r="12"/>']),
            "</g>",
        ]
    return wrap(840, 240, "Duplicates on both sides of a border between clusters", body)


def draw_all() -> dict[str, str]:
    """Return the name and content of every picture that needs no run."""
    study = draw_study(read_results(STUDY)) if (RESULTS / f"{STUDY}.json").is_file() else {}
    return {
        **study,
        "result.svg": draw_result(read_results("sample")),
        "rules.svg": draw_rules(),
        "cover.svg": draw_cover(),
        "across.svg": draw_across(),
        "architecture.svg": draw_architecture(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    for name, content in draw_all().items():
        (PLACE / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()

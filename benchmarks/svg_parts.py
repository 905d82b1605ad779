"""The parts of a drawn picture of the documentation: style, card and text."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

STYLE = """<style>
.card{fill:#fff;stroke:#d5dae1}.ink{fill:#1d2530}.soft{fill:#5a6675}.bar{fill:#5b8fd6}.good{fill:#2b8a57}.bad{fill:#c9560f}
.line{stroke:#98a2af;fill:none}.area{fill:#5a6675;fill-opacity:.08;stroke:#98a2af;stroke-dasharray:4 3}
.kept{fill:none;stroke:#2b8a57;stroke-width:3}.open{fill:none;stroke:#98a2af;stroke-width:1.5}
@media(prefers-color-scheme:dark){.card{fill:#161b22;stroke:#30363d}.ink{fill:#e6edf3}.soft{fill:#9aa5b1}.bar{fill:#6ea3ea}
.good{fill:#4cc38a}.bad{fill:#ef7a2e}.kept{stroke:#4cc38a}.area{fill:#9aa5b1}}
</style>"""
MONO = "ui-monospace, 'DejaVu Sans Mono', monospace"
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def wrap(width: int, height: int, title: str, body: Sequence[str]) -> str:
    """Return a whole SVG file with a card behind the body."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-labelledby="title" font-family="{FONT}" font-size="13">',
            f'<title id="title">{escape(title)}</title>',
            STYLE,
            f'<rect class="card" x="1" y="1" width="{width - 2}" height="{height - 2}" rx="12"/>',
            *body,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, kind: str = "ink", more: str = "") -> str:
    """Return a line of text."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}"{more}>{escape(words)}</text>'

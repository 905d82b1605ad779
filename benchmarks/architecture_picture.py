"""Draw docs/img/architecture.svg: the parts of the package, and which of them import which."""

from __future__ import annotations

import re
from dataclasses import dataclass

from svg_parts import MONO, text, wrap

LINE = 16  # pixels between lines of a box


@dataclass(frozen=True)
class Box:
    """A part of the package: where its box is, its name, and what it does in short lines."""

    x: float
    y: float
    width: float
    name: str
    job: tuple[str, ...]

    @property
    def height(self) -> float:
        """Height of the box."""
        return 34 + LINE * len(self.job)

    @property
    def middle(self) -> float:
        """Where arrows from and to the sides are."""
        return self.y + self.height / 2

    @property
    def bottom(self) -> float:
        """Lower edge."""
        return self.y + self.height

    def draw(self) -> list[str]:
        """Return the elements of the box."""
        return [
            f'<rect class="box" x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" height="{self.height:g}" rx="8"/>',
            text(self.x + 12, self.y + 21, self.name, more=f' font-family="{MONO}" font-weight="600"'),
            *(
                text(self.x + 12, self.y + 39 + LINE * k, line, "soft", ' font-size="12"')
                for k, line in enumerate(self.job)
            ),
        ]


CLI = Box(236, 24, 200, "cli/", ("parses, calls, prints",))
API = Box(680, 24, 156, "api.py", ("deduplicate(),", "in memory"))
COMMANDS = Box(236, 108, 200, "commands/", ("a file for each command;", "run.py is a whole run"))
REPORT = Box(24, 216, 180, "report/", ("the page about a run",))
AUDIT = Box(24, 308, 180, "audit/", ("who was kept, by group",))
PREPARATION = Box(
    468, 204, 180, "preparation/", ("options, input, encoder,", "prototypes; each stage", "is started and recorded")
)
WORKERS = Box(672, 212, 110, "workers.py", ("Dask, or none", "if it is small"))
INCREMENTAL = Box(468, 316, 180, "incremental/", ("earlier runs: what is", "inherited, what drifts"))
STAGES = Box(236, 424, 200, "stages/", ("embed, cluster, prune,", "write: values in and out"))
ENCODERS = Box(24, 544, 180, "encoders/", ("images and texts", "become vectors"))
DATASETS = Box(236, 544, 160, "datasets/", ("a class for each", "format of an input"))
STORAGE = Box(438, 544, 180, "storage/", ("files of a run,", "typed and sealed"))
CORE = Box(660, 544, 176, "core/", ("the decision: arrays", "in, arrays out"))
RULES = Box(660, 644, 176, "core/rules/", ("a class for each rule",))
BOXES = (
    *(CLI, API, COMMANDS, REPORT, AUDIT, PREPARATION, WORKERS, INCREMENTAL, STAGES, ENCODERS, DATASETS, STORAGE, CORE),
    RULES,
)
LOOK = """<style>.box{fill:#f4f6f9;stroke:#c4ccd6}.tip{fill:#98a2af}.arrow{stroke:#98a2af;fill:none;stroke-width:1.5}
@media(prefers-color-scheme:dark){.box{fill:#1f2630;stroke:#3d4651}}</style>"""


def list_arrows() -> list[str]:
    """Return the way of each arrow, as SVG writes it."""
    spine, right = 336, 808  # where commands/ reaches stages/, and where api.py reaches core/
    bus = STAGES.bottom + 24
    middle = STORAGE.x + STORAGE.width / 2
    return [
        f"M{spine} {CLI.bottom}V{COMMANDS.y}",
        f"M{COMMANDS.x} {COMMANDS.middle}H114V{REPORT.y}",
        f"M262 {COMMANDS.bottom}V{AUDIT.middle}H{AUDIT.x + AUDIT.width}",
        f"M{spine} {COMMANDS.bottom}V{STAGES.y}",
        f"M{COMMANDS.x + COMMANDS.width} {COMMANDS.middle}H558V{PREPARATION.y}",
        f"M114 {REPORT.bottom}V{AUDIT.y}",
        f"M114 {AUDIT.bottom}V{STAGES.middle}H{STAGES.x}",
        f"M{PREPARATION.x + PREPARATION.width} {WORKERS.middle}H{WORKERS.x}",
        f"M558 {PREPARATION.bottom}V{INCREMENTAL.y}",
        f"M558 {INCREMENTAL.bottom}V{STAGES.middle}H{STAGES.x + STAGES.width}",
        f"M{right} {API.bottom}V{CORE.y}",
        f"M{spine} {STAGES.bottom}V{bus}H114V{ENCODERS.y}",
        f"M{spine} {bus}V{DATASETS.y}",
        f"M{spine} {bus}H{middle}V{STORAGE.y}",
        f"M{middle} {bus}H748V{CORE.y}",
        f"M{DATASETS.x + DATASETS.width} {DATASETS.middle}H{STORAGE.x}",
        f"M748 {CORE.bottom}V{RULES.y}",
    ]


def draw_arrow(way: str) -> str:
    """Return a line of horizontal and vertical pieces with a tip at its end."""
    pieces = re.findall(r"([MHV])([\d.]+)(?: ([\d.]+))?", way)
    x, y = float(pieces[0][1]), float(pieces[0][2])
    turn = 0
    for kind, to, _ in pieces[1:]:
        before = x if kind == "H" else y
        ahead = float(to) > before
        x, y = (float(to), y) if kind == "H" else (x, float(to))
        turn = (0 if ahead else 180) if kind == "H" else (90 if ahead else 270)
    tip = f'<path class="tip" transform="translate({x:g} {y:g}) rotate({turn})" d="M0 0L-8 -4.5V4.5z"/>'
    return f'<path class="arrow" d="{way}"/>{tip}'


def draw_architecture() -> str:
    """Return the picture of the package."""
    body = [LOOK, *map(draw_arrow, list_arrows()), *(line for box in BOXES for line in box.draw())]
    return wrap(860, 718, "The parts of the package, from the command line down to the rules", body)

"""Results as a picture: bars on a logarithmic scale, drawn by hand, so that nothing has to be installed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from benchmarks.host import Host
from benchmarks.report import number
from benchmarks.results import Row, Table

WIDTH: Final = 960
LEFT: Final = 290
"""Where bars begin; the names stand before."""
RIGHT: Final = 80
"""What the figure behind the longest bar needs."""
BAR: Final = 12
GAP: Final = 9
HEAD: Final = 64
"""From the top of a panel to its first bar."""
FOOT: Final = 44
COLOURS: Final = ("#2b6cb0", "#e08e45", "#7a9e7e")
"""Of the columns; they differ in grey too."""
_STYLE: Final = (
    "text { font: 12px sans-serif; fill: #222 } .title { font-size: 15px; font-weight: bold } "
    ".small { font-size: 10px; fill: #666 } .ours { font-weight: bold } .grid { stroke: #ddd }"
)


def drawn(tables: Sequence[Table], host: Host) -> str:
    """The medians of all tables, a panel each, as SVG."""
    parts: list[str] = []
    top = 10.0
    for table in tables:
        panel = _Panel(table, top)
        parts += panel.parts()
        top = panel.bottom
    foot = f"{host.date}, {host.python} on {host.system}, {host.cores} cores ({host.processor}). Medians, log scale."
    parts.append(_text(10, top + 14, foot, "small"))
    box = f'viewBox="0 0 {WIDTH} {top + 26:g}" width="{WIDTH}" height="{top + 26:g}"'
    lines = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f"<style>{_STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    )
    return "\n".join((*lines, *parts, "</svg>", ""))


@dataclass(frozen=True, slots=True)
class _Panel:
    """One table, from a place downwards."""

    table: Table
    top: float

    @property
    def bottom(self) -> float:
        """Where the next one begins."""
        return self.top + HEAD + self._step * len(self.table.rows) + FOOT

    def parts(self) -> Iterator[str]:
        """All of it."""
        yield _text(10, self.top + 20, self.table.title, "title")
        yield from self._legend()
        yield from self._grid()
        for at, row in enumerate(self.table.rows):
            yield from self._bars(row, self.top + HEAD + at * self._step)

    @property
    def _step(self) -> int:
        return len(self.table.columns) * BAR + GAP

    def _decades(self) -> range:
        """The powers of ten of the scale; the least bar has some length."""
        figures = [self.table.figure(row, column).median for row in self.table.rows for column in self.table.columns]
        return range(math.floor(math.log10(min(figures)) - 0.2), math.ceil(math.log10(max(figures))) + 1)

    def _x(self, value: float) -> float:
        decades = self._decades()
        part = (math.log10(value) - decades[0]) / (decades[-1] - decades[0])
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def _legend(self) -> Iterator[str]:
        x = LEFT
        for column, colour in zip(self.table.columns, COLOURS, strict=False):
            yield f'<rect x="{x}" y="{self.top + 34:g}" width="10" height="10" fill="{colour}"/>'
            yield _text(x + 15, self.top + 43, f"{column}, {self.table.unit.name}")
            x += 60 + 7 * len(f"{column}, {self.table.unit.name}")

    def _grid(self) -> Iterator[str]:
        first, last = self.top + HEAD - 6, self.bottom - FOOT
        for decade in self._decades():
            x = self._x(10.0**decade)
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{first:g}" y2="{last:g}"/>'
            yield _text(x, last + 13, f"{10.0**decade:g}", "small", "middle")

    def _bars(self, row: Row, top: float) -> Iterator[str]:
        kind = "ours" if row.name == self.table.reference else ""
        middle = top + len(self.table.columns) * BAR / 2
        yield _text(LEFT - 8, middle + 4, row.name, kind, "end")
        for at, (column, colour) in enumerate(zip(self.table.columns, COLOURS, strict=False)):
            value = self.table.figure(row, column).median
            y, end = top + at * BAR, self._x(value)
            yield f'<rect x="{LEFT}" y="{y:g}" width="{end - LEFT:.1f}" height="{BAR - 2}" fill="{colour}"/>'
            yield _text(end + 4, y + BAR - 3, number(value), "small")


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    said = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{said}>{escape(text)}</text>'

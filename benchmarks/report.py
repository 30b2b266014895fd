"""Results as Markdown that reads well on a terminal too, as JSON, and in their place in a page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.errors import BenchmarkError
from benchmarks.host import Host
from benchmarks.measure import Figure
from benchmarks.results import Row, Table

BEGIN: Final = "<!-- written by `python -m benchmarks --write` -->"
END: Final = "<!-- the end of what it writes -->"


def markdown(table: Table) -> str:
    """One table under its title: of each figure the minimum and the median."""
    rows = [[row.name, *_figures(table, row), *map(str, row.words.values())] for row in table.rows]
    notes = ("", *table.notes) if table.notes else ()
    return "\n".join((f"### {table.title}", "", *_aligned([_head(table), *rows]), *notes, ""))


def to_json(tables: Iterable[Table], host: Host) -> str:
    """All results: figures in each table's unit, ratios to its reference, and the samples as they were measured."""
    found = {"host": dataclasses.asdict(host), "tables": [_table(each) for each in tables]}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def write_page(page: Path, text: str) -> None:
    """Put results into a page, between its marks. Raises BenchmarkError where it has none."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"{page} has no place for results: a line `{BEGIN}`, and later one `{END}`")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")


def number(value: float) -> str:
    """A figure in three digits or so."""
    digits = next((digits for bound, digits in ((100, 0), (10, 1), (0.1, 2), (0.01, 3)) if value >= bound), 4)
    return f"{value:.{digits}f}"


def _head(table: Table) -> list[str]:
    found = ["who"]
    for column in table.columns:
        found += [f"{column}, {table.unit.name}", f"{column}, ×"]
    return [*found, *table.rows[0].words]


def _figures(table: Table, row: Row) -> Iterator[str]:
    for column in table.columns:
        yield _cell(table.figure(row, column))
        yield "1" if row.name == table.reference else _cell(table.ratio(row, column))


def _cell(figure: Figure) -> str:
    minimum, median = number(figure.minimum), number(figure.median)
    return minimum if figure.minimum == figure.median else f"{minimum} / {median}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows of a table, the first one its head; columns of numbers to the right."""
    columns = [_Column(column) for column in zip(*rows, strict=True)]
    for at, row in enumerate(rows):
        yield f"| {' | '.join(column.padded(cell) for column, cell in zip(columns, row, strict=True))} |"
        if not at:
            yield f"| {' | '.join(column.rule() for column in columns)} |"


class _Column:
    def __init__(self, cells: Sequence[str]) -> None:
        self._width = max(map(len, cells))
        self._is_number = all(cell[0].isdigit() or cell == "-" for cell in cells[1:])

    def padded(self, cell: str) -> str:
        return cell.rjust(self._width) if self._is_number else cell.ljust(self._width)

    def rule(self) -> str:
        return "-" * (self._width - 1) + (":" if self._is_number else "-")


def _table(table: Table) -> dict[str, Any]:
    return {
        "case": table.case,
        "title": table.title,
        "unit": table.unit.name,
        "reference": table.reference,
        "rows": [_row(table, row) for row in table.rows],
        "notes": table.notes,
    }


def _row(table: Table, row: Row) -> dict[str, Any]:
    figures = {
        column: {
            **dataclasses.asdict(table.figure(row, column)),
            "ratio": dataclasses.asdict(table.ratio(row, column)),
            "samples": row.samples[column],
        }
        for column in table.columns
    }
    return {"who": row.name, "figures": figures, "words": row.words}

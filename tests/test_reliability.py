"""The rows of docs/reliability.md, in the numbers of each change."""

from __future__ import annotations

import re

import pytest
from reliability import PAGE, ROOT, ROWS, Scale


@pytest.mark.long
@pytest.mark.parametrize("number", sorted({*ROWS} - {30}))  # mutants wait for a release
def test_row(number: int) -> None:
    assert ROWS[number].run(Scale(release=False))


def test_the_page_has_every_row_with_a_figure() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE))
    assert set(rows) == {str(number) for number in range(1, 31)}
    assert all(figure.strip() for figure in rows.values())
    assert set(ROWS) == set(range(1, 31))


def test_the_tests_that_rows_run_are_there() -> None:
    """A test that is renamed leaves its row to fail in minutes."""
    source = (ROOT / "tests/reliability.py").read_text()
    for node in re.findall(r'"(tests/test_\w+\.py(?:::\w+)*)"', source):
        file, *names = node.split("::")
        text = (ROOT / file).read_text()
        assert [name for name in names if not re.search(rf"\b(?:def|class) {name}\b", text)] == [], node

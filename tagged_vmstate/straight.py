"""Straight Python, written and compiled for one table or one machine: what the fast path runs instead of loops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

PART: Final = 30
"""Values of one tuple, or arguments of one call: of more, Python makes a list first."""


def compiled(head: str, lines: Iterable[str], names: dict[str, Any]) -> Callable[..., Any]:
    """A function of some lines, under names of which it needs the values."""
    body = "\n ".join(lines)
    exec(f"def {head}:\n {body}", names)  # noqa: S102  # names of attributes, numbers and literals, nothing else
    found: Callable[..., Any] = names[head.partition("(")[0]]
    return found


def tuple_of(values: Sequence[str]) -> str:
    """A tuple of any length, as Python."""
    parts = (values[start : start + PART] for start in range(0, len(values), PART))
    return " + ".join(f"({', '.join(part)},)" for part in parts) or "()"

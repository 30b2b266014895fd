"""Paths as a person types them on a command line, and the nearest ones where none fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Final, TypeVar

import click

from tagged_vmstate.cli.files import Trouble
from tagged_vmstate.edit import fields
from tagged_vmstate.paths import Path, Pattern, format_path, parse_alias
from tagged_vmstate.snapshot import Snapshot

T = TypeVar("T")
CANDIDATES: Final = 10_000
"""Places among which the nearest are looked for: comparing takes longer than reading them."""
FEW: Final = 3
"""Places that are named in one sentence."""


def pattern(words: Iterable[str]) -> Pattern | None:
    """What is named by one word, or by DEVICE and FIELD; None for no word. Raises UsageError."""
    given = tuple(words)
    return usage(Pattern, "/".join(given)) if given else None


def alias(text: str) -> tuple[Pattern, str]:
    """``PATH=NAME``. Raises UsageError."""
    return usage(parse_alias, text)


def usage(parse: Callable[[str], T], text: str) -> T:
    """What a text says; a ValueError is one of usage."""
    try:
        return parse(text)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None


def not_found(wanted: Pattern, places: Iterable[tuple[str, Path]], what: str = "") -> Trouble:
    """That a path names nothing, with the nearest that are there, and the bytes that it may lie in.

    Args:
        wanted: The path.
        places: What there is: sections, or the fields of those that it may lie in.
        what: What it should name; a device or a field, unless given.
    """
    from tagged_vmstate.qemu.vmdesc import KEPT  # noqa: PLC0415  # only where something is wrong

    found = list(islice(places, CANDIDATES))
    kept = [format_path(*place) for place in found if place[1] and str(place[1][-1]).startswith(KEPT)]
    what = what or ("field" if any(path for _, path in found) else "device")
    names = dict.fromkeys(format_path(*place) for place in found)
    near = get_close_matches(wanted.text, names, FEW, 0.5) or get_close_matches(wanted.text.partition("/")[0], names, FEW, 0.5)
    hint = f"; near it: {', '.join(near)}" if near else ""
    if kept:
        few = ", ".join(kept[:FEW]) + (", ..." if len(kept) > FEW else "")
        hint = f": what could not be interpreted is kept as bytes, {few}{hint}"
    return Trouble(f"no {what} `{wanted.text}`{hint}")


def check_names(pattern: Pattern, *snapshots: Snapshot) -> None:
    """Raise Trouble where a path names nothing in any of some snapshots."""
    sections = [section for snapshot in snapshots for section in snapshot]
    near = [section for section in sections if pattern.may_lie_in(section.label)]
    places = [(section.label, target.path) for section in near for target in fields(section.records())]
    if not any(pattern.covers(*place) for place in places):
        raise not_found(pattern, places or [(section.label, ()) for section in sections])

"""Names as a person writes them: globs, and the nearest name where none fits."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from tagged_vmstate.cli.files import Trouble


def fits(name: str, pattern: str) -> bool:
    """Whether a name fits a glob; brackets stand for themselves, as QEMU's names hold them."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def not_found(what: str, pattern: str, seen: Iterable[str]) -> Trouble:
    """That nothing has a name, with the nearest ones that are there."""
    near = get_close_matches(pattern, list(seen), 3, 0.5)
    hint = f"; near it: {', '.join(near)}" if near else ""
    return Trouble(f"no {what} `{pattern}`{hint}")

"""Places in a snapshot: ``DEVICE#INSTANCE/field/sub[1]/count``, printed as it is typed.

A name that holds a slash, a bracket, a blank or anything else with a meaning is printed in double quotes, as a JSON string.
docs/paths.md has the grammar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias, cast

from tagged_vmstate.text import integer

PathPart: TypeAlias = str | int
Path: TypeAlias = tuple[PathPart, ...]
"""Field names and array indexes, from the section's top."""

_ODD: Final = re.compile(r'[\s/\[\]#*?"\\=]|\A[-@]|\A\Z')
# What stands before a name, an instance and an index where a place is matched: no name holds a surrogate.
_LEVEL, _INSTANCE, _INDEX = "\ud800", "\ud801", "\ud802"
_INSIDE: Final = f"[^{_LEVEL}{_INSTANCE}{_INDEX}]"
_ANY: Final = f"(?:{_INSTANCE}\\d+)?(?:{_INDEX}\\d+)*"
"""A device without an instance is all of that name, an array without an index all its elements."""
_TOKEN: Final = re.compile(
    r"/|#(?=(?:[0-9]+|\*)(?:/|\Z))|\[(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}|\*)\]|\*+|\?|[^/#\[*?]+|.", re.DOTALL
)
_ALL_LEVELS: Final = "**"
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ALIAS: Final = re.compile(rf"((?:{_STRING.pattern}|[^=\"])*)=(.*)", re.DOTALL)


def format_path(section: str | None, path: Path) -> str:
    """A place as people read and type it: ``rtl8139#0/regs/tx_status[3]``."""
    text = ""
    if section is not None:
        device, _, instance = section.rpartition("#")
        text = f"{format_name(device)}#{instance}" if _is_number(instance) else format_name(section)
    for part in path:
        slash = "/" if text else ""
        text += f"[{part}]" if isinstance(part, int) else f"{slash}{format_name(part)}"
    return text


def format_name(name: str) -> str:
    """One name of a place, in quotes where it has to be."""
    if name.isprintable() and not _ODD.search(name):
        return name
    inside = (each if each.isprintable() and each not in '"\\' else json.dumps(each)[1:-1] for each in name)
    return f'"{"".join(inside)}"'


class Pattern:
    """A place as a person types it, with globs.

    ``*`` and ``?`` stand for parts of a name, ``[*]`` for every index, ``**`` for any number of levels. The quotes of an odd name
    may be left out: a slash or a bracket that is not quoted may also be part of a name.

    Args:
        text: The place.

    Attributes:
        text: As given.
        indexed: The same without its last index, and that index; None where it ends with none.

    Raises:
        ValueError: A quoted name does not end, or is no JSON string.
    """

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("expected a path, not an empty one")
        self.text = text
        self.indexed: tuple[Pattern, int] | None = None
        levels = [""]
        is_quoted = False
        at = 0
        while at < len(text):
            if text[at] == '"' and not levels[-1]:
                name, at = _quoted(text, at)
                levels[-1] = re.escape(name) or "(?:)"
                is_quoted = True
                continue
            match = cast("re.Match[str]", _TOKEN.match(text, at))
            at = match.end()
            if match[0] == "/":
                levels.append("")
                is_quoted = False
            elif match[0] == _ALL_LEVELS and not levels[-1] and text[at : at + 1] in {"/", ""}:
                levels[-1] = _ALL_LEVELS
            else:
                levels[-1] += _expression(match, is_quoted=is_quoted)
            if match[1] and match[1] != "*" and match.start() and at == len(text):
                self.indexed = Pattern(text[: match.start()]), integer(match[1])
        self._prefixes = [re.compile(_joined(levels[:count]), re.DOTALL) for count in range(1, len(levels) + 1)]
        self._covers = re.compile(f"(?:{self._prefixes[-1].pattern})(?:[{_LEVEL}{_INDEX}].*)?", re.DOTALL)

    def fits(self, section: str, path: Path) -> bool:
        """Whether this names a place."""
        return self._prefixes[-1].fullmatch(_flat(section, path)) is not None

    def covers(self, section: str, path: Path) -> bool:
        """Whether this names a place, or something that it lies in."""
        return self._covers.fullmatch(_flat(section, path)) is not None

    def may_lie_in(self, section: str) -> bool:
        """Whether this may name a section, or anything in it."""
        flat = _flat(section, ())
        return any(prefix.fullmatch(flat) for prefix in self._prefixes)


class Aliases:
    """Names that changed, each used where its pattern names a place.

    Args:
        pairs: The pattern of what has another name, and that name.
    """

    def __init__(self, pairs: Iterable[tuple[Pattern, str]] = ()) -> None:
        self._pairs = tuple(pairs)
        self._used: set[str] = set()

    def get(self, section: str, path: Path) -> str | None:
        """The other name of a place; None where it has none."""
        for pattern, name in self._pairs:
            if pattern.fits(section, path):
                self._used.add(pattern.text)
                return name
        return None

    @property
    def unused(self) -> list[Pattern]:
        """The patterns that have named nothing so far."""
        return [pattern for pattern, _ in self._pairs if pattern.text not in self._used]


def parse_alias(text: str) -> tuple[Pattern, str]:
    """``PLACE=NAME`` as a pattern and a name. Raises ValueError."""
    match = _ALIAS.fullmatch(text)
    if not match or not match[1] or not match[2]:
        raise ValueError(f"expected PATH=NAME, not `{text}`")
    name = match[2].strip()
    if name.startswith('"'):
        name, end = _quoted(name, 0)
        if end != len(match[2].strip()):
            raise ValueError(f"expected PATH=NAME, not `{text}`")
    return Pattern(match[1].strip()), name


def _quoted(text: str, at: int) -> tuple[str, int]:
    match = _STRING.match(text, at)
    try:
        name: Any = json.loads(match[0], strict=False) if match else None
    except ValueError:
        name = None
    if match is None or name is None:
        raise ValueError(f"expected a name in double quotes, as in JSON, at `{text[at:]}`")
    return str(name), match.end()


def _expression(match: re.Match[str], *, is_quoted: bool) -> str:
    """The regular expression of a token; after a quoted name, an index or instance is no part of the name."""
    part = match[0]
    if match[1]:
        index = r"\d+" if match[1] == "*" else str(integer(match[1]))
        inside = f"{_INSIDE}*" if match[1] == "*" else re.escape(match[1])
        return f"{_INDEX}{index}" if is_quoted else rf"(?:{_INDEX}{index}|\[{inside}\])"
    if part == "#":
        return _INSTANCE if is_quoted else f"(?:{_INSTANCE}|#)"
    if part.startswith("*"):
        return f"{_INSIDE}*"
    return _INSIDE if part == "?" else re.escape(part)


def _joined(levels: list[str]) -> str:
    """One expression for all levels."""
    found = between = ""
    for number, level in enumerate(levels):
        if level != _ALL_LEVELS:
            found += f"{between}{level}{_ANY}"
            between = f"(?:{_LEVEL}|/)"
        elif between:
            found += f"(?:{_LEVEL}.*)?"
        else:
            found += ".*" if number == len(levels) - 1 else f"(?:.*{_LEVEL})?"
    return found


def _flat(section: str, path: Path) -> str:
    """A place as the expressions match it."""
    device, _, instance = section.rpartition("#")
    flat = f"{device}{_INSTANCE}{instance}" if _is_number(instance) else section
    return flat + "".join(f"{_INDEX}{part}" if isinstance(part, int) else f"{_LEVEL}{part}" for part in path)


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii()

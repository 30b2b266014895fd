"""Text from people and their tools: UTF-8, or UTF-16 as PowerShell redirects it, and the integers in it; and numbers in words."""

from __future__ import annotations

import codecs
import re
from typing import Final

MARK_BYTES: Final = 3
"""Bytes of the longest byte-order mark: enough to tell the encoding."""
DIGITS: Final = 1_000
"""Digits of the longest integer that is taken: Python's own limit, 4,300 decimal ones, also holds for printing it."""
_MARKS: Final = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16le", codecs.BOM_UTF16_BE: "utf-16be"}
_INTEGER: Final = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]+)|([0-9]+))")


def counted(count: int, thing: str) -> str:
    """A number of things: ``1 byte``, ``2 bytes``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def encoding(head: bytes) -> tuple[str, int]:
    """The encoding of a text that begins so, and the length of its byte-order mark.

    Without a mark, a zero in the first two bytes shows UTF-16: the text begins with ASCII (RFC 4627, section 3).
    """
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name, len(mark)
    if len(head) > 1 and bool(head[0]) != bool(head[1]):
        return ("utf-16le" if head[0] else "utf-16be"), 0
    return "utf-8", 0


def is_json_object(head: bytes) -> bool:
    """Whether a file that begins so is a JSON object, by its brace."""
    name, mark = encoding(head)
    return head[mark:].decode(name, "replace").lstrip(" \t\r\n").startswith("{")


def decoded(data: bytes) -> str:
    """A whole text, without its byte-order mark. Raises UnicodeDecodeError, whose places count from after the mark."""
    name, mark = encoding(data)
    return data[mark:].decode(name)


def integer(text: str) -> int:
    """An integer as people write it: 10, -3, 0x1f. Raises ValueError for anything else, and beyond a thousand digits."""
    match = _INTEGER.fullmatch(text)
    if not match:
        raise ValueError("no integer")
    sign, hexadecimal, decimal = match.groups()
    digits = (hexadecimal or decimal).lstrip("0") or "0"
    if len(digits) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(sign + digits, 16 if hexadecimal else 10)

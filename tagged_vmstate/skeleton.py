"""One snapshot of a machine after another: the same sections of the same sizes, so the same heads at the same places.

One `struct` unpack takes such a snapshot apart; all its heads are compared, all its sums computed. Whatever is different in
any way is for `snapshot` to read, and to tell what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from tagged_vmstate.frames import End, Lead, head_before_sum
from tagged_vmstate.straight import compiled
from tagged_vmstate.sums import crc32

SECTIONS: Final = 1 << 10
"""Sections of a snapshot that is worth straight code."""
Pack: TypeAlias = Callable[[bytes, Sequence[bytes]], "bytes | None"]
"""A snapshot of its header and the fields of each section; None where they are of other sizes."""
Unpack: TypeAlias = Callable[[bytes], "Sequence[bytes] | None"]
"""The fields of each section, all sums checked; None for any other snapshot."""


class Skeleton:
    """Snapshots whose sections have one frame each.

    Args:
        leads: What each frame begins with.
        sizes: Bytes of each frame's fields.
    """

    def __init__(self, leads: Sequence[Lead], sizes: Sequence[int]) -> None:
        heads = [head_before_sum(lead, size) for lead, size in zip(leads, sizes, strict=True)]
        end = End(len(leads), 0).encode()[:-4]
        self._sizes = sizes
        self._codes = "".join(f"{len(head)}sI{size}s" for head, size in zip(heads, sizes, strict=True)) + f"{len(end)}sI"
        self._names: dict[str, Any] = {
            **{f"head{number}": head for number, head in enumerate(heads)},
            **{f"sum{number}": crc32(head[:-1]) for number, head in enumerate(heads)},
            "end": end,
            "before_sum": end[:-1],
            "crc32": crc32,
            "pack_sums": struct.Struct(f">{len(leads)}I").pack,
        }
        self._fields = _list("p{0}", sizes)
        self._sum = f"crc32(before_sum, crc32(pack_sums({_list('c{0}', sizes)}), header_sum))"

    def packer(self) -> Pack:
        """What makes such snapshots."""
        lines = (
            f"{self._fields} = fields",
            f"if {' or '.join(f'len(p{number}) != {size}' for number, size in enumerate(self._sizes))}: return None",
            *(f"c{number} = crc32(p{number}, sum{number})" for number in range(len(self._sizes))),
            "header_sum = crc32(header[-4:])",
            f"return header + pack({_list('head{0}, c{0}, p{0}', self._sizes)} end, {self._sum})",
        )
        return compiled("snapshot(header, fields)", lines, {**self._names, "pack": struct.Struct(f">{self._codes}").pack})

    def unpacker(self, header: bytes) -> Unpack:
        """What takes those of one header apart."""
        layout = struct.Struct(f">{len(header)}s{self._codes}")
        is_other = " or ".join(
            f"h{each} != head{each} or crc32(p{each}, sum{each}) != c{each}" for each in range(len(self._sizes))
        )
        lines = (
            f"if len(data) != {layout.size}: return None",
            f"first, {_list('h{0}, c{0}, p{0}', self._sizes)} last, c = unpack(data)",
            f"if first != header or {is_other} or last != end or {self._sum} != c: return None",
            f"return ({self._fields})",
        )
        names = {**self._names, "header": header, "header_sum": crc32(header[-4:]), "unpack": layout.unpack}
        return compiled("fields(data)", lines, names)


def _list(each: str, sizes: Sequence[int]) -> str:
    """Names of all sections, as Python."""
    return "".join(f"{each.format(number)}, " for number in range(len(sizes)))

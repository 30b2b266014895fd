"""One snapshot of a machine after another: the same sections of the same sizes, so the same heads at the same places.

One `struct` unpack takes such a snapshot apart, one comparison checks all its heads, and one map of the sum function all
its sums. Whatever is different in any way is for `snapshot` to read, and to tell what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from tagged_vmstate.frames import End, Lead, head_before_sum
from tagged_vmstate.sums import crc32


class Skeleton:
    """The heads and sizes of a snapshot whose sections have one frame each.

    Args:
        leads: What each frame begins with.
        sizes: Bytes of each frame's fields.
    """

    def __init__(self, leads: Sequence[Lead], sizes: Sequence[int]) -> None:
        self._heads = tuple(head_before_sum(lead, size) for lead, size in zip(leads, sizes, strict=True))
        self._sums = tuple(crc32(head[:-1]) for head in self._heads)
        self._end = End(len(leads), 0).encode()[:-4]
        frames = "".join(f"{len(head)}sI{size}s" for head, size in zip(self._heads, sizes, strict=True))
        self._struct = struct.Struct(f">{frames}{len(self._end)}sI")
        self._crcs = struct.Struct(f">{len(leads)}I")
        self._parts: list[Any] = [None] * (3 * len(leads)) + [self._end, None]
        self._parts[:-2:3] = self._heads

    def pack(self, header: bytes, payloads: Sequence[bytes]) -> bytes:
        """A snapshot of fields, which have the sizes that this is for."""
        crcs = [*map(crc32, payloads, self._sums)]
        parts = self._parts.copy()
        parts[1:-2:3], parts[2:-2:3], parts[-1] = crcs, payloads, self._total(header, crcs)
        return header + self._struct.pack(*parts)

    def unpack(self, header: bytes, data: bytes) -> Sequence[bytes] | None:
        """The fields of each section, all sums checked; None for any other snapshot."""
        if len(data) != len(header) + self._struct.size or not data.startswith(header):
            return None
        parts = self._struct.unpack_from(data, len(header))
        payloads, crcs = parts[2:-2:3], parts[1:-2:3]
        is_same = parts[:-2:3] == self._heads and parts[-2] == self._end
        is_whole = is_same and tuple(map(crc32, payloads, self._sums)) == crcs and self._total(header, crcs) == parts[-1]
        return payloads if is_whole else None

    def _total(self, header: bytes, crcs: Sequence[int]) -> int:
        return crc32(self._end[:-1], crc32(self._crcs.pack(*crcs), crc32(header[-4:])))

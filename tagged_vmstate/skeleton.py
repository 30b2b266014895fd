"""One snapshot of a machine after another: the same sections of the same sizes, so the same heads at the same places.

One `struct` unpack takes such a snapshot apart, one comparison checks all its heads, and one map of the sum function all
its sums. Whatever is different in any way is for `snapshot` to read, and to tell what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain

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

    def pack(self, header: bytes, payloads: Sequence[bytes]) -> bytes:
        """A snapshot of fields, which have the sizes that this is for."""
        crcs = tuple(map(crc32, payloads, self._sums))
        frames = chain.from_iterable(zip(self._heads, crcs, payloads, strict=True))
        return header + self._struct.pack(*frames, self._end, self._total(header, crcs))

    def unpack(self, header: bytes, data: bytes) -> Sequence[bytes] | None:
        """The fields of each section, all sums checked; None for any other snapshot."""
        if len(data) != len(header) + self._struct.size or not data.startswith(header):
            return None
        *frames, end, total = self._struct.unpack_from(data, len(header))
        crcs, payloads = frames[1::3], frames[2::3]
        is_whole = (*frames[0::3], end) == (*self._heads, self._end) and total == self._total(header, crcs)
        return payloads if is_whole and [*map(crc32, payloads, self._sums)] == crcs else None

    def _total(self, header: bytes, crcs: Sequence[int]) -> int:
        return crc32(self._end[:-1], crc32(self._crcs.pack(*crcs), crc32(header[-4:])))

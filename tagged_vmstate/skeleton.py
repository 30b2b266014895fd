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
from tagged_vmstate.sums import FEW, crc32, crc32_of_few
from tagged_vmstate.wire import APART, Piece

SECTIONS: Final = 1 << 10
"""Sections of a snapshot that is worth straight code."""
Pack: TypeAlias = Callable[[bytes, Sequence[Any]], "Sequence[Piece] | None"]
"""A snapshot, in pieces, of its header and the fields of each section, those of a big one in pieces; None for other sizes."""
Unpack: TypeAlias = Callable[[bytes], "Sequence[Piece] | None"]
"""The fields of each section, big ones as they lie there, all sums checked; None for any other snapshot."""


class Skeleton:
    """Snapshots whose sections have one frame each.

    Args:
        leads: What each frame begins with.
        sizes: Bytes of each frame's fields.
    """

    def __init__(self, leads: Sequence[Lead], sizes: Sequence[int]) -> None:
        heads = [head_before_sum(lead, size) for lead, size in zip(leads, sizes, strict=True)]
        end = End(len(leads), 0).encode()[:-4]
        self._heads = heads
        self._sizes = sizes
        self._end = f"{len(end)}sI"
        self._names: dict[str, Any] = {
            **{f"head{number}": head for number, head in enumerate(heads)},
            **{f"sum{number}": crc32_of_few(head[:-1]) for number, head in enumerate(heads)},
            "end": end,
            "before_sum": end[:-1],
            "crc32": crc32,
            "few": crc32_of_few,
            "pack_sums": struct.Struct(f">{len(leads)}I").pack,
        }
        self._fields = _list("p{0}", sizes)
        self._sum = f"few(before_sum, {_sum(4 * len(leads))}(pack_sums({_list('c{0}', sizes)}), header_sum))"

    def packer(self) -> Pack:
        """What makes such snapshots. What is big is not copied."""
        names = {**self._names, "length": _length, "sum_of": _sum_of}
        pieces: list[str] = []
        codes: list[str] = []
        values: list[str] = []

        def cut() -> None:
            names[f"pack{len(pieces)}"] = struct.Struct(f">{''.join(codes)}").pack
            pieces.append(f"pack{len(pieces)}({', '.join(values)})")
            codes.clear()
            values.clear()

        for number, (head, size) in enumerate(zip(self._heads, self._sizes, strict=True)):
            codes.append(f"{len(head)}sI")
            values += [f"head{number}", f"c{number}"]
            if size >= APART:
                cut()
                pieces.append(f"*p{number}")
            else:
                codes.append(f"{size}s")
                values.append(f"p{number}")
        codes.append(self._end)
        values += ["end", self._sum]
        cut()
        is_other = (f"{'length' if size >= APART else 'len'}(p{number}) != {size}" for number, size in enumerate(self._sizes))
        sums = (
            f"c{number} = {'sum_of' if size >= APART else _sum(size)}(p{number}, sum{number})"
            for number, size in enumerate(self._sizes)
        )
        lines = (
            f"{self._fields} = fields",
            f"if {' or '.join(is_other)}: return None",
            *sums,
            "header_sum = few(header[-4:])",
            f"return header + {pieces[0]}, {''.join(f'{each}, ' for each in pieces[1:])}",
        )
        return compiled("snapshot(header, fields)", lines, names)

    def unpacker(self, header: bytes) -> Unpack:
        """What takes those of one header apart."""
        codes, found, views, start = [f">{len(header)}s"], ["first"], [], len(header)
        for number, (head, size) in enumerate(zip(self._heads, self._sizes, strict=True)):
            start += len(head) + 4
            is_view = size >= APART
            codes.append(f"{len(head)}sI{size}{'x' if is_view else 's'}")
            found += [f"h{number}", f"c{number}", *([] if is_view else [f"p{number}"])]
            views += [f"p{number} = memoryview(data)[{start} : {start + size}]"] if is_view else []
            start += size
        layout = struct.Struct("".join([*codes, self._end]))
        is_other = " or ".join(
            f"h{each} != head{each} or {_sum(size)}(p{each}, sum{each}) != c{each}" for each, size in enumerate(self._sizes)
        )
        lines = (
            f"if len(data) != {layout.size}: return None",
            f"{', '.join(found)}, last, c = unpack(data)",
            *views,
            f"if first != header or {is_other} or last != end or {self._sum} != c: return None",
            f"return ({self._fields})",
        )
        names = {**self._names, "header": header, "header_sum": crc32_of_few(header[-4:]), "unpack": layout.unpack}
        return compiled("fields(data)", lines, names)


def _sum(size: int) -> str:
    """What computes the sum of so many bytes, as Python."""
    return "few" if size < FEW else "crc32"


def _length(pieces: Sequence[Piece]) -> int:
    return sum(map(len, pieces))


def _sum_of(pieces: Sequence[Piece], start: int) -> int:
    for piece in pieces:
        start = crc32(piece, start)
    return start


def _list(each: str, sizes: Sequence[int]) -> str:
    """Names of all sections, as Python."""
    return "".join(f"{each.format(number)}, " for number in range(len(sizes)))

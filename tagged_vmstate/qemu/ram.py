"""Guest memory in a QEMU stream: page records of the `ram` section, version 4 (QEMU's migration/ram.c).

A record is a big-endian u64, an address whose low bits are flags, and what the flags say follows. Page after
page is gathered into chunks: the runs of bytes that are not zero, block by block, and beside them the exact
sequence of page records, run-length encoded, from which the same bytes can be made again.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tagged_vmstate.errors import FormatError, StateError
from tagged_vmstate.files import Input
from tagged_vmstate.wire import Piece
from tagged_vmstate.wiretype import brief

ZERO: Final = 0x02
MEM_SIZE: Final = 0x04
PAGE: Final = 0x08
EOS: Final = 0x10
CONTINUE: Final = 0x20
_UNSUPPORTED: Final = {
    0x40: "XBZRLE pages (capability xbzrle)",
    0x80: "pages sent by RDMA",
    0x100: "compressed pages (capability compress)",
    0x200: "pages on other channels (capability multifd)",
}
CHUNK_BYTES: Final = 4 << 20
_FILL_WEIGHT: Final = 4
"""Pages made from one byte each fill a chunk sooner: they need memory that no bytes of the stream stand for."""
CHUNK_RUNS: Final = 1 << 15
"""Page runs in one chunk at most: their list goes into a frame's attributes, which are limited."""
_SPAN: Final = 1 << 8
"""Pages in one piece of the record of which pages have been written: one page that was takes no more than this."""
_NO_MARKS: Final = bytes(_SPAN)
HEAD: Final = 8
"""Bytes of the head of a page record, where it does not name its block."""
_FIRST_LOOK: Final = 16
"""Page records that are first looked at as one; then four times as many, for as long as they go on."""


def stream_error(expected: str, found: str, offset: int) -> FormatError:
    """An error in a stream."""
    return FormatError(expected, found, offset=offset, source="stream")


def take(source: Input, size: int, what: str) -> bytes:
    """The next bytes of a stream. Raises FormatError where it ends before."""
    start = source.position
    data = source.read(size)
    if len(data) < size:
        found = f"only {len(data)} before its end (truncated)" if data else "nothing more (truncated)"
        raise stream_error(what if size == 1 else f"{size} bytes of {what}", found, start)
    return data


def text(data: bytes, what: str, offset: int) -> str:
    """A name of a stream. Raises FormatError where it is not UTF-8: QEMU's names are ASCII."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise stream_error(f"{what} in UTF-8", data.hex(" "), offset) from None


def take_name(source: Input, what: str) -> str:
    """A name behind a byte with its length. Raises FormatError."""
    size = take(source, 1, what)[0]
    start = source.position
    return text(take(source, size, what), what, start)


def pack_name(name: str) -> bytes:
    """A name behind a byte with its length. Raises StateError where that byte cannot hold it."""
    data = name.encode()
    if len(data) > 0xFF:
        raise StateError("a name of at most 255 bytes", brief(name))
    return bytes((len(data),)) + data


@dataclass(slots=True)
class Block:
    """A block of guest memory.

    Attributes:
        name: QEMU's name for it.
        length: Bytes.
        address: Its address in the guest, with capability x-ignore-shared; else None.
    """

    name: str
    length: int
    address: int | None = None
    _written: dict[int, bytearray] = field(default_factory=dict, repr=False)

    def mark(self, page: int, count: int) -> None:
        """Note that some pages have had bytes."""
        while count > 0:
            span, at = divmod(page, _SPAN)
            size = min(count, _SPAN - at)
            self._written.setdefault(span, bytearray(_SPAN))[at : at + size] = b"\1" * size
            page += size
            count -= size

    def is_marked(self, page: int) -> bool:
        """Whether a page has had bytes."""
        return self.alike(page, 1)[0]

    def alike(self, page: int, count: int) -> tuple[bool, int]:
        """Whether a page has had bytes, and of how many of `count` pages from it on that is known to be as true."""
        span, at = divmod(page, _SPAN)
        end = min(at + count, _SPAN)
        marks = self._written.get(span, _NO_MARKS)
        other = marks.find(1 - marks[at], at, end)
        return marks[at] == 1, (end if other < 0 else other) - at


def heads(word: int, page_size: int, count: int) -> bytes:
    """The heads of page records, the first of which is `word`, each of the page behind that of the one before."""
    found = array("Q", range(word, word + count * page_size, page_size))
    if sys.byteorder == "little":
        found.byteswap()
    return found.tobytes()


@dataclass(slots=True)
class PageRun:
    """Successive page records of one kind.

    Attributes:
        block: Index of the block.
        page: Number of the first page.
        count: How many.
        flag: ``PAGE`` or ``ZERO``.
        named: The first of them names its block; all others continue.
    """

    block: int
    page: int
    count: int
    flag: int
    named: bool


@dataclass(slots=True)
class Chunk:
    """Some page records of one turn of the `ram` section.

    Attributes:
        total: The sum of all blocks as the stream states it, where the blocks are listed here.
        blocks: The blocks that are listed here.
        pages: The page records in their order.
        data: Block index -> [(offset, pieces of bytes)], ascending; what is not there is zero or as it was.
        last: The turn ends here.
    """

    total: int | None = None
    blocks: list[Block] = field(default_factory=list)
    pages: list[PageRun] = field(default_factory=list)
    data: dict[int, list[tuple[int, list[Piece]]]] = field(default_factory=dict)
    last: bool = False
    size: int = 0

    def is_full(self) -> bool:
        """Whether it is time for another one."""
        return self.size >= CHUNK_BYTES or len(self.pages) >= CHUNK_RUNS


class RamReader:
    """The state of the `ram` section over all its turns.

    Args:
        page_size: Bytes of a page of the guest.
        has_addresses: Capability x-ignore-shared: each block is listed with its address.
    """

    def __init__(self, page_size: int, *, has_addresses: bool) -> None:
        self.blocks: list[Block] = []
        self.page_size = page_size
        self._has_addresses = has_addresses
        self._index: dict[str, int] = {}
        self._current: int | None = None
        self._ends: dict[int, int] = {}

    def turn(self, source: Input) -> Iterator[Chunk]:
        """The chunks of one turn, up to its end. Raises FormatError for what cannot be followed."""
        chunk = self._next_chunk()
        while not chunk.last:
            start = source.position
            word = int.from_bytes(take(source, HEAD, "a page record"), "big")
            flags = word & (self.page_size - 1)
            address = word - flags
            kind = flags & ~CONTINUE
            if kind in {PAGE, ZERO}:
                index = self._block(source, flags)
                self._check_inside(index, address, start)
                run = PageRun(index, address // self.page_size, 1, kind, not flags & CONTINUE)
                for part, pieces in self._parts(run, self._bodies(source, run)):
                    while part.count:
                        if chunk.is_full() or (pieces and part.page < self._ends.get(index, 0)):
                            yield chunk
                            chunk = self._next_chunk()
                        self._move(part, pieces, chunk)
            elif flags == MEM_SIZE:
                if chunk.total is not None or chunk.pages:
                    yield chunk  # a chunk lists blocks once, before its pages
                    chunk = self._next_chunk()
                chunk.total = address
                chunk.blocks += self._list_blocks(source, address)
            elif word == EOS:
                chunk.last = True
            else:
                raise self._unknown(flags, start)
        yield chunk

    def _next_chunk(self) -> Chunk:
        self._ends = {}
        return Chunk()

    def _block(self, source: Input, flags: int) -> int:
        """The block of a page, by its name or the same as before."""
        start = source.position
        if not flags & CONTINUE:
            name = take_name(source, "the name of a block")
            self._current = self._index.get(name)
            if self._current is None:
                raise stream_error("a block that was listed", f"`{name}`", start)
        if self._current is None:
            raise stream_error("a page that names its block", "one that continues none", start)
        return self._current

    def _check_inside(self, index: int, address: int, start: int) -> None:
        block = self.blocks[index]
        if address + self.page_size > block.length:
            raise stream_error(f"a page inside `{block.name}` ({block.length} bytes)", f"one at {address}", start)

    def _bodies(self, source: Input, run: PageRun) -> list[memoryview]:
        """What stands behind the head that was read, and behind those that follow it in `run`.

        As many follow as can be seen that are of one kind, and of one byte where a byte fills each.
        """
        width = self.page_size if run.flag == PAGE else 1
        ahead = source.look(width)
        if len(ahead) < width:
            take(source, width, "a page")
        stride = width + HEAD
        run.count += self._following(ahead[width:], run, stride, bytes(ahead[:1]))
        ahead = ahead[: run.count * stride - HEAD]
        source.seek(source.position + len(ahead))
        return [ahead[at : at + width] for at in range(0, len(ahead), stride)]

    def _following(self, ahead: memoryview, run: PageRun, stride: int, fill: bytes) -> int:
        """How many records ahead continue a page: of the same kind, each of the next page, all there and inside the block.

        One byte for a page must be `fill`.
        """
        most = min(len(ahead) // stride, self.blocks[run.block].length // self.page_size - run.page - 1)
        count, size = 0, _FIRST_LOOK
        while count < most:
            size = min(size, most - count)
            first = (run.page + 1 + count) * self.page_size | run.flag | CONTINUE
            there = bytearray(HEAD * size)
            part = ahead[count * stride : (count + size) * stride]
            for at in range(HEAD):
                there[at::HEAD] = part[at::stride]
            odd = int.from_bytes(there, "big") ^ int.from_bytes(heads(first, self.page_size, size), "big")
            alike = (8 * len(there) - odd.bit_length()) // (8 * HEAD)
            if run.flag == ZERO:
                alike = min(alike, size - len(bytes(part[HEAD::stride]).lstrip(fill)))
            count += alike
            if alike < size:
                break
            size *= 4
        return count

    def _parts(self, run: PageRun, bodies: list[memoryview]) -> Iterator[tuple[PageRun, list[Piece]]]:
        """A run with the bytes of its pages; pages that are zero and always were have none."""
        if run.flag == PAGE:
            yield run, [*bodies]
        elif bodies[0][0]:
            yield run, [bytes(bodies[0]) * self.page_size] * run.count
        else:
            page, end = run.page, run.page + run.count
            while page < end:
                has_bytes, count = self.blocks[run.block].alike(page, end - page)
                part = PageRun(run.block, page, count, ZERO, run.named and page == run.page)
                yield part, [bytes(self.page_size)] * count if has_bytes else []
                page += count

    def _move(self, run: PageRun, pieces: list[Piece], chunk: Chunk) -> None:
        """Move the first pages of a run into a chunk, as many as it takes."""
        count = min(run.count, -(-(CHUNK_BYTES - chunk.size) // self._weight(run))) if pieces else run.count
        last = chunk.pages[-1] if chunk.pages else None
        if last and not run.named and (run.block, run.flag, run.page) == (last.block, last.flag, last.page + last.count):
            last.count += count
        else:
            chunk.pages.append(PageRun(run.block, run.page, count, run.flag, run.named))
        if pieces:
            self._keep(run, pieces[:count], chunk)
            del pieces[:count]
        run.page += count
        run.count -= count
        run.named = False

    def _keep(self, run: PageRun, pieces: list[Piece], chunk: Chunk) -> None:
        """Put the bytes of pages into a chunk."""
        self.blocks[run.block].mark(run.page, len(pieces))
        runs = chunk.data.setdefault(run.block, [])
        if runs and self._ends[run.block] == run.page:
            runs[-1][1].extend(pieces)
        else:
            runs.append((run.page * self.page_size, pieces))
        self._ends[run.block] = run.page + len(pieces)
        chunk.size += len(pieces) * self._weight(run)

    def _weight(self, run: PageRun) -> int:
        return self.page_size if run.flag == PAGE else _FILL_WEIGHT * self.page_size

    def _list_blocks(self, source: Input, total: int) -> list[Block]:
        found = []
        left = total
        while left:
            start = source.position
            name = take_name(source, "the name of a block")
            length = int.from_bytes(take(source, 8, "the length of a block"), "big")
            address = int.from_bytes(take(source, 8, "the address of a block"), "big") if self._has_addresses else None
            if not name:
                raise stream_error("the name of a block", "an empty one", start)
            if not 0 < length <= left:
                raise stream_error(f"blocks of {total} bytes in all", f"{length} more where {left} are left", start)
            if name in self._index:
                raise stream_error("each block once", f"`{name}` again", start)
            block = Block(name, length, address)
            self._index[name] = len(self.blocks)
            self.blocks.append(block)
            found.append(block)
            left -= length
        return found

    def _unknown(self, flags: int, offset: int) -> FormatError:
        names = [name for bit, name in _UNSUPPORTED.items() if flags & bit]
        if names:
            return stream_error("pages or zero pages", f"{names[0]}: migrate again without it", offset)
        if not flags:
            return stream_error("a page record", "zeros, as where a stream is cut and padded", offset)
        hint = f"flags 0x{flags:x}; pages of another size than {self.page_size} bytes look like this"
        return stream_error("a page record", hint, offset)

"""What can still be read of a damaged snapshot: the search for the next frame whose checksum holds.

Every place that looks like a frame may claim any size, so that checking each on its own would read the rest of the file again
and again. One pass over the file instead gives the checksum of everything up to each KiB; that of any range follows from
two of those.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from typing import Final

from tagged_vmstate.errors import FormatError, LimitError
from tagged_vmstate.files import BLOCK, WINDOW, Input
from tagged_vmstate.frames import VERSION, End, Frame, decode_head, known_frame
from tagged_vmstate.records import Limits
from tagged_vmstate.sums import crc32, shifted
from tagged_vmstate.wire import Cursor, TruncatedError

STEP: Final = 1 << 10
"""Bytes between two places whose checksum is kept: four bytes a KiB."""
SHORT_HEAD: Final = 640
"""Bytes of a head whose attributes say no more than a few words, whatever its device is named."""
LONG_HEADS: Final = 4
"""Bytes of longer heads that are read in all, as a multiple of the file."""
MARK_BYTES: Final = 9
"""Bytes that show what begins at a place."""
_MARKS: Final = re.compile(rb"\x96\xa7section|\x96\xa4part|\x93\xa3end")
_LATER_MARKS: Final = re.compile(rb"\x96[\xa1-\xbf\xd9]|(?:[\x93-\x9f]|\xdc..|\xdd....)\xa3end", re.DOTALL)


class Ranges:
    """The checksums of ranges of an input that can seek.

    Args:
        source: The input; its position stays.
    """

    def __init__(self, source: Input) -> None:
        self._source = source
        self._steps = array("I", [0])
        self._last = (0, 0)

    def crc(self, start: int, end: int, before: int = 0) -> int:
        """The checksum of a range, going on from an earlier one."""
        return self._up_to(end) ^ shifted(self._up_to(start) ^ before, end - start)

    def _up_to(self, place: int) -> int:
        """The checksum of everything before a place."""
        known, crc = self._last
        if known != place:
            self._read_steps(place // STEP)
            start = place // STEP * STEP
            crc = self._steps[place // STEP]
            crc = crc32(self._source.at(start, place - start), crc) if place > start else crc
            self._last = place, crc
        return crc

    def _read_steps(self, number: int) -> None:
        while len(self._steps) <= number:
            block = memoryview(self._source.at((len(self._steps) - 1) * STEP, BLOCK))
            for start in range(0, len(block) // STEP * STEP, STEP):
                self._steps.append(crc32(block[start : start + STEP], self._steps[-1]))


class Search:
    """Reads heads of frames wherever they may stand, and finds the next intact frame.

    False marks may claim long attributes one inside the other. Heads of up to `SHORT_HEAD` bytes are always read; longer ones as
    long as all of them together come to no more than a few times the file, which only a file made for it exceeds.

    Args:
        source: The file, which can seek.
        limits: How much to take from bytes that are not trusted.
        version: The version of the format: in a later one a frame may be of any kind.
    """

    def __init__(self, source: Input, limits: Limits, version: int = VERSION) -> None:
        self._source = source
        self._size = source.size or 0
        self._limits = limits
        self._version = version
        self._marks = _MARKS if version == VERSION else _LATER_MARKS
        self._ranges = Ranges(source)
        self._long_heads = LONG_HEADS * self._size

    def head(self, offset: int) -> Frame | End:
        """What begins at a place. Raises FormatError."""
        self._source.seek(offset)
        size, most = SHORT_HEAD, SHORT_HEAD + self._limits.attributes
        while True:
            data = self._source.peek(size)
            cursor = Cursor(data, offset)
            try:
                return known_frame(data, self._limits) or decode_head(cursor, self._limits, self._version)
            except TruncatedError:
                if len(data) < size:
                    raise
                if size >= min(most, self._long_heads):
                    raise LimitError(f"a head of at most {size} bytes", "more", offset=offset) from None
            finally:
                self._long_heads -= cursor.pos if size > SHORT_HEAD else 0
            size = min(8 * size, most)

    def checksum(self, frame: Frame, offset: int) -> int:
        """The checksum of a frame at a place, all of which is in the file."""
        start = offset + frame.head_bytes
        return self._ranges.crc(start, start + frame.size, frame.sum_of_head)

    def begins(self, offset: int) -> bool:
        """Whether a frame or the end seems to begin at a place."""
        return self._marks.match(self._source.at(offset, MARK_BYTES)) is not None

    def has_wrong_size(self, frame: Frame, offset: int, fits: Callable[[End], bool]) -> bool:
        """Whether only the size of a frame is wrong: its checksum is that of what lies ahead of the first intact one inside."""
        start = offset + frame.head_bytes
        found = self.next(start, fits, start + frame.size)
        return found is not None and self.checksum(frame._replace(size=found - start), offset) == frame.crc

    def next(self, offset: int, fits: Callable[[End], bool], stop: int | None = None) -> int | None:
        """The next place at which an intact frame or the end begins; None where there is none.

        Args:
            offset: Where to begin.
            fits: Whether an end belongs to the frames so far. One at the end of the file is taken in any case.
            stop: Where to give up; at the end of the file unless given.
        """
        stop = self._size if stop is None else stop
        size = min(WINDOW, stop - offset + MARK_BYTES)
        while offset < stop:
            self._source.seek(offset)
            window = self._source.peek(size)
            mark = self._marks.search(window)
            if mark:
                offset += mark.start()
                if self._is_intact(offset, fits):
                    return offset
                offset, size = offset + 1, WINDOW
            elif len(window) < size:
                return None
            else:
                offset, size = offset + size - MARK_BYTES, min(8 * size, BLOCK)
        return None

    def _is_intact(self, offset: int, fits: Callable[[End], bool]) -> bool:
        try:
            head = self.head(offset)
        except FormatError:
            return False
        if isinstance(head, End):
            return fits(head) or offset + len(head.encode()) == self._size
        return offset + head.head_bytes + head.size <= self._size and self.checksum(head, offset) == head.crc

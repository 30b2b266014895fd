"""A snapshot as CBOR, for its grammar: the pages' mapping of MessagePack, made of bytes alone, none of the library's readers in it."""

from __future__ import annotations

from typing import Final

_OTHER: Final = 65535
"""The tag of what CBOR lacks: one that is never registered."""


def snapshot(data: bytes) -> bytes:
    """An array of the header, the head of each frame followed by an array of the objects in its payload, and the end.

    Raises:
        ValueError: The bytes are no sequence of objects, or are cut within one.
    """
    source = _MessagePack(data)
    items = [source.object()]
    while source.at < len(data):
        size = _MessagePack(data, source.at).payload_size()
        items.append(source.object())
        if size is not None:
            items.append(_array(_MessagePack(source.take(min(size, len(data) - source.at))).rest()))
    return _array(items)


class _MessagePack:
    """Bytes, of which each object is read as CBOR."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.at = at
        self._data = data

    def take(self, size: int) -> bytes:
        """The next bytes. Raises ValueError where fewer are left."""
        if self.at + size > len(self._data):
            raise ValueError("cut")
        self.at += size
        return self._data[self.at - size : self.at]

    def rest(self) -> list[bytes]:
        """All objects that are left. Raises ValueError as `object` does."""
        found = []
        while self.at < len(self._data):
            found.append(self.object())
        return found

    def payload_size(self) -> int | None:
        """The fifth item of an array, where it is a uint64 and not the last one. Raises ValueError as `object` does."""
        first = self._uint(1)
        if not 0x96 <= first <= 0x9F:
            return None
        for _ in range(4):
            self.object()
        return self._uint(8) if self._uint(1) == 0xCF else None

    def object(self) -> bytes:
        """The next object. Raises ValueError where there is none, or only a part of one."""
        first = self._uint(1)
        if first < 0x80:
            return _head(0, first)
        if first < 0x90:
            return self._map(first & 0x0F)
        if first < 0xA0:
            return self._array(first & 0x0F)
        if first < 0xC0:
            return self._str(first & 0x1F)
        if first >= 0xE0:
            return _head(1, 0xFF - first)
        return self._wider(first)

    def _wider(self, first: int) -> bytes:
        width = 1 << (first & 3)
        if first in {0xC0, 0xC2, 0xC3}:
            return {0xC0: b"\xf6", 0xC2: b"\xf4", 0xC3: b"\xf5"}[first]
        if 0xC4 <= first <= 0xC6:
            data = self.take(self._uint(width))
            return _head(2, len(data)) + data
        if 0xC7 <= first <= 0xC9:
            return self._other(self._uint(1 << (first - 0xC7)) + 1)
        if first in {0xCA, 0xCB}:
            return bytes([first + 0x30]) + self.take(4 << (first - 0xCA))
        if 0xCC <= first <= 0xCF:
            return _head(0, self._uint(width))
        if 0xD0 <= first <= 0xD3:
            number = int.from_bytes(self.take(width), "big", signed=True)
            return _head(0, number) if number >= 0 else _head(1, -1 - number)
        if 0xD4 <= first <= 0xD8:
            return self._other((1 << (first - 0xD4)) + 1)
        if 0xD9 <= first <= 0xDB:
            return self._str(self._uint(1 << (first - 0xD9)))
        if first in {0xDC, 0xDD}:
            return self._array(self._uint(2 << (first - 0xDC)))
        if first in {0xDE, 0xDF}:
            return self._map(self._uint(2 << (first - 0xDE)))
        raise ValueError("the byte 0xc1")

    def _uint(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def _array(self, count: int) -> bytes:
        return _array([self.object() for _ in range(count)])

    def _map(self, count: int) -> bytes:
        start = self.at
        entries = [(self.object(), self.object()) for _ in range(count)]
        if len(dict(entries)) < count:
            return _tagged(self._data[start : self.at])
        return _head(5, count) + b"".join(key + value for key, value in entries)

    def _str(self, size: int) -> bytes:
        data = self.take(size)
        try:
            data.decode()
        except UnicodeDecodeError:
            return _tagged(data)
        return _head(3, size) + data

    def _other(self, size: int) -> bytes:
        return _tagged(self.take(size))


def _tagged(data: bytes) -> bytes:
    return _head(6, _OTHER) + _head(2, len(data)) + data


def _array(items: list[bytes]) -> bytes:
    return _head(4, len(items)) + b"".join(items)


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    size = next(size for size in (0, 1, 2, 3) if number < 1 << (8 << size))
    return bytes([major << 5 | 24 + size]) + number.to_bytes(1 << size, "big")

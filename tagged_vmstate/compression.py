"""Compressed input, told by its first bytes and read through, and output compressed the same way."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final, cast

from tagged_vmstate.errors import FormatError
from tagged_vmstate.files import BLOCK, can_seek, write_all

# Modules by name: most input is not compressed, and a command line should not wait for their import.
_READERS: Final = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "lzma", b"BZh": "bz2"}
_PACKERS: Final[dict[str, Callable[[Any], Any]]] = {
    "gzip": lambda _: zlib.compressobj(wbits=16 + zlib.MAX_WBITS),
    "lzma": lambda library: library.LZMACompressor(),
    "bz2": lambda library: library.BZ2Compressor(),
}

HEAD: Final = 6
"""So many bytes tell."""
_STEP: Final = 1 << 16
"""Bytes asked of a decompressor at once where the file may be damaged. The last ones, with which it meets the damage, are lost;
they are asked for again, one by one."""
_SMALL_STEP: Final = 1 << 12
"""The same, where they cannot be asked for again."""


def compression_of(head: bytes) -> str | None:
    """The module for the compression of a file that begins so; None where it is not compressed in a way that is undone here."""
    return next((name for magic, name in _READERS.items() if head.startswith(magic)), None)


def is_compressed(head: bytes) -> bool:
    """Whether the first bytes of a file say that `decompressed` would undo something."""
    return compression_of(head) is not None


def decompressed(file: BinaryIO, head: bytes, *, salvage: bool = False) -> BinaryIO:
    """What is in a gzip, xz or bzip2 file whose first bytes are `head`, which are still to be read.

    Reading it raises FormatError where it is damaged; the offset counts what came out. With `salvage` it ends there instead,
    and `damage_of` says what is wrong.
    """
    name = next(name for magic, name in _READERS.items() if head.startswith(magic))
    return cast("BinaryIO", _Compressed(file, name, salvage=salvage))


def damage_of(file: BinaryIO) -> FormatError | None:
    """What is wrong with a compressed file that was opened with `salvage`, as far as it was read."""
    return file.damage if isinstance(file, _Compressed) else None


@contextlib.contextmanager
def compressed(file: BinaryIO, name: str | None) -> Iterator[BinaryIO]:
    """A file to write whose bytes reach `file` compressed; it is complete when the block ends well.

    Args:
        file: Where to.
        name: As `compression_of` returns it; with None, what is yielded is `file` itself.
    """
    if name is None:
        yield file
        return
    packer = _PACKERS[name](importlib.import_module(name))
    yield cast("BinaryIO", _Compressing(file, packer))
    write_all(file, packer.flush())


def seeks_cheaply(file: BinaryIO) -> bool:
    """Whether a file can go back without being decompressed anew from its beginning."""
    return not isinstance(file, _Compressed) and can_seek(file)


class _Compressed(io.BufferedIOBase):
    """A decompressing file that raises our error.

    It goes to a place when something is read there; its size is looked for once, and its end then kept: who reads a stream
    looks at the end of it first.
    """

    def __init__(self, file: BinaryIO, module: str, *, salvage: bool) -> None:
        library = importlib.import_module(module)
        self._name = {"lzma": "xz", "bz2": "bzip2"}.get(module, module)
        self._error: type[Exception] = getattr(library, "LZMAError", OSError)
        self._file = file
        self._open: Any = library.open
        self._inner: Any = self._open(file)
        self._salvage = salvage
        self.damage: FormatError | None = None
        self._position = 0
        self._size: int | None = None
        self._end = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END and self._size is None:
            self._look_for_end()
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size or 0}[whence]
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        if self._size is not None and self._position >= self._size - len(self._end):
            start = self._position - self._size + len(self._end)
            data = self._end[start:] if size is None or size < 0 else self._end[start : start + size]
        else:
            if self._inner.tell() != self._position:
                self._guarded(self._inner.seek, self._position)
            data = self._up_to_damage(size) if self._salvage else self._guarded(self._inner.read, size)
        self._position += len(data)
        return data

    def _look_for_end(self) -> None:
        self._position, last = self._inner.tell(), b""
        while block := self.read(BLOCK):
            self._end, last = last, block
        self._size, self._end = self._position, self._end + last

    def _up_to_damage(self, size: int | None) -> bytes:
        """The next bytes, fewer where the file is damaged: it ends there from now on."""
        found = bytearray()
        most = sys.maxsize if size is None or size < 0 else size
        most = most if self._size is None else min(most, self._size - self._position)
        step = _STEP if self.seekable() else _SMALL_STEP
        while len(found) < most:
            try:
                piece = self._guarded(self._inner.read1, min(step, most - len(found)))
            except FormatError as error:
                error.offset += len(found)
                if step > 1 and self.seekable():
                    step = 1
                    self._file.seek(0)
                    self._inner = self._open(self._file)
                    self._guarded(self._inner.seek, error.offset)
                    continue
                self.damage = error
                self._size, self._end = error.offset, b""
                break
            if not piece:
                break
            found += piece
        return bytes(found)

    def _guarded(self, function: Any, *arguments: object) -> Any:
        try:
            return function(*arguments)
        except (EOFError, OSError, zlib.error, self._error) as error:
            found = f"it cut or damaged ({error})"
            raise FormatError(f"whole {self._name} data", found, offset=self._position, source="file") from None


class _Compressing(io.BufferedIOBase):
    """A file to write that compresses."""

    def __init__(self, file: BinaryIO, packer: Any) -> None:
        self._file = file
        self._packer = packer

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        write_all(self._file, self._packer.compress(data))
        return memoryview(data).nbytes

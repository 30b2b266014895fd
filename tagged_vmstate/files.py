"""Files at the edge: a path is replaced as a whole or not at all; input is read by position, a pipe too."""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import io
import os
import re
import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias, cast, overload

BLOCK: Final = 1 << 20
"""Bytes read at once where the whole is not needed."""
AHEAD: Final = 1 << 18
"""Bytes read ahead where the next ones may not be needed."""
WINDOW: Final = 1 << 16
"""Bytes of a `Stretch` that are there at once."""
DRAFT: Final = ".tvm-draft"
"""The end of the name of a file that is being written."""
_ZEROS: Final = bytes(BLOCK)
_DRAFT_BYTES: Final = len(f"..xxxxxxxx{DRAFT}")

Readable: TypeAlias = "bytes | bytearray | memoryview | BinaryIO"
"""What is read without being opened: bytes, or a file open for reading."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when all went well; until then `path` is as it was.

    It is written beside its target, synced to the disk and renamed, then the folder is synced; after an
    exception nothing of it is left, and what a writer that was killed has left goes with the next save. Several may
    write at once: the last one stays. The target keeps its mode, and only its owner can read a new one, because the memory
    of a guest is secret; a link stays one. What is no regular file (a pipe, a device) is written to directly, and what is a
    descriptor of this process (`/dev/stdout`, `/dev/fd/3`) where it stands: somebody else opened it. Raises OSError.
    """
    target = _resolved(path)
    if isinstance(target, int):
        with os.fdopen(os.dup(target), "wb") as direct:
            yield direct
        return
    mode = _mode(target)
    if not _is_replaced(mode):
        with target.open("wb") as direct:
            yield direct
        return
    _remove_left_over(target)
    drafts: list[Path] = []
    try:
        with _new_draft(target, drafts) as file:
            yield file
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            os.fsync(file.fileno())
            drafts[-1].replace(target)  # before it is closed, which ends its lock
    except BaseException:
        for draft in drafts:
            draft.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _resolved(path: str | os.PathLike[str]) -> Path | int:
    """Where a path leads, link by link: the name of a file, or a descriptor of this process."""
    own = {os.path.realpath(f"/proc/{which}/fd") for which in ("self", "thread-self")}
    target = Path(path)
    while True:
        folder = os.path.realpath(target.parent)
        if folder in own and target.name.isdecimal():
            return int(target.name)  # its link may name a file, but a new one of that name would be another
        target = Path(folder, target.name)
        is_opaque = not _is_replaced(_mode(target)) and folder.startswith("/proc/")
        if is_opaque or not target.is_symlink():
            return target  # what another process has open may be a pipe, which has no name
        target = target.parent / target.readlink()


def _is_replaced(mode: int | None) -> bool:
    """Whether a new file takes the place of what has this mode, or of nothing."""
    return mode is None or stat.S_ISREG(mode)


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write all of it, to a file without a buffer too, which may take a part at a time. Raises OSError."""
    written = file.write(data)
    if isinstance(file, io.RawIOBase):
        while written is None or written < len(data):
            if written is None:  # it would block, and has taken nothing
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            data = memoryview(data)[written:]
            written = file.write(data)


def bytes_of(source: object) -> bytes | None:
    """The bytes of anything with the buffer protocol; None for what has no bytes of its own."""
    if isinstance(source, bytes):
        return source
    try:
        return bytes(memoryview(cast("bytes", source)))
    except TypeError:
        return None


def as_file(source: object, taken: str = "bytes or a file open for reading in binary mode") -> BinaryIO:
    """Bytes as a file, or the file itself.

    Args:
        source: What a caller handed over.
        taken: What the caller could have handed over, for the error.

    Raises:
        TypeError: It is neither.
    """
    data = bytes_of(source)
    if data is not None:
        return io.BytesIO(data)
    if not hasattr(source, "read"):
        raise TypeError(f"expected {taken}, got `{type(source).__name__}`")
    return cast("BinaryIO", source)


def can_seek(file: BinaryIO) -> bool:
    """Whether a file can go back; one that has nothing but `read` cannot."""
    seekable: Any = getattr(file, "seekable", None)
    return seekable is not None and bool(seekable())


def read_some(file: BinaryIO, size: int) -> bytes:
    """At most `size` bytes of a file, none at its end.

    Raises:
        TypeError: It is open in text mode.
        OSError: It cannot be read, or has nothing yet and does not wait.
    """
    data: Any = file.read(size)
    if isinstance(data, bytes):
        return data
    if data is None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    found = bytes_of(data)
    if found is None:
        raise TypeError(f"expected a file open for reading in binary mode, got one whose `read` returns `{type(data).__name__}`")
    return found


# A draft is locked as long as its writer lives. A file system without such locks keeps what is left over.


def _new_draft(target: Path, drafts: list[Path]) -> BinaryIO:
    """A file to write; each name is in `drafts` before there is such a file, as an interrupt may come between."""
    while True:
        name = base64.b32encode(os.urandom(5)).decode().lower()
        draft = target.with_name(f"{_prefix(target)}{name}{DRAFT}")
        drafts.append(draft)
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        file = os.fdopen(handle, "wb")
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # another save took it for a left-over before it was locked


def _prefix(target: Path) -> str:
    """What the names of a target's drafts begin with: so little that no draft has a longer name than a target that is long."""
    name = os.fsencode(target.name)
    kept = max(len(name) - _DRAFT_BYTES, 16)
    return f".{name[:kept].decode(errors='ignore')}."


def _remove_left_over(target: Path) -> None:
    """Remove the drafts of a target whose writers are gone."""
    name = re.compile(rf"{re.escape(_prefix(target))}[a-z0-9_]{{8}}{re.escape(DRAFT)}")
    for entry in os.scandir(target.parent):
        if name.fullmatch(entry.name):
            with contextlib.suppress(OSError):
                _remove_unlocked(Path(entry.path))


def _remove_unlocked(draft: Path) -> None:
    handle = os.open(draft, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.unlink()
    finally:
        os.close(handle)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise
    finally:
        os.close(handle)


class Input:
    """A file read by position, going forward by reading where it cannot seek, so that a pipe will do.

    Args:
        file: The file.
        ahead: Bytes read at least when some are needed: many where all will be.
        rereads: Whether going back costs no more than the reading.

    Attributes:
        position: Bytes from the place where the file stood when it was handed over.
        size: Bytes in all from there; None on a pipe.
        rereads: As given.
    """

    def __init__(self, file: BinaryIO, ahead: int = AHEAD, *, rereads: bool = False) -> None:
        self.rereads = rereads
        self._file = file
        self._more = ahead
        self._ahead = b""
        self._at = 0
        self.position = 0
        self.size: int | None = None
        self._start = 0
        if can_seek(file):
            self._start = file.tell()
            self.size = file.seek(0, os.SEEK_END) - self._start
            file.seek(self._start)

    def seek(self, position: int) -> None:
        """Go to a position. Raises ValueError backward on a pipe."""
        forward = position - self.position
        if (0 if self.size is None else -self._at) <= forward <= len(self._ahead) - self._at:
            self._at += forward
        elif self.size is not None:
            self._file.seek(self._start + position)
            self._ahead, self._at = b"", 0
        elif forward < 0:
            raise ValueError("this place has been passed: input that cannot seek is read once, in order")
        else:
            while forward and (passed := len(self.read(min(forward, BLOCK)))):
                forward -= passed
            return
        self.position = position

    def read(self, size: int) -> bytes:
        """At most `size` bytes, fewer only at the end."""
        if size > self._more and (self.rereads or self._at == len(self._ahead)):
            if self._at < len(self._ahead):
                self._file.seek(self._start + self.position)  # rather than to join what is there with what follows
            self._ahead, self._at = b"", 0
            data = self._fill(size)
        else:
            data = self.peek(size)
            self._at += len(data)
        self.position += len(data)
        return data

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end, without passing them."""
        self._prepare(size)
        if not self._at and len(self._ahead) <= size:
            return self._ahead
        return self._ahead[self._at : self._at + size]

    def at(self, position: int, size: int) -> bytes:
        """At most `size` bytes of a place, fewer only at the end, where input can seek; the position stays."""
        self._file.seek(self._start + position)
        data = self._fill(size)
        self._file.seek(self._start + self.position + len(self._ahead) - self._at)
        return data

    def look(self, size: int) -> memoryview:
        """The next `size` bytes at least, fewer only at the end, and whatever has been read behind them: not copied."""
        self._prepare(size)
        return memoryview(self._ahead)[self._at :]

    def _prepare(self, size: int) -> None:
        """Have `size` bytes ready, or all that are left."""
        ready = len(self._ahead) - self._at
        if not ready:
            self._ahead, self._at = self._fill(max(size, self._more)), 0
        elif ready < size:
            # as much again as is copied: looking far ahead, again and again, stays linear
            self._ahead, self._at = self._ahead[self._at :] + self._fill(max(size - ready, ready)), 0

    @cached_property
    def content_end(self) -> int:
        """Where the zeros begin that end it, where it can seek."""
        end, step = self.size or 0, WINDOW
        while end > 0:
            start = max(end - step, 0)
            used = self._used(start, end)
            if used:
                return used
            end, step = start, 4 * step  # what is compressed is read anew for each step
        return 0

    def _used(self, start: int, end: int) -> int:
        """Where what is not zero ends in a range; 0 where all of it is zero."""
        found = 0
        for at in range(start, end, BLOCK):
            data = self.at(at, min(BLOCK, end - at))
            found = found if is_zero(data) else at + len(data.rstrip(b"\0"))
        return found

    def as_file(self) -> BinaryIO:
        """What comes from here on, as a file: the one handed over, or one that cannot seek where it would seek too far back."""
        if self.size is None or self._start + self.position:
            return cast("BinaryIO", io.BufferedReader(_Rest(self)))
        self._file.seek(0)
        return self._file

    def _fill(self, size: int) -> bytes:
        if self.size is not None:
            size = min(size, self.size)  # a file makes room for all that it is asked for
        pieces: list[bytes] = []
        while size > 0:
            piece = read_some(self._file, size if self.size is not None else min(size, BLOCK))
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def is_zero(data: bytes) -> bool:
    """Whether a block is nothing but zeros."""
    return data == _ZEROS[: len(data)]


class Stretch:
    """Some bytes of an `Input` that can seek, taken like those of a `bytes` object and read when they are.

    Args:
        source: The input.
        start: Where they begin in it.
        size: How many they are.
    """

    def __init__(self, source: Input, start: int, size: int) -> None:
        self._source = source
        self._start = start
        self._size = size
        self._window = b""
        self._low = 0

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> bytes: ...
    def __getitem__(self, key: int | slice) -> int | bytes:
        """A byte, or those of a slice without a step; places count from the beginning."""
        if isinstance(key, int):
            if not self._low <= key < self._low + len(self._window):
                if key >= self._size:
                    raise IndexError(key)
                self._read_window(key)
            return self._window[key - self._low]
        low, high, _ = key.indices(self._size)
        if high - low > WINDOW:
            return self._read(low, high - low)
        if not self._low <= low <= high <= self._low + len(self._window):
            self._read_window(low)
        return self._window[low - self._low : high - self._low]

    def startswith(self, prefix: bytes | memoryview, start: int) -> bool:
        """Whether some bytes stand at a place."""
        for at in range(0, len(prefix), WINDOW):
            part = prefix[at : at + WINDOW]
            if not self[start + at : start + at + len(part)].startswith(part):
                return False
        return True

    def _read_window(self, low: int) -> None:
        self._window = self._read(low, min(WINDOW, self._size - low))
        self._low = low

    def _read(self, low: int, size: int) -> bytes:
        self._source.seek(self._start + low)
        data = self._source.read(size)
        if len(data) < size:
            raise OSError("the file has become shorter while it was read")
        return data


class _Rest(io.RawIOBase):
    """The rest of an `Input` as a raw file."""

    def __init__(self, source: Input) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader hands over
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

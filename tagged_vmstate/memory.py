"""Sparse memory as files beside a JSON form: one image a field, with holes, as long as the memory itself.

An image is the final state of its memory. A run that a later part writes over stays in the JSON form as hex, so
that the way back is the same to the byte. To know which these are, the sections are read once before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, TypeAlias, TypeGuard, cast
from urllib.parse import quote

from tagged_vmstate.errors import StateError
from tagged_vmstate.files import replacing
from tagged_vmstate.records import LIMITS, Record, from_json, head_to_json, is_foreign, to_json
from tagged_vmstate.sections import Sections
from tagged_vmstate.text import integer
from tagged_vmstate.types import Runs, from_hex
from tagged_vmstate.wire import Json
from tagged_vmstate.wiretype import brief

Key: TypeAlias = tuple[str, str]
"""A memory: the label of its section, the name of its field."""
MEMORY: Final = "memory"
"""The key of a field whose bytes lie in a file, and of the folder of these files."""
_NAME_BYTES: Final = 140
"""The longest name of an image: eCryptfs takes 143, other file systems more."""


def overwritten(sections: Sections) -> dict[Key, set[int]]:
    """For each memory the numbers of those runs that a later part writes over, wholly or partly."""
    places: dict[Key, array[int]] = {}
    for section in sections:
        for record in section.records():
            if record.type == "sparse":
                ends = places.setdefault((section.label, record.name), array("Q"))
                for offset, data in cast("Runs", record.value):
                    ends.extend((offset, offset + len(data)))
    return {key: _overwritten(found) for key, found in places.items()}


def _overwritten(places: array[int]) -> set[int]:
    """From the last run to the first: is it met by what was written after it?"""
    found = set()
    starts: list[int] = []
    ends: list[int] = []
    for number in reversed(range(len(places) // 2)):
        start, end = places[2 * number], places[2 * number + 1]
        if bisect_right(ends, start) < bisect_left(starts, end):
            found.add(number)
        first, last = bisect_left(ends, start), bisect_right(starts, end)
        if first < last:
            start, end = min(start, starts[first]), max(end, ends[last - 1])
        starts[first:last], ends[first:last] = [start], [end]
    return found


def _image_name(key: Key, others: Collection[str]) -> str:
    """The name of a memory's image: no other memory's, and that of no hidden file, as drafts are.

    Args:
        key: The memory.
        others: The names of the images before it, in lower case: some file systems ignore case.
    """
    label, field = key
    name = f"{quote(label, safe=' #')} {quote(field, safe='#')}"  # the last space separates them
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) > _NAME_BYTES or name.lower() in others:
        ordinal = f"={len(others)}"  # `quote` leaves no =
        name = f"{name[: _NAME_BYTES - len(ordinal)]}{ordinal}"
    return name


class Images:
    """Writes the images of a snapshot's memories into a folder; they appear when its block ends well.

    Args:
        folder: Where to.
        stale: What `overwritten` found for the same sections.
        beside: The folder in which the JSON form lies.

    Attributes:
        name: The name by which the folder is found beside the JSON form; None where it lies elsewhere.
    """

    def __init__(self, folder: Path, stale: dict[Key, set[int]], beside: Path | None = None) -> None:
        self.name = None if beside is None else _name_beside(folder.absolute(), beside)
        self._folder = folder
        self._stale = stale
        self._passed: dict[Key, int] = {}
        self._names: set[str] = set()
        self._files: dict[Key, tuple[str, BinaryIO]] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, value, trace)

    def to_json(self, label: str, record: Record) -> Json:
        """The JSON form of a memory of which the image holds the bytes. Raises OSError, also for an image that is a link."""
        key = (label, record.name)
        if key not in self._files:
            name = _image_name(key, self._names)
            self._names.add(name.lower())
            with contextlib.suppress(FileNotFoundError):
                _check_regular(self._folder / name, os.lstat(self._folder / name))
            self._files[key] = (name, self._open.enter_context(replacing(self._folder / name)))
            self._files[key][1].truncate(record.length)
        name, file = self._files[key]
        runs: dict[str, Json] = {}
        passed = self._passed.get(key, 0)
        for number, (offset, data) in enumerate(cast("Runs", record.value), passed):
            file.seek(offset)
            file.write(data)
            runs[f"0x{offset:x}"] = data.hex() if number in self._stale.get(key, ()) else len(data)
        self._passed[key] = passed + len(runs)
        return to_json(record) if is_foreign(record) else {**head_to_json(record), "value": runs, MEMORY: name}


def _name_beside(folder: Path, beside: Path) -> str | None:
    is_beside = os.path.realpath(folder.parent) == os.path.realpath(beside) and not os.path.islink(folder)  # noqa: PTH114
    return folder.name if is_beside and is_plain_name(folder.name) else None


def is_plain_name(name: object) -> TypeGuard[str]:
    """Whether a JSON form may name a file, or a folder, so: it is no way to anywhere else."""
    if not isinstance(name, str) or name in {"", ".", ".."} or "/" in name or "\0" in name:
        return False
    try:
        return name.encode() != b""
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def restored(field: Any, folder: Path | None) -> Record:
    """The record of a JSON form, with the bytes that lie in a file.

    Raises:
        StateError: It is no record, no folder was given, the file is not there or too short, or the field does not say what
            to take.
    """
    if not isinstance(field, dict) or MEMORY not in field:
        return from_json(field)
    name, runs = field[MEMORY], field.get("value")
    record = from_json({**{key: each for key, each in field.items() if key != MEMORY}, "value": {}})
    try:
        if not is_plain_name(name):
            raise StateError('"memory" as the name of a file in the folder', brief(name))
        if not isinstance(runs, dict):
            raise StateError("runs as {offset: number of bytes, or hex}", brief(runs))
        if folder is None:
            raise StateError(
                "the bytes of this memory",
                f"only the name of their file, {brief(name)}: name its folder with from-json --memory DIR",
            )
        with _opened(folder / name) as file:
            value = tuple(sorted(_run(file, offset, size) for offset, size in runs.items()))
    except OSError as error:
        expected = f"the file {brief(name)} in the folder {brief(str(folder))}"
        raise StateError(expected, str(error.strerror), path=(record.name,)) from None
    except StateError as error:
        error.under(record.name)
        raise
    return record.replace(value=value)


def _opened(path: Path) -> BinaryIO:
    """An image, open for reading. Raises OSError."""
    _check_regular(path, os.lstat(path))
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")  # it may be another by now


def _check_regular(path: Path, status: os.stat_result) -> None:
    """Raise OSError for an image that is a link out of its folder, or would block: the folder may come from anywhere."""
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "a symbolic link, which is not followed", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))


def _run(file: BinaryIO, offset: str, size: Json) -> tuple[int, bytes]:
    try:
        start = integer(offset)
    except ValueError:
        raise StateError("an offset", brief(offset)) from None
    if isinstance(size, str):
        return start, from_hex(size)
    end = os.fstat(file.fileno()).st_size
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= LIMITS.frame or start < 0:
        raise StateError("a number of bytes, or hex", brief(size))
    if start + size > end:
        raise StateError(f"{size} bytes at {brief(offset)} in the file of this memory", f"{end} bytes in all")
    file.seek(start)
    return start, file.read(size)

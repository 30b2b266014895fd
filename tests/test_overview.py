"""Sections put together from their parts: memory as it is in the end, however it came, at a bounded cost."""

from __future__ import annotations

import gzip
import io
import os
import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagged_vmstate.cli.render import hex_dump
from tagged_vmstate.compression import decompressed
from tagged_vmstate.errors import FormatError
from tagged_vmstate.jsonform import from_json, to_json
from tagged_vmstate.overview import LINE, WINDOW, Kept, Memory, overview, windows
from tagged_vmstate.records import Record, encode
from tagged_vmstate.sections import Section, Sections
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter
from tagged_vmstate.types import Runs

Parts: TypeAlias = Sequence[Runs]
LENGTH = 1 << 16


def sections(parts: Parts, length: int = LENGTH) -> Iterator[Section]:
    for number, runs in enumerate(parts):
        kind: Any = "section" if number == len(parts) - 1 else "part"
        yield Section("m", 0, [Record("ram", "sparse", length, runs)], kind=kind)


def written(parts: Parts, length: int = LENGTH, file: BinaryIO | None = None) -> bytes:
    target = file or io.BytesIO()
    with SnapshotWriter(target) as writer:
        for section in sections(parts, length):
            writer.write(section)
    return target.getvalue() if isinstance(target, io.BytesIO) else b""


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


def _as_json(data: bytes) -> Sections:
    text = io.BytesIO()
    to_json(Snapshot.read(data), text)
    return from_json(text.getvalue())


WAYS: dict[str, Callable[[bytes], Sections]] = {
    "file": Snapshot.read,
    "pipe": lambda data: Snapshot.read(_Pipe(data)),
    "compressed": lambda data: Snapshot.read(decompressed(io.BytesIO(gzip.compress(data, 1)), b"\x1f\x8b")),
    "JSON": _as_json,
}


@st.composite
def parts(draw: st.DrawFn) -> list[Runs]:
    """Memory written by several parts: runs side by side, one over the other, zeros over bytes, and near and far."""
    found: list[Runs] = []
    for _ in range(draw(st.integers(1, 4))):
        runs: list[tuple[int, bytes]] = []
        at = draw(st.sampled_from([0, 1, 15, 16, 4090, LENGTH - 200]))
        for _ in range(draw(st.integers(0, 4))):
            data = draw(st.sampled_from([b"\0", b"\1"])) * draw(st.integers(1, 40))
            if at + len(data) > LENGTH:
                break
            runs.append((at, data))
            at += len(data) + draw(st.sampled_from([0, 1, 15, 16, 17, 5000]))
        found.append(tuple(runs))
    return found


def flat(found: Parts, length: int = LENGTH) -> bytes:
    memory = bytearray(length)
    for runs in found:
        for offset, data in runs:
            memory[offset : offset + len(data)] = data
    return bytes(memory)


@pytest.mark.parametrize("way", WAYS)
@given(parts())
def test_it_is_what_was_written_last(way: str, found: list[Runs]) -> None:
    expected = flat(found)
    for whole in overview(WAYS[way](written(found))):
        assert whole.parts == len(found)
        memory = whole.memory["ram"]
        ends = [0]
        seen = bytearray(LENGTH)
        for start, end, place in memory.extents():
            assert ends[-1] <= start < end
            ends.append(end)
            seen[start:end] = memory.source.at(place, end - start)
        assert seen == expected
        again = bytearray(LENGTH)
        for low, [data] in windows(memory):
            assert low % LINE == 0
            again[low : low + len(data)] = data
        assert again == expected
        assert list(hex_dump(((low, data) for low, [data] in windows(memory)), LENGTH)) == list(hex_dump([(0, expected)], LENGTH))


@given(parts())
def test_what_is_said_of_it_depends_on_nothing_else(found: list[Runs]) -> None:
    memory = flat(found)
    [whole] = overview(Snapshot.read(written(found)))
    [other] = overview(Snapshot.read(written([((0, memory),)])))
    use, pieces = whole.memory["ram"].use(), list(whole.memory["ram"].pieces())
    assert use == other.memory["ram"].use()
    assert flat([tuple((start, data) for start, data, _ in pieces)]) == memory
    assert use.count == sum(len(data) for _, data, _ in pieces)
    assert use.ranges == sum(begins for _, _, begins in pieces)
    ranges = [part for part in memory.split(bytes(LINE)) if part.strip(b"\0")]
    assert use.ranges == len(ranges)
    assert use.count == sum(len(part.strip(b"\0")) for part in ranges)
    if ranges:
        assert use.start == len(memory) - len(memory.lstrip(b"\0"))
        assert use.first == ranges[0].strip(b"\0")[:LINE]


def test_a_range_over_the_edge_of_a_window() -> None:
    for gap, ranges in ((LINE - 1, 1), (LINE, 2)):
        runs = ((0, b"\1" * (WINDOW - 3)), (WINDOW - 3 + gap, b"\2"))
        [whole] = overview(Snapshot.read(written([runs], 2 * WINDOW)))
        use = whole.memory["ram"].use()
        assert (use.ranges, use.count) == (ranges, WINDOW - 2 + (gap if ranges == 1 else 0))


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([b"\0", b"a", bytes(range(16))])), max_size=8), st.integers(0, 20))
def test_a_dump_has_every_byte(rows: list[tuple[int, bytes]], more: int) -> None:
    data = b"".join(count * row.ljust(16, row[-1:]) for count, row in rows) + b"\7" * more
    found = bytearray()
    lines = list(hex_dump([(0, data)], len(data)))
    for number, line in enumerate(lines):
        if line == "*":
            end = int(lines[number + 1][:8], 16) if number + 1 < len(lines) else len(data)
            found += found[-16:] * ((end - len(found)) // 16)
        else:
            assert int(line[:8], 16) == len(found)
            found += bytes.fromhex(line[10:57])
    assert found == data
    assert "*\n*" not in "\n".join(lines)


class _Counting(Kept):
    """Counts how often it is read."""

    reads = 0

    def at(self, position: int, size: int) -> bytes:
        self.reads += 1
        return super().at(position, size)


def _rewritten(count: int) -> Iterator[tuple[int, int]]:
    return ((0, 64) for _ in range(count))


def _stairs(count: int) -> Iterator[tuple[int, int]]:
    return ((number, count) for number in range(count))


def _pages(count: int) -> Iterator[tuple[int, int]]:
    return ((64 * random.Random(number).randrange(count), 64) for number in range(count))


@pytest.mark.parametrize(("shape", "most"), [(_rewritten, 1), (_stairs, 16_000), (_pages, 16_000)])
def test_what_is_read_is_what_is_there_in_the_end(shape: Callable[[int], Iterator[tuple[int, int]]], most: int) -> None:
    """Passes of a live migration: a page 16,000 times, and runs of which only a part stays."""
    with _Counting() as source:
        memory = Memory(1 << 24, source)
        for start, size in shape(16_000):
            memory.write(start, size, source.add(b"\1" * size))
        assert memory.use().count
        assert source.reads <= most


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_a_window_is_held_not_the_memory(way: str, tmp_path: Path) -> None:
    path, length = tmp_path / "a.tvm", 80 << 20
    with path.open("wb") as file:
        written([((low, os.urandom(WINDOW)),) for low in range(0, length, WINDOW)], length, file)
    with path.open("rb", buffering=0) as raw:
        source = raw if way == "file" else _Slow(raw)
        tracemalloc.start()
        for whole in overview(Snapshot.read(source)):  # type: ignore[arg-type]  # all that reading needs
            assert whole.memory["ram"].use().count > length - 1000
            for _ in windows(whole.memory["ram"]):
                pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < (8 * WINDOW if way == "file" else 18 * WINDOW), "of a pipe, 32 MiB are kept in memory before a file is used"


class _Slow(io.RawIOBase):
    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes | None:
        return self._file.read(size)


def test_memory_at_both_ends_of_a_large_guest() -> None:
    length = 1 << 40
    runs = ((0, b"\1"), (length - 1, b"\2"))
    [whole] = overview(Snapshot.read(written([runs], length)))
    memory = whole.memory["ram"]
    assert (memory.use().count, memory.use().ranges) == (2, 2)
    lines = list(hex_dump(((low, data) for low, [data] in windows(memory)), length))
    assert [line.partition("  ")[0] for line in lines] == ["00000000", "00000010", "*", "fffffffff0"]


def test_runs_in_every_encoding_are_found_again() -> None:
    """A writer may choose wider heads than the prescribed ones."""
    plain = encode(Record("ram", "sparse", 64, ((0, b"ab"), (9, b"c"))))
    assert plain.endswith(bytes.fromhex("94 00 c402 6162 09 c401 63"))
    wide = plain[:-10] + bytes.fromhex("dc0004 d1 0000 c5 0002 6162 ce 00000009 c6 00000001 63")
    file = io.BytesIO()
    with SnapshotWriter(file) as writer:
        writer.write(_Encoded("m", 0, wide))
    [whole] = overview(Snapshot.read(file.getvalue()))
    assert [data[:10] for _, [data] in windows(whole.memory["ram"])] == [b"ab" + bytes(7) + b"c"]


class _Encoded(Section):
    def __init__(self, device: str, instance: int, fields: bytes) -> None:
        super().__init__(device, instance, ())
        self._fields = fields

    def pieces(self) -> Sequence[bytes]:
        return (self._fields,)


def test_sections_above_what_is_held_are_read_where_they_lie(tmp_path: Path) -> None:
    path, data = tmp_path / "a.tvm", bytes(range(1, 251)) * 40_000
    with path.open("wb") as file:
        written([((100, data), (len(data) + 101, b"z"))], len(data) + 200, file)
    with Snapshot.read(path) as snapshot:
        [whole] = overview(snapshot)
        assert b"".join(bytes(piece) for _, piece, _ in whole.memory["ram"].pieces()) == data + b"\0z"


def test_a_file_that_is_cut_while_it_is_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tvm"
    with path.open("wb") as file:
        written([((0, b"\1" * (3 << 20)),)], 3 << 20, file)
    with Snapshot.read(path) as snapshot:
        snapshot.name = "a name"
        for whole in overview(snapshot):
            os.truncate(path, 1 << 20)
            with pytest.raises(FormatError, match=r"snapshot has only \d+ \(truncated\)") as caught:
                whole.memory["ram"].use()
            assert caught.value.file == "a name"
            break

"""The promise of the README, row by row, each with a figure: what docs/reliability.md tells.

    python tests/reliability.py [--release] [--write] [ROW ...]

A row asserts its bar and returns its figure. `tests/test_reliability.py` runs each as CI does; `--release` runs them in the
numbers that are due before a release (an hour), `--write` puts the figures into the page.
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import gc
import importlib
import io
import itertools
import json
import math
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final, TypeVar

import hostile
import msgpack
import msgspec
import ormsgpack
import pytest
import test_machine
from arguments import Arguments, one_of
from conftest import STREAMS, stream_bytes
from interrupts import interrupt_loads
from stops import fail_everywhere, stop_everywhere
from test_snapshot import hostile as hostile_snapshot

import tagged_vmstate as tv
from tagged_vmstate import Field, FormatError, Length, LoadError, Machine, MaxLength, Table, VMStateError
from tagged_vmstate.annotations import parse
from tagged_vmstate.diff import diff
from tagged_vmstate.frames import Lead
from tagged_vmstate.fuzz import Dumps, Json, Limits, Snapshots, Streams, Tables, Target, fuzz
from tagged_vmstate.fuzz.mutate import changed_bytes, changed_snapshot
from tagged_vmstate.jsonform import from_json, to_json
from tagged_vmstate.qemu import dumpstate
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.qemu.export import export
from tagged_vmstate.records import Record, decode_all, encode_plain
from tagged_vmstate.sections import NO_ATTRIBUTES, EncodedSection, Section
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter, write
from tagged_vmstate.wire import Opaque, float_from_bits, pack_array_head, pack_bin, pack_str, pack_uint

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "reliability.md"
CORPUS: Final = Path(__file__).parent / "corpus"
MIB: Final = 1 << 20
T = TypeVar("T")
ROWS: Final[dict[int, Row]] = {}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is run: on each change, or before a release."""

    release: bool

    def __call__(self, change: T, release: T) -> T:
        return release if self.release else change


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the page."""

    number: int
    name: str
    run: Callable[[Scale], str]


def row(number: int, name: str) -> Callable[[Callable[[Scale], str]], Callable[[Scale], str]]:
    """Make a function a row: it asserts, and returns the figure."""

    def add(function: Callable[[Scale], str]) -> Callable[[Scale], str]:
        ROWS[number] = Row(number, name, function)
        return function

    return add


# --- what the rows run on


def file_of_4k() -> bytes:
    """Every type and kind of section in 4 KiB."""
    [seed] = Snapshots().seeds()
    snapshot = Snapshot.read(seed)
    sections: list[Section] = list(snapshot)
    for padding in range(4096 - len(seed), 0, -1):
        file = io.BytesIO()
        with SnapshotWriter(file, snapshot.raw_attributes) as writer:
            for section in (*sections, Section("padding", 0, (Record("p", "buffer", padding, Random(1).randbytes(padding)),))):
                writer.write(section)
        if len(file.getvalue()) <= 4096:
            return file.getvalue()
    raise AssertionError("the seed has grown beyond 4 KiB")


def read(data: bytes) -> None:
    """Read all of a snapshot."""
    for section in Snapshot.read(data):
        section.records()


def refused(data: bytes) -> bool:
    """Whether it is refused, by our error; any other leaves."""
    try:
        read(data)
    except FormatError:
        return True
    return False


def snapshot(*records: Record, device: str = "d") -> bytes:
    """A snapshot of one device; the records need not fit each other."""
    return raw_snapshot(b"".join(map(encode_plain, records)), device)


def raw_snapshot(payload: bytes, device: str = "d") -> bytes:
    """A snapshot of one device, its fields any bytes, with correct sums."""
    file = io.BytesIO()
    with SnapshotWriter(file) as writer:
        writer.write(EncodedSection(Lead.of("section", device, 0, NO_ATTRIBUTES), payload))
    return file.getvalue()


def tests(*nodes: str) -> str:
    """Run tests that stand elsewhere, and say how many passed."""
    line = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "", "-p", "no:cacheprovider", *nodes]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0 and found, done.stdout[-2000:]
    return f"{found[1]} tests, none failing"


def status(key: str) -> int:
    """A figure of this process in bytes, from the kernel."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def growth(work: Callable[[], object]) -> tuple[int, int, float]:
    """Bytes of memory and of address space that some work adds at its peak, and seconds, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        gc.disable()
        Path("/proc/self/clear_refs").write_text("5")
        resident, space = status("VmRSS"), status("VmSize")
        start = time.perf_counter()
        with contextlib.suppress(VMStateError):
            work()
        seconds = time.perf_counter() - start
        peaks = (status("VmHWM") - resident, max(status("VmPeak"), space) - space, seconds)
        os.write(writing, json.dumps(peaks).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        answer = file.read()
    assert os.waitpid(child, 0)[1] == 0, "it raised what is no error of ours"
    found = json.loads(answer)
    return found[0], found[1], found[2]


# --- bytes


@row(1, "every bit of a 4 KiB file flipped")
def _(scale: Scale) -> str:
    files = [file_of_4k()]
    if scale.release:
        file = io.BytesIO()
        write(import_stream(io.BytesIO(stream_bytes("isapc-qemu7.2"))), file)
        files.append(file.getvalue())
    bits = 0
    for data in files:
        changed = bytearray(data)
        for bit in range(8 * len(data)):
            changed[bit >> 3] ^= 1 << (bit & 7)
            assert refused(bytes(changed)), f"bit {bit}"
            changed[bit >> 3] ^= 1 << (bit & 7)
        bits += 8 * len(data)
    return f"{bits} bits, all detected"


@row(2, "two bits, bursts of up to 32 bits, 64 bytes overwritten, 512 bytes zeroed")
def _(scale: Scale) -> str:
    data, random, each = file_of_4k(), Random(2), scale(10_000, 100_000)
    counts = 0
    for _number in range(each):
        for kind in range(4):
            number = int.from_bytes(data, "big")
            changed = bytearray(data)
            if kind == 0:
                for bit in random.sample(range(8 * len(data)), 2):
                    changed[bit >> 3] ^= 1 << (bit & 7)
            elif kind == 1:
                burst = (random.getrandbits(30) << 1 | 1 | 1 << 31) >> random.randrange(31)
                changed = bytearray((number ^ burst << random.randrange(8 * len(data) - 32)).to_bytes(len(data), "big"))
            else:
                size = 64 if kind == 2 else 512
                at = random.randrange(len(data) - size)
                changed[at : at + size] = random.randbytes(size) if kind == 2 else bytes(size)
            assert bytes(changed) == data or refused(bytes(changed))
            counts += bytes(changed) != data
    return f"{counts} damaged files, all detected"


@row(3, "cut at every byte, 1 to 64 bytes more, two files joined")
def _(_scale: Scale) -> str:
    data = file_of_4k()
    for size in range(len(data)):
        try:
            read(data[:size])
        except FormatError as error:
            assert size < 17 or "truncated" in str(error) or "only" in str(error), str(error)
        else:
            raise AssertionError(f"cut at {size}")
    for extra in range(1, 65):
        assert refused(data + bytes(extra))
        assert refused(data + Random(extra).randbytes(extra))
    assert refused(data + data)
    return f"{len(data)} cuts, 128 endings, 1 pair, all detected"


@row(4, "sections swapped, dropped, doubled, foreign, each with its own correct sum")
def _(_scale: Scale) -> str:
    def frames(seed: int) -> tuple[bytes, list[bytes], bytes]:
        file = io.BytesIO()
        with SnapshotWriter(file) as writer:
            for number in range(8):
                writer.write(Section(f"d{number}", 0, (Record("x", "uint32", None, seed + number),)))
        data = file.getvalue()
        sections = list(Snapshot.read(data))
        places = [section.offset for section in sections] + [sections[-1].end]
        return data[: places[0]], [data[a:b] for a, b in itertools.pairwise(places)], data[places[-1] :]

    head, own, end = frames(0)
    foreign = frames(100)[1]
    count = 0
    for first in range(8):
        wrong = [own[:first] + own[first + 1 :], [*own[: first + 1], *own[first:]]]
        for second in range(8):
            wrong.append([*own[:first], foreign[second], *own[first + 1 :]])
            if second != first:
                swapped = list(own)
                swapped[first], swapped[second] = swapped[second], swapped[first]
                wrong.append(swapped)
        for each in wrong:
            assert refused(head + b"".join(each) + end)
            count += 1
    assert not refused(head + b"".join(own) + end)
    return f"{count} files, all detected"


@row(5, "mutated, all sums mended: only our error, no hang")
def _(scale: Scale) -> str:
    figures = []
    for target, runs in (
        (Snapshots(), scale(60_000, 6_000_000)),
        (Json(), scale(60_000, 3_500_000)),
        (Streams(), scale(5_000, 500_000)),
        (Tables(), scale(5_000, 500_000)),
        (Dumps(), scale(20_000, 2_000_000)),
    ):
        outcome = fuzz(target, Limits(runs=runs), seed=5)
        assert outcome.findings == {}, outcome.findings
        figures.append(f"{target.name} {outcome.runs} runs ({outcome.runs / outcome.seconds:.0f}/s)")
    return ", ".join(figures) + ": no finding"


def _heads(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Start, size and kind of the head of every MessagePack object in some bytes."""
    at = 0
    while at < len(data):
        first = data[at]
        kind, size, body = "other", 1, 0
        if first < 0x80 or first >= 0xE0:
            kind = "int"
        elif first < 0x90:
            kind = "map"
        elif first < 0xA0:
            kind = "array"
        elif first < 0xC0:
            kind, body = "str", first & 31
        elif first in {0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB}:
            kind = "bin" if first < 0xD0 else "str"
            size = 1 + (1 << (first - (0xC4 if first < 0xD0 else 0xD9)))
            body = int.from_bytes(data[at + 1 : at + size], "big")
        elif 0xCC <= first <= 0xD3:
            kind, size = "int", 1 + (1 << (first & 3))
        elif first in {0xCA, 0xCB}:
            size = 5 if first == 0xCA else 9
        elif first in {0xDC, 0xDD}:
            kind, size = "array", 3 if first == 0xDC else 5
        elif first in {0xDE, 0xDF}:
            kind, size = "map", 3 if first == 0xDE else 5
        yield at, size, kind
        at += size + body


_WIDE: Final = {"array": 0xDD, "map": 0xDF, "str": 0xDB, "bin": 0xC6}


@row(6, "every length and count n+1, 2^16-1, 2^31-1, 2^31, 2^32-1, 2^63-1, 2^64-1")
def _(_scale: Scale) -> str:
    worst = [0, 0, 0.0]
    count = 0
    for section in Snapshot.read(file_of_4k()):
        payload = section.payload()
        if section.device == "padding":
            continue
        for at, size, kind in _heads(payload):
            for value in (1 << 16, (1 << 16) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1):
                if kind in _WIDE:
                    head = bytes((_WIDE[kind],)) + (value & 0xFFFF_FFFF).to_bytes(4, "big")
                elif kind == "int":
                    head = b"\xcf" + value.to_bytes(8, "big")
                else:
                    continue
                data = raw_snapshot(payload[:at] + head + payload[at + size :])
                found = growth(lambda data=data: read(data))  # type: ignore[misc]  # bound now
                worst = [max(pair) for pair in zip(worst, found, strict=True)]
                count += 1
    assert worst[0] <= 8 * MIB and worst[1] <= 64 * MIB and worst[2] <= 0.05, worst
    return f"{count} files: at most +{worst[0] / MIB:.1f} MiB, +{worst[1] / MIB:.1f} MiB of addresses, {1000 * worst[2]:.1f} ms"


def _nested(levels: int, innermost: bytes) -> bytes:
    inner = innermost
    for _level in range(levels):
        inner = b"\x95\xa1s\xa6struct\xc0\x00\xdd\x00\x00\x00\x01" + inner
    return inner


@row(7, "1 MiB, nested as deep as may be, every array declaring 2^20")
def _(_scale: Scale) -> str:
    head = b"\x95\xa1s\xa6struct\xce\x00\x10\x00\x00\x00\xdd\x00\x10\x00\x00"
    deep = head * 60 + b"\xdd\x00\x10\x00\x00" + b"\xc0" * (MIB - 2000)
    nulls = b"\x95\xa1s\xa6struct\xce\x00\x10\x00\x00\x00\xdd\x00\x10\x00\x00" + b"\xc0" * (1 << 20)
    empty = b"\x95\xa1s\xa6struct\xce\x00\x10\x00\x00\x00\xdd\x00\x10\x00\x00" + b"\x90" * (1 << 20)
    factors = []
    for payload in (deep, nulls, empty):
        data = raw_snapshot(payload)
        factors.append(growth(lambda data=data: read(data))[0] / len(data))  # type: ignore[misc]  # bound now
    assert max(factors) <= 16, factors
    return f"at most {max(factors):.1f} times the file"


_SIXTY: Final = [Field(f"f{number}", tv.uint8, default=number) for number in range(60)]
_TEXTS: Final = Annotated[list[str], MaxLength(1 << 20)]
_PLAIN: Final = Table("plain", [*_SIXTY, Field("texts", _TEXTS, default_factory=list)])
_FULL: Final = Table("full", [Field("buffer", Annotated[bytearray, Length(512)], default_factory=lambda: bytearray(512))])
_NEEDY: Final = Table("needy", [Field(f"f{number}", tv.uint8) for number in range(60)])
_PAGE: Final = Table("page", [Field("memory", Annotated[tv.sparse, Length(1 << 16)], default_factory=lambda: bytearray(1 << 16))])
_OUTER: Final = Table(
    "outer", [Field("inner", Annotated[list[dict[str, Any]], _PLAIN, MaxLength(1 << 20)], default_factory=list)]
)


@tv.vmstate
class _Slotted:
    """A struct of a class; the others are dicts."""

    a: tv.uint8 = 1
    b: Annotated[list[tv.uint16], MaxLength(64)] = tv.field(default_factory=lambda: [300] * 64)


LARGE: Final = Table(
    "d",
    [
        *(
            Field(table.name, Annotated[list[dict[str, Any]], table, MaxLength(1 << 20)], default_factory=list)
            for table in (_PLAIN, _FULL, _NEEDY, _PAGE, _OUTER)
        ),
        Field("slotted", Annotated[list[_Slotted], MaxLength(1 << 20)], default_factory=list),
        Field("maybe", Annotated[list[_Slotted | None], MaxLength(1 << 20)], default_factory=list),
        Field("texts", _TEXTS, default_factory=list),
        Field("buffer", Annotated[bytes, MaxLength(1 << 24)], default=b""),
        Field("memory", Annotated[tv.sparse, Length(1 << 21)], default_factory=lambda: bytearray(1 << 21)),
        *(
            Field(kind.name, Annotated[list[each], MaxLength(1 << 22)], default_factory=list)  # type: ignore[valid-type]
            for each, kind in ((each, parse(each).wire) for each in (tv.uint8, tv.int16, tv.uint64, tv.float32, tv.boolean))
        ),
        Field(
            "block",
            Annotated[array, tv.uint16, MaxLength(1 << 22)],
            default_factory=lambda: array("H"),
        ),
    ],
)
"""What a file of a few bytes might make a loader fill."""


def _large(size: int) -> Iterator[tuple[str, bytes]]:
    """Snapshots for `LARGE` of about some size, each of them full of one thing."""

    def head(name: str, kind: str, count: int) -> bytes:
        return b"\x95" + pack_str(name) + pack_str(kind) + pack_uint(count) + b"\0"

    def elements(name: str, kind: str, one: bytes, size: int = size) -> bytes:
        count = size // len(one)
        return head(name, kind, count) + pack_array_head(count) + one * count

    def struct(*records: Record) -> bytes:
        return pack_array_head(len(records)) + b"".join(map(encode_plain, records))

    one = Record("f1", "uint8", None, 7)
    for name in ("plain", "full", "needy", "page", "outer", "slotted", "maybe"):
        yield f"{name}: empty", elements(name, "struct", b"\x90")
        yield f"{name}: absent", elements(name, "struct", b"\xc0")
        yield f"{name}: unknown", elements(name, "struct", struct(one.replace(name="x")))
        yield f"{name}: unknown, at its default", elements(name, "struct", struct(one.replace(name="x", is_default=True)))
    yield "plain: one field", elements("plain", "struct", struct(one))
    yield "plain: all fields", elements("plain", "struct", struct(*(one.replace(name=field.name) for field in _SIXTY)))
    yield "page: no runs", elements("page", "struct", struct(Record("memory", "sparse", 1 << 16, ())))
    yield "outer: full of empty ones", elements("outer", "struct", b"\x91" + elements("inner", "struct", b"\x90", 15))
    yield "slotted: one field", elements("slotted", "struct", struct(Record("a", "uint8", None, 9)))
    yield "texts: empty", elements("texts", "string", b"\xa0")
    yield "texts: short", elements("texts", "string", b"\xa2ab")
    for name, width in (("uint8", 1), ("int16", 2), ("uint64", 8), ("float32", 4), ("bool", 1), ("block", 2)):
        kind = "uint16" if name == "block" else name
        data = bytes(size) if name == "bool" else Random(8).randbytes(size // 8 * 8)
        yield name, head(name, kind, len(data) // width) + pack_bin(data)
    runs = tuple((place, b"x") for place in range(0, min(size // 3, 1 << 20) * 2, 2))
    yield "memory", encode_plain(Record("memory", "sparse", 1 << 21, runs))
    tiny = [Record(f"{number:x}", "x", None, Opaque(b"\xc0"), is_default=True) for number in range(size // 12)]
    yield "unknown fields, at their defaults", b"".join(map(encode_plain, tiny))
    yield "unknown fields", b"".join(encode_plain(record.replace(is_default=False)) for record in tiny)


@row(8, "any file, accepted or refused: peak memory at most 64 times its size + 8 MiB; tables with lists of a million too")
def _(scale: Scale) -> str:
    random, base = Random(8), file_of_4k()
    tried: list[bytes] = []
    while len(tried) < scale(1_500, 15_000):
        tried.append(changed_snapshot(base, random))
    worst = -math.inf
    for start in range(0, len(tried), 20):
        batch = tried[start : start + 20]
        peak = growth(lambda batch=batch: [refused(data) for data in batch])[0]  # type: ignore[misc]  # bound now
        worst = max(worst, (peak - 8 * MIB) / min(map(len, batch)))
    assert worst <= 64, worst
    count, most = 0, (-math.inf, "")
    for size in scale((20_000, 300_000), (20_000, 300_000, 1_000_000, 4_000_000)):
        for shape, payload in _large(size):
            data = raw_snapshot(payload)
            for unknown in ("error", "keep"):
                peak = growth(lambda data=data, unknown=unknown: tv.load(data, LARGE, unknown=unknown))[0]  # type: ignore[misc]
                most = max(most, ((peak - 8 * MIB) / len(data), shape))
                count += 1
    for shape in ("same end", "any end", "between intact ones", "attributes"):
        data = hostile_snapshot(shape, 300_000)
        peak = growth(lambda data=data: [section.damage for section in Snapshot.read(data, damaged="report")])[0]  # type: ignore[misc]
        most = max(most, ((peak - 8 * MIB) / len(data), f"salvage, {shape}"))
        count += 1
    assert most[0] <= 64, most
    mutated = "within 8 MiB" if worst <= 0 else f"{worst:.1f} times + 8 MiB"
    return f"{len(tried)} mutated: {mutated}; {count} loads into large tables and salvages: at most {most[0]:.1f} times + 8 MiB ({most[1]})"


@row(9, "64 levels taken, 65 refused; 10^5 and 10^6 refused at once")
def _(_scale: Scale) -> str:
    leaf = b"\x95\xa1x\xa5uint8\xc0\x00\x07"
    assert not refused(raw_snapshot(_nested(63, leaf)))
    assert refused(raw_snapshot(_nested(65, leaf)))
    worst, memory = 0.0, 0
    for levels in (100_000, 1_000_000):
        inner: tuple[bytes, ...] = (b"\x91" * levels, b"\x81\xa1k" * levels)
        payloads = [b"\x95\xa1o\xa3odd\xc0\x00" + each + b"\xc0" for each in inner]
        payloads.append((b"\x95\xa1s\xa6struct\xc0\x00\x91" * (levels // 10)) + leaf)
        for payload in payloads:
            data = raw_snapshot(payload)
            assert refused(data)
            held = Snapshot.read(data)
            [section] = held
            grown, _space, seconds = growth(section.records)
            worst, memory = max(worst, seconds), max(memory, grown - len(payload))
    assert memory <= MIB, memory
    near = sys.getrecursionlimit() - len(_stack()) - 60

    def down(levels: int) -> bool:
        return down(levels - 1) if levels else refused(raw_snapshot(_nested(65, leaf)))

    assert down(near)
    return f"at most {1000 * worst:.1f} ms, +{max(memory, 0) / MIB:.2f} MiB beside the bytes themselves; also near the recursion limit"


def _stack() -> list[object]:
    frame, found = sys._getframe(), []  # noqa: SLF001  # how deep we are
    while frame:
        found.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return found


@row(10, "time for twice as much of anything that an input can have many of")
def _(scale: Scale) -> str:
    steps, worst = scale(1, 3), (0.0, "")
    for name, (shape, work, power) in GROWING.items():
        first, last = (
            min(_timed(work, data) for _ in range(scale(3, 5))) for data in map(shape, (1 << power, 1 << power + steps))
        )
        worst = max(worst, ((last / first) ** (1 / steps), name))
    assert worst[0] <= 2.3 or not scale.release, worst
    return f"{len(GROWING)} shapes: at most {worst[0]:.2f} times as long for twice as much ({worst[1]})"


def _timed(work: Callable[[Any], object], data: Any) -> float:
    gc.collect()
    start = time.process_time()  # others may use the machine
    work(data)
    return time.process_time() - start


def imported(data: bytes) -> None:
    """Make a snapshot of a stream."""
    with open(os.devnull, "wb") as nowhere:
        write(import_stream(io.BytesIO(data)), nowhere)


def not_imported(data: bytes) -> None:
    """Refuse a stream."""
    with pytest.raises(FormatError):
        imported(data)


def differ(snapshots: tuple[bytes, bytes]) -> None:
    """Compare two snapshots."""
    assert any(diff(Snapshot.read(snapshots[0]), Snapshot.read(snapshots[1])))


def not_from_json(data: bytes) -> None:
    """Refuse a JSON form."""
    with pytest.raises(FormatError):
        write(from_json(io.BytesIO(data)), io.BytesIO())


def _sections(count: int) -> bytes:
    file = io.BytesIO()
    with SnapshotWriter(file) as writer:
        for number in range(count):
            writer.write(Section("d", number, ()))
    return file.getvalue()


def _reordered(count: int) -> tuple[Any, Any]:
    names = [f"f{number}" for number in range(count)]
    return hostile.dump(names), hostile.dump([*names[::2], *(f"g{number}" for number in range(count)), *names[1::2]])


GROWING: Final[dict[str, tuple[Callable[[int], Any], Callable[[Any], object], int]]] = {
    "fields": (lambda count: snapshot(*(Record(f"f{number}", "uint8", None, 1) for number in range(count))), read, 14),
    "sections": (_sections, read, 14),
    "empty structs": (lambda count: snapshot(Record("s", "struct", count, ((),) * count)), read, 14),
    "null structs": (lambda count: snapshot(Record("s", "struct", count, (None,) * count)), read, 14),
    "strings": (lambda count: snapshot(Record("s", "string", count, [""] * count)), read, 14),
    "runs": (
        lambda count: snapshot(Record("s", "sparse", 4 * count, tuple((4 * number, b"x") for number in range(count)))),
        read,
        14,
    ),
    **{f"stream: {name}": (shape, imported, 11) for name, shape in hostile.ACCEPTED.items()},
    **{f"stream, refused: {name}": (shape, not_imported, 11) for name, shape in hostile.REFUSED.items()},
    "JSON: small sections": (
        hostile.sections,
        lambda data: write(from_json(io.BytesIO(data)), io.BytesIO()),
        12,
    ),
    "JSON, refused: keys": (hostile.keys, not_from_json, 10),  # json.loads itself takes three times as long beyond the caches
    "diff: memories": (
        lambda count: tuple(
            snapshot(*(Record(f"m{number}", "sparse", 64, ((0, data),)) for number in range(count))) for data in (b"x", b"y")
        ),
        differ,
        11,
    ),
    "diff: elements": (
        lambda count: tuple(snapshot(Record("a", "uint8", 64 * count, (first, *[0] * 63) * count)) for first in (1, 2)),
        differ,
        11,
    ),
    "compat of QEMU's dumps": (_reordered, lambda dumps: dumpstate.compare(*map(dumpstate.parse, dumps)), 11),
}
"""What there can be many of: how it is made, what is done with it, and the power of two of the smallest number of it."""


# --- values


@row(11, "one name twice: field, nested field, section, part, attribute, alias")
def _(_scale: Scale) -> str:
    return tests(
        "tests/test_types.py::test_two_siblings_of_one_name_are_refused_at_every_level",
        "tests/test_snapshot.py::test_swapped_dropped_doubled_and_foreign_frames_are_detected",
        "tests/test_snapshot.py::test_only_memory_comes_again_in_a_later_part",
        "tests/test_snapshot.py::test_where_a_head_is_wrong_is_said",
        "tests/test_loader.py::TestTheRules::test_a_name_and_its_alias_are_a_problem_even_at_their_defaults",
    )


_NAMES: Final = (
    *(b"", b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xc0\x80", b"\0", b"a\0b", b"x" * 255, b"x" * 256, b"__class__", b"__dict__"),
    *(
        b"__init__",
        b"../x",
        b"/etc/passwd",
        "é".encode() * 200,
        b"\xf4\x90\x80\x80",
        b"\x1b[2J",
        b"a/b",
        b"a[0]",
        b"\xe2\x80\xae",
    ),
)


@row(12, "names: overlong, surrogate, cut, 0xFF, NUL, empty, 256 bytes, __class__, ../x")
def _(_scale: Scale) -> str:
    table = Table("d", [Field("a", tv.uint8, default=0)])
    taken = cases = 0
    for raw in _NAMES:
        text = b"\xda" + len(raw).to_bytes(2, "big") + raw
        for payload in (
            b"\x95" + text + b"\xa5uint8\xc0\x00\x07",
            b"\x95\xa1a" + text + b"\xc0\x00\x07",
            b"\x95\xa1s\xa6string\xc0\x00" + text,
        ):
            cases += 1
            state = {"a": 5}
            with contextlib.suppress(VMStateError):
                tv.load(raw_snapshot(payload), into=state, table=table, unknown="ignore")
                taken += 1
            assert state.keys() == {"a"}
    return f"{cases} cases: {taken} taken as plain data, {cases - taken} refused; no attribute but the declared one set"


@row(13, "every type at its edges and beyond; every type where another is declared")
def _(_scale: Scale) -> str:
    kinds = {name: getattr(tv, name) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")}
    kinds |= {"bool": bool, "float64": tv.float64, "string": str}
    values: dict[str, Any] = dict.fromkeys(kinds, 1) | {"bool": True, "float64": 1.0, "string": "1"}
    count = 0
    for name, annotation in kinds.items():
        table = Table("d", [Field("a", annotation)])
        for other, value in values.items():
            count += 1
            if other == name:
                assert tv.load(snapshot(Record("a", other, None, value)), table) == {"a": value}
                continue
            try:
                tv.load(snapshot(Record("a", other, None, value)), table)
            except LoadError as error:
                assert error.problems[0].rule == "wrong-type"
            else:
                raise AssertionError(f"{other} for {name}")
        if "int" in name:
            bits = int(name.lstrip("uint"))
            low, high = (0, (1 << bits) - 1) if name[0] == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)
            for number, fits in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
                count += 1
                if not -(1 << 63) <= number < 1 << 64:
                    continue
                raw = b"\x95\xa1a" + Opaque.of(name).raw + b"\xc0\x00" + Opaque.of(number).raw
                assert refused(raw_snapshot(raw)) is not fits
    return f"{count} cases"


@row(14, "integers, strings and bytes in every width: one rule")
def _(_scale: Scale) -> str:
    return tests(
        "tests/test_types.py",
        "-k",
        "fitting_encoding or does_not_fit",
        "tests/test_snapshot.py::test_a_foreign_decoder_reads_every_generated_snapshot",
    )


@row(15, "NaN with any payload, infinities, -0.0, the smallest subnormal, in 32 and 64 bits")
def _(_scale: Scale) -> str:
    bits_of = {
        4: (0x7FC00000, 0x7F800001, 0xFFC00000, 0x7FFFFFFF, 0xFFA00001, 0x7F800000, 0xFF800000, 0x80000000, 1, 0x7FC12345),
        8: (
            0x7FF8 << 48,
            (0x7FF0 << 48) + 1,
            0xFFF8 << 48,
            (1 << 63) - 1,
            (0xFFF4 << 48) + 1,
            0x7FF0 << 48,
            0xFFF0 << 48,
            1 << 63,
            1,
            0x7FF8_0000_0001_2345,
        ),
    }
    count = 0
    for width, patterns in bits_of.items():
        for bits in patterns:
            data = snapshot(Record("x", f"float{8 * width}", None, float_from_bits(bits, width)))
            head = b"\xca" if width == 4 else b"\xcb"
            assert head + bits.to_bytes(width, "big") in data
            text, again = io.BytesIO(), io.BytesIO()
            to_json(Snapshot.read(data), text)
            write(from_json(io.BytesIO(text.getvalue())), again)
            assert again.getvalue() == data
            count += 1
    return f"{count} values, every bit kept, through JSON too"


@row(16, "the same tree as three foreign decoders see, on mutated records too")
def _(scale: Scale) -> str:
    decoders: list[Callable[[bytes], Any]] = [
        lambda data: msgpack.unpackb(data, strict_map_key=False),
        msgspec.msgpack.decode,
        lambda data: ormsgpack.unpackb(data, option=ormsgpack.OPT_NON_STR_KEYS),
    ]
    random = Random(16)
    [section] = [each for each in Snapshot.read(file_of_4k()) if each.device == "all"]
    records = [encode_plain(record) for record in section.records()]
    accepted = tried = opaque = 0
    for _number in range(scale(20_000, 1_000_000)):
        data = changed_bytes(random.choice(records), random)
        tried += 1
        try:
            [record] = decode_all(data)
        except (FormatError, ValueError):
            continue
        if isinstance(record.value, Opaque):
            continue  # what nobody has described is passed on as it came
        accepted += 1
        trees = []
        for decode in decoders:
            try:
                trees.append(decode(data))
            except ValueError as error:
                assert "utf" in str(error).lower(), (data, error)  # none may refuse what is taken here
        opaque += not trees  # all three refuse text that is no UTF-8, in what nobody has described and is passed on
        for tree in trees:
            assert tree[0] == record.name and tree[1] == record.type and tree[2] == record.length, data
            assert repr(tree) == repr(trees[0]), data
    return f"{tried} mutated records, {accepted} accepted: 0 differences but {opaque} with text that is no UTF-8 in unknown types"


# --- loads


@row(17, "a load that fails at any field leaves everything as it was")
def _(scale: Scale) -> str:
    found = tests("tests/test_machine.py::test_a_load_that_fails_at_any_of_a_thousand_fields_leaves_all_as_it_was")
    machine, before, data = _machine()
    random, failed = Random(17), 0
    for _number in range(scale(300, 20_000)):
        try:
            machine.load(changed_snapshot(data, random))
        except VMStateError:
            failed += 1
            assert _states(machine) == before
        else:
            for entry, state in zip(machine.entries, copy.deepcopy(before), strict=True):
                entry.state.clear()
                entry.state.update(state)
    return f"{found} (1000 fields); {failed} mutated loads refused, each deep-equal to before"


def _machine() -> tuple[Machine, list[Any], bytes]:
    """25 devices of a thousand fields, their states, and a snapshot of others."""
    tables = test_machine.TABLES
    others = Machine(tv.Device(test_machine.big_state(table, 7), table=table) for table in tables)
    machine = Machine(tv.Device(test_machine.big_state(table, 3), table=table) for table in tables)
    return machine, _states(machine), test_machine.saved(others)


def _states(machine: Machine) -> list[Any]:
    return copy.deepcopy([entry.state for entry in machine.entries])


ALLOCATIONS: Final = 20_000
"""More than one load makes, of those whose failure the fast path leaves to the loops."""


@row(18, "post_load that raises; MemoryError at the n-th allocation; an interrupt anywhere")
def _(scale: Scale) -> str:
    found = tests(
        "tests/test_machine.py::test_a_post_load_that_raises_in_any_device_leaves_all_as_it_was",
        "tests/test_loader.py::TestHooks::test_an_interrupt_undoes_everything_too",
    )
    interrupts = interrupt_loads(scale(200, 1_000), scale(31, 1))
    hooks: Any = importlib.import_module("_testcapi")  # CPython's own; nothing else fails an allocation

    machine, before, data = _machine()
    initial = test_machine.saved(machine)
    machine.load(data)
    after = _states(machine)
    failed = done_without = 0
    step = 1 if scale.release else 211
    for place in itertools.count(0, step):
        machine.load(initial)
        hooks.set_nomemory(place, place + 1)
        try:
            machine.load(data)
        except (MemoryError, VMStateError):
            hooks.remove_mem_hooks()
            failed += 1
            done_without = 0
            assert _states(machine) == before, place
        else:
            hooks.remove_mem_hooks()  # the fast path had none left, and the loops did it; or all allocations came before this one
            done_without += 1
            assert _states(machine) == after, place
            if done_without == ALLOCATIONS // step:
                break
    return f"{found}; {failed} failed allocations, each deep-equal to before; {interrupts}: as before, or loaded whole"


@row(19, "the holes of QEMU's migration wave")
def _(_scale: Scale) -> str:
    return tests("tests/test_cves.py") + " (26 advisories)"


# --- files


def _save(path: Path, seed: int) -> None:
    Machine([tv.Device(test_machine.big_state(table, seed), table=table) for table in test_machine.TABLES[:4]]).save(path)


def _seed(path: Path) -> int:
    """Which of the saves a file holds: all of its devices say the same."""
    arrays: list[Any] = [section.records()[-1].value for section in Snapshot.read(path.read_bytes())]
    seeds = {array[0] for array in arrays}
    assert len(seeds) == 1
    return int(seeds.pop())


@row(20, "a save killed at any time, and at each system call, leaves the old file or the new one")
def _(scale: Scale) -> str:
    random, kills = Random(20), scale(150, 1_000)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "vm.tvm"
        _save(path, 1)
        for number in range(kills):
            child = os.fork()
            if not child:
                with contextlib.suppress(BaseException):
                    for seed in range(2, 100):
                        _save(path, seed)
                os._exit(0)
            time.sleep(random.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            _seed(path)
            if number % 10 == 9:
                _save(path, 1)
        _save(path, 1)
        assert os.listdir(name) == ["vm.tvm"]
    with tempfile.TemporaryDirectory() as name:
        stops = stop_everywhere(Path(name))
    return f"{kills} kills, every file whole; {stops}; the next save takes the drafts away"


@row(21, "write, fsync, replace, fsync of the folder, in this order; no replace after a failed fsync")
def _(_scale: Scale) -> str:
    return tests("tests/test_files.py", "-k", "synced or sync")


@row(22, "a full disk: /dev/full, a limit at 32 sizes; ENOSPC, EIO and short writes at each call, once and for ever")
def _(_scale: Scale) -> str:
    short = tests("tests/test_files.py", "-k", "short_writes")
    with tempfile.TemporaryDirectory() as name:
        failing = fail_everywhere(Path(name))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "vm.tvm"
        _save(path, 1)
        size = path.stat().st_size
        for step in range(32):
            child = os.fork()
            if not child:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size * step // 32, resource.RLIM_INFINITY))
                try:
                    _save(path, 2)
                except OSError:
                    os._exit(0)
                os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            assert _seed(path) == 1
            assert os.listdir(name) == ["vm.tvm"]
    try:
        _save(Path("/dev/full"), 1)
    except OSError:
        return f"32 limits and /dev/full: error raised, old file whole, no draft left; {failing}; short writes: {short}"
    raise AssertionError("/dev/full took it")


@row(23, "four readers while a writer replaces the file")
def _(scale: Scale) -> str:
    saves, loads = scale(100, 1_000), scale(400, 10_000)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "vm.tvm"
        _save(path, 1)
        children = []
        for _reader in range(4):
            child = os.fork()
            if not child:
                try:
                    for _load in range(loads):
                        _seed(path)
                except BaseException:
                    os._exit(1)
                os._exit(0)
            children.append(child)
        for number in range(saves):
            _save(path, 1 + number % 100)
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    return f"{4 * loads} loads beside {saves} saves: none torn or mixed"


@row(24, "threads that load different files; one machine after an error")
def _(scale: Scale) -> str:
    loads = scale(40, 1_000)
    wrong: list[str] = []

    def work(seed: int) -> None:
        table = test_machine.TABLES[seed]
        data = tv.dumps(test_machine.big_state(table, seed), table=table)
        bad = data[:-1] + bytes((data[-1] ^ 1,))
        machine = Machine([tv.Device(test_machine.big_state(table, 99), table=table)])
        for _load in range(loads):
            with contextlib.suppress(FormatError):
                machine.load(bad)
                wrong.append("damage taken")
            machine.load(data)
            if machine.entries[0].state != test_machine.big_state(table, seed):
                wrong.append(f"another state in thread {seed}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]
    return f"8 threads, {loads} loads and as many errors each: all as alone"


@row(25, "memory after failed loads")
def _(scale: Scale) -> str:
    machine, _before, data = _machine()
    bad = data[: len(data) // 2]
    failures = scale(5_000, 100_000)

    def fail(count: int) -> None:
        for _number in range(count):
            with contextlib.suppress(VMStateError):
                machine.load(bad)

    fail(500)
    gc.collect()
    before = status("VmRSS")
    fail(failures)
    gc.collect()
    grown = status("VmRSS") - before
    assert grown <= MIB, grown
    return f"{failures} failures: +{max(grown, 0) / MIB:.2f} MiB"


@row(26, "unknown fields, structs, sections; a reserved flag")
def _(_scale: Scale) -> str:
    return tests(
        "tests/test_types.py::test_flags_other_than_is_default_are_refused", "tests/test_loader.py::TestTheRules",
        "tests/test_loader.py::TestOneLevelUp", "tests/test_loader.py::TestVirtioNet",
    )  # fmt: skip


@row(27, "QEMU streams: cut at every byte, damaged, exported again byte for byte")
def _(scale: Scale) -> str:
    for name in STREAMS:
        data, file, again = stream_bytes(name), io.BytesIO(), io.BytesIO()
        write(import_stream(io.BytesIO(data)), file)
        export(Snapshot.read(file.getvalue()), again)
        assert again.getvalue() == data
    data = stream_bytes("isapc-qemu7.2")
    step = scale(101, 1)
    cuts, whole = 0, 1 + data.rindex(b"\0\6")  # without its description it is a stream as older machines send it
    for size in range(0, len(data), step):
        with contextlib.suppress(VMStateError):
            write(import_stream(io.BytesIO(data[:size])), io.BytesIO())
            assert size == whole, f"cut at {size}"
        cuts += 1
    return f"{cuts} cuts; {len(STREAMS)} streams again byte for byte; {tests('tests/test_qemu_streams.py')}"


@row(28, "a file of each version loads; one of a later version says so")
def _(_scale: Scale) -> str:
    found = tests(
        "tests/test_snapshot.py::test_a_later_version_is_listed_not_decoded", "tests/test_snapshot.py::test_golden_bytes",
        "tests/test_format_page.py::TestSpecification::test_the_golden_bytes_are_what_is_written_and_read", "tests/test_golden.py",
    )  # fmt: skip
    return f"{found}; 1 file, with every type, of format version 1, the only one so far"


@row(29, "one named file for each bug that was ever found")
def _(_scale: Scale) -> str:
    targets: dict[str, Target] = {".tvm": Snapshots(), ".json": Json(), ".mig": Streams()}
    files = sorted(CORPUS.iterdir())
    for path in files:
        targets[path.suffix].run(path.read_bytes())
    assert files
    return f"{len(files)} files, none failing"


@row(30, "mutants of the reader; every branch of it covered")
def _(scale: Scale) -> str:
    line = [sys.executable, str(Path(__file__).parent / "mutants.py"), "--every", str(scale(61, 1))]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return f"{done.stdout.strip()}; branch coverage 100 %, held by `.ci/run`"


def measured(numbers: list[int], scale: Scale) -> Iterator[tuple[Row, str, float]]:
    """Run rows, one after another."""
    for number in numbers:
        start = time.perf_counter()
        figure = ROWS[number].run(scale)
        yield ROWS[number], figure, time.perf_counter() - start


def _main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("--release", action="store_true", help="in the numbers that are due before a release")
    arguments.add_argument("--write", action="store_true", help="put the figures into the page")
    arguments.add_argument("rows", metavar="ROW", nargs="*", type=one_of([str(each) for each in sorted(ROWS)], "row"))
    given = arguments.parse_args()
    numbers = list(map(int, given.rows)) or sorted(ROWS)
    today = dt.datetime.now(dt.UTC).date()
    for found, figure, seconds in measured(numbers, Scale(given.release)):
        command = f"`{'--release ' if given.release else ''}{found.number}`"
        line = f"| {found.number} | {found.name} | {figure} | {today} | {command} | {seconds:.0f} s |"
        print(line, flush=True)
        if given.write:
            text = re.sub(rf"^\| {found.number} \|.*$", line.replace("\\", r"\\"), PAGE.read_text(), flags=re.MULTILINE)
            machine = f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}"
            PAGE.write_text(re.sub(r"^All on .*$", f"All on {machine}.", text, flags=re.MULTILINE))


if __name__ == "__main__":
    _main()

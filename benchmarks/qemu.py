"""A big QEMU stream: the devices of a real PC, and as much memory as is asked for."""

from __future__ import annotations

import lzma
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import BinaryIO, Final

from benchmarks.processes import ROOT

PC: Final = ROOT / "tests" / "data" / "pc-qemu7.2.mig.xz"
"""A PC as an unmodified QEMU wrote it."""
PAGE: Final = 4096
TURN: Final = 8192
"""Pages that QEMU writes in one turn: 32 MiB."""
_ZERO_RUN: Final = 16
_ZERO_RUNS: Final = 12
"""Runs of zero pages in a turn: of 1024 MiB, 1000 have bytes."""
_SECTION: Final = 2
_START, _PART, _END, _FOOTER = 1, 2, 3, 0x7E
_ZERO, _SIZES, _BYTES, _DONE, _CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
"""The flags of a record of the `ram` section, in the low bits of an address."""
_NAME: Final = b"\x06pc.ram"


def pc() -> bytes:
    """The stream of the PC as it is."""
    return lzma.decompress(PC.read_bytes())


def write_stream(path: Path, memory: int) -> None:
    """Write the PC with so many bytes of memory, a multiple of 32 MiB; most pages random, some zero.

    The same every time; only the `ram` section is made here, all else is the real stream's.
    """
    real = pc()
    start = real.index(_head(_START) + b"\x03ram")
    end = _head(_END) + _word(0, _DONE) + _footer()
    with path.open("wb") as file:
        file.write(real[:start])
        _write_memory(file, memory)
        file.write(real[real.index(end) :])


def _write_memory(file: BinaryIO, memory: int) -> None:
    random = Random(memory)
    sizes = _word(memory, _SIZES) + _NAME + struct.pack(">Q", memory)
    file.write(_head(_START) + b"\x03ram" + struct.pack(">II", 0, 4) + sizes + _word(0, _DONE) + _footer())
    for first in range(0, memory // PAGE, TURN):
        file.write(_head(_PART))
        file.writelines(_turn(first, random))
        file.write(_word(0, _DONE) + _footer())


def _turn(first: int, random: Random) -> Iterator[bytes]:
    """The records of a turn's pages. The first names its block, the others continue it."""
    zero = {at + page for at in random.sample(range(0, TURN, _ZERO_RUN), _ZERO_RUNS) for page in range(_ZERO_RUN)}
    data = random.randbytes(TURN * PAGE)
    for page in range(TURN):
        address = (first + page) * PAGE
        named = _CONTINUE if page else 0
        yield _word(address, named | (_ZERO if page in zero else _BYTES)) + (b"" if page else _NAME)
        yield b"\0" if page in zero else data[page * PAGE : (page + 1) * PAGE]


def _word(address: int, flags: int) -> bytes:
    return struct.pack(">Q", address | flags)


def _head(kind: int) -> bytes:
    return struct.pack(">BI", kind, _SECTION)


def _footer() -> bytes:
    return struct.pack(">BI", _FOOTER, _SECTION)

"""The table of docs/kinds.md: every command on every kind of input, its exit status and what it says first.

`python tests/kinds.py --write` writes the table into the page; without it, it is printed; with `--plain`, what is not compressed.
"""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import lzma
import os
import re
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from conftest import stream_bytes

from tagged_vmstate.cli import convert, diff, inspect, main, qemu, tables
from tagged_vmstate.cli import set as set_  # what a run needs is imported once
from tagged_vmstate.jsonform import to_json
from tagged_vmstate.memory import Images, overwritten
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.snapshot import Snapshot, write

PAGE: Final = Path(__file__).parent.parent / "docs" / "kinds.md"
_TABLES: Final = re.compile(r"^## `.*", re.MULTILINE | re.DOTALL)
_READY: Final = (convert, diff, inspect, qemu, set_, tables)
STREAM: Final = "isapc-qemu7.2"

COMMANDS: Final = (
    "info FILE",
    "show FILE ps2kbd",
    "show --salvage FILE",
    "to-json FILE -o OUT",
    "to-json FILE --memory DIR -o OUT",
    "from-json FILE -o OUT",
    "import FILE -o OUT",
    "import FILE --defaults SAME -o OUT",
    "export FILE -o OUT",
    "diff FILE SAME",
    "set FILE ps2kbd/scancode_set 3 -o OUT",
    "check FILE --against TABLES --unknown ignore",
)
"""SAME is the file itself, not through a pipe."""
PLAIN: Final = "plain"
PACKINGS: Final[dict[str, Callable[[bytes], bytes]]] = {
    PLAIN: bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
WAYS: Final = ("file", "pipe")


@dataclass(frozen=True)
class Input:
    """One input: its kind, how it is compressed, and whether it is cut in the middle."""

    kind: str
    packing: str
    is_cut: bool

    def path(self, folder: Path) -> Path:
        return folder / f"{self.kind.replace(' ', '-')}{'-cut' if self.is_cut else ''}.{self.packing}"


def made_inputs(folder: Path) -> list[Input]:
    """Make all inputs in a folder, and the tables that they are checked against."""
    stream = stream_bytes(STREAM)
    snapshot = io.BytesIO()
    write(import_stream(stream), snapshot)
    text, beside = io.BytesIO(), io.BytesIO()
    to_json(Snapshot.read(snapshot.getvalue()), text)
    (folder / "images").mkdir()
    stale = overwritten(Snapshot.read(snapshot.getvalue()))
    with Images(folder / "images", stale, folder) as images:
        to_json(Snapshot.read(snapshot.getvalue()), beside, images)
    xml = b"<domain/>\0"
    kinds = {
        "snapshot": snapshot.getvalue(),
        "JSON": text.getvalue(),
        "JSON with memory": beside.getvalue(),
        "stream": stream,
        "libvirt image": b"LibvirtQemudSave" + struct.pack("<19I", 2, len(xml), 1, 0, 0, *[0] * 14) + xml + stream,
    }
    found = [Input(kind, packing, is_cut) for kind in kinds for packing in PACKINGS for is_cut in (False, True)]
    for each in found:
        data = PACKINGS[each.packing](kinds[each.kind])
        each.path(folder).write_bytes(data[: len(data) // 2] if each.is_cut else data)
    (folder / "tables.py").write_text(_BOARD)
    return found


_BOARD: Final = """
import tagged_vmstate as tv

@tv.vmstate("ps2kbd")
class Keyboard:
    scancode_set: tv.int32 = 2

MACHINE = tv.Machine([Keyboard()])
"""


def outcome(command: str, given: Input, way: str, folder: Path) -> tuple[int, str]:
    """The exit status of a run, and its first line: that on standard error, if any.

    Places are left out and figures are n: they depend on how well a compressor compresses.
    """
    path = given.path(folder).name
    names = {"FILE": "-" if way == "pipe" else path, "SAME": path, "OUT": "out", "DIR": "out-images", "TABLES": "tables:MACHINE"}
    arguments = [names.get(word, word) for word in command.split()]
    with (folder / "stdout").open("wb+") as out, (folder / "stderr").open("wb+") as err:
        stdin, writer = _pipe(given.path(folder).read_bytes()) if way == "pipe" else (os.open(os.devnull, os.O_RDONLY), None)
        child = os.fork()
        if not child:
            _run(arguments, folder, stdin, out.fileno(), err.fileno())
        os.close(stdin)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if writer:
            os.waitpid(writer, 0)
        said, printed = _first_line(err), _first_line(out)
    if not said:
        return status, printed
    words = said.removeprefix(f"{main.NAME}: ").replace(path, "FILE").replace("standard input", "FILE")
    return status, re.sub(r"(?<![#\w])\d+\b", "n", re.sub(r" - at .*", "", words))


def _first_line(file: BinaryIO) -> str:
    file.seek(0)
    return file.readline().decode().removesuffix("\n")


def _pipe(data: bytes) -> tuple[int, int]:
    """A pipe that a process of its own writes into; the end to read, and that process."""
    read, write_end = os.pipe()
    writer = os.fork()
    if not writer:
        os.close(read)
        try:
            with os.fdopen(write_end, "wb") as file:
                file.write(data)
        except BrokenPipeError:
            pass
        finally:
            os._exit(0)
    os.close(write_end)
    return read, writer


def _run(arguments: Sequence[str], folder: Path, *descriptors: int) -> None:
    """Be the command, and end."""
    status = 1
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        sys.stdin, sys.stdout, sys.stderr = (open(number, "r" if not number else "w", closefd=False) for number in range(3))  # noqa: SIM115
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        sys.argv = [main.NAME, *arguments]
        main.run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  # what a person would see
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def rows(command: str, inputs: Sequence[Input], folder: Path) -> Iterator[tuple[str, str, int, str]]:
    """What a command does: kind, how it comes, exit status, first line; what is the same in one row."""
    found: dict[tuple[str, int, str], list[str]] = {}
    for is_cut in (False, True):
        for is_plain in (True, False):
            for kind in dict.fromkeys(each.kind for each in inputs):
                same: dict[tuple[int, str], list[tuple[str, str]]] = {}
                for each in inputs:
                    if (each.kind, each.is_cut, each.packing == PLAIN) == (kind, is_cut, is_plain):
                        for way in WAYS:
                            same.setdefault(outcome(command, each, way, folder), []).append((each.packing, way))
                for (status, line), ways in same.items():
                    found.setdefault((f"{'cut' if is_cut else 'whole'}, {_words(ways)}", status, line), []).append(kind)
    for (words, status, line), kinds in found.items():
        yield ", ".join(kinds), words, status, line


def _words(ways: Sequence[tuple[str, str]]) -> str:
    """How inputs come, in words."""
    packings: dict[tuple[str, ...], list[str]] = {}
    for packing in PACKINGS:
        by = tuple(way for each, way in ways if each == packing)
        if by:
            packings.setdefault(by, []).append(packing)
    return "; ".join(", ".join(each) + ("" if by == WAYS else f" ({' '.join(by)})") for by, each in packings.items())


def made_tables(packings: Iterable[str] = PACKINGS) -> str:
    """The part of the page that is made, or the rows of some packings: those that are plain stand apart."""
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = [each for each in made_inputs(folder) if each.packing in packings]
        gc.freeze()  # what is there is not copied for each run
        for command in COMMANDS:
            lines += ["", f"## `{command}`", "", "| kind | comes | exit | first line |", "| --- | --- | --- | --- |"]
            for kinds, words, status, line in rows(command, inputs, folder):
                said = line.replace("|", "\\|").replace("`", "'")
                lines.append(f"| {kinds} | {words} | {status} | {f'`{said}`' if said else ''} |")
    return "".join(f"{line}\n" for line in lines[1:])


def plain_rows(page: str) -> str:
    """The tables of a page, only what is not compressed."""
    found = _TABLES.search(page)
    lines = found[0].splitlines(keepends=True) if found else []
    return "".join(line for line in lines if not re.match(r"\|[^|]*\| (whole|cut), (?!plain)", line))


def renewed(page: str) -> str:
    """The page with the outcomes of all runs as they are now."""
    made = made_tables()
    return _TABLES.sub(lambda _: made, page)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(renewed(PAGE.read_text()))
    else:
        print(made_tables([PLAIN] if "--plain" in sys.argv[1:] else PACKINGS), end="")

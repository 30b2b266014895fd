"""What the commands read and write: input of any kind told by its first bytes, output whole or not at all."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

import click
from typing_extensions import Buffer

from tagged_vmstate.cli.main import TROUBLE
from tagged_vmstate.cli.messages import clean, say
from tagged_vmstate.compression import HEAD, compression_of, damage_of, decompressed, seeks_cheaply
from tagged_vmstate.errors import VMStateError
from tagged_vmstate.files import BLOCK, Input, replacing
from tagged_vmstate.forms import Form, form_of
from tagged_vmstate.sections import Sections
from tagged_vmstate.snapshot import Snapshot, write
from tagged_vmstate.sources import HEAD as LOOK
from tagged_vmstate.sources import Salvaged, check_foreign, check_head, is_snapshot, looked, open_sections
from tagged_vmstate.text import decoded

STANDARD: Final = "-"
PROGRESS_BYTES: Final = 32 << 20
"""Input below this is read before anyone looks for progress; a copy of a pipe below this stays in memory."""
NOTES: Final = 8
"""Notes on one input at most: a stream of an old QEMU describes no device at all."""


class Trouble(click.ClickException):
    """Something that ends a command: one sentence."""

    exit_code = TROUBLE


class Refusal(click.ClickException):
    """The answer is no: one sentence."""

    exit_code = 1


@contextlib.contextmanager
def opened(path: str, *, is_one_of: bool = False) -> Iterator[Sections]:
    """The sections of an input of any kind. Notes name what in it could not be interpreted, once they are done with.

    Args:
        path: A path, or ``-``.
        is_one_of: There are several inputs: the notes name this one.
    """
    with opened_quietly(path) as sections, _noting(sections, path if is_one_of else None):
        yield sections


@contextlib.contextmanager
def opened_quietly(path: str) -> Iterator[Sections]:
    """The same without notes."""
    with opened_file(path) as file, _sections(file, path) as sections:
        yield sections


@contextlib.contextmanager
def _noting(sections: Sections, path: str | None = None) -> Iterator[None]:
    """Notes name what in a stream could not be interpreted, once an answer is there; an error is reported alone.

    In a snapshot made of a stream it is bytes; there are no notes.
    """
    try:
        yield
    except click.exceptions.Exit:
        _say_first_notes(sections, path)
        raise
    _say_first_notes(sections, path)


def _say_first_notes(sections: Sections, path: str | None = None) -> None:
    notes: list[str] = getattr(sections, "notes", [])
    more = [f"{len(notes) - NOTES} more, which import names"] if len(notes) > NOTES else []
    say_notes([*notes[:NOTES], *more], path)


def say_notes(notes: Iterable[str], path: str | None = None) -> None:
    """Print notes; each names the input, where there are several."""
    for note in notes:
        say(f"note: {note}" if path is None else f"note: {_name(path)}: {note}")


@contextlib.contextmanager
def opened_again(path: str) -> Iterator[Callable[[], Sections]]:
    """What opens the sections of an input of any kind, several times, one after the other."""
    with opened_file(path) as file, _searchable(file) as source:
        latest: list[Sections] = []

        def sections() -> Sections:
            source.seek(0)
            latest[:] = [open_sections(source, beside=_folder(path))]
            return latest[0]

        yield sections
        for each in latest:
            _say_first_notes(each)


@contextlib.contextmanager
def salvaged(path: str) -> Iterator[Salvaged]:
    """What is intact of an input of any kind, damaged or not."""
    with _named(path), _reading(path) as file, _searchable(file) as start:
        unpacked, _ = _decompressed(start, salvage=True)
        with _searchable(unpacked) as source:
            found = open_sections(source, salvage=True, beside=_folder(path), around=damage_of(unpacked))
            yield found
            if not found.damage:
                _say_first_notes(found.sections)


@contextlib.contextmanager
def opened_file(path: str) -> Iterator[BinaryIO]:
    """An input, decompressed; what is wrong with its bytes, or with those of an input opened before it, is one sentence."""
    with _opened(path) as (file, _):
        yield file


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[BinaryIO, str | None]]:
    """The same, and the compression that was undone."""
    with _named(path), _reading(path) as file:
        yield _decompressed(file)


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except VMStateError as error:
        raise trouble(path, error) from None


def trouble(path: str, error: VMStateError) -> Trouble:
    """An error in a sentence that names the input it is in: the path, unless the error knows better."""
    return Trouble(f"{error.file or _name(path)}: {error}")


def _name(path: str) -> str:
    return "standard input" if path == STANDARD else path


def _folder(path: str) -> Path | None:
    return None if path == STANDARD else Path(path).parent


@contextlib.contextmanager
def _sections(file: BinaryIO, path: str, *, seeks: bool = False) -> Iterator[Sections]:
    head, start = looked(file)
    copies = seeks and is_snapshot(head)
    with _searchable(start) if copies else contextlib.nullcontext(start) as source:
        sections = open_sections(source, beside=_folder(path))
        if isinstance(sections, Snapshot):
            sections.name = _name(path)
        yield sections


@contextlib.contextmanager
def _reading(path: str) -> Iterator[BinaryIO]:
    if path == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115  # opened here for its own error, closed below
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror}") from None
    with file, _progress(file, path) as watched:
        yield watched


@contextlib.contextmanager
def _searchable(file: BinaryIO) -> Iterator[BinaryIO]:
    """What can be read again from any place: the file itself, or a copy of a pipe or of what is compressed."""
    if seeks_cheaply(file):
        yield file
        return
    with tempfile.SpooledTemporaryFile(PROGRESS_BYTES) as copy:
        shutil.copyfileobj(file, copy, BLOCK)
        copy.seek(0)
        yield cast("BinaryIO", copy)


def lines(path: str) -> list[str]:
    """The lines of a text that a person wrote, without blank ones and those that begin with #."""
    with opened_file(path) as file:
        try:
            found = decoded(file.read()).splitlines()
        except UnicodeDecodeError as error:
            raise Trouble(f"{path}: expected text in UTF-8 or UTF-16, found the byte 0x{error.object[error.start]:02x}") from None
    return [line for line in map(str.strip, found) if line and not line.startswith("#")]


@contextlib.contextmanager
def opened_snapshot(path: str, *, is_one_of: bool = False) -> Iterator[Snapshot]:
    """An input of any kind as a snapshot that can be read again from any place; a copy of it, where it is none.

    Args:
        path: A path, or ``-``.
        is_one_of: As for `opened`.
    """
    with (
        opened_file(path) as file,
        _sections(file, path, seeks=True) as sections,
        _as_snapshot(sections) as snapshot,
        _noting(sections, path if is_one_of else None),
    ):
        snapshot.name = _name(path)
        yield snapshot


@contextlib.contextmanager
def opened_in_its_form(path: str) -> Iterator[tuple[Snapshot, Form]]:
    """The same, and the form that it came in; one in which it cannot be written again ends the command with a sentence."""
    with (
        _opened(path) as (file, compression),
        _sections(file, path, seeks=True) as sections,
        _as_snapshot(sections) as snapshot,
        _noting(sections),
    ):
        yield snapshot, form_of(sections, compression)


@contextlib.contextmanager
def _as_snapshot(sections: Sections) -> Iterator[Snapshot]:
    if isinstance(sections, Snapshot):
        yield sections
        return
    with tempfile.SpooledTemporaryFile(PROGRESS_BYTES) as copy:
        write(sections, cast("BinaryIO", copy))
        copy.seek(0)
        yield Snapshot.read(cast("BinaryIO", copy))


@contextlib.contextmanager
def output(path: str, *, is_text: bool) -> Iterator[BinaryIO]:
    """Where a command writes: standard output for ``-``, else a file that is there whole or not at all.

    On a terminal, text is JSON with everything escaped that cannot be shown there; anything else is refused.
    """
    try:
        with contextlib.nullcontext(sys.stdout.buffer) if path == STANDARD else replacing(path) as file:
            if not file.isatty():
                yield file
            elif is_text:
                yield cast("BinaryIO", _Shown(file))
            else:
                raise click.UsageError("a snapshot is no text: name a file with -o, or redirect the output.")
            file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        if path == STANDARD:
            raise
        raise Trouble(f"{path}: cannot write: {error.strerror}") from None


def print_json(value: object, path: str = STANDARD) -> None:
    """Write a report or tables as JSON: UTF-8 whatever the locale, and on a terminal nothing that drives it."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    with output(path, is_text=True) as target:
        target.write(f"{text}\n".encode(errors="backslashreplace"))  # half a surrogate pair, in JSON's own words


class _Shown(io.RawIOBase):
    """JSON on its way to a terminal: what cannot be shown is escaped, which means the same."""

    def __init__(self, terminal: BinaryIO) -> None:
        self._terminal = terminal
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        data = bytes(data)
        text = self._decoder.decode(data)
        self._terminal.write("".join(char if self._can_show(char) else _json_escape(char) for char in text).encode())
        return len(data)

    def _can_show(self, char: str) -> bool:
        return char == "\n" or (char.isprintable() and (self._is_utf8 or char.isascii()))


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


@contextlib.contextmanager
def output_at_once(path: str, *, is_text: bool) -> Iterator[BinaryIO]:
    """The same, and nothing of it goes to standard output before all of it is there."""
    with output(path, is_text=is_text) as target:
        if path != STANDARD:
            yield target
            return
        with tempfile.SpooledTemporaryFile(PROGRESS_BYTES) as draft:
            yield cast("BinaryIO", draft)
            draft.seek(0)
            shutil.copyfileobj(draft, target, BLOCK)


@contextlib.contextmanager
def _progress(file: BinaryIO, path: str) -> Iterator[BinaryIO]:
    """The file, its reading shown on standard error where a person waits for it."""
    size = os.fstat(file.fileno()).st_size
    if size < PROGRESS_BYTES or not sys.stderr.isatty():
        yield file
        return
    from rich.console import Console  # noqa: PLC0415  # only where a person waits
    from rich.markup import escape  # noqa: PLC0415  # the same
    from rich.progress import wrap_file  # noqa: PLC0415  # only where a person waits

    name = escape(clean(Path(path).name))
    with wrap_file(file, size, description=name, console=Console(stderr=True), transient=True) as watched:
        yield watched


def _decompressed(file: BinaryIO, *, salvage: bool = False) -> tuple[BinaryIO, str | None]:
    """What is in an input, and the compression that was undone."""
    source = Input(file)
    head = source.peek(HEAD)
    compression = compression_of(head)
    if compression is None:
        check_foreign(source.peek(LOOK))
        return source.as_file(), None
    first, inner = looked(decompressed(source.as_file(), head, salvage=salvage))
    damage = damage_of(inner)
    if damage and not first:
        raise damage
    check_head(first)  # before anything is made of it: a few bytes may stand for a GiB
    return inner, compression

"""The standard streams as the commands find them: there, named in errors, and fit for any text."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import Final, Literal, TextIO

import click
from typing_extensions import Buffer, override

_ERRORS: Final = "tagged-vmstate"
_PLAIN: Final = {"├": "|", "└": "`", "─": "-", "│": "|", "→": "->", "…": "..."}


class Unreadable(click.ClickException):
    """Standard input cannot be read. Not an OSError, which would be taken for one of the output."""

    exit_code = 2


class _Standard(io.FileIO):
    """A standard stream whose errors name it."""

    def __init__(self, number: int, mode: Literal["rb", "wb"], called: str) -> None:
        super().__init__(number, mode, closefd=False)
        self._called = called

    @override
    def readinto(self, buffer: Buffer, /) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise Unreadable(f"{self._called}: {_reason(error)}") from None

    @override
    def write(self, data: Buffer, /) -> int | None:  # type: ignore[override]  # a stream that does not block and is full
        try:
            return super().write(data)
        except OSError as error:
            error.filename, error.strerror = self._called, _reason(error)
            raise


def _reason(error: OSError) -> str | None:
    return "it is closed" if error.errno == errno.EBADF else error.strerror


def prepare() -> None:
    """Make the standard streams fit, before anything else is opened.

    A closed one becomes /dev/null opened for nothing at all: its use fails, and no file gets its descriptor. What an
    encoding lacks is written in ASCII.
    """
    codecs.register_error(_ERRORS, _degraded)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Standard(_number(sys.stdin), "rb", "standard input")))
    sys.stdout = _writer(sys.stdout, "standard output")
    sys.stderr = _writer(sys.stderr, "standard error")


def release() -> None:
    """Flush, and let what cannot be written go: Python would try once more at exit, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def escape(char: str) -> str:
    """A character as Python writes it where it cannot be shown."""
    return char.encode("unicode_escape").decode()


def _number(stream: TextIO | None) -> int:
    """The descriptor of a stream; where it is closed, the lowest free one, which is its own."""
    return os.open(os.devnull, os.O_PATH) if stream is None else stream.fileno()


def _writer(stream: TextIO | None, called: str) -> TextIO:
    raw = _Standard(_number(stream), "wb", called)
    encoding = "utf-8" if stream is None else stream.encoding
    is_direct = called == "standard error" or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, _ERRORS, newline="\n", line_buffering=is_direct)


def _degraded(error: UnicodeError) -> tuple[str, int]:
    """What is written for characters that an encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101  # nothing is decoded with it
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(char) or escape(char) for char in lacking), error.end

"""QMP, as far as a capture needs it: one command at a time, every answer checked and within a limit of time and size.

Whatever listens there may hang, die or be hostile: all but a good answer in time is a `CaptureError`.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from tagged_vmstate.errors import VMStateError

Address: TypeAlias = str | tuple[str, int]
"""The path of a Unix socket, or host and port."""

LINE_BYTES: Final = 1 << 20
"""What a capture asks for is answered in far shorter lines."""
_READ_BYTES: Final = 1 << 16
_SHOWN: Final = 500
"""Characters of a text of QEMU's that a sentence shows."""
_INTEGERS: Final = range(-(1 << 63), 1 << 64)
_NAMES: Final = {str: "text", int: "number", bool: "boolean", dict: "object", list: "list"}
_HINT: Final = "start QEMU with -qmp unix:PATH,server=on,wait=off"
_Found = TypeVar("_Found")


class CaptureError(VMStateError):
    """QEMU could not be reached, did not answer as QMP defines, or could not migrate."""

    def __init__(self, sentence: str) -> None:
        super().__init__("", sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class RefusedError(CaptureError):
    """QEMU answered a command with an error."""


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


def ready(*files: _HasFileno, seconds: float) -> set[Any]:
    """Wait until some of the files can be read, or their other end is closed; return those. None is ready when time is up."""
    with selectors.PollSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        return {key.fileobj for key, _ in selector.select(max(seconds, 0))}


def shown(text: str) -> str:
    """A text of QEMU's as part of a sentence: one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


class Message:
    """An object that QEMU sent. Each member is checked when it is taken: what is missing or of another type is a CaptureError.

    Args:
        name: What it is, for the sentence.
        members: As they came.
    """

    def __init__(self, name: str, members: dict[str, object]) -> None:
        self._name = name
        self.members = members

    def __contains__(self, member: str) -> bool:
        return member in self.members

    def text(self, member: str, default: str | None = None) -> str:
        """A string; the default where it is not there."""
        return default if default is not None and member not in self else self._taken(member, str)

    def number(self, member: str) -> int:
        """An integer of 64 bits."""
        return self._taken(member, int)

    def flag(self, member: str) -> bool:
        """A boolean."""
        return self._taken(member, bool)

    def part(self, member: str) -> Message:
        """An object in this one."""
        return Message(self._name, self._taken(member, dict))

    def parts(self, member: str) -> list[Message]:
        """A list of objects."""
        items = self._taken(member, list)
        return [Message(self._name, {"item": each}).part("item") for each in items]

    def _taken(self, member: str, kind: type[_Found]) -> _Found:
        value = self.members.get(member)
        if type(value) is not kind or (isinstance(value, int) and value not in _INTEGERS):
            raise CaptureError(f"{self._name} has no {_NAMES[kind]} `{member}`")
        return value


class Connection:
    """A QMP connection.

    Args:
        connection: The socket.
        seconds: How long to wait for an answer.
        on_event: Gets each event.

    Attributes:
        seconds: As given.
    """

    def __init__(self, connection: socket.socket, seconds: float, on_event: Callable[[Message], None]) -> None:
        self.seconds = seconds
        self._socket = connection
        self._on_event = on_event
        self._unread = bytearray()
        self._command = ""
        self._id = 0

    def fileno(self) -> int:
        """For `ready`."""
        return self._socket.fileno()

    @property
    def process(self) -> int | None:
        """The process that listens on a Unix socket, where the system names it; None over TCP."""
        if self._socket.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
            return None
        size = struct.calcsize("3i")
        return int(struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]) or None

    @property
    def host(self) -> str:
        """The address of this end of a TCP connection: where QEMU can reach what listens here."""
        return str(self._socket.getsockname()[0])

    def greet(self) -> None:
        """Begin. Raises CaptureError."""
        self._within(self.seconds, self._greeting, _no_greeting(self.seconds))
        self.ask("qmp_capabilities")

    def ask(self, command: str, *, seconds: float | None = None, fd: int | None = None, **arguments: object) -> Message:
        """Give a command and wait for the object that it returns, for `seconds`, if they are fewer. Raises CaptureError."""
        return self._asked(command, seconds, fd, arguments).part("return")

    def ask_list(self, command: str) -> list[Message]:
        """The same for a command that returns a list of objects."""
        return self._asked(command, None, None, {}).parts("return")

    def _asked(self, command: str, seconds: float | None, fd: int | None, arguments: dict[str, object]) -> Message:
        self.send(command, fd=fd, **arguments)
        late = f"QEMU did not answer `{command}` in {self.seconds:g} s"
        return self._within(self.seconds if seconds is None else seconds, self.answer, late)

    def send(self, command: str, *, fd: int | None = None, **arguments: object) -> None:
        """Give a command, and a file descriptor along with it; no answer to an earlier one is waited for any more."""
        self._command, self._id = command, self._id + 1
        data = json.dumps({"execute": command, "arguments": arguments, "id": self._id}).encode() + b"\n"
        with _closing():
            sent = 0 if fd is None else socket.send_fds(self._socket, [data], [fd])
            self._socket.sendall(data[sent:])

    def answer(self) -> Message | None:
        """The answer to the last command, if it is in what can be read now. Raises CaptureError, also if it was refused."""
        for members in self._received():
            if members.get("id") == self._id or ("error" in members and "id" not in members):
                message = Message(f"QEMU's answer to `{self._command}`", members)
                if "error" in message:
                    raise RefusedError(f"QEMU refuses `{self._command}`: {shown(message.part('error').text('desc'))}")
                return message
        return None

    def _greeting(self) -> Message | None:
        try:
            return next((Message("what it sends", members).part("QMP") for members in self._received()), None)
        except CaptureError as error:
            raise CaptureError(f"no QMP there ({error}); {_HINT}") from None

    def _within(self, seconds: float, take: Callable[[], _Found | None], late: str) -> _Found:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if ready(self, seconds=left) and (found := take()) is not None:
                return found
        raise CaptureError(late)

    def _received(self) -> list[dict[str, object]]:
        """Read once; all whole messages but events, which are passed on."""
        with _closing():
            data = self._socket.recv(_READ_BYTES)
        if not data:
            raise CaptureError("QEMU closed the connection")
        self._unread += data
        *lines, self._unread = self._unread.split(b"\n") if b"\n" in data else [self._unread]
        if len(self._unread) > LINE_BYTES:
            raise CaptureError(f"QEMU sends a line of more than {LINE_BYTES >> 20} MiB, which is no QMP")
        messages = [_parsed(line) for line in map(bytes, lines) if line.strip()]
        for members in messages:
            if "event" in members:
                self._on_event(Message("QEMU's event", members))
        return [members for members in messages if "event" not in members]


def _parsed(line: bytes) -> dict[str, object]:
    try:
        members = json.loads(line)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise CaptureError(f"expected a JSON object, as QMP sends, got `{shown(line[:_SHOWN].decode(errors='replace'))}`")
    return members


@contextlib.contextmanager
def _closing() -> Iterator[None]:
    """Says that a connection does not work any more."""
    try:
        yield
    except OSError as error:
        raise CaptureError(f"QEMU closed the connection ({error.strerror or error})") from None


@contextlib.contextmanager
def connected(address: Address, seconds: float, on_event: Callable[[Message], None]) -> Iterator[Connection]:
    """Connect to the QMP socket of a QEMU.

    Args:
        address: Of the socket.
        seconds: How long to wait for it, and for each answer.
        on_event: Gets each event.

    Raises:
        CaptureError: Nothing there speaks QMP.
    """
    try:
        connection = _opened(address, seconds)
    except (TimeoutError, BlockingIOError):  # the latter where too many wait at a Unix socket
        raise CaptureError(_no_greeting(seconds)) from None
    except (OSError, ValueError, OverflowError) as error:
        raise CaptureError(f"no QMP there ({getattr(error, 'strerror', None) or error}); {_HINT}") from None
    with connection:
        qmp = Connection(connection, seconds, on_event)
        qmp.greet()
        yield qmp


def _no_greeting(seconds: float) -> str:
    return f"no QMP greeting there in {seconds:g} s; QMP speaks to one at a time: is somebody else connected?"


def _opened(address: Address, seconds: float) -> socket.socket:
    if isinstance(address, tuple):
        return socket.create_connection(address, seconds)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(seconds)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection

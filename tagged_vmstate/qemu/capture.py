"""A QEMU that runs, migrated into a snapshot over QMP, and then going on as it was.

QEMU writes its stream into a socket: one of a pair, which comes to it over the Unix socket of QMP, or one that it opens to
a socket that listens here. One thread does all: where the conversion waits for more of the stream, QEMU is asked how far it
is. So an interrupt ends it anywhere, and every wait has its limit. Whatever fails, a guest that ran runs on.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias, cast

from typing_extensions import Buffer, override

from tagged_vmstate.errors import FormatError
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.qemu.migration import POLL_SECONDS, after, check_parameters, insist, readable
from tagged_vmstate.qemu.qmp import Address, CaptureError, Connection, Message, RefusedError, connected, ready, shown
from tagged_vmstate.snapshot import write
from tagged_vmstate.wire import Opaque

Progress: TypeAlias = Callable[[int, int], None]
"""Gets the bytes of memory that were sent, and how many there are in all."""

TIMEOUT: Final = 10
"""Seconds to wait for QEMU where nobody chooses."""
SETTLE_SECONDS: Final = 1
"""How long a migration that was cancelled is given to end."""
_FD_NAME: Final = "tagged-vmstate"
_RUNNING: Final = "running"
COMMAND_BYTES: Final = 1 << 16
"""Of a command line, the part that is recorded."""
_OBJECTS: Final = frozenset({"-object", "--object"})
_PASSWORD: Final = re.compile(r"\bpassword=(?:[^,]|,,)*")
"""As -spice and -iscsi take one; a doubled comma is a comma in it."""
_GIVEN_UP: Final = {"failed", "cancelled"}
_OVER: Final = {*_GIVEN_UP, "completed", "none"}


@dataclass(frozen=True, slots=True)
class Captured:
    """What there is to say of a capture.

    Attributes:
        notes: What could not be interpreted and was kept as bytes.
        paused: Seconds for which the guest stood still; None where it did before, or still does.
        is_running: The guest runs.
    """

    notes: list[str]
    paused: float | None
    is_running: bool


def capture(
    address: Address,
    target: BinaryIO,
    *,
    live: bool = False,
    stay_paused: bool = False,
    timeout: float = TIMEOUT,
    progress: Progress | None = None,
) -> Captured:
    """Write a snapshot of a QEMU that listens on a QMP socket.

    The header's attribute ``capture`` records QEMU's version, its command line where the system shows it, the time in UTC, the
    status of the guest before, and whether it ran meanwhile. Migration capabilities that are set and would change
    the stream are off for as long as it takes; a note names them.

    Where it fails or is interrupted, the guest is left as it was within `timeout` once more; an error after which the guest
    may be paused has a note that says so.

    Args:
        address: Of the QMP socket.
        target: Where to.
        live: Let the guest run while its memory is sent; it stands still for the rest only.
        stay_paused: Leave the guest paused; else one that ran runs on.
        timeout: Seconds to wait for an answer, or for the migration to get any further.
        progress: Told now and then how far it is.

    Raises:
        CaptureError: The socket is not there or closes, an answer is late or malformed, or the guest cannot migrate.
        FormatError: QEMU sent what cannot be read (a capability that changes the stream).
        OSError: The target does not take it.
    """
    pause = _Pause()
    with connected(address, timeout, pause.take) as qmp:
        status = qmp.ask("query-status").text("status")
        ran = status == _RUNNING
        goes_on = ran and not stay_paused
        check_parameters(qmp)
        with readable(qmp) as switched:
            try:
                origin = _origin(qmp, status, is_live=live)
                if ran and not live:
                    qmp.ask("stop")
                notes = [*switched, *_migrated(qmp, address, target, progress, origin)]
                if goes_on:
                    _run(qmp)
            except BaseException as error:
                if ran:
                    after(error, lambda: _run(qmp), "the guest may be paused: `cont` in QEMU's monitor lets it run on")
                raise
    return Captured(notes, pause.seconds if goes_on else None, goes_on)


def _origin(qmp: Connection, status: str, *, is_live: bool) -> dict[str, object]:
    """What the stream cannot say of itself: which QEMU wrote it, how that was started, when, and what its guest did."""
    found = qmp.ask("query-version")
    version = found.part("qemu")
    numbers = ".".join(str(version.number(each)) for each in ("major", "minor", "micro"))
    package = found.text("package", "")
    origin: dict[str, object] = {"qemu": shown(f"{numbers} ({package})" if package else numbers)}
    command = _command(qmp.process)
    if command:
        origin["command"] = command
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {**origin, "time": now, "guest": shown(status), "live": is_live}


def _command(process: int | None) -> list[str]:
    """The command line of a process, without secrets; empty where the system does not show it."""
    try:
        data = Path(f"/proc/{process}/cmdline").read_bytes()[:COMMAND_BYTES]
    except OSError:
        return []
    words = [each.decode(errors="backslashreplace") for each in data.rstrip(b"\0").split(b"\0")]
    return [
        "secret" if option in _OBJECTS and "secret" in word else _PASSWORD.sub("password=...", word)
        for option, word in pairwise(["", *words])
    ]


class _Pause:
    """How long the guest stood still: from the first STOP to the RESUME after it, by QEMU's events.

    Attributes:
        seconds: None until it goes on.
    """

    def __init__(self) -> None:
        self._stopped: int | None = None
        self.seconds: float | None = None

    def take(self, event: Message) -> None:
        """Take an event."""
        name = event.text("event")
        if name == "STOP" and self._stopped is None:
            self._stopped = _microseconds(event)
        elif name == "RESUME" and self._stopped is not None and self.seconds is None:
            self.seconds = (_microseconds(event) - self._stopped) / 1e6


def _microseconds(event: Message) -> int:
    stamp = event.part("timestamp")
    return stamp.number("seconds") * 1_000_000 + stamp.number("microseconds")


def _run(qmp: Connection) -> None:
    """Let the guest run. Raises CaptureError."""
    insist(qmp, lambda seconds: _cont(qmp, seconds))


def _cont(qmp: Connection, seconds: float) -> None:
    end = time.monotonic() + seconds
    while qmp.ask("query-status", seconds=end - time.monotonic()).text("status") != _RUNNING:
        qmp.ask("cont", seconds=end - time.monotonic())


def _migrated(
    qmp: Connection, address: Address, target: BinaryIO, progress: Progress | None, origin: dict[str, object]
) -> list[str]:
    """Migrate into the target; return the notes of the import."""
    channel, uri = _pair(qmp) if isinstance(address, str) else _listening(qmp)
    stream = _Stream(qmp, channel, is_listening=not isinstance(address, str), progress=progress)
    try:
        with io.BufferedReader(stream) as file:
            qmp.send("migrate", uri=uri)
            return _converted(qmp, cast("BinaryIO", file), target, stream, origin)
    except RefusedError:
        raise  # a migration that goes on is somebody else's
    except BaseException:
        with contextlib.suppress(CaptureError):
            qmp.ask("migrate_cancel", seconds=SETTLE_SECONDS)
            _ended(qmp, SETTLE_SECONDS)
        raise


def _converted(qmp: Connection, file: BinaryIO, target: BinaryIO, stream: _Stream, origin: dict[str, object]) -> list[str]:
    try:
        sections = import_stream(file)
        sections.raw_attributes = Opaque.of({**sections.raw_attributes.decode(), "capture": origin})
        write(sections, target)
    except FormatError:
        if stream.has_ended:
            _ended(qmp, qmp.seconds)  # raises where QEMU knows why
        raise
    if (status := _ended(qmp, qmp.seconds)) != "completed":
        raise CaptureError(f"QEMU sent a whole stream, but says that the migration is `{shown(status)}`")
    return sections.notes


def _ended(qmp: Connection, seconds: float) -> str:
    """The status of the migration once it is over, or when time is up. Raises CaptureError where QEMU has given up."""
    end = time.monotonic() + seconds
    while True:
        status = _status(qmp.ask("query-migrate", seconds=end - time.monotonic()))
        if status in _OVER or time.monotonic() + POLL_SECONDS > end:
            return status
        time.sleep(POLL_SECONDS)


def _status(state: Message) -> str:
    status = state.text("status", "none")
    if status in _GIVEN_UP:
        raise CaptureError(f"QEMU could not migrate: {shown(state.text('error-desc', status))}")
    return status


def _pair(qmp: Connection) -> tuple[socket.socket, str]:
    """A socket whose other end QEMU has got."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            qmp.ask("getfd", fd=theirs.fileno(), fdname=_FD_NAME)
        except BaseException:
            ours.close()
            raise
    return ours, f"fd:{_FD_NAME}"


def _listening(qmp: Connection) -> tuple[socket.socket, str]:
    """A socket that listens where QEMU can reach it: on the address that its QMP connection comes from."""
    host = qmp.host
    family, named = (socket.AF_INET6, f"[{host}]") if ":" in host else (socket.AF_INET, host)
    server = socket.create_server((host, 0), family=family)
    server.settimeout(0)
    return server, f"tcp:{named}:{server.getsockname()[1]}"


class _Stream(io.RawIOBase):
    """The stream of the migration, as a file. While it is read, QEMU is asked how far it is.

    Args:
        qmp: Where a command that starts the migration has been given.
        channel: Where the stream comes from; closed with this file.
        is_listening: The channel has yet to be opened by QEMU.
        progress: Told how far it is.

    Attributes:
        has_ended: QEMU has closed it.
    """

    def __init__(self, qmp: Connection, channel: socket.socket, *, is_listening: bool, progress: Progress | None) -> None:
        self._qmp = qmp
        self._channel = channel
        self._is_listening = is_listening
        self._progress = progress
        self._answered: float | None = None
        self._state: dict[str, object] = {}
        self.has_ended = False

    @override
    def readable(self) -> bool:
        return True

    @override
    def close(self) -> None:
        self._channel.close()
        super().close()

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        end = time.monotonic() + self._qmp.seconds
        while time.monotonic() < end:
            found = ready(self._channel, self._qmp, seconds=POLL_SECONDS)
            if self._qmp in found and self._has_moved():
                end = time.monotonic() + self._qmp.seconds
            self._ask_again()
            if self._channel in found:
                if not self._is_listening:
                    return self._received(buffer)
                self._accept()
        raise CaptureError(f"the migration got no further for {self._qmp.seconds:g} s")

    def _received(self, buffer: Buffer) -> int:
        try:
            count = self._channel.recv_into(buffer)
        except ConnectionError:
            count = 0
        self.has_ended = not count
        return count

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # who came has gone again
            connection, _ = self._channel.accept()
            self._channel.close()
            self._channel, self._is_listening = connection, False

    def _ask_again(self) -> None:
        """Ask QEMU how far it is, once it has answered what it was asked last, a moment ago."""
        if self._answered is not None and time.monotonic() >= self._answered + POLL_SECONDS:
            self._answered = None
            self._qmp.send("query-migrate")

    def _has_moved(self) -> bool:
        """Whether there is an answer, and it is another than the last. Raises CaptureError where QEMU has given up."""
        answer = self._qmp.answer()
        if answer is None:
            return False
        state = answer.part("return")
        self._answered = time.monotonic()
        _status(state)
        if "ram" in state:
            memory = state.part("ram")
            total = memory.number("total")
            done = total - memory.number("remaining")
            if self._progress:
                self._progress(done, total)
        before, self._state = self._state, {name: value for name, value in state.members.items() if "time" not in name}
        return self._state != before  # time goes on in any case

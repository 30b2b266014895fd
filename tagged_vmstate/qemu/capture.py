"""A QEMU that runs, migrated into a snapshot over QMP (the package qemu.qmp), and then going on as it was.

QEMU writes its stream into a pipe, whose other end comes to it over the Unix socket, or over TCP into a socket that
listens here; a thread converts while it streams. Whatever fails, the guest runs on if it ran before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TypeAlias, cast

from qemu.qmp import ExecuteError, QMPClient, QMPError

from tagged_vmstate.errors import FormatError, VMStateError
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.snapshot import write

Address: TypeAlias = str | tuple[str, int]
"""The path of a Unix socket, or host and port."""
Progress: TypeAlias = Callable[[int, int], None]
"""Gets the bytes of memory that were sent, and how many there are in all."""

POLL_SECONDS: Final = 0.05
GREETING_SECONDS: Final = 10
_FD_NAME: Final = "tagged-vmstate"
_RUNNING: Final = "running"
_UNDER_WAY: Final = {"active", "setup", "cancelling", "device", "pre-switchover"}
_POLLS: Final = 100


class CaptureError(VMStateError):
    """QEMU could not be reached, or could not migrate."""

    def __init__(self, sentence: str) -> None:
        super().__init__("", sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


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
    address: Address, target: BinaryIO, *, live: bool = False, stay_paused: bool = False, progress: Progress | None = None
) -> Captured:
    """Write a snapshot of a QEMU that listens on a QMP socket.

    Args:
        address: Of the QMP socket.
        target: Where to.
        live: Let the guest run while its memory is sent; it stands still for the rest only.
        stay_paused: Leave the guest paused; else one that ran runs on.
        progress: Told now and then how far it is.

    Raises:
        CaptureError: The socket is not there or closes, or the guest cannot migrate.
        FormatError: QEMU sent what cannot be read (a capability that changes the stream).
        OSError: The target does not take it.
    """
    return asyncio.run(_capture(address, target, live=live, stay_paused=stay_paused, progress=progress))


async def _capture(address: Address, target: BinaryIO, *, live: bool, stay_paused: bool, progress: Progress | None) -> Captured:
    async with _connected(address) as qmp:
        ran = (await _ask(qmp, "query-status"))["status"] == _RUNNING
        async with _guest_as_it_was(qmp, ran=ran, stay_paused=stay_paused):
            if ran and not live:
                await _ask(qmp, "stop")
            notes = await _migrate(qmp, address, target, progress)
        goes_on = ran and not stay_paused
        return Captured(notes, _stood_still(qmp) if goes_on else None, goes_on)


@contextlib.asynccontextmanager
async def _connected(address: Address) -> AsyncIterator[QMPClient]:
    qmp = QMPClient("tagged-vmstate")
    try:
        await asyncio.wait_for(qmp.connect(address), GREETING_SECONDS)
    except TimeoutError:
        hint = "QMP speaks to one at a time: is somebody else connected?"
        raise CaptureError(f"no QMP greeting there in {GREETING_SECONDS} s; {hint}") from None
    except (QMPError, OSError) as error:
        hint = "start QEMU with -qmp unix:PATH,server=on,wait=off"
        raise CaptureError(f"no QMP there ({_reason(error)}); {hint}") from None
    try:
        yield qmp
    except (QMPError, EOFError) as error:
        raise CaptureError(f"QEMU closed the connection ({_reason(error)})") from None
    finally:
        with contextlib.suppress(QMPError, EOFError, OSError):
            await qmp.disconnect()


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


async def _ask(qmp: QMPClient, command: str, **arguments: object) -> Any:
    try:
        return await qmp.execute(command, arguments)
    except ExecuteError as error:
        raise CaptureError(f"QEMU refuses `{command}`: {error}") from None


def _stood_still(qmp: QMPClient) -> float | None:
    """Seconds from the first STOP to the RESUME behind it, by QEMU's events."""
    stopped = None
    for message in qmp.events.clear():
        stamp = cast("dict[str, int]", message["timestamp"])
        moment = stamp["seconds"] + stamp["microseconds"] / 1e6
        if message["event"] == "STOP" and stopped is None:
            stopped = moment
        elif message["event"] == "RESUME" and stopped is not None:
            return moment - stopped
    return None


@contextlib.asynccontextmanager
async def _guest_as_it_was(qmp: QMPClient, *, ran: bool, stay_paused: bool) -> AsyncIterator[None]:
    """A guest that ran runs on, whatever happens."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(CaptureError, QMPError, EOFError):
            await _go_on(qmp, ran=ran)
        raise
    await _go_on(qmp, ran=ran and not stay_paused)


async def _go_on(qmp: QMPClient, *, ran: bool) -> None:
    if ran and (await _ask(qmp, "query-status"))["status"] != _RUNNING:
        await _ask(qmp, "cont")


async def _migrate(qmp: QMPClient, address: Address, target: BinaryIO, progress: Progress | None) -> list[str]:
    """Migrate into the target; return the notes of the import."""
    with contextlib.ExitStack() as stack:
        if isinstance(address, str):
            reader, uri = await _pipe(qmp, stack)
        else:
            reader, uri = _listening(qmp, stack)
        await _ask(qmp, "migrate", uri=uri)
        converted = asyncio.create_task(asyncio.to_thread(_convert, reader, target))
        try:
            await _until_sent(qmp, converted, progress)
            return await converted
        except BaseException as error:
            if isinstance(error, _EndedError):
                await _why(qmp)
            with contextlib.suppress(CaptureError, QMPError, EOFError):
                await _cancelled(qmp)
            reader.stop()
            await asyncio.gather(converted, return_exceptions=True)
            if isinstance(error, _EndedError):
                raise error.error from None
            raise


async def _until_sent(qmp: QMPClient, converted: asyncio.Task[list[str]], progress: Progress | None) -> None:
    """Wait until QEMU has sent all, or the conversion fails. Raises CaptureError where QEMU gives up."""
    while not (converted.done() and converted.exception()):
        state = await _ask(qmp, "query-migrate")
        status = state.get("status")
        if status in {"failed", "cancelled"}:
            raise CaptureError(f"QEMU could not migrate: {state.get('error-desc', status)}")
        memory = state.get("ram")
        if progress and memory:
            progress(memory["total"] - memory["remaining"], memory["total"])
        if status == "completed":
            return
        await asyncio.wait([converted], timeout=POLL_SECONDS)
        if converted.done():
            await asyncio.sleep(POLL_SECONDS)  # QEMU says so a moment later


async def _why(qmp: QMPClient) -> None:
    """Raise CaptureError where QEMU says why its stream has ended."""
    for _ in range(_POLLS):
        state = await _ask(qmp, "query-migrate")
        if state.get("status") == "failed":
            raise CaptureError(f"QEMU could not migrate: {state.get('error-desc', 'it does not say why')}")
        await asyncio.sleep(POLL_SECONDS)


async def _cancelled(qmp: QMPClient) -> None:
    """Let no migration go on."""
    await _ask(qmp, "migrate_cancel")
    for _ in range(_POLLS):
        if (await _ask(qmp, "query-migrate")).get("status") not in _UNDER_WAY:
            return
        await asyncio.sleep(POLL_SECONDS)


class _Reader:
    """Where the stream comes in.

    Args:
        fd: Opens the reading end; waits for it, where it is a socket that listens.
        cancel: Makes the waiting and the reading end.
    """

    def __init__(self, fd: Callable[[], BinaryIO], cancel: Callable[[], None]) -> None:
        self.open = fd
        self.stop = cancel


async def _pipe(qmp: QMPClient, stack: contextlib.ExitStack) -> tuple[_Reader, str]:
    """A pipe, its writing end given to QEMU."""
    reading, writing = os.pipe()
    file = stack.enter_context(os.fdopen(reading, "rb"))
    try:
        qmp.send_fd_scm(writing)
        await _ask(qmp, "getfd", fdname=_FD_NAME)
    finally:
        os.close(writing)
    return _Reader(lambda: file, lambda: None), f"fd:{_FD_NAME}"


def _listening(qmp: QMPClient, stack: contextlib.ExitStack) -> tuple[_Reader, str]:
    """A socket that listens where QEMU can reach it: on the address that its QMP connection comes from."""
    writer = qmp._writer  # noqa: SLF001  # the package tells its own address nowhere else
    host = cast("tuple[str, int]", writer.get_extra_info("sockname"))[0] if writer else "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = stack.enter_context(socket.create_server((host, 0), family=family))

    def accept() -> BinaryIO:
        connection, _ = server.accept()
        stack.enter_context(connection)
        return cast("BinaryIO", stack.enter_context(connection.makefile("rb")))

    def stop() -> None:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    named = f"[{host}]" if ":" in host else host
    return _Reader(accept, stop), f"tcp:{named}:{server.getsockname()[1]}"


class _EndedError(Exception):
    """The stream ended in the middle: QEMU knows why."""

    def __init__(self, error: FormatError) -> None:
        super().__init__(str(error))
        self.error = error


def _convert(reader: _Reader, target: BinaryIO) -> list[str]:
    """Convert what comes; on failure close it, so that QEMU does not wait for ever."""
    file = reader.open()
    try:
        stream = import_stream(file)
        write(stream, target)
    except FormatError as error:
        if not file.read(1):
            raise _EndedError(error) from None
        file.close()
        raise
    except BaseException:
        file.close()
        raise
    return stream.notes

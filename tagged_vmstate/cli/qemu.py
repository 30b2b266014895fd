"""`export` and `capture`: a snapshot goes to a QEMU, and comes from one that runs."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

from tagged_vmstate.cli.files import STANDARD, Trouble, opened_snapshot, output
from tagged_vmstate.cli.globs import fits, not_found
from tagged_vmstate.cli.messages import say
from tagged_vmstate.errors import StateError, VMStateError
from tagged_vmstate.qemu.capture import TIMEOUT, capture
from tagged_vmstate.qemu.export import export

if TYPE_CHECKING:
    from tagged_vmstate.qemu.capture import Progress
    from tagged_vmstate.qemu.like import Likeness

_PORT_DIGITS: Final = 5


@click.command(short_help="Make a QEMU migration stream from a snapshot.")
@click.argument("file")
@click.option("-o", "--output", "out", default=STANDARD, metavar="OUT", help="Where to; standard output unless given.")
@click.option("--like", metavar="REFERENCE", help="For another QEMU: in the layout of this stream of its machine at reset.")
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="DEVICE.OLD=NEW",
    help="A field, or a device, that has another name in FILE; @FILE has one a line.",
)
@click.option("--drop", "drops", multiple=True, metavar="PATH", help="May be lost: DEVICE or DEVICE.FIELD; globs.")
def export_command(file: str, out: str, like: str | None, aliases: tuple[str, ...], drops: tuple[str, ...]) -> None:
    """Make the stream again that a snapshot came from, for -incoming of a QEMU with the same command line.

    With --like it is made for another QEMU, older or newer: what differs is listed on standard error, and whatever would
    be lost is refused (exit status 1) unless it is at its default (import --defaults) or named by --drop.

    \b
    Examples:
      tagged-vmstate export vm.tvm -o vm.mig
      tagged-vmstate export new.tvm --like old-reset.mig --alias hpet.num_timers=num_timers_save -o old.mig
    """
    if like is None and (aliases or drops):
        raise click.UsageError("--alias and --drop belong to --like REFERENCE.")
    with opened_snapshot(file) as snapshot:
        if like is None:
            with _told(file), output(out, is_text=False) as target:
                export(snapshot, target)
            return
        from tagged_vmstate.qemu.like import Likeness  # noqa: PLC0415  # only where it is asked for

        with opened_snapshot(like) as reference, _told(file):
            named = dict(_pairs(aliases))
            likeness = Likeness(snapshot, reference, named, lambda name: any(fits(name, drop) for drop in drops))
            _report(likeness)
            with output(out, is_text=False) as target:
                likeness.write(target)


@contextlib.contextmanager
def _told(file: str) -> Iterator[None]:
    try:
        yield
    except StateError as error:
        raise Trouble(f"{'standard input' if file == STANDARD else file}: {error}") from None


def _pairs(aliases: Iterable[str]) -> Iterator[tuple[str, str]]:
    for alias in aliases:
        if alias.startswith("@"):
            try:
                lines = Path(alias[1:]).read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise Trouble(f"{alias[1:]}: {getattr(error, 'strerror', None) or 'not text'}") from None
            yield from _pairs(line.strip() for line in lines if line.strip() and not line.lstrip().startswith(("#", "@")))
            continue
        old, equals, new = alias.partition("=")
        if not (old and equals and new):
            raise click.UsageError(f"--alias {alias}: expected DEVICE.OLD=NEW.")
        yield old, new


def _report(likeness: Likeness) -> None:
    """List what does not go over as it is; end the command where something would be lost."""
    if likeness.unused:
        raise not_found("field of the reference", likeness.unused[0], likeness.names)
    for move in likeness.moves:
        say(f"{move.what}: {move.place}: {move.said}")
    if likeness.lost:
        count = len(likeness.lost)
        say(f"refused: {count} {'value' if count == 1 else 'values'} in use would be lost; name each with --drop, or by --alias")
        sys.exit(1)


@click.command(short_help="Take a snapshot of a QEMU that runs.")
@click.argument("socket")
@click.option("-o", "--output", "out", required=True, metavar="OUT", help="Where to.")
@click.option("--live", is_flag=True, help="Let the guest run while its memory is sent.")
@click.option("--stay-paused", is_flag=True, help="Leave the guest paused afterwards.")
@click.option(
    "--timeout",
    type=click.IntRange(1, 3600),
    default=TIMEOUT,
    metavar="SECONDS",
    help=f"How long QEMU may take to answer, or a migration to get any further; {TIMEOUT} unless given.",
)
def capture_command(socket: str, out: str, *, live: bool, stay_paused: bool, timeout: int) -> None:
    """Take a snapshot of a QEMU over its QMP socket: a path, or HOST:PORT. The guest goes on as it was.

    QEMU must have been started with -qmp, for instance -qmp unix:qmp.sock,server=on,wait=off. Where QEMU does not answer,
    or ^C ends the command, nothing is written and a guest that ran runs on.

    \b
    Examples:
      tagged-vmstate capture qmp.sock -o vm.tvm
      tagged-vmstate capture localhost:4444 --live -o vm.tvm
    """
    host, colon, port = socket.rpartition(":")
    is_tcp = colon and port.isdecimal() and len(port) <= _PORT_DIGITS and "/" not in socket
    address = (host, int(port)) if is_tcp else socket
    with _ended_by(signal.SIGTERM, signal.SIGHUP), output(out, is_text=False) as target:
        try:
            with _progress() as progress:
                found = capture(address, target, live=live, stay_paused=stay_paused, timeout=timeout, progress=progress)
        except VMStateError as error:
            raise Trouble("; ".join([f"{socket}: {error}", *_notes(error)])) from None
        except BaseException as error:
            for note in _notes(error):
                say(f"{socket}: {note}")
            raise
    for note in found.notes:
        say(f"note: {note}")
    if found.paused is not None:
        say(f"the guest stood still for {found.paused:.2f} s")
    elif not found.is_running:
        say("the guest is paused")


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


@contextlib.contextmanager
def _ended_by(*signals: signal.Signals) -> Iterator[None]:
    """Let signals end the command as an interrupt does, cleaning up; but not those that it was started to ignore."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {each: signal.signal(each, end) for each in signals if signal.getsignal(each) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on standard error, where a person waits for it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  # only where a person waits
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415  # the same

    columns = (TextColumn("memory"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("memory", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

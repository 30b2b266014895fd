"""`export` and `capture`: a snapshot goes to a QEMU, and comes from one that runs."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from types import FrameType
from typing import TYPE_CHECKING

import click

from tagged_vmstate.cli import complete
from tagged_vmstate.cli.files import STANDARD, Refusal, Trouble, lines, opened_snapshot, output, trouble
from tagged_vmstate.cli.main import Ended
from tagged_vmstate.cli.messages import say
from tagged_vmstate.cli.paths import alias, check_names, usage
from tagged_vmstate.errors import StateError, VMStateError
from tagged_vmstate.paths import Aliases, Pattern
from tagged_vmstate.qemu.capture import TIMEOUT, capture
from tagged_vmstate.qemu.export import Encode, OriginError, export
from tagged_vmstate.qemu.stream import RAM
from tagged_vmstate.text import integer
from tagged_vmstate.wiretype import brief

if TYPE_CHECKING:
    from tagged_vmstate.qemu.capture import Progress
    from tagged_vmstate.qemu.like import Likeness
    from tagged_vmstate.qemu.subsections import KnownSubsections
    from tagged_vmstate.snapshot import Snapshot


@click.command(short_help="Make a QEMU migration stream from a snapshot.")
@click.argument("file")
@click.option("-o", "--output", "out", default=STANDARD, metavar="OUT", help="Where to; standard output unless given.")
@click.option("--bare", is_flag=True, help="Of libvirt's save image only the stream in it, for -incoming.")
@click.option("--like", metavar="REFERENCE", help="For another QEMU: in the layout of this stream of its machine at reset.")
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="PATH=NAME",
    shell_complete=complete.at_file,
    help="A field of REFERENCE, or a device, that has another name in FILE; @FILE has one a line.",
)
@click.option(
    "--drop",
    "drops",
    multiple=True,
    metavar="PATH",
    shell_complete=complete.path,
    help="What may be lost: DEVICE or DEVICE/FIELD; globs.",
)
@click.option(
    "--reference-values",
    "takes",
    is_flag=True,
    help="Allow a REFERENCE that has run: what FILE lacks is then its machine's state.",
)
@click.option(
    "--resize-block",
    "blocks",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.block,
    help="A block of memory that gets its size in REFERENCE: zeros are cut off or added; globs.",
)
@click.option(
    "--tables",
    "spec",
    metavar="TABLES",
    shell_complete=complete.tables,
    help="Write by these what import read by them: module:MACHINE, or JSON. With --like: what -dump-vmstate of that QEMU wrote.",
)
def export_command(
    file: str,
    out: str,
    *,
    bare: bool,
    like: str | None,
    aliases: tuple[str, ...],
    drops: tuple[str, ...],
    blocks: tuple[str, ...],
    takes: bool,
    spec: str | None,
) -> None:
    """Make the stream again that a snapshot came from, for -incoming of a QEMU with the same command line.

    libvirt's save image comes back as one, for virsh restore, its stream compressed as its header says; --bare writes what
    -incoming takes, the stream alone, and so does --like.

    A file of savevm version 2 comes back, too. Sections that import could read only by --tables are written by them again, each
    in the version that it had; a value in use for which that version has no place is refused (exit status 1).

    With --like it is made for another QEMU, older or newer: what differs is listed on standard error, and what would
    be lost is refused (exit status 1) unless it is at its default (import --defaults) or named by --drop. What FILE lacks comes
    from REFERENCE; where that has run, so that it would be another guest's state, --reference-values must allow it. For a guest
    that has run give --tables too: subsections and conditional fields that REFERENCE lacks then go over.

    \b
    Examples:
      tagged-vmstate export vm.tvm -o vm.mig
      tagged-vmstate export vm.tvm --bare -o vm.mig
      tagged-vmstate export vm.tvm --tables board:MACHINE -o old.vm
      tagged-vmstate export new.tvm --like old-reset.mig --alias hpet/num_timers=num_timers_save -o old.mig
      tagged-vmstate export new.tvm --like old-reset.mig --tables old-dump.json --resize-block pc.bios -o old.mig

    Exit status: 0 written, 1 refused, 2 unreadable, a wrong input, or output that cannot be written.
    """
    if like is None and (aliases or drops or takes or blocks):
        raise click.UsageError("--alias, --drop, --reference-values and --resize-block belong to --like REFERENCE.")
    with opened_snapshot(file, is_one_of=like is not None) as snapshot:
        if like is None:
            encode = None if spec is None else _encoder(spec)
            with _told(file), output(out, is_text=False) as target:
                is_image = export(snapshot, target, encode, bare=bare)
            if is_image:
                say("note: this is libvirt's save image, for virsh restore; --bare writes what -incoming takes")
            return
        from tagged_vmstate.qemu.like import Likeness  # noqa: PLC0415  # only where it is asked for

        with opened_snapshot(like, is_one_of=True) as reference, _told(file):
            known = None if spec is None else _known(spec, reference)
            named, lossy = Aliases(_aliases(aliases)), [usage(Pattern, drop) for drop in drops]
            resized = [_block(each) for each in blocks]
            likeness = Likeness(snapshot, reference, named, lossy, takes=takes, resized=resized, known=known)
            for pattern in named.unused:
                check_names(pattern, reference)
            for name, place in likeness.unnamed.items():
                raise Trouble(f"{file}: no `{name}` there, which --alias names for {place}")
            for pattern in lossy:
                if pattern not in likeness.dropped:
                    check_names(pattern, snapshot)
            for pattern in resized:
                check_names(pattern, snapshot)
            _report(likeness, like)
            with output(out, is_text=False) as target:
                likeness.write(target)


@contextlib.contextmanager
def _told(file: str) -> Iterator[None]:
    """A value that has no place in the stream is a no (exit status 1); a snapshot from elsewhere is a wrong input (2)."""
    try:
        yield
    except OriginError as error:
        raise trouble(file, error) from None
    except StateError as error:
        raise Refusal(trouble(file, error).message) from None


def _encoder(spec: str) -> Encode:
    from tagged_vmstate.cli.modules import tables  # noqa: PLC0415  # a stream that describes itself needs none
    from tagged_vmstate.interpreted import Encoder  # noqa: PLC0415  # the same

    return Encoder(tables(spec))


def _known(spec: str, reference: Snapshot) -> KnownSubsections:
    from tagged_vmstate.cli.modules import dump  # noqa: PLC0415  # only where it is asked for
    from tagged_vmstate.qemu.subsections import KnownSubsections  # noqa: PLC0415  # the same

    found = dump(spec)
    with _told(spec):
        return KnownSubsections(found, reference.attributes.get("machine"))


def _block(text: str) -> Pattern:
    """A block of memory by its name, or by its place as it is printed."""
    is_place = text.startswith((f"{RAM}/", f"{RAM}#"))
    return usage(Pattern, text if is_place else f"{RAM}/{text}")


def _aliases(texts: Iterable[str]) -> Iterator[tuple[Pattern, str]]:
    return map(alias, chain.from_iterable(lines(each[1:]) if each.startswith("@") else [each] for each in texts))


def _report(likeness: Likeness, reference: str) -> None:
    """List what does not go over as it is; end the command where something would be lost, or another guest's."""
    for move in likeness.moves:
        say(f"{move.what}: {move.place}: {move.said}")
    if likeness.lost:
        count = len(likeness.lost)
        say(f"refused: {count} {'value' if count == 1 else 'values'} in use would be lost; name each with --drop, or by --alias")
    if likeness.taken:
        count = len(likeness.taken)
        values = "1 value would be that" if count == 1 else f"{count} values would be those"
        what = f"{values} of another guest, as {reference} has run ({likeness.has_run})"
        say(f"refused: {what}: take the reference from a QEMU started with -S, or allow it by --reference-values")
    if likeness.lost or likeness.taken:
        raise click.exceptions.Exit(1)


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

    Exit status: 0 done, 2 no answer, a refusal of QEMU, or output that cannot be written; 130, 143 and 129 ended by ^C, SIGTERM
    and SIGHUP.
    """
    address = _address(socket)
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


def _address(socket: str) -> str | tuple[str, int]:
    """A path, or the host and port of HOST:PORT."""
    host, colon, port = socket.rpartition(":")
    if not colon or "/" in socket or not port.isdecimal():
        return socket
    try:
        number = integer(port)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 16:
        raise Trouble(f"{host}: expected a port of 1 to 65535, not {brief(port)}")
    return host, number


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


@contextlib.contextmanager
def _ended_by(*signals: signal.Signals) -> Iterator[None]:
    """Let signals end the command as an interrupt does, cleaning up; but not those that it was started to ignore."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise Ended(number)

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

"""`to-json`, `from-json` and `import`: a snapshot in its other forms."""

from __future__ import annotations

from pathlib import Path

import click

from tagged_vmstate.cli import complete
from tagged_vmstate.cli.files import STANDARD, Trouble, opened, opened_file, output
from tagged_vmstate.cli.messages import say
from tagged_vmstate.defaults import Flagged
from tagged_vmstate.jsonform import from_json, to_json, to_values
from tagged_vmstate.memory import Images, overwritten
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.sections import Sections
from tagged_vmstate.snapshot import write

_OUTPUT = click.option("-o", "--output", "out", default=STANDARD, metavar="OUT", help="Where to; standard output unless given.")


@click.command(short_help="Write the JSON form.")
@click.argument("file")
@_OUTPUT
@click.option("--values", is_flag=True, help="The short form: {device: {field: value}}. It has no way back.")
@click.option(
    "--memory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Write memory as image files into DIR."
)
def to_json_command(file: str, out: str, memory: Path | None, *, values: bool) -> None:
    """Write the JSON form, from which from-json makes the same snapshot again, byte for byte.

    \b
    Examples:
      tagged-vmstate to-json vm.tvm -o vm.json
      tagged-vmstate to-json vm.mig.xz --values | jq .ps2kbd.scancode_set
      tagged-vmstate to-json vm.mig --memory vm.memory -o vm.json
    """
    if memory is not None:
        _with_images(file, out, memory, values=values)
        return
    with opened(file) as sections, output(out, is_text=True) as target:
        (to_values if values else to_json)(sections, target)


def _with_images(file: str, out: str, folder: Path, *, values: bool) -> None:
    if values:
        raise click.UsageError("--values has no memory to write: leave out --memory.")
    if file == STANDARD:
        raise click.UsageError("--memory reads its input twice: name a file.")
    with opened(file) as sections:
        stale = overwritten(sections)
    folder.mkdir(exist_ok=True)
    with opened(file) as sections, output(out, is_text=True) as target, Images(folder, stale) as images:
        try:
            to_json(sections, target, images)
        except OSError as error:
            if error.filename is None:
                raise
            raise Trouble(f"{error.filename}: cannot write: {error.strerror}") from None


@click.command(short_help="Make a snapshot from its JSON form.")
@click.argument("file")
@_OUTPUT
@click.option(
    "--memory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to-json --memory put the image files.",
)
def from_json_command(file: str, out: str, memory: Path | None) -> None:
    """Make a snapshot from its JSON form; what does not fit its type is told with its line.

    \b
    Examples:
      tagged-vmstate from-json vm.json -o vm.tvm
      jq '.attributes.note = "edited"' vm.json | tagged-vmstate from-json - -o vm.tvm
    """
    with opened_file(file) as source, output(out, is_text=False) as target:
        write(from_json(source, memory), target)


@click.command(short_help="Make a snapshot from a QEMU migration stream.")
@click.argument("file", metavar="STREAM")
@_OUTPUT
@click.option(
    "--tables",
    "spec",
    metavar="TABLES",
    shell_complete=complete.tables,
    help="Read by these what nothing in STREAM describes: module:MACHINE, or JSON.",
)
@click.option("--defaults", "reset", metavar="RESET", help="Flag what is as in this stream of the machine at its reset.")
def import_command(file: str, out: str, spec: str | None, reset: str | None) -> None:
    """Make a snapshot from a QEMU migration stream (savevm version 3), bare or in libvirt's save image.

    What nothing describes, and a file of savevm version 2 describes nothing, is read by --tables; what cannot be
    interpreted is kept as bytes and named on standard error.

    \b
    Examples:
      tagged-vmstate import vm.mig -o vm.tvm
      ssh host cat vm.mig.xz | tagged-vmstate import - -o vm.tvm
      tagged-vmstate import old.vm --tables board:MACHINE -o vm.tvm
      tagged-vmstate import vm.mig --defaults reset.mig -o vm.tvm && tagged-vmstate show --non-default vm.tvm
    """
    if reset == STANDARD == file:
        raise click.UsageError("only one of the two streams can be standard input.")
    with opened_file(file) as source, output(out, is_text=False) as target:
        stream = import_stream(source)
        sections: Sections = stream
        if spec is not None:
            from tagged_vmstate.cli.modules import tables  # noqa: PLC0415  # a stream that describes itself needs none
            from tagged_vmstate.interpreted import Interpreted  # noqa: PLC0415  # the same

            sections = Interpreted(stream, tables(spec), stream.notes)
        if reset is not None:
            with opened(reset) as defaults:
                sections = Flagged(sections, defaults)
        write(sections, target)
    for note in stream.notes:
        say(f"note: {note}")

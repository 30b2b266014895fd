"""`to-json`, `from-json` and `import`: a snapshot in its other forms."""

from __future__ import annotations

from pathlib import Path

import click

from tagged_vmstate.cli import complete
from tagged_vmstate.cli.files import STANDARD, Trouble, opened, opened_again, opened_file, opened_quietly, output, say_notes
from tagged_vmstate.defaults import Flagged
from tagged_vmstate.errors import FormatError
from tagged_vmstate.jsonform import from_json, to_json, to_values
from tagged_vmstate.memory import Images, overwritten
from tagged_vmstate.qemu.bridge import Import
from tagged_vmstate.qemu.savevm import ImportV2
from tagged_vmstate.sections import Sections
from tagged_vmstate.snapshot import write
from tagged_vmstate.sources import is_snapshot, is_stream, looked

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

    With --memory, every command reads the JSON as long as the folder DIR lies beside it.

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
    beside = Path.cwd() if out == STANDARD else Path(out).parent
    with opened_again(file) as sections:
        stale = overwritten(sections())
        folder.mkdir(exist_ok=True)
        with output(out, is_text=True) as target, Images(folder, stale, beside) as images:
            try:
                to_json(sections(), target, images)
            except OSError as error:
                if error.filename is None:
                    raise
                raise Trouble(f"{error.filename}: cannot write: {error.strerror}") from None


@click.command(short_help="Make a snapshot from its JSON form.")
@click.argument("file")
@_OUTPUT
@click.option(
    "--memory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="The image files, unless beside FILE."
)
def from_json_command(file: str, out: str, memory: Path | None) -> None:
    """Make a snapshot from its JSON form; what does not fit its type is told with its line.

    Memory that to-json --memory wrote as image files is found in its folder beside FILE. Through a pipe, say --memory DIR.

    \b
    Examples:
      tagged-vmstate from-json vm.json -o vm.tvm
      jq '.attributes.note = "edited"' vm.json | tagged-vmstate from-json - -o vm.tvm
    """
    beside = None if file == STANDARD else Path(file).parent
    with opened_file(file) as found, output(out, is_text=False) as target:
        head, source = looked(found)
        if is_snapshot(head) or is_stream(head):
            raise FormatError("a JSON form", "another kind: import takes it", offset=0, source="file")
        write(from_json(source, memory, beside=beside), target)


@click.command(short_help="Make a snapshot from a QEMU migration stream.")
@click.argument("file")
@_OUTPUT
@click.option(
    "--tables",
    "spec",
    metavar="TABLES",
    shell_complete=complete.tables,
    help="Read by these what nothing in FILE describes: module:MACHINE, or JSON.",
)
@click.option("--defaults", "reset", metavar="RESET", help="Flag what is as in RESET, a FILE of the machine at its reset.")
def import_command(file: str, out: str, spec: str | None, reset: str | None) -> None:
    """Make a snapshot from a QEMU migration stream (savevm version 3), bare or in libvirt's save image.

    What nothing describes, and a file of savevm version 2 describes nothing, is read by --tables; what cannot be
    interpreted is kept as bytes and named on standard error. FILE may also be a snapshot or its JSON form: it is copied,
    with the flags of --defaults.

    \b
    Examples:
      tagged-vmstate import vm.mig -o vm.tvm
      ssh host cat vm.mig.xz | tagged-vmstate import - -o vm.tvm
      tagged-vmstate import old.vm --tables board:MACHINE -o vm.tvm
      tagged-vmstate import vm.mig --defaults reset.mig -o vm.tvm && tagged-vmstate show --non-default vm.tvm
      tagged-vmstate import captured.tvm --defaults reset.tvm -o vm.tvm
    """
    if reset == STANDARD == file:
        raise click.UsageError("only one of the two files can be standard input.")
    with opened_quietly(file) as found, output(out, is_text=False) as target:
        notes = found.notes if isinstance(found, Import | ImportV2) else []
        sections: Sections = found
        if spec is not None:
            from tagged_vmstate.cli.modules import tables  # noqa: PLC0415  # a stream that describes itself needs none
            from tagged_vmstate.interpreted import Interpreted  # noqa: PLC0415  # the same

            sections = Interpreted(found, tables(spec), notes)
        if reset is not None:
            with opened(reset, is_one_of=True) as defaults:
                sections = Flagged(sections, defaults)
        write(sections, target)
    say_notes(notes, file if reset is not None else None)

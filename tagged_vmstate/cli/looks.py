"""How `show` and `diff` print integers: as fields of tables say (`--tables`), and what libvirt's numbers mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from tagged_vmstate.cli import complete
from tagged_vmstate.cli.render import Look
from tagged_vmstate.qemu.libvirt import Format

_KNOWN: Final[Mapping[str, Look]] = {"libvirt": Look(below={"format": Look(Format)})}

TABLES_OPTION: Final = click.option(
    "--tables",
    "spec",
    metavar="TABLES",
    shell_complete=complete.tables,
    help="module:MACHINE, or tables exported as JSON: print integers as their fields say (hex, flags, names). Text only.",
)


def looks(spec: str | None) -> Mapping[str, Look]:
    """How devices are printed: those of some tables, by their names and aliases, and what is known without any."""
    if spec is None:
        return _KNOWN
    from tagged_vmstate.cli.modules import tables  # noqa: PLC0415  # doubles the start of a command that seldom needs it

    found = {name: Look.of(entry.table) for entry in tables(spec) for name in (entry.table.name, *entry.table.aliases)}
    return {**_KNOWN, **found}

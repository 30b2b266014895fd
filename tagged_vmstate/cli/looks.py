"""`--tables` of `show` and `diff`: integers are printed as their fields say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from tagged_vmstate.cli import complete
from tagged_vmstate.cli.render import Look

TABLES_OPTION: Final = click.option(
    "--tables",
    "spec",
    metavar="TABLES",
    shell_complete=complete.tables,
    help="module:MACHINE, or tables exported as JSON: print integers as their fields say (hex, flags, names). Text only.",
)


def looks(spec: str | None) -> Mapping[str, Look]:
    """How the devices of some tables are printed, by their names and aliases; nothing where no tables are named."""
    if spec is None:
        return {}
    from tagged_vmstate.cli.modules import tables  # noqa: PLC0415  # doubles the start of a command that seldom needs it

    return {name: Look.of(entry.table) for entry in tables(spec) for name in (entry.table.name, *entry.table.aliases)}

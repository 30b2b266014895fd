"""A self-describing snapshot format for the state of emulated devices.

Every field is written with its name, type, length and flags, as MessagePack, so that any tool can print a
snapshot and a loader can tell what it knows. These are the everyday names; the rooms hold more.
"""

import importlib
from typing import TYPE_CHECKING

from tagged_vmstate.version import __version__

if TYPE_CHECKING:
    from tagged_vmstate.annotations import (
        Length,
        Mask,
        MaxLength,
        bitmap,
        boolean,
        float32,
        float64,
        int8,
        int16,
        int32,
        int64,
        sparse,
        timer,
        uint8,
        uint16,
        uint32,
        uint64,
    )
    from tagged_vmstate.declare import field, transient, vmstate
    from tagged_vmstate.devices import Device
    from tagged_vmstate.errors import Finding, FormatError, LimitError, LoadError, StateError, TableError, VMStateError
    from tagged_vmstate.legacy import Legacy, LegacyWarning, Reader
    from tagged_vmstate.machine import Machine, Report, dump, dumps, load, loads, reset
    from tagged_vmstate.records import Limits, Record
    from tagged_vmstate.sections import Section
    from tagged_vmstate.snapshot import Snapshot, SnapshotWriter
    from tagged_vmstate.table import Field, Table, Untagged
    from tagged_vmstate.wire import Opaque

__all__ = [
    "Device",
    "Field",
    "Finding",
    "FormatError",
    "Legacy",
    "LegacyWarning",
    "Length",
    "LimitError",
    "Limits",
    "LoadError",
    "Machine",
    "Mask",
    "MaxLength",
    "Opaque",
    "Reader",
    "Record",
    "Report",
    "Section",
    "Snapshot",
    "SnapshotWriter",
    "StateError",
    "Table",
    "TableError",
    "Untagged",
    "VMStateError",
    "__version__",
    "bitmap",
    "boolean",
    "dump",
    "dumps",
    "field",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "load",
    "loads",
    "reset",
    "sparse",
    "timer",
    "transient",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "vmstate",
]

_ROOMS = {
    "declare": ("field", "transient", "vmstate"),
    "devices": ("Device",),
    "errors": ("Finding", "FormatError", "LimitError", "LoadError", "StateError", "TableError", "VMStateError"),
    "annotations": (
        *("Length", "Mask", "MaxLength", "bitmap", "boolean", "float32", "float64", "int16", "int32", "int64", "int8"),
        *("sparse", "timer", "uint16", "uint32", "uint64", "uint8"),
    ),
    "machine": ("Machine", "Report", "dump", "dumps", "load", "loads", "reset"),
    "records": ("Limits", "Record"),
    "sections": ("Section",),
    "snapshot": ("Snapshot", "SnapshotWriter"),
    "table": ("Field", "Table", "Untagged"),
    "legacy": ("Legacy", "LegacyWarning", "Reader"),
    "wire": ("Opaque",),
}


def __getattr__(name: str) -> object:
    """An everyday name, from its room: imported late, because the command answers `--help` without them."""
    for room, names in _ROOMS.items():
        if name in names:
            found = globals()[name] = getattr(importlib.import_module(f"tagged_vmstate.{room}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

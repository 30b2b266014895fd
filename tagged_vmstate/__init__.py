"""A self-describing snapshot format for the state of emulated devices.

Every field is written with its name, type, length and flags, as MessagePack, so that any tool can print a
snapshot and a loader can tell what it knows. These are the everyday names; the rooms hold more.
"""

import importlib
from typing import TYPE_CHECKING

from tagged_vmstate.version import __version__

if TYPE_CHECKING:
    from tagged_vmstate.errors import FormatError, LimitError, StateError, VMStateError
    from tagged_vmstate.records import Limits, Record
    from tagged_vmstate.sections import Section
    from tagged_vmstate.snapshot import Snapshot, SnapshotWriter
    from tagged_vmstate.wire import Opaque

__all__ = [
    "FormatError",
    "LimitError",
    "Limits",
    "Opaque",
    "Record",
    "Section",
    "Snapshot",
    "SnapshotWriter",
    "StateError",
    "VMStateError",
    "__version__",
]

_ROOMS = {
    "errors": ("FormatError", "LimitError", "StateError", "VMStateError"),
    "records": ("Limits", "Record"),
    "sections": ("Section",),
    "snapshot": ("Snapshot", "SnapshotWriter"),
    "wire": ("Opaque",),
}


def __getattr__(name: str) -> object:
    """An everyday name, from its room: imported late, because the command answers `--help` without them."""
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(f"tagged_vmstate.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

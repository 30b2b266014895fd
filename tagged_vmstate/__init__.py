"""A self-describing snapshot format for the state of emulated devices.

Every field is written with its name, type, length and flags, as MessagePack, so that any tool can print a
snapshot and a loader can tell what it knows. Import the rooms for more than the everyday names here.
"""

from tagged_vmstate.errors import FormatError, LimitError, StateError, VMStateError
from tagged_vmstate.records import Limits, Record
from tagged_vmstate.snapshot import Section, Snapshot, SnapshotWriter
from tagged_vmstate.version import __version__
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

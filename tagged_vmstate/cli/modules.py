"""What a person names as tables: `module:NAME`, tables exported as JSON, or what QEMU's -dump-vmstate wrote."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from tagged_vmstate.cli.files import STANDARD, Trouble, opened_file
from tagged_vmstate.devices import Entry, entry_of
from tagged_vmstate.errors import FormatError, TableError, VMStateError
from tagged_vmstate.jsonform import Document
from tagged_vmstate.machine import Machine
from tagged_vmstate.paths import Aliases
from tagged_vmstate.qemu import dumpstate
from tagged_vmstate.sources import is_snapshot, is_stream, looked
from tagged_vmstate.table import Table
from tagged_vmstate.tablejson import read_tables


def tables(spec: str) -> Sequence[Entry]:
    """The devices that are named; a dump of QEMU's has none."""
    found = any_tables(spec)
    if isinstance(found, dumpstate.Dump):
        raise Trouble(f"{spec}: a dump of QEMU's knows no names and types: name module:MACHINE, or tables exported as JSON")
    return found


def devices(spec: str) -> Callable[[], Sequence[Entry]]:
    """What makes the devices that are named, for one run after another.

    A function is called each time. States that are there are copied, all at once, so that what they share stays shared.
    """
    found = _object(spec)
    if _is_factory(found):
        return lambda: _made_entries(spec, found)
    entries = _made_entries(spec, found)

    def copied() -> Sequence[Entry]:
        try:
            states = copy.deepcopy([entry.state for entry in entries])
        except Exception as error:  # noqa: BLE001  # a person's own objects may raise anything
            cure = "name a function that makes the machine; it is called for each run"
            raise Trouble(f"{spec} cannot be copied ({_raised(error)}): {cure}") from None
        return [Entry(entry.table, entry.instance, state) for entry, state in zip(entries, states, strict=True)]

    return copied


def any_tables(spec: str, aliases: Aliases = dumpstate.NO_ALIASES) -> Sequence[Entry] | dumpstate.Dump:
    """The devices, or the dump, that are named."""
    path = Path(spec)
    is_there = spec == STANDARD or path.exists()
    if ":" in spec and not is_there:
        return _made_entries(spec, _object(spec))
    if not is_there or path.is_dir() or path.suffix == ".py":
        raise not_named(spec, "tables exported as JSON", "" if is_there else ", which is no file")
    with opened_file(spec) as file:
        document = _document(spec, file, "tables as JSON, or module:MACHINE", "tables")
        return dumpstate.read(document, aliases) if dumpstate.is_dump(document.value) else read_tables(document)


def dump(spec: str) -> dumpstate.Dump:
    """What QEMU's -dump-vmstate wrote, where nothing else will do."""
    if spec != STANDARD and (not Path(spec).exists() or Path(spec).is_dir()):
        raise Trouble(f"expected what QEMU's -dump-vmstate writes, got `{spec}`, which is no file")
    with opened_file(spec) as file:
        document = _document(spec, file, "what QEMU's -dump-vmstate writes", "a dump")
        if not dumpstate.is_dump(document.value):
            raise Trouble(f"{spec}: expected what QEMU's -dump-vmstate writes, found another JSON")
        return dumpstate.read(document)


def _document(spec: str, file: BinaryIO, expected: str, what: str) -> Document:
    """The JSON of a file; what is no JSON ends the command, a snapshot or a stream by its name."""
    head, start = looked(file)
    if is_snapshot(head) or is_stream(head):
        kind = "a snapshot" if is_snapshot(head) else "a QEMU migration stream, which `check STREAM --against DUMP` takes"
        raise Trouble(f"{spec}: expected {expected}, found {kind}")
    try:
        return Document(start, what)
    except FormatError as error:
        raise Trouble(f"{spec}: expected {expected}, found no JSON ({error})") from None


def not_named(spec: str, others: str = "", more: str = "") -> Trouble:
    """That this names no devices, with the names that were perhaps meant.

    Args:
        spec: What was named.
        others: What else may be named.
        more: What else there is to say about it.
    """
    file, _, wanted = spec.partition(":")
    module_name = ".".join(part for part in Path(file.removesuffix(".py")).parts if part.strip("./"))
    try:
        module = _module(module_name)
    except Trouble:
        names = []
    else:
        names = [wanted] if wanted in vars(module) else _fitting(module)
    near = f"; near it: {', '.join(f'{module_name}:{name}' for name in names)}" if names else ""
    return Trouble(f"expected module:MACHINE{others and f', or {others}'}, got `{spec}`{more}{near}")


def _fitting(module: ModuleType) -> list[str]:
    """The names of what is devices without being called, machines first; at most three."""
    found = {name: value for name, value in vars(module).items() if not name.startswith("_") and _is_devices(value)}
    return sorted(found, key=lambda name: not isinstance(found[name], Machine))[:3]


def _is_devices(value: object) -> bool:
    try:
        return not _is_factory(value) and len(_entries(value)) > 0
    except TableError:
        return False


def _object(spec: str) -> Any:
    """What a module has under a name."""
    module_name, _, name = spec.partition(":")
    if not name or not all(module_name.split(".")) or "/" in module_name or module_name.endswith(".py"):
        raise not_named(spec)
    module = _module(module_name)
    try:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        near = get_close_matches(name, [each for each in vars(module) if not each.startswith("_")], 3, 0.5) or _fitting(module)
        raise Trouble(f"{module_name} has no `{name}`" + (f"; near it: {', '.join(near)}" if near else "")) from None
    return found


def _is_factory(found: object) -> bool:
    return callable(found) and not isinstance(found, type)


def _made_entries(spec: str, found: Any) -> Sequence[Entry]:
    """The devices of a Machine, of what makes one, or of a list of what it is made of."""
    if _is_factory(found):
        try:
            found = found()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a person's own code may raise anything
            raise Trouble(f"{spec} cannot be called: {_raised(error)}") from None
    try:
        return _entries(found)
    except TableError as error:
        raise Trouble(f"{spec}: {error}") from None


def _module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except VMStateError as error:
        raise Trouble(f"cannot import {name}: {error}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a person's own code may raise anything
        raise Trouble(f"cannot import {name}: {_raised(error)}") from None


def _raised(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _entries(found: object) -> Sequence[Entry]:
    if isinstance(found, Machine):
        return found.entries
    devices = found if isinstance(found, list | tuple) else [found]
    return tuple(_entry(device) for device in devices)


def _entry(device: object) -> Entry:
    """A device, or only its table."""
    table = device if isinstance(device, Table) else vars(device).get("__vmstate__") if isinstance(device, type) else None
    if isinstance(table, Table):
        return Entry(table, 0, None)
    try:
        return entry_of(device)
    except TableError as error:
        raise TableError("a Machine, or classes under @vmstate", error.found) from None

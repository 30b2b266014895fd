"""What is fuzzed: the format's own readers, and devices through the loader. Each says what counts as a defect."""

from __future__ import annotations

import copy
import enum
import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Annotated, Any, ClassVar, Final

from annotated_types import Ge, Le, MultipleOf
from typing_extensions import override

from tagged_vmstate import compat
from tagged_vmstate.annotations import Length, Mask, MaxLength, bitmap, boolean, float32, float64, int32, sparse, uint8, uint16
from tagged_vmstate.changes import REFUSED
from tagged_vmstate.devices import Device, Entry
from tagged_vmstate.errors import LoadError, TableError, VMStateError
from tagged_vmstate.fuzz.mutate import changed_bytes, changed_snapshot, smaller_bytes, smaller_snapshots
from tagged_vmstate.fuzz.mutate_json import changed_json, smaller_json
from tagged_vmstate.jsonform import Document, from_json, to_json
from tagged_vmstate.machine import Machine, check_by_loading
from tagged_vmstate.paths import Aliases, parse_alias
from tagged_vmstate.qemu import differences, dumpstate
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.qemu.export import export
from tagged_vmstate.records import Record, is_known_type
from tagged_vmstate.rules import HOOK
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter, write
from tagged_vmstate.table import Field, Table
from tagged_vmstate.tablejson import read_tables, tables_to_json
from tagged_vmstate.wire import Opaque

DELIBERATE: Final = (VMStateError, ValueError)
"""What a hook raises to refuse a state; anything else that it raises was not meant."""
_VARIES: Final = re.compile(r"^.*#\d+|`.*`|'.*'|\".*\"|['\"[{].*|0x[0-9a-f]+|\b[0-9a-f]{2}( [0-9a-f]{2})*\b|-?\d+", re.DOTALL)
"""What an input has put into a message: a device, all from the first quote to the last, what was cut short, and numbers."""


class Defect(Exception):  # noqa: N818  # the word for what a fuzzer finds
    """An input for which the promise does not hold, though nothing was raised."""


def kind_of(error: BaseException) -> str:
    """What tells one error from another: its type and words, without names and numbers."""
    if isinstance(error, LoadError):
        return f"LoadError {sorted({each.rule for each in error.problems})} {_plain(error.expected)} / {_plain(error.found)}"
    if isinstance(error, VMStateError):
        return f"{type(error).__name__} {_plain(error.expected)} / {_plain(error.found)}"
    return f"{type(error).__name__} {_plain(str(error))}"


def _refusal(error: VMStateError) -> str:
    """What refused some bytes, in words. Raises Defect where that blames a declaration, which no bytes can make wrong."""
    if isinstance(error, TableError):
        raise Defect(f"bytes raise TableError: {error}") from error
    return kind_of(error)


def _plain(text: str) -> str:
    return _VARIES.sub("_", text)


class Target(ABC):
    """Something that takes bytes.

    Attributes:
        name: What a person calls it.
        suffix: Of the files with its inputs.
    """

    name: str
    suffix: ClassVar[str]

    @abstractmethod
    def seeds(self) -> Iterable[bytes]:
        """Inputs to begin with."""

    @abstractmethod
    def run(self, data: bytes) -> str:
        """Run one input; return what happened, in words that are the same for the same behaviour.

        Raises:
            Exception: A defect: anything that is not a `VMStateError`, and `Defect`.
        """

    @abstractmethod
    def reproducer(self, path: str) -> str:
        """A line for a shell that shows a finding without the harness: it fails, and prints the error. Empty for none."""

    def mutate(self, data: bytes, random: Random) -> bytes:
        """Another input."""
        return changed_bytes(data, random)

    def smaller(self, data: bytes) -> Iterator[bytes]:
        """Inputs that are a little smaller."""
        return smaller_bytes(data)


class Snapshots(Target):
    """The reader of the format: reads or raises, and what it reads is written back identically."""

    name = "snapshot"
    suffix = ".tvm"

    @override
    def seeds(self) -> Iterable[bytes]:
        file = io.BytesIO()
        with SnapshotWriter(file, Opaque.of({"producer": "fuzz"})) as writer:
            writer.write(Section("part", 1, (Record("m", "sparse", 1 << 16, ((0, b"a"), (4096, b"bc"))),), kind="part"))
            writer.write(Section("all", 0, _EVERY_TYPE))
            writer.write(Section("part", 1, (Record("x", "uint8", None, 1),)))
        return (file.getvalue(),)

    @override
    def run(self, data: bytes) -> str:
        try:
            types = sorted({_shape(record) for section in Snapshot.read(data) for record in section.records()})
            again = io.BytesIO()
            write(Snapshot.read(data), again)
        except VMStateError as error:
            return _refusal(error)
        if again.getvalue() != data:
            raise Defect("what was read is written back otherwise")
        return f"read {len(types)} types"

    @override
    def reproducer(self, path: str) -> str:
        code = (
            "import io, tagged_vmstate as tv; from tagged_vmstate.snapshot import write; "
            f"data = open({path!r}, 'rb').read(); print([s.records() for s in tv.Snapshot.read(data)]); "
            "again = io.BytesIO(); write(tv.Snapshot.read(data), again); assert again.getvalue() == data"
        )
        return f'python -c "{code}"'

    @override
    def mutate(self, data: bytes, random: Random) -> bytes:
        return changed_snapshot(data, random)

    @override
    def smaller(self, data: bytes) -> Iterator[bytes]:
        yield from smaller_snapshots(data)
        yield from smaller_bytes(data)


def _shape(record: Record) -> str:
    known = record.type if is_known_type(record.type) else "other"
    return f"{known}{'' if record.length is None else '[]'}"


class JsonTarget(Target):
    """Something that takes JSON: its inputs are changed by their structure."""

    suffix = ".json"

    @override
    def mutate(self, data: bytes, random: Random) -> bytes:
        return changed_json(data, random)

    @override
    def smaller(self, data: bytes) -> Iterator[bytes]:
        return smaller_json(data)


class Json(JsonTarget):
    """The reader of the JSON form: what it takes is the same after another turn."""

    name = "json"

    @override
    def seeds(self) -> Iterable[bytes]:
        for data in Snapshots().seeds():
            file = io.BytesIO()
            to_json(Snapshot.read(data), file)
            yield file.getvalue()

    @override
    def run(self, data: bytes) -> str:
        try:
            first = io.BytesIO()
            write(from_json(io.BytesIO(data)), first)
        except VMStateError as error:
            return _refusal(error)
        text, second = io.BytesIO(), io.BytesIO()
        to_json(Snapshot.read(first.getvalue()), text)
        write(from_json(io.BytesIO(text.getvalue())), second)
        if first.getvalue() != second.getvalue():
            raise Defect("what was read is another snapshot after one more turn")
        return f"read {len(first.getvalue()).bit_length()}"

    @override
    def reproducer(self, path: str) -> str:
        turn = f"tagged-vmstate to-json {path}.1 -o {path}.2 && tagged-vmstate from-json {path}.2 -o {path}.3"
        return f"tagged-vmstate from-json {path} -o {path}.1 && {turn} && cmp {path}.1 {path}.3"


class Tables(JsonTarget):
    """The reader of exported tables, and what is done with them: `compat` with themselves and others, `check` of a snapshot.

    Args:
        exported: To begin with; the tables of a device with every type are made, unless given.
    """

    name = "tables"

    def __init__(self, exported: Iterable[bytes] = ()) -> None:
        self._exported = tuple(exported)
        self._usual = (Entry(_TABLE, 0, None), Entry(_TABLE, 1, None))
        [self._snapshot] = Devices(self._usual, "").seeds()

    @override
    def seeds(self) -> Iterable[bytes]:
        return self._exported or (_dumped(tables_to_json(self._usual)),)

    @override
    def run(self, data: bytes) -> str:
        try:
            found = read_tables(Document(data, "tables"))
        except VMStateError as error:
            return _refusal(error)
        text = _dumped(tables_to_json(found))
        if _dumped(tables_to_json(read_tables(Document(text, "tables")))) != text:
            raise Defect("tables that were read are exported otherwise")
        if compat.refused(compat.compare(found, found)):
            raise Defect("tables that are not compatible with themselves")
        changes = [*compat.compare(self._usual, found), *compat.compare(found, self._usual)]
        try:
            noticed = check_by_loading(found, self._snapshot, "ignore").findings
        except VMStateError as error:
            return _refusal(error)
        for each in (*changes, *noticed):
            str(each).encode()
        return f"compared {len({each.rule for each in changes})}, checked {len({each.rule for each in noticed})}"

    @override
    def reproducer(self, path: str) -> str:
        return _by_harness("Tables", path)


class Dumps(JsonTarget):
    """The reader of what QEMU's -dump-vmstate writes, and `compat` of it with itself and another.

    Args:
        dumps: To begin with; a small one is made, unless given.
    """

    name = "dump"

    def __init__(self, dumps: Iterable[bytes] = ()) -> None:
        self._dumps = tuple(dumps)
        self._usual = dumpstate.parse(json.loads(_DUMP))

    @override
    def seeds(self) -> Iterable[bytes]:
        return self._dumps or (_DUMP,)

    @override
    def run(self, data: bytes) -> str:
        try:
            document = Document(data, "a dump")
            found = dumpstate.read(document)
            renamed = dumpstate.read(document, Aliases(map(parse_alias, ("dev=device", "dev/x=z", "**/a=b"))))
        except VMStateError as error:
            return _refusal(error)
        own = {each.rule for each in dumpstate.compare(found, found) if each.effect == REFUSED}
        if own - {differences.VERSION_OLD}:
            raise Defect("a dump that is not compatible with itself")
        changes = [each for one in (found, renamed) for each in dumpstate.compare(self._usual, one)]
        changes += dumpstate.compare(found, self._usual)
        for each in changes:
            f"{each}{each.section}{each.phrases}".encode()
        return f"compared {len({each.rule for each in changes})}"

    @override
    def reproducer(self, path: str) -> str:
        return _by_harness("Dumps", path)


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _by_harness(target: str, path: str) -> str:
    """A line that runs all that a target does, as what fails may be the comparison with what it brings along."""
    code = f"from pathlib import Path; from tagged_vmstate.fuzz import {target}; {target}().run(Path({path!r}).read_bytes())"
    return f'python -c "{code}"'


class Streams(Target):
    """The reader of QEMU's streams: what it takes becomes a snapshot, and the same stream again.

    Args:
        streams: To begin with; a small one is made, unless given.
    """

    name = "stream"
    suffix = ".mig"

    def __init__(self, streams: Iterable[bytes] = ()) -> None:
        self._streams = tuple(streams)

    @override
    def seeds(self) -> Iterable[bytes]:
        return self._streams or (_STREAM,)

    @override
    def run(self, data: bytes) -> str:
        snapshot = io.BytesIO()
        try:
            stream = import_stream(io.BytesIO(data))
            write(stream, snapshot)
        except VMStateError as error:
            return _refusal(error)
        again = io.BytesIO()
        read = Snapshot.read(snapshot.getvalue())
        if not data.startswith(b"Libvirt"):
            export(read, again)
            if again.getvalue() != data:
                raise Defect("what was imported is exported otherwise")
        return f"imported {sorted({_plain(note) for note in stream.notes})}"

    @override
    def reproducer(self, path: str) -> str:
        return f"tagged-vmstate import {path} -o {path}.tvm && tagged-vmstate export {path}.tvm | cmp - {path}"


class Devices(Target):
    """Somebody's devices: a load is clean, or raises LoadError; a hook refuses by ValueError or an error of ours.

    Args:
        devices: The tables, and states where there are any; or a function that makes them anew, called for each run. States
            are copied for each run, all at once, so that what they share stays shared.
        name: What a person calls them: ``module:MACHINE``.
        loading: Python that loads the file PATH into them, for reproducers.
    """

    suffix = ".tvm"

    def __init__(self, devices: Sequence[Entry] | Callable[[], Sequence[Entry]], name: str, loading: str = "") -> None:
        self.name = name
        self._devices = devices
        self._loading = loading

    def machine(self) -> Machine:
        """The machine with states of its own."""
        entries = self._devices() if callable(self._devices) else self._devices
        states = [entry.state for entry in entries]
        if not callable(self._devices):
            states = copy.deepcopy(states)
        return Machine(
            Device(_state(entry.table) if state is None else state, entry.instance, entry.table)
            for entry, state in zip(entries, states, strict=True)
        )

    @override
    def seeds(self) -> Iterable[bytes]:
        file = io.BytesIO()
        self.machine().save(file)
        return (file.getvalue(),)

    @override
    def run(self, data: bytes) -> str:
        machine = self.machine()
        try:
            machine.load(data)
        except VMStateError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            if isinstance(error, LoadError) and error.problems[0].rule == HOOK.id and not isinstance(cause, DELIBERATE):
                raise cause from None
            return kind_of(error)
        machine.save(io.BytesIO())
        return "loaded"

    @override
    def reproducer(self, path: str) -> str:
        return f'python -c "{self._loading.replace("PATH", repr(path))}"' if self._loading else ""

    @override
    def mutate(self, data: bytes, random: Random) -> bytes:
        return changed_snapshot(data, random)

    @override
    def smaller(self, data: bytes) -> Iterator[bytes]:
        return smaller_snapshots(data)


def _state(table: Table) -> Any:
    return table.make({field.attribute: _value(field) for field in table.fields})


def _value(field: Field) -> Any:
    """The default of a field, or the least that it takes."""
    if not field.is_required:
        return field.make_default()
    kind = field.type
    count = kind.length or 0
    if field.table:
        if kind.is_array:
            return [_state(field.table) for _ in range(count)]
        return None if kind.is_optional else _state(field.table)
    if kind.wire.name in {"buffer", "sparse"}:
        return bytearray(count)
    least: Callable[[], Any] = {"bool": bool, "string": str, "float32": float, "float64": float}.get(kind.wire.name, int)
    low = max((constraint.bound for constraint in kind.constraints if constraint.kind == "ge"), default=None)
    one = next(iter(kind.enum)) if kind.enum else least() if low is None else low
    return [one] * count if kind.is_array else one


_ONE: Final = Record("x", "uint8", None, 1)
_EVERY_TYPE: Final = (
    Record("b", "bool", None, True),  # noqa: FBT003  # a value
    *(
        Record(name, name, None, 5)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "timer")
    ),
    *(Record(f"{name}s", name, 3, [1, 2, 3]) for name in ("int8", "uint16", "uint32", "int64")),
    Record("f", "float32", None, 0.5),
    Record("d", "float64", 2, [0.1, -0.0]),
    Record("s", "string", None, "text"),
    Record("ss", "string", 2, ["a", "b"]),
    Record("buffer", "buffer", 4, b"\1\2\3\4"),
    Record("bits", "bitmap", 9, b"\xff\1"),
    Record("inner", "struct", None, (Record("deep", "struct", None, (_ONE,)), Record("n", "struct", None, None))),
    Record("structs", "struct", 2, ((_ONE,), None)),
    Record("odd", "never-heard-of", 3, Opaque.of({"a": [1, None]})),
)


class _Mode(enum.IntEnum):
    OFF = 0
    ON = 1


_INNER: Final = Table("inner", [Field("deep", uint8, default=1), Field("f", float64, default=0.5)], aliases=("old-inner",))
_STRUCT: Any = Annotated[dict, _INNER]
_TABLE: Final = Table(
    "dev",
    [
        Field("b", boolean, default=True, description="a switch"),
        Field("n", Annotated[uint16, Ge(1), Le(9)], default=3, aliases=("number",), widens_from=(uint8,), since=2),
        Field("m", Annotated[uint8, Mask(0x0F)], default=0, display="hex", until=2),
        Field("s", Annotated[int32, MultipleOf(4)], default=-4, versions=0b1010),
        Field("e", Annotated[_Mode, uint8], default=_Mode.ON),
        Field("f", float32, default=float("nan")),
        Field("text", str, default="text"),
        Field("fixed", Annotated[list[uint16], Length(2)], default_factory=lambda: [1, 2]),
        Field("few", Annotated[list[str], MaxLength(3)], default_factory=lambda: ["a"]),
        Field("data", Annotated[bytes, Length(4)], default=b"data"),
        Field("more", Annotated[bytes, MaxLength(8)], default=b"more"),
        Field("bits", Annotated[bitmap, Length(9)], default=b"\xff\1"),
        Field("memory", Annotated[sparse, Length(8192)], default_factory=lambda: bytearray(8191) + b"x"),
        Field("inner", _STRUCT, default_factory=lambda: {"deep": 2, "f": 0.25}),
        Field("maybe", _STRUCT | None, default=None),
        Field("many", Annotated[list[_STRUCT], MaxLength(2)], default_factory=list),
        Field("required", uint8),
    ],
    aliases=("device",),
    version=3,
    minimum_version=1,
)
"""A device with every type, and everything that a table can say."""

_JSON: Final = (
    b'{"page_size": 4096, "devices": [{"name": "dev", "instance_id": 0, "vmsd_name": "dev", "version": 1, "fields": ['
    b'{"name": "x", "type": "uint8", "size": 1}, {"name": "a", "type": "uint16", "array_len": 2, "size": 2}], '
    b'"subsections": [{"vmsd_name": "dev/s", "version": 1, "fields": [{"name": "y", "type": "int32", "size": 4}]}]}]}'
)
_STREAM: Final = b"".join(
    (
        b"QEVM\0\0\0\3\7\0\0\0\1m",
        b"\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4" + (8192 | 4).to_bytes(8, "big") + b"\1r" + (8192).to_bytes(8, "big"),
        (8).to_bytes(8, "big") + b"\1r" + b"page" * 1024 + (4096 | 0x22).to_bytes(8, "big") + b"\0" + (0x10).to_bytes(8, "big"),
        b"\x7e\0\0\0\2\3\0\0\0\2" + (0x10).to_bytes(8, "big") + b"\x7e\0\0\0\2",
        b"\4\0\0\0\3\3dev\0\0\0\0\0\0\0\1\5\0\1\0\2\5\5dev/s\0\0\0\1\0\0\0\7\x7e\0\0\0\3",
        b"\x08\0\3\0\2ab\0\6" + len(_JSON).to_bytes(4, "big") + _JSON,
    )
)
"""A stream of one device with a subsection, two pages, and a command."""

_DUMP: Final = _dumped(
    {
        "vmschkmachine": {"Name": "pc"},
        "dev": {
            "Name": "dev",
            "version_id": 2,
            "minimum_version_id": 1,
            "Description": {
                "name": "dev",
                "version_id": 2,
                "minimum_version_id": 1,
                "Fields": [
                    {"field": "x", "version_id": 0, "field_exists": False, "size": 4},
                    {"field": "a", "version_id": 2, "field_exists": True, "size": 1},
                    {"field": "regs", "version_id": 0, "field_exists": False, "size": 4, "num": 5},
                    {"field": "unused", "version_id": 0, "field_exists": False, "size": 8},
                    {
                        "field": "inner",
                        "version_id": 1,
                        "field_exists": False,
                        "size": 16,
                        "Description": {
                            "name": "inner",
                            "version_id": 1,
                            "minimum_version_id": 1,
                            "Fields": [{"field": "x", "version_id": 1, "field_exists": False, "size": 8}],
                        },
                    },
                ],
                "Subsections": [{"name": "dev/s", "version_id": 1, "minimum_version_id": 1}],
            },
        },
        "other": {"Name": "other", "version_id": 0, "minimum_version_id": 0},
    }
)
"""A dump of two devices, one with a struct and a subsection."""

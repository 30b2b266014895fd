"""Many devices: saved together, checked, loaded all or none, reset. Beside it the everyday functions for one device."""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, TypeAlias, TypeVar, overload

from tagged_vmstate.assign import New, Undo, all_or_none, restore_defaults
from tagged_vmstate.codec import Unknown, call, memory_records, prepare, raised, structs
from tagged_vmstate.devices import Device, Entry, check_apart, check_instance, entry_of, table_of
from tagged_vmstate.errors import Finding, LoadError, PathPart, StateError, TableError
from tagged_vmstate.files import replacing, write_all
from tagged_vmstate.frames import Lead
from tagged_vmstate.incoming import Carried, Incoming, Source
from tagged_vmstate.plan import PLAIN, Plan, Rows, large_memory, plan, plan_of
from tagged_vmstate.prepared import save
from tagged_vmstate.qemu.savevm import RawSection, write_v2, write_v3
from tagged_vmstate.records import LIMITS, Limits, encode
from tagged_vmstate.rules import HOOK, problems
from tagged_vmstate.sections import NO_ATTRIBUTES, EncodedSection, Section
from tagged_vmstate.snapshot import HELD_BYTES, PART_BYTES, write
from tagged_vmstate.table import Table
from tagged_vmstate.untagged import write as write_untagged
from tagged_vmstate.version import PRODUCER
from tagged_vmstate.wire import Opaque, joined

T = TypeVar("T")
_DROPPING: Final = ("error", "ignore")
"""Ways with unknown fields that carry nothing to the next save."""
Target: TypeAlias = "str | os.PathLike[str] | BinaryIO"


@dataclass(frozen=True, slots=True)
class Report:
    """What a loader noticed.

    Attributes:
        findings: All of it, in the order of the machine's devices; what does not refuse the load, too. At most 1,000 of each.
        more_problems: How many more refuse the load.
        more: How many more do not.
    """

    findings: tuple[Finding, ...]
    more_problems: int = 0
    more: int = 0

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What refuses the load."""
        return tuple(problems(self.findings))


class Machine:
    """The devices of a machine.

    Args:
        devices: States of classes under `@vmstate`, each alone or with its instance: ``[kbd, (uart, 0), (uart2, 1)]``;
            or `Device`, for a state whose table was built by hand.

    Attributes:
        entries: The devices, each with its table and instance.

    Raises:
        TableError: Two devices are one name and instance, one state is there twice, or has no table.
    """

    def __init__(self, devices: Iterable[Any]) -> None:
        self.entries = tuple(map(entry_of, devices))
        check_apart(self.entries)
        self.__setstate__((self.entries, Carried()))

    def __getstate__(self) -> tuple[tuple[Entry, ...], Carried]:
        """What `pickle` and `copy` take: all but what is prepared."""
        return self.entries, self._carried

    def __setstate__(self, state: tuple[tuple[Entry, ...], Carried]) -> None:
        """Make it anew of that."""
        self.entries, self._carried = state
        self._plan = plan(tuple((entry.table, entry.instance) for entry in self.entries))
        self._states = [entry.state for entry in self.entries]

    def save(self, target: Target, attributes: Mapping[str, object] | None = None) -> None:
        """Save all devices; a path is replaced as a whole, or stays as it was.

        Args:
            target: A path, or a file open for writing.
            attributes: What to say in the header, such as ``machine``.

        Raises:
            StateError: A state does not fit its table, or a hook raised.
            OSError: The file cannot be written.
        """
        for entry in self.entries:
            if entry.table.is_hooked:
                with _labelled(entry):
                    prepare(entry.table, entry.state)
        carried, said = self._carried, PLAIN
        if carried.attributes or attributes:
            said = Opaque.of({"producer": PRODUCER, **carried.attributes, **(attributes or {})})
        is_usual = not carried.sections and not carried.raw_attributes
        data = self._plan.save(said, self._states) if is_usual else None
        if data is None:
            outgoing = _Outgoing(self.entries, carried.raw_attributes, carried.sections, said)
            write(outgoing, target)
            if is_usual:
                self._plan.saved(outgoing.sizes)
        elif isinstance(target, str | os.PathLike):
            with replacing(target) as file:
                for piece in data:
                    file.write(piece)
        else:
            for piece in data:
                write_all(target, piece)

    def save_untagged(
        self, target: Target, *, stream: Literal[2, 3] = 3, versions: Mapping[str, int] | None = None, drop: Container[str] = ()
    ) -> None:
        """Save all devices as QEMU's savevm does, for an old build that knows nothing else.

        Args:
            target: A path, or a file open for writing.
            stream: The version of the file: 2 (records with lengths) or 3.
            versions: Name of a device -> the section version to write; that of its table, unless given.
            drop: Names of fields that may be lost though they are in use.

        Raises:
            StateError: A state does not fit its table, or a version has no place for a field in use.
            OSError: The file cannot be written.
        """
        if isinstance(target, str | os.PathLike):
            with replacing(target) as file:
                self.save_untagged(file, stream=stream, versions=versions, drop=drop)
            return
        sections = []
        for table, instance, state in ((entry.table, entry.instance, entry.state) for entry in self.entries):
            with _labelled(Entry(table, instance, state)):
                prepare(table, state)
                version = (versions or {}).get(table.name, table.version)
                sections.append(RawSection(table.name, instance, version, write_untagged(table, state, version, drop=drop)))
        (write_v2 if stream == 2 else write_v3)(sections, target)

    def check(self, source: Source, unknown: Unknown = "error", *, limits: Limits = LIMITS) -> Report:
        """What loading a snapshot would meet; nothing is changed. Takes what `load` takes.

        Raises:
            FormatError: As `load` does.
            OSError: It cannot be read.
        """
        findings = Incoming(self.entries, source, unknown, tells=True, limits=limits).findings
        return Report(tuple(findings), findings.more_problems, findings.more)

    def load(self, source: Source, unknown: Unknown = "error", *, limits: Limits = LIMITS) -> None:
        """Load all devices, or none.

        Args:
            source: A path, bytes, a file open for reading, or sections.
            unknown: ``error`` refuses what is in use and no table knows, ``ignore`` drops it, ``keep`` carries it to
                the next save.
            limits: How much to take from bytes that are not trusted.

        Raises:
            LoadError: Something does not fit; `problems` has all of it, and nothing was changed.
            LimitError: It goes beyond a limit.
            FormatError: This is no whole snapshot.
            OSError: It cannot be read.
        """
        new, carried = _new(self._plan, self.entries, source, unknown, limits)

        def commit(undo: Undo) -> None:
            self._carry(carried, undo)
            _commit(self.entries, new, undo)

        all_or_none(commit)

    def reset(self) -> None:
        """Give every field that has a default its default; what is required stays. Raises StateError and changes nothing."""

        def restore(undo: Undo) -> None:
            self._carry(replace(self._carried, sections=[]), undo)
            for entry in self.entries:
                with _labelled(entry):
                    restore_defaults(entry.table, entry.state, undo)

        all_or_none(restore)

    def _carry(self, carried: Carried, undo: Undo) -> None:
        undo.add(functools.partial(setattr, self, "_carried", self._carried))
        self._carried = carried


@contextlib.contextmanager
def _labelled(entry: Entry) -> Iterator[None]:
    """Put the device into the error of a state that does not fit."""
    try:
        yield
    except StateError as error:
        error.section = error.section or entry.label
        raise


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """The sections of a machine that is saved."""

    entries: Iterable[Entry]
    attributes: Mapping[str, Opaque]
    kept: Iterable[Section]
    raw_attributes: Opaque
    sizes: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[Section]:
        for entry in self.entries:
            attributes = self.attributes.get(entry.label, NO_ATTRIBUTES) if self.attributes else NO_ATTRIBUTES
            name, instance, large = entry.table.name, entry.instance, large_memory(entry.table)
            try:
                for each in large:
                    for record in memory_records(entry.table, each, entry.state, PART_BYTES):
                        yield EncodedSection(Lead.of("part", name, instance, attributes), encode(record))
                pieces = save(entry.table, entry.state, {each.name for each in large})
                self.sizes.append(sum(map(len, pieces)))
            except StateError as error:
                error.section = error.section or entry.label
                raise
            yield EncodedSection(Lead.of("section", name, instance, attributes), *pieces)
        yield from self.kept


def _new(
    usual: Plan, entries: Sequence[Entry], source: Source, unknown: Unknown, limits: Limits, *, keeps_devices: bool = True
) -> tuple[Sequence[New] | Rows, Carried]:
    """New states of devices, and what is carried to the next save. Raises as `Machine.load` does."""
    source = _read(source)
    data = source if isinstance(source, bytes) and unknown in _DROPPING and limits == LIMITS else None
    new = None if data is None else usual.load(data)
    if new is not None:
        return new, Carried()
    incoming = Incoming(entries, source, unknown, keeps_devices=keeps_devices, limits=limits)
    accepted = incoming.accepted()
    if data is not None:
        usual.loaded(data)
    return accepted, incoming.carried


def _read(source: Source) -> Source:
    """The bytes of a small file, else what it was."""
    if isinstance(source, str | os.PathLike) and Path(source).is_file() and Path(source).stat().st_size <= HELD_BYTES:
        return Path(source).read_bytes()
    return source


def _commit(entries: Sequence[Entry], news: Sequence[New] | Rows, undo: Undo) -> None:
    """Put new states into the devices, and call their hooks. Raises LoadError from what one raises."""
    if not isinstance(news, Rows) or not news.fill([entry.state for entry in entries], undo):
        for entry, new in zip(entries, news, strict=True):
            try:
                new.fill(entry.state, undo)
            except Exception as error:  # whatever a state says of being filled refuses the load
                raise _refusal(entry, error) from error
    for entry in entries:
        if entry.table.is_hooked:
            finish(entry, entry.state)


def _refusal(entry: Entry, error: Exception) -> Exception:
    """What a load raises where a device, or a hook of it, raised."""
    if isinstance(error, TableError):
        return error
    path: tuple[PathPart, ...] = ()
    expected, found = f"`{entry.table.owner}` to take its values", raised(error)
    if isinstance(error, StateError):
        path, expected, found = error.path, error.expected, error.found
    return LoadError([Finding(HOOK.id, entry.label, path, expected, found, None)])


def finish(entry: Entry, state: Any) -> None:
    """Call `post_load` of all structs in a state, then its own. Raises LoadError from what one raises."""
    try:
        for inner, each, path in reversed([*structs(entry.table, state)]):
            call(inner.post_load, each, f"`post_load` of `{inner.owner}` to return", path)
    except StateError as error:
        raise _refusal(entry, error) from error


def dump(state: Any, target: Target, *, instance: int = 0, table: Table | None = None) -> None:
    """Save one device as a snapshot. See `Machine.save`."""
    Machine([Device(state, instance, table)]).save(target)


def dumps(state: Any, *, instance: int = 0, table: Table | None = None) -> bytes:
    """One device as the bytes of a snapshot. See `Machine.save`."""
    usual = plan_of(type(state), instance) if table is None else None
    data = usual.save(PLAIN, (state,)) if usual else None
    if data is not None:
        return joined(data)
    file = io.BytesIO()
    dump(state, file, instance=instance, table=table)
    return file.getvalue()


@overload
def load(source: Source, kind: type[T], *, instance: int = 0, unknown: Unknown = "error", limits: Limits = ...) -> T: ...
@overload
def load(source: Source, kind: Table, *, instance: int = 0, unknown: Unknown = "error", limits: Limits = ...) -> Any: ...
@overload
def load(
    source: Source,
    *,
    into: T,
    table: Table | None = None,
    instance: int = 0,
    unknown: Unknown = "error",
    limits: Limits = ...,
) -> T: ...
def load(
    source: Source,
    kind: Any = None,
    *,
    into: Any = None,
    table: Table | None = None,
    instance: int = 0,
    unknown: Unknown = "error",
    limits: Limits = LIMITS,
) -> Any:
    """Load one device: a new state, or one that is there.

    Args:
        source: A path, bytes, a file open for reading, or sections.
        kind: A class under `@vmstate`, or a `Table`: makes a new state.
        into: A state to load into.
        table: Its table, where its class has none.
        instance: Which of several of that name.
        unknown: As for `Machine.load`. What is kept of other devices only a `Machine` carries: here it is refused.
        limits: How much to take from bytes that are not trusted.

    Returns:
        The state.

    Raises:
        LoadError: Something does not fit; `problems` has all of it, and nothing was changed.
        LimitError: It goes beyond a limit.
        FormatError: This is no whole snapshot.
        OSError: It cannot be read.
    """
    if (kind is None) == (into is None) or not isinstance(kind, type | Table | None):
        raise TypeError("load takes a class or table, or a state with into=")
    check_instance(instance)
    entry = Entry(table_of(kind), instance, None) if into is None else entry_of(Device(into, instance, table))
    [new], _ = _new(plan(((entry.table, instance),)), [entry], source, unknown, limits, keeps_devices=False)
    if into is not None:
        all_or_none(lambda undo: _commit([entry], [new], undo))
        return into
    state = new.state
    if entry.table.is_hooked:
        finish(entry, state)
    return state


def loads(data: bytes, kind: type[T], *, instance: int = 0, unknown: Unknown = "error", limits: Limits = LIMITS) -> T:
    """A new state from the bytes of a snapshot. See `load`."""
    is_usual = unknown in _DROPPING and type(data) is bytes and isinstance(kind, type) and limits is LIMITS
    usual = plan_of(kind, instance) if is_usual else None
    rows = usual.rows(data) if usual else None
    if usual and rows:
        state: T = usual.shapes[0].make(rows[0])
        return state
    return load(data, kind, instance=instance, unknown=unknown, limits=limits)


def reset(state: Any, *, table: Table | None = None) -> None:
    """Give every field of a device that has a default its default. See `Machine.reset`."""
    Machine([Device(state, 0, table)]).reset()

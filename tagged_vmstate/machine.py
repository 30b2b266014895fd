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

from tagged_vmstate.assign import Made, New, Undo, all_or_none
from tagged_vmstate.codec import Unknown, copied, memory_records, prepare, restored
from tagged_vmstate.devices import Device, Entry, check_apart, check_instance, entry_of, table_of
from tagged_vmstate.errors import Finding, LoadError, StateError, TableError
from tagged_vmstate.files import bytes_of, replacing, write_all
from tagged_vmstate.frames import Lead
from tagged_vmstate.hooks import change, finish, pushing, refusal, refused, rehearsed
from tagged_vmstate.incoming import Carried, Incoming, Source
from tagged_vmstate.plan import PLAIN, Plan, Rows, large_memory, plan, plan_of
from tagged_vmstate.prepared import save
from tagged_vmstate.qemu.savevm import RawSection, write_v2, write_v3
from tagged_vmstate.records import LIMITS, Limits, encode
from tagged_vmstate.rules import Findings, problems
from tagged_vmstate.sections import NO_ATTRIBUTES, EncodedSection, Section, packed
from tagged_vmstate.snapshot import HELD_BYTES, PART_BYTES, write
from tagged_vmstate.sources import is_snapshot
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
        self._is_hooked = any(entry.table.is_hooked for entry in self.entries)
        self._pushing = pushing(self.entries)

    def save(self, target: Target, attributes: Mapping[str, object] | None = None) -> None:
        """Save all devices; a path is replaced as a whole, or stays as it was.

        The state may change meanwhile: the snapshot then holds some of it from before and some from after, but can be loaded.
        For this, every value that can change (anything but `bytes`) is copied, `sparse` memory a part at a time.

        Args:
            target: A path, or a file open for writing.
            attributes: What to say in the header, such as ``machine``.

        Raises:
            StateError: A state does not fit its table, or a hook raised.
            OSError: The file cannot be written.
        """
        carried, said = self._carried, PLAIN
        if carried.attributes or attributes:
            said = packed({"producer": PRODUCER, **carried.attributes, **(attributes or {})})
        entries, states = self.entries, self._states
        if self._is_hooked:
            entries = tuple(map(_prepared, entries))
            states = [entry.state for entry in entries]
        is_usual = not carried.sections and not carried.raw_attributes
        data = self._plan.save(said, states) if is_usual else None
        if data is None:
            outgoing = _Outgoing(entries, carried.raw_attributes, carried.sections, said)
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
        for entry in map(_prepared, self.entries):
            with _labelled(entry):
                table, state = entry.table, copied(entry.table, entry.state)  # a count is that of the elements written
                version = (versions or {}).get(table.name, table.version)
                sections.append(RawSection(table.name, entry.instance, version, write_untagged(table, state, version, drop=drop)))
        (write_v2 if stream == 2 else write_v3)(sections, target)

    def check(self, source: Source, unknown: Unknown = "error", *, limits: Limits = LIMITS) -> Report:
        """What loading a snapshot would meet; nothing is changed. Takes what `load` takes.

        Where all fits, `post_load` is called on copies of the states with the new values. A state from which a hook could
        reach anything but plain data is left out, and the report says so (rule ``hook-not-run``).


        Raises:
            FormatError: As `load` does.
            OSError: It cannot be read.
        """
        incoming = Incoming(self.entries, source, unknown, tells=True, limits=limits)
        if not problems(incoming.findings) and self._pushing:
            for finding in rehearsed(self.entries, [new.state for new in incoming.accepted()]):
                incoming.findings.note(finding)
        return _report(incoming.findings)

    def load(self, source: Source, unknown: Unknown = "error", *, limits: Limits = LIMITS) -> None:
        """Load all devices, or none.

        Args:
            source: A path, bytes, a file open for reading in binary mode, or sections.
            unknown: ``error`` refuses what is in use and no table knows, ``ignore`` drops it, ``keep`` carries it to
                the next save.
            limits: How much to take from bytes that are not trusted.

        Raises:
            LoadError: Something does not fit; `problems` has all of it, and nothing was changed.
            LimitError: It goes beyond a limit.
            FormatError: These bytes are no intact snapshot, JSON form or stream.
            OSError: It cannot be read.
        """
        new, carried = _new(self._plan, self.entries, source, unknown, limits)

        def commit(undo: Undo) -> None:
            self._carry(carried, undo)
            change(self._pushing, undo, lambda filled: _fill(self.entries, new, filled))

        try:
            all_or_none(commit)
        except StateError as error:
            raise _refusal(error) from error

    def reset(self) -> None:
        """Give every field that has a default its default; what is required stays. Hooks are called as for a load.

        Raises:
            StateError: A state lacks something that its table has, or a hook raised; nothing was changed.
        """

        def fill(undo: Undo) -> None:
            news = []
            for entry in self.entries:
                with _labelled(entry):
                    news.append(Made(entry.table, restored(entry.table, entry.state)))
            _fill(self.entries, news, undo)

        def restore(undo: Undo) -> None:
            self._carry(replace(self._carried, sections=[]), undo)
            change(self._pushing, undo, fill)

        all_or_none(restore)

    def _carry(self, carried: Carried, undo: Undo) -> None:
        undo.add(functools.partial(setattr, self, "_carried", self._carried))
        self._carried = carried


def _prepared(entry: Entry) -> Entry:
    """A device as it is saved. Raises StateError as `prepare` does."""
    with _labelled(entry):
        state = prepare(entry.table, entry.state)
    return entry if state is entry.state else Entry(entry.table, entry.instance, state)


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
    """What a buffer holds, or a small snapshot at a path; else what it was."""
    if isinstance(source, str | os.PathLike):
        is_small = Path(source).is_file() and Path(source).stat().st_size <= HELD_BYTES
        found = Path(source).read_bytes() if is_small else b""
        return found if is_snapshot(found) else source
    data = bytes_of(source)
    return source if data is None else data


def _fill(entries: Sequence[Entry], news: Sequence[New] | Rows, undo: Undo) -> None:
    """Put new states into the devices. Raises StateError where one does not take its values."""
    if isinstance(news, Rows) and news.fill([entry.state for entry in entries], undo):
        return
    for entry, new in zip(entries, news, strict=True):
        try:
            new.fill(entry.state, undo)
        except TableError:
            raise
        except Exception as error:  # whatever a state says of being filled refuses the load
            raise refused(entry, error) from error


def _refusal(error: StateError) -> LoadError:
    """What a load raises where a state, or a hook of it, raised."""
    found = LoadError([refusal(error)])
    for note in getattr(error, "__notes__", ()):
        found.add_note(note)
    return found


def check_by_loading(entries: Sequence[Entry], source: Source, unknown: Unknown = "error") -> Report:
    """What loading a snapshot meets, from a load with all hooks into states that may be given up.

    Args:
        entries: The devices; for those without a state, a new one is made.
        source: A path, bytes, a file open for reading, or sections.
        unknown: As for `Machine.load`.

    Raises:
        TableError: A new state is needed that cannot be made.
        FormatError: This is no intact snapshot.
        OSError: It cannot be read.
    """
    _check_can_make(entries)
    incoming = Incoming(entries, source, unknown, tells=True)
    if not problems(incoming.findings) and pushing(entries):
        news = incoming.accepted()
        live = [
            entry if entry.state is not None else Entry(entry.table, entry.instance, new.state)
            for entry, new in zip(entries, news, strict=True)
        ]
        there = [(entry, new) for entry, new in zip(entries, news, strict=True) if entry.state is not None]

        def fill(undo: Undo) -> None:
            _fill([entry for entry, _ in there], [new for _, new in there], undo)

        try:
            all_or_none(lambda undo: change(pushing(live), undo, fill))
        except StateError as error:
            incoming.findings.note(refusal(error))
    return _report(incoming.findings)


def _report(findings: Findings) -> Report:
    return Report(tuple(findings), findings.more_problems, findings.more)


def _check_can_make(entries: Iterable[Entry]) -> None:
    for entry in entries:
        if entry.state is None:
            entry.table.check_can_make()


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
        source: A path, bytes, a file open for reading in binary mode, or sections.
        kind: A class under `@vmstate`, or a `Table`: makes a new state.
        into: A state to load into.
        table: Its table, where its class has none.
        instance: Which of several of that name.
        unknown: As for `Machine.load`. What is kept of other devices only a `Machine` carries: here it is refused.
        limits: How much to take from bytes that are not trusted.

    Returns:
        The state.

    Raises:
        TableError: A new state of this class cannot be made.
        LoadError: Something does not fit; `problems` has all of it, and nothing was changed.
        LimitError: It goes beyond a limit.
        FormatError: These bytes are no intact snapshot, JSON form or stream.
        OSError: It cannot be read.
    """
    if (kind is None) == (into is None) or not isinstance(kind, type | Table | None):
        raise TypeError("load takes a class or table, or a state with into=")
    check_instance(instance)
    entry = Entry(table_of(kind), instance, None) if into is None else entry_of(Device(into, instance, table))
    _check_can_make([entry])
    [new], _ = _new(plan(((entry.table, instance),)), [entry], source, unknown, limits, keeps_devices=False)
    try:
        if into is not None:
            all_or_none(lambda undo: change(pushing([entry]), undo, lambda filled: _fill([entry], [new], filled)))
            return into
        finish(Entry(entry.table, instance, new.state))
    except StateError as error:
        raise _refusal(error) from error
    return new.state


def loads(
    data: bytes | bytearray | memoryview,
    kind: type[T],
    *,
    instance: int = 0,
    unknown: Unknown = "error",
    limits: Limits = LIMITS,
) -> T:
    """A new state from the bytes of a snapshot. See `load`."""
    if unknown in _DROPPING and type(data) is bytes and isinstance(kind, type) and limits is LIMITS:
        usual = plan_of(kind, instance)
        rows = usual.rows(data) if usual else None
        if usual and rows:
            state: T = usual.shapes[0].make(rows[0])
            return state
    held = bytes_of(data)
    if held is None:
        raise TypeError(f"loads takes bytes, and load a path or a file; got `{type(data).__name__}`")
    return load(held, kind, instance=instance, unknown=unknown, limits=limits)


def reset(state: Any, *, table: Table | None = None) -> None:
    """Give every field of a device that has a default its default. See `Machine.reset`."""
    Machine([Device(state, 0, table)]).reset()

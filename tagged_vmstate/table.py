"""Tables: what fields a device or struct has. Built once, checked when built, never changed.

Everything that can be wrong with a declaration is said here, with the names of table and field. A table is data:
`codec` saves and loads by it, and `declare` makes one from a class.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, MemberDescriptorType
from typing import Any, Final, Protocol, TypeAlias, cast

from tagged_vmstate.annotations import parse
from tagged_vmstate.blocks import IntType
from tagged_vmstate.errors import StateError, TableError
from tagged_vmstate.fieldtype import FieldType, SparseMemory, widening_misfit
from tagged_vmstate.records import encode_name
from tagged_vmstate.wire import NESTING
from tagged_vmstate.wiretype import brief

KEPT: Final = "_vmstate_kept"
"""Where a state carries what its table does not know: the attribute, or the key of a dict."""
NO_DEFAULT: Final = object()
"""The default of a field that is required."""
DISPLAYS: Final = ("hex", "flags")
VERSIONS: Final = 64
"""Section versions that a mask can name."""

Hook: TypeAlias = Callable[[Any], object]
Values: TypeAlias = Mapping[str, Any]
"""The values of fields by their names, as records hold them."""


@dataclass(frozen=True, slots=True)
class Untagged:
    """How a field lies in QEMU's bytes, which carry no names; only the reader and writer of these ask.

    Attributes:
        counted_by: The sibling before it that says how many elements it has.
        linked: Each element has a byte 1 before it, and the last a 0 behind it (QTAILQ).
        subsection: It stands behind all other fields, with a name and a version of its own, and only where it is
            needed: a `Struct | None` that is there, a struct that is not at its defaults.
        when: Whether it is there, given the values of the fields before it (QEMU's field_exists).
    """

    counted_by: str | None = None
    linked: bool = False
    subsection: bool = False
    when: Callable[[Values], bool] | None = None


Kept: TypeAlias = tuple[tuple[bytes, bool], ...]
"""Fields that a table does not know, each as bytes, and whether it is at its default."""


class Legacy(Protocol):
    """A function that reads old bytes."""

    @property
    def versions(self) -> tuple[int, ...]:
        """The section versions that it reads."""
        ...


class Field:
    """One field of a table.

    Args:
        name: In the snapshot: 1 to 255 bytes of UTF-8; no character has a meaning.
        annotation: What it holds: see `annotations`.
        default: What it is where the snapshot has none, and after a reset.
        default_factory: Makes the default, for what can be changed in place.
        attribute: What holds it in the state: an attribute, or a key of a dict. The name, unless given.
        aliases: Other names under which it is found in a snapshot.
        widens_from: Narrower types that are taken too; nothing may be lost.
        description: For people.
        display: How tools print it: ``hex``, ``flags``, or an enum. It never changes what is loaded.
        since: The first section version that had it. Only the reader of untagged bytes asks.
        until: The last one.
        versions: The versions that had it, as a mask, where they are no range.
        untagged: How it lies in bytes that carry no names, where that is not just its value.

    Raises:
        TableError: Something of this is wrong.
    """

    __slots__ = (
        *("aliases", "attribute", "default", "default_factory", "description", "display"),
        *("name", "since", "type", "untagged", "until", "versions", "widens_from"),
    )

    def __init__(
        self,
        name: str,
        annotation: Any,
        *,
        default: Any = NO_DEFAULT,
        default_factory: Callable[[], Any] | None = None,
        attribute: str | None = None,
        aliases: Iterable[str] = (),
        widens_from: Iterable[Any] = (),
        description: str = "",
        display: str | type[enum.Enum] | None = None,
        since: int = 0,
        until: int | None = None,
        versions: int | None = None,
        untagged: Untagged = Untagged(),
    ) -> None:
        self.name = name
        self.untagged = untagged
        self.attribute = name if attribute is None else attribute
        self.default = default
        self.default_factory = default_factory
        self.description = description
        self.display = display
        self.since = since
        self.until = until
        self.versions = versions
        try:
            self.aliases = _names(aliases, "aliases")
            self.type = parse(annotation)
            self.widens_from = frozenset(self._narrower(widens_from))
            self._check()
            self._check_default()
        except TableError as error:
            error.under(str(name))
            raise

    def __repr__(self) -> str:
        return f"<field {self.name}: {self.type.describe()}>"

    @property
    def is_required(self) -> bool:
        """Whether a snapshot must have it."""
        return self.default is NO_DEFAULT and self.default_factory is None

    @property
    def table(self) -> Table | None:
        """The table of a struct."""
        return cast("Table | None", self.type.table)

    def make_default(self) -> Any:
        """A default of one's own, to be changed in place at will."""
        return self.default_factory() if self.default_factory else self.default

    def known_default(self) -> Any:
        """A default to be looked at only; memory of zeros is not made for it."""
        zeros = zeros_of(self.default_factory) if self.type.wire.name == "sparse" else None
        return self.make_default() if zeros is None else SparseMemory(zeros, ())

    def is_in(self, version: int) -> bool:
        """Whether a section version has it."""
        if self.versions is not None:
            return bool(self.versions >> version & 1)
        return self.since <= version and (self.until is None or version <= self.until)

    def _narrower(self, types: Iterable[Any]) -> Iterator[str]:
        for each in types:
            source = parse(each)
            misfit = widening_misfit(source, self.type)
            if misfit or source.is_array:
                raise TableError(
                    f"types narrower than `{self.type.wire.name}` in widens_from", misfit or f"`{source.describe()}`"
                )
            yield source.wire.name

    def _check(self) -> None:
        for name in (self.name, *self.aliases):
            check_name(name)
        is_enum = isinstance(self.display, type) and issubclass(self.display, enum.Enum)
        if self.display is not None and self.display not in DISPLAYS and not is_enum:
            raise TableError("a display of hex, flags or an enum", brief(self.display))
        if self.versions is not None and (self.since or self.until is not None):
            raise TableError("since and until, or a mask of versions", "both")
        if self.versions is not None and not 0 < self.versions < 1 << VERSIONS:
            raise TableError(f"a mask of versions 0 to {VERSIONS - 1}", brief(self.versions))
        if self.untagged.linked and not (self.table and self.type.capacity is not None):
            raise TableError("a list of structs with a MaxLength, where it is linked", f"`{self.type.describe()}`")
        if self.untagged.subsection and (self.table is None or self.type.is_array):
            raise TableError("a struct, where it is a subsection", f"`{self.type.describe()}`")
        if self.since < 0 or (self.until is not None and self.until < self.since):
            raise TableError("since before until", f"{self.since} to {self.until}")

    def _check_default(self) -> None:
        if self.is_required:
            return
        if self.default is not NO_DEFAULT and self.default_factory:
            raise TableError("default or default_factory", "both")
        if type(self.default).__hash__ is None:
            expected = "a default_factory for what can be changed in place (a default would be shared)"
            raise TableError(expected, brief(self.default))
        try:
            value = self.known_default()
        except Exception as error:
            raise TableError("a default_factory that needs nothing", f"{type(error).__name__}: {error}") from error
        try:
            check_value(self.type, value)
        except StateError as error:
            raise TableError(f"a default: {error.expected}", error.found, path=error.path) from None


class Table:
    """The fields of a device or struct.

    Args:
        name: Of the device, in the snapshot.
        fields: Its fields, in the order in which they are written.
        state: What holds them: a class whose constructor takes each by its attribute, or `dict`.
        aliases: Other names under which the device is found in a snapshot.
        version: The section version that this describes. Only the reader of untagged bytes asks.
        minimum_version: The oldest section version of untagged bytes that can be read.
        description: For people.
        check: Sees every new state before anything is assigned, and every state before it is saved; raises where
            fields do not fit each other. It only looks: it may be called more than once for a load, and in any order.
        pre_save: Sees a state before it is saved.
        post_load: Sees a state after it was loaded; one that raises undoes the whole load.
        legacy: Functions that read untagged bytes of versions which the fields cannot describe: see `untagged`.
        is_plain: A state is made by nothing but setting its attributes, and has a slot for what a load keeps.

    Attributes:
        attributes: All that a state holds outside of a `__dict__`: fields, what is kept, and slots that are no fields.

    Raises:
        TableError: Something of this is wrong.
    """

    __slots__ = (
        *("aliases", "attributes", "by_name", "check", "depth", "description", "fields", "is_hooked", "is_plain", "legacy"),
        *("minimum_version", "name", "owner", "post_load", "pre_save", "state", "version"),
    )

    def __init__(
        self,
        name: str,
        fields: Iterable[Field],
        *,
        state: type = dict,
        aliases: Iterable[str] = (),
        version: int = 1,
        minimum_version: int = 0,
        description: str = "",
        check: Hook | None = None,
        pre_save: Hook | None = None,
        post_load: Hook | None = None,
        legacy: Iterable[Legacy] = (),
        is_plain: bool = False,
    ) -> None:
        self.name = name
        self.state = state
        self.is_plain = is_plain
        self.owner = str(name) if state is dict else state.__name__
        self.fields = tuple(fields)
        self.version = version
        self.minimum_version = minimum_version
        self.description = description
        self.check = check
        self.pre_save = pre_save
        self.post_load = post_load
        self.legacy = tuple(legacy)
        self.by_name: Mapping[str, Field] = {}
        try:
            self.aliases = _names(aliases, "aliases")
            self._check()
            self.by_name = self._indexed()
            self.attributes = tuple(dict.fromkeys((*(field.attribute for field in self.fields), KEPT, *_slots(state))))
            inner: list[Table] = [field.table for field in self.fields if field.table]
            self.is_hooked: bool = any((check, pre_save, post_load, *(each.is_hooked for each in inner)))
            self.depth: int = 1 + max((each.depth for each in inner), default=0)
            if self.depth > NESTING:
                raise TableError(f"at most {NESTING} structs within each other", str(self.depth))
        except TableError as error:
            error.section = self.owner
            raise

    def __repr__(self) -> str:
        return f"<table {self.name}: {len(self.fields)} fields>"

    @property
    def __vmstate__(self) -> Table:
        """Itself: what stands for a table in an annotation."""
        return self

    def get(self, state: Any, field: Field) -> Any:
        """The value of a field. Raises StateError where the state has none."""
        try:
            return state[field.attribute] if self.state is dict else getattr(state, field.attribute)
        except (KeyError, AttributeError, TypeError):
            raise StateError(f"a `{field.attribute}` in `{self.owner}`", f"none in {brief(state)}") from None

    def set(self, state: Any, attribute: str, value: Any) -> None:
        """Assign the value of a field, or what is kept."""
        if self.state is dict:
            state[attribute] = value
        else:
            setattr(state, attribute, value)

    def kept(self, state: Any) -> Kept:
        """The fields that an earlier load kept for a state, each as bytes, and whether it is at its default."""
        found: Kept = state.get(KEPT, ()) if self.state is dict else getattr(state, KEPT, ())
        return found

    def set_kept(self, state: Any, kept: Kept) -> None:
        """Let a state carry fields that the table does not know. Raises TableError where it has no place for them."""
        try:
            self.set(state, KEPT, kept)
        except AttributeError:
            error = TableError(f"a slot `{KEPT}` for what a load keeps", "none")
            error.section = self.owner
            raise error from None

    def make(self, values: dict[str, Any]) -> Any:
        """A new state of the values by attribute."""
        return dict(values) if self.state is dict else self.state(**values)

    def is_state(self, value: Any) -> bool:
        """Whether a value is a state of this table."""
        return isinstance(value, dict) if self.state is dict else type(value) is self.state

    def _check(self) -> None:
        for name in (self.name, *self.aliases):
            check_name(name)
        if len({self.name, *self.aliases}) != 1 + len(self.aliases):
            raise TableError("each name and alias of a device once", f"`{self.name}` as {brief(self.aliases)}")
        twice = [version for each in self.legacy for version in each.versions]
        if len(set(twice)) != len(twice):
            raise TableError("one legacy function for a version", f"versions {brief(twice)}")
        if not 0 <= self.minimum_version <= self.version < VERSIONS:
            raise TableError(
                f"minimum_version and version of 0 to {VERSIONS - 1}, in this order", f"{self.minimum_version}, {self.version}"
            )

    def _indexed(self) -> dict[str, Field]:
        found: dict[str, Field] = {}
        attributes = {KEPT}
        for field in self.fields:
            if not isinstance(field, Field):
                raise TableError("a `Field`", brief(field))
            for name in (field.name, *field.aliases):
                if name in found:
                    raise TableError("each name and alias of a field once", f"`{name}` again", path=(field.name,))
                found[name] = field
            if field.attribute in attributes:
                raise TableError("each attribute once", f"`{field.attribute}` again", path=(field.name,))
            attributes.add(field.attribute)
            counter = found.get(field.untagged.counted_by) if field.untagged.counted_by else None
            if field.untagged.counted_by and (counter is None or counter is field or not isinstance(counter.type.wire, IntType)):
                expected = "a number before it that it is counted by"
                raise TableError(expected, f"`{field.untagged.counted_by}`", path=(field.name,))
            last = field.since if field.until is None else field.until
            if last > self.version or (field.versions or 0) >> self.version + 1:
                raise TableError(f"versions up to the table's own ({self.version})", "a later one", path=(field.name,))
        return found


def zeros_of(factory: object) -> int | None:
    """How many zeros a factory makes, which does nothing but call `bytearray` with a number; None for any other.

    A `bytearray` writes its zeros: to ask ``lambda: bytearray(SIZE)`` of a GiB what it makes takes a GiB. A copy of it is asked
    instead, for which `bytearray` gives back the number. It can reach nothing but numbers and `bytearray`.
    """
    if not isinstance(factory, FunctionType):
        return None
    names = factory.__code__.co_names
    known = {name: factory.__globals__[name] for name in names if name in factory.__globals__}
    cells = [each.cell_contents for each in factory.__closure__ or ()]
    if {*names} - {*known} != {"bytearray"} or any(type(each) is not int for each in (*known.values(), *cells)):
        return None
    copied = FunctionType(factory.__code__, {**known, "bytearray": _Zeros, "__builtins__": {}}, closure=factory.__closure__)
    try:
        made = copied()
    except (TypeError, ValueError, ArithmeticError, NameError):
        return None
    return made.size if isinstance(made, _Zeros) and type(made.size) is int else None


class _Zeros:
    """What stands for `bytearray`."""

    def __init__(self, size: object = 0) -> None:
        self.size = size


def check_name(name: str) -> None:
    """Raise TableError for what can be no name in a snapshot."""
    try:
        encode_name(name)
    except StateError as error:
        raise TableError(error.expected, error.found) from None


def check_value(kind: FieldType, value: Any) -> None:
    """Raise StateError for a value that a field of a type cannot hold."""
    table = cast("Table | None", kind.table)
    if table is None:
        if kind.wire.name == "sparse":
            kind.check_memory(value)
        else:
            kind.pieces(value)
        return
    elements = elements_of(kind, value)
    for index, element in enumerate(elements):
        try:
            if element is not None:
                _check_fields(table, element)
        except StateError as error:
            if kind.is_array:
                error.under(index)
            raise


def _check_fields(table: Table, state: Any) -> None:
    for field in table.fields:
        try:
            check_value(field.type, table.get(state, field))
        except StateError as error:
            error.under(field.name)
            raise


def elements_of(kind: FieldType, value: Any) -> tuple[Any, ...]:
    """The structs that a field holds, one or several. Raises StateError where they are no states of its table."""
    table = cast("Table", kind.table)
    if kind.is_array:
        length = kind.length_of(value)
        if not isinstance(value, list | tuple) or len(value) != length:
            raise StateError(f"`{kind.describe()}`", brief(value))
    elements = tuple(value) if kind.is_array else (value,)
    for index, element in enumerate(elements):
        if not table.is_state(element) and not (element is None and kind.is_optional):
            path = (index,) if kind.is_array else ()
            raise StateError(f"a `{table.owner}`{' or None' if kind.is_optional else ''}", brief(element), path=path)
    return elements


def _slots(state: type) -> list[str]:
    return [name for base in state.__mro__ for name, each in vars(base).items() if isinstance(each, MemberDescriptorType)]


def _names(names: Iterable[str], what: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TableError(f"{what} as a tuple of names", f"the string {names!r}")
    return tuple(names)

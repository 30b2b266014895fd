"""Tables: what fields a device or struct has. Built once, checked when built, never changed.

Everything that can be wrong with a declaration is said here, with the names of table and field. A table is data:
`codec` saves and loads by it, and `declare` makes one from a class.
"""

from __future__ import annotations

import copy
import enum
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import FunctionType, MemberDescriptorType
from typing import Any, Final, Never, Protocol, TypeAlias, cast

from tagged_vmstate.annotations import is_numpy, made_again, parse
from tagged_vmstate.blocks import IntType
from tagged_vmstate.errors import StateError, TableError
from tagged_vmstate.fieldtype import FieldType, SparseMemory, widening_misfit
from tagged_vmstate.records import encode_name
from tagged_vmstate.wire import NESTING, equal
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
        previous_defaults: The defaults of earlier releases, oldest first: see docs/evolution.md. They are copied on use.
        attribute: What holds it in the state: an attribute, or a key of a dict. The name, unless given.
        aliases: Other names under which it is found in a snapshot.
        widens_from: Narrower types that are taken too; nothing may be lost.
        description: For people.
        display: How tools print an integer: ``hex``, ``flags`` (the bits that are set), or an enum whose members name
            numbers, or bits if it is a `Flag`. It never changes what is loaded.
        since: The first section version that had it. Only the reader of untagged bytes asks.
        until: The last one.
        versions: The versions that had it, as a mask, where they are no range.
        untagged: How it lies in bytes that carry no names, where that is not just its value.

    Raises:
        TableError: Something of this is wrong.
    """

    __slots__ = (
        *("aliases", "attribute", "default", "default_factory", "description", "display"),
        *("name", "previous_defaults", "since", "type", "untagged", "until", "versions", "widens_from"),
    )

    def __init__(
        self,
        name: str,
        annotation: Any,
        *,
        default: Any = NO_DEFAULT,
        default_factory: Callable[[], Any] | None = None,
        previous_defaults: Sequence[Any] = (),
        attribute: str | None = None,
        aliases: Iterable[str] = (),
        widens_from: Iterable[Any] = (),
        description: str = "",
        display: str | type[enum.Enum] | None = None,
        since: int = 0,
        until: int | None = None,
        versions: int | None = None,
        untagged: Untagged = Untagged(),
        **misspelt: Never,
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
        place = attribute
        try:
            check_name(name)
            place = name
            if misspelt:
                check_keywords("Field", misspelt, keywords(Field))
            self.aliases = _names(aliases, "aliases")
            self.type = parse(annotation)
            self.widens_from = frozenset(self._narrower(widens_from))
            self._check()
            self._check_default()
            self.previous_defaults = self._previous(previous_defaults)
        except TableError as error:
            if place is not None:
                error.under(place)
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

    @property
    def has_previous_defaults(self) -> bool:
        """Whether its default has changed, or that of a field in its structs."""
        return bool(self.previous_defaults or (self.table and self.table.has_previous_defaults))

    def make_default(self) -> Any:
        """A default of one's own, to be changed in place at will."""
        return self.default_factory() if self.default_factory else self.default

    def known_default(self) -> Any:
        """A default to be looked at only; memory of zeros is not made for it."""
        table = self.table
        if (
            table
            and table.is_plain
            and self.default_factory is table.state
            and not any(each.is_required for each in table.fields)
        ):
            return table.make({each.attribute: each.known_default() for each in table.fields})
        zeros = zeros_of(self.default_factory) if self.type.wire.name == "sparse" else None
        return self.make_default() if zeros is None else SparseMemory(zeros, ())

    def first_default(self) -> Any:
        """The default that it began with, its structs' fields at theirs: what a release that lacks it does."""
        value = copy.deepcopy(self.previous_defaults[0]) if self.previous_defaults else self.make_default()
        if self.table and self.has_previous_defaults:
            for element in elements_of(self.type, value):
                if element is not None:
                    self.table.take_back(element)
        return value

    def is_in(self, version: int) -> bool:
        """Whether a section version has it."""
        if self.versions is not None:
            return bool(self.versions >> version & 1)
        return self.since <= version and (self.until is None or version <= self.until)

    def _narrower(self, types: Iterable[Any]) -> Iterator[str]:
        check_kind("widens_from", types, Iterable, "a tuple of types")
        for each in types:
            source = parse(each)
            misfit = widening_misfit(source, self.type)
            if misfit or source.is_array:
                raise TableError(
                    f"types narrower than `{self.type.wire.name}` in widens_from", misfit or f"`{source.describe()}`"
                )
            yield source.wire.name

    def _check(self) -> None:
        for name in self.aliases:
            check_name(name)
        check_kind("description", self.description, str, "text")
        check_kind("since", self.since, int, "a number")
        check_kind("until", self.until, int | None, "a number")
        check_kind("versions", self.versions, int | None, "a mask of versions")
        check_kind("untagged", self.untagged, Untagged, "an `Untagged`")
        _check_display(self.display, self.type)
        if self.versions is not None and (self.since or self.until is not None):
            raise TableError("since and until, or a mask of versions", "both")
        if self.versions is not None and not 0 < self.versions < 1 << VERSIONS:
            raise TableError(f"a mask of versions 0 to {VERSIONS - 1}", brief(self.versions))
        if self.untagged.linked and not (self.table and self.type.capacity is not None):
            raise TableError("a list of structs with a MaxLength, where it is linked", f"`{self.type.describe()}`")
        if self.untagged.counted_by and self.type.wire.name in {"bitmap", "sparse"}:
            raise TableError(f"a fixed Length for a `{self.type.wire.name}` in bytes that carry no names", "counted_by")
        if self.untagged.subsection and (self.table is None or self.type.is_array):
            raise TableError("a struct, where it is a subsection", f"`{self.type.describe()}`")
        if self.since < 0 or (self.until is not None and self.until < self.since):
            raise TableError("since before until", f"{self.since} to {self.until}")

    def _check_default(self) -> None:
        if self.is_required:
            return
        check_default(self.default, self.default_factory)
        try:
            value = self.known_default()
        except Exception as error:
            raise TableError("a default_factory that needs nothing", f"{type(error).__name__}: {error}") from error
        if is_numpy(self.type.holder) and self.type.length is not None and getattr(value, "ndim", 1) != 1:
            self.type = replace(self.type, shape=value.shape)
        try:
            check_value(self.type, value)
        except StateError as error:
            raise TableError(f"a default: {error.expected}", error.found, path=error.path) from None

    def _previous(self, values: Sequence[Any]) -> tuple[Any, ...]:
        if not isinstance(values, list | tuple):
            raise TableError("previous_defaults as a tuple, oldest first", brief(values))
        if values and self.is_required:
            raise TableError("a default beside previous_defaults", "none")
        for value in values:
            try:
                check_value(self.type, value)
            except StateError as error:
                raise TableError(f"previous_defaults of `{self.type.describe()}`: {error.expected}", error.found) from None
        return tuple(copy.deepcopy(each) for each in values)


class Table:
    """The fields of a device or struct.

    Args:
        name: Of the device, in the snapshot.
        fields: Its fields, in the order in which they are written.
        state: What holds them: a class, or `dict`. An object that is there is loaded into, without its constructor. A new one
            is made by the constructor with each field by its attribute, or by `make`.
        make: Makes a new state, where the constructor takes other arguments: called without any; its fields are set then.
        aliases: Other names under which the device is found in a snapshot.
        version: The section version that this describes. Only the reader of untagged bytes asks.
        minimum_version: The oldest section version of untagged bytes that can be read.
        description: For people.
        check: Called before anything is assigned, with a shallow copy of the state that has the new values, and with every
            state before it is saved; raises where fields do not fit each other. It must change nothing: it may be called
            more than once for a load, and in any order.
        pre_save: Called with a state before it is saved, to fetch what lies outside of it; and, if the device has a
            `post_load`, before a load or reset replaces the values, so that they can be restored.
        post_load: Called with a state after it was loaded or reset, to push its values outward; one that raises undoes
            everything, and those that had run are called again with the old values.
        legacy: Functions that read untagged bytes of versions which the fields cannot describe: see `untagged`.
        is_plain: A state is made by nothing but setting its attributes, and has a slot for what a load keeps.

    Attributes:
        attributes: All that a state holds outside of a `__dict__`: fields, what is kept, and slots that are no fields.
        hooks: The names of the hooks of this table and all in it.
        has_previous_defaults: Whether the default of a field has changed, of one in its structs too.
        can_make: Whether a new state can be made.
        can_copy: Whether a copy of a state can be given other values: setting a property could reach outside.

    Raises:
        TableError: Something of this is wrong.
    """

    __slots__ = (
        *("aliases", "attributes", "by_name", "can_copy", "can_make", "check", "depth", "description", "fields", "hooks"),
        *("is_hooked", "is_plain", "legacy", "maker", "minimum_version", "name", "owner", "post_load", "pre_save", "slots"),
        *("has_previous_defaults", "state", "version"),
    )

    def __init__(
        self,
        name: str,
        fields: Iterable[Field],
        *,
        state: type = dict,
        make: Callable[[], Any] | None = None,
        aliases: Iterable[str] = (),
        version: int = 1,
        minimum_version: int = 0,
        description: str = "",
        check: Hook | None = None,
        pre_save: Hook | None = None,
        post_load: Hook | None = None,
        legacy: Iterable[Legacy] = (),
        is_plain: bool = False,
        **misspelt: Never,
    ) -> None:
        self.name = name
        self.state = state
        self.maker = make
        self.is_plain = is_plain
        self.owner = name if state is dict else getattr(state, "__name__", name)
        self.version = version
        self.minimum_version = minimum_version
        self.description = description
        self.check = check
        self.pre_save = pre_save
        self.post_load = post_load
        self.by_name: Mapping[str, Field] = {}
        place = None if state is dict else self.owner
        try:
            check_name(name)
            place = self.owner
            if misspelt:
                check_keywords("Table", misspelt, keywords(Table))
            check_kind("fields", fields, Iterable, "a list of `Field`")
            self.fields = tuple(fields)
            self.legacy = tuple(legacy)
            self.aliases = _names(aliases, "aliases")
            self._check()
            self.by_name = self._indexed()
            names = [field.attribute for field in self.fields]
            self.slots = tuple(_slots(state))
            self.attributes = tuple(dict.fromkeys((*names, KEPT, *self.slots)))
            inner: list[Table] = [field.table for field in self.fields if field.table]
            own = {"check": check, "pre_save": pre_save, "post_load": post_load}
            self.hooks: frozenset[str] = frozenset(name for name, hook in own.items() if hook).union(
                *(each.hooks for each in inner)
            )
            self.is_hooked = bool(self.hooks)
            self.can_make = bool(make) or is_plain or state is dict or _takes(state, names)
            self.can_copy = is_plain or state is dict or not any(_is_computed(state, name) for name in names)
            self.has_previous_defaults: bool = any(field.has_previous_defaults for field in self.fields)
            self.depth: int = 1 + max((each.depth for each in inner), default=0)
            if self.depth > NESTING:
                raise TableError(f"at most {NESTING} structs within each other", str(self.depth))
        except TableError as error:
            error.section = place
            raise

    def __repr__(self) -> str:
        return f"<table {self.name}: {len(self.fields)} fields>"

    def __set_name__(self, owner: type, name: str) -> None:
        """Refuse a copy of a declared class, such as attrs makes: its slots and methods are the first one's."""
        if name == "__vmstate__":
            raise made_again(owner)

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

    def take_back(self, state: Any) -> None:
        """Give every field that is at its default the one that it began with."""
        for field in self.fields:
            value = self.get(state, field)
            if field.previous_defaults and is_same(field.type, value, field.make_default()):
                self.set(state, field.attribute, field.first_default())
            elif field.table and field.has_previous_defaults:
                for element in elements_of(field.type, value):
                    if element is not None:
                        field.table.take_back(element)

    def kept(self, state: Any) -> Kept:
        """The fields that an earlier load kept for a state, each as bytes, and whether it is at its default."""
        found: Kept = state.get(KEPT, ()) if self.state is dict else getattr(state, KEPT, ())
        return found

    def set_kept(self, state: Any, kept: Kept) -> None:
        """Let a state carry fields that the table does not know. Raises StateError where it has no place for them."""
        try:
            self.set(state, KEPT, kept)
        except AttributeError:
            raise StateError(f"a slot `{KEPT}` in `{self.owner}` for what a load keeps", "none") from None

    def present(self, state: Any, attribute: str) -> Any:
        """What a state holds for a field; None where it has nothing."""
        return state.get(attribute) if self.state is dict else getattr(state, attribute, None)

    def others(self, state: Any) -> dict[str, Any]:
        """What a state holds beside its fields and what is kept, by attribute."""
        own = {KEPT, *(field.attribute for field in self.fields)}
        held = state if self.state is dict else {**self._slotted(state), **_unslotted(state)}
        return {name: value for name, value in held.items() if name not in own}

    def replace_others(self, state: Any, others: dict[str, Any]) -> None:
        """Replace what `others` found, without the code of the class."""
        for name, value in others.items():
            if self.state is dict:
                state[name] = value
            elif name in _unslotted(state):
                _unslotted(state)[name] = value
            else:
                object.__setattr__(state, name, value)

    def make(self, values: dict[str, Any]) -> Any:
        """A new state of the values by attribute."""
        if self.maker is None:
            return dict(values) if self.state is dict else self.state(**values)
        state = self.maker()
        for attribute, value in values.items():
            self.set(state, attribute, value)
        return state

    def remade(self, state: Any, values: dict[str, Any]) -> Any | None:
        """A shallow copy of a state with other values in its fields; no code of its class runs.

        Returns:
            The copy, or None where there can be none: setting a property could reach what the state shares with others,
            and an object of a class written in C is not all in its attributes.
        """
        if self.state is dict:
            return {**self.others(state), **values}
        if not self.can_copy:
            return None
        try:
            made: Any = object.__new__(self.state)
        except TypeError:
            return None
        _unslotted(made).update(_unslotted(state))
        kept = {KEPT: ()} if hasattr(state, KEPT) else {}
        for attribute, value in {**self._slotted(state), **values, **kept}.items():
            object.__setattr__(made, attribute, value)
        return made

    def _slotted(self, state: Any) -> dict[str, Any]:
        return {name: getattr(state, name) for name in self.slots if hasattr(state, name)}

    def check_can_make(self) -> None:
        """Raise TableError where a new state, or one that always lies in it, cannot be made."""
        if not self.can_make:
            found = f"`{self.owner}`, which takes others: load into one that is there (into=), or give its table make="
            error = TableError("a class whose constructor takes its fields", found)
            error.section = self.owner
            raise error
        for field in self.fields:
            if field.table and field.is_required and not field.type.is_optional and field.type.capacity is None:
                field.table.check_can_make()

    def is_state(self, value: Any) -> bool:
        """Whether a value is a state of this table."""
        return isinstance(value, dict) if self.state is dict else type(value) is self.state

    def _check(self) -> None:
        check_kind("state", self.state, type, "a class")
        check_kind("version", self.version, int, "a number")
        check_kind("minimum_version", self.minimum_version, int, "a number")
        check_kind("description", self.description, str, "text")
        for hook in ("check", "pre_save", "post_load"):
            _check_hook(hook, getattr(self, hook))
        _check_hook("make", self.maker)
        for name in self.aliases:
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


def keywords(cls: type) -> list[str]:
    """The keywords of a class's constructor."""
    return [key for key, each in inspect.signature(cls).parameters.items() if each.kind is each.KEYWORD_ONLY]


def check_keywords(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TableError for a keyword that is not known."""
    for each in given:
        if each not in known:
            near = get_close_matches(each, known, 1)
            raise TableError(f"a keyword of {what}", f"`{each}`" + (f" (did you mean `{near[0]}`?)" if near else ""))


def check_kind(what: str, value: object, kind: Any, words: str) -> None:
    """Raise TableError for an argument of another type."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TableError(f"{words} as `{what}`", brief(value))


def check_default(default: object, factory: object) -> None:
    """Raise TableError for a default that is given twice, or that all states would share."""
    if default is not NO_DEFAULT and factory:
        raise TableError("default or default_factory", "both")
    if type(default).__hash__ is None:
        raise TableError("a default_factory for what can be changed in place (a default would be shared)", brief(default))


def _check_display(display: Any, kind: FieldType) -> None:
    if display is None:
        return
    if isinstance(display, type) and issubclass(display, enum.Enum):
        if not all(isinstance(member.value, int) for member in display):
            raise TableError("an enum of whole numbers as display", f"`{display.__name__}`")
    elif display not in DISPLAYS:
        raise TableError("a display of hex, flags or an enum", brief(display))
    if not isinstance(kind.wire, IntType):
        raise TableError("a display of integers only", f"`{kind.describe()}`")


def _check_hook(name: str, hook: object) -> None:
    if hook is None:
        return
    if not callable(hook):
        raise TableError(f"a function or method as `{name}`", brief(hook))
    if inspect.iscoroutinefunction(hook) or inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise TableError(f"a plain function as `{name}`, which runs when it is called", "one that is async or has a yield")


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


def is_same(kind: FieldType, first: Any, second: Any) -> bool:
    """Whether two values that fit a field are saved as the same bytes: NaN is itself, and 0.0 is not -0.0."""
    table = cast("Table | None", kind.table)
    if table is None:
        ours, theirs = kind.pieces(first), kind.pieces(second)
        return ours[0] == theirs[0] and equal(ours[1], theirs[1])
    pairs = elements_of(kind, first), elements_of(kind, second)
    return len(pairs[0]) == len(pairs[1]) and all(_is_same_state(table, *pair) for pair in zip(*pairs, strict=True))


def _is_same_state(table: Table, first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return all(is_same(field.type, table.get(first, field), table.get(second, field)) for field in table.fields)


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
    elements = tuple(value) if kind.is_array and isinstance(value, list | tuple) else (value,)
    if kind.is_array and (not isinstance(value, list | tuple) or len(elements) != kind.length_of(elements)):
        raise StateError(f"`{kind.describe()}`", brief(value))
    for index, element in enumerate(elements):
        if not table.is_state(element) and not (element is None and kind.is_optional):
            path = (index,) if kind.is_array else ()
            raise StateError(f"a `{table.owner}`{' or None' if kind.is_optional else ''}", brief(element), path=path)
    return elements


def elements_held(kind: FieldType, value: Any, count: int) -> list[Any]:
    """The states that a field of structs holds, for as many new ones; None where there is none."""
    table = cast("Table", kind.table)
    held = value if kind.is_array and isinstance(value, list | tuple) else () if kind.is_array else (value,)
    found = [each if table.is_state(each) else None for each in held[:count]]
    return found + [None] * (count - len(found))


def _takes(state: type, attributes: Iterable[str]) -> bool:
    """Whether a constructor takes the fields, and needs nothing else."""
    try:
        inspect.signature(state).bind(**dict.fromkeys(attributes))
    except TypeError:
        return False
    except ValueError:  # a class written in C says nothing of its arguments
        return True
    return True


def _is_computed(state: type, attribute: str) -> bool:
    """Whether setting an attribute runs code of the class: a property does, a slot does not."""
    found = next((vars(base)[attribute] for base in state.__mro__ if attribute in vars(base)), None)
    return hasattr(type(found), "__set__") and not isinstance(found, MemberDescriptorType)


def _unslotted(state: Any) -> dict[str, Any]:
    return vars(state) if hasattr(state, "__dict__") else {}


def _slots(state: type) -> list[str]:
    return [name for base in state.__mro__ for name, each in vars(base).items() if isinstance(each, MemberDescriptorType)]


def _names(names: Iterable[str], what: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TableError(f"{what} as a tuple of names", f"the string {names!r}")
    check_kind(what, names, Iterable, "a tuple of names")
    return tuple(names)

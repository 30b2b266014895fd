"""`@vmstate`: a class whose annotations are a table.

It becomes a dataclass: keyword-only, with slots, so that an assignment to a misspelt field raises. Everything
that can be wrong with it is said when it is made. The table is `__vmstate__` of the class.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import typing
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from itertools import repeat
from types import FunctionType, MemberDescriptorType
from typing import Any, ClassVar, Final, TypeVar, get_origin, overload

from typing_extensions import dataclass_transform

from tagged_vmstate.errors import TableError
from tagged_vmstate.table import KEPT, NO_DEFAULT, Field, Legacy, Table, Untagged

T = TypeVar("T")
SHOWN: Final = 1 << 10
"""Bytes of a default that stand in the signature of a class."""
HOOKS: Final = ("check", "pre_save", "post_load")
"""The methods that a table calls."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What `field` or `transient` says of an attribute."""

    default: Any
    default_factory: Callable[[], Any] | None
    more: dict[str, Any]
    is_transient: bool = False


@overload
def field(
    *,
    default: T,
    name: str | None = None,
    aliases: Iterable[str] = (),
    widens_from: Iterable[Any] = (),
    description: str = "",
    display: str | type[enum.Enum] | None = None,
    since: int = 0,
    until: int | None = None,
    versions: int | None = None,
    untagged: Untagged = ...,
) -> T: ...
@overload
def field(
    *,
    default_factory: Callable[[], T],
    name: str | None = None,
    aliases: Iterable[str] = (),
    widens_from: Iterable[Any] = (),
    description: str = "",
    display: str | type[enum.Enum] | None = None,
    since: int = 0,
    until: int | None = None,
    versions: int | None = None,
    untagged: Untagged = ...,
) -> T: ...
@overload
def field(
    *,
    name: str | None = None,
    aliases: Iterable[str] = (),
    widens_from: Iterable[Any] = (),
    description: str = "",
    display: str | type[enum.Enum] | None = None,
    since: int = 0,
    until: int | None = None,
    versions: int | None = None,
    untagged: Untagged = ...,
) -> Any: ...
def field(*, default: Any = NO_DEFAULT, default_factory: Any = None, **more: Any) -> Any:
    """Say more of a field than its annotation does: see `Field`. `name` is its name in the snapshot."""
    return _Said(default, default_factory, more)


@overload
def transient(*, default: T) -> T: ...
@overload
def transient(*, default_factory: Callable[[], T]) -> T: ...
def transient(*, default: Any = NO_DEFAULT, default_factory: Any = None) -> Any:
    """An attribute that is no state: never saved, never loaded, left alone by a reset. It needs a default."""
    return _Said(default, default_factory, {}, is_transient=True)


@overload
def vmstate(cls: type[T], /) -> type[T]: ...
@overload
def vmstate(
    name: str | None = None,
    /,
    *,
    aliases: Iterable[str] = (),
    version: int = ...,
    minimum_version: int = ...,
    description: str = "",
    legacy: Iterable[Legacy] = (),
) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(kw_only_default=True, field_specifiers=(field, transient))
def vmstate(name: Any = None, /, **more: Any) -> Any:
    """Make a class the state of a device or struct.

    Args:
        name: Of the device in the snapshot; the class's own, unless given.
        more: `aliases`, `version`, `minimum_version`, `description` and `legacy`: see `Table`. A subclass has the versions of
            its base, unless given: its fields came with them.

    Methods `check`, `pre_save` and `post_load` are called as `Table` says.

    Raises:
        TableError: The declaration is wrong; the message names class and field.
    """
    if isinstance(name, type):
        return _declared(name, name.__name__, {})
    return lambda cls: _declared(cls, cls.__name__ if name is None else name, more)


def _declared(cls: type, name: str, more: dict[str, Any]) -> type:
    try:
        above = next((table for base in cls.__mro__[1:] if (table := vars(base).get("__vmstate__"))), None)
        if above:
            more = {"version": above.version, "minimum_version": above.minimum_version, **more}
        inherited = {each.attribute: each for base in reversed(cls.__mro__[1:]) for each in _own_fields(base)}
        said = {key: _said(cls, key) for key, hint in inspect.get_annotations(cls).items() if not _is_class_variable(hint)}
        hints = _resolved(cls, said)
        fields = {
            attribute: _field(attribute, hints[attribute], each) for attribute, each in said.items() if not each.is_transient
        }
        memory = {attribute for attribute, each in fields.items() if each.type.wire.name == "sparse"}
        is_made_plainly = "__init__" not in vars(cls)
        made = _slotted(cls, said, memory)
        hooks: dict[str, Any] = {hook: getattr(made, hook, None) for hook in HOOKS}
        is_plain = is_made_plainly and _is_plain(made)
        made.__vmstate__ = Table(name, {**inherited, **fields}.values(), state=made, is_plain=is_plain, **more, **hooks)  # type: ignore[attr-defined]
    except TableError as error:
        error.section = cls.__name__
        raise
    return made


def _own_fields(base: type) -> tuple[Field, ...]:
    table: Table | None = vars(base).get("__vmstate__")
    return table.fields if table else ()


def _is_class_variable(hint: Any) -> bool:
    return get_origin(hint) is ClassVar or hint is ClassVar or (isinstance(hint, str) and "ClassVar" in hint.partition("[")[0])


def _said(cls: type, attribute: str) -> _Said:
    value = vars(cls).get(attribute, NO_DEFAULT)
    if not isinstance(value, _Said):
        return _Said(value, None, {})
    if value.is_transient and value.default is NO_DEFAULT and value.default_factory is None:
        raise TableError("a default for a transient attribute: a load makes new objects", "none", path=(attribute,))
    return value


def _resolved(cls: type, said: Iterable[str]) -> dict[str, Any]:
    """The annotations of a class as they are at run time."""
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        found = f"`{error.name}`, unknown so far: a struct cannot hold itself, and must stand before what holds it"
        culprit = [attribute for attribute in said if str(error.name) in str(inspect.get_annotations(cls)[attribute])]
        expected = "annotations that are known when the class is made, at the top of a module"
        raise TableError(expected, found, path=tuple(culprit[:1])) from None
    except TypeError as error:
        raise TableError("annotations that are types", str(error)) from None
    return {attribute: hints[attribute] for attribute in said}


def _field(attribute: str, hint: Any, said: _Said) -> Field:
    more = dict(said.more)
    return Field(
        more.pop("name", None) or attribute,
        hint,
        attribute=attribute,
        default=said.default,
        default_factory=said.default_factory,
        **more,
    )


def _slotted(cls: type, said: dict[str, _Said], unshown: Container[str]) -> type:
    """The class as a dataclass, made anew with slots (a class that is there cannot get any)."""
    for attribute, each in said.items():
        default = dataclasses.MISSING if each.default is NO_DEFAULT else each.default
        factory: Any = each.default_factory or dataclasses.MISSING
        if isinstance(default, bytes | str) and len(default) > SHOWN:
            default, factory = dataclasses.MISSING, repeat(default).__next__  # a dataclass writes its defaults into its docstring
        setattr(cls, attribute, dataclasses.field(default=default, default_factory=factory, repr=attribute not in unshown))
    cls.__annotations__[KEPT] = tuple
    setattr(cls, KEPT, dataclasses.field(default_factory=tuple, init=False, repr=False))
    plain: type = dataclass(kw_only=True, eq=False)(cls)
    for members in (vars(plain)["__dataclass_fields__"], cls.__annotations__):
        del members[KEPT]  # made with the rest, but no field
    inherited = {slot for base in cls.__mro__[1:] for slot in _slots(base)}
    if any(getattr(base, "__weakrefoffset__", 0) for base in cls.__mro__[1:]):
        inherited.add("__weakref__")
    body = {key: value for key, value in vars(plain).items() if key not in {*said, KEPT, "__dict__", "__weakref__"}}
    body["__slots__"] = tuple(each for each in (*said, KEPT, "__weakref__") if each not in inherited)
    body.setdefault("__eq__", _equal)
    made = type(cls)(cls.__name__, cls.__bases__, body)
    made.__qualname__ = cls.__qualname__
    for function in body.values():
        _rebind(function, cls, made)
    return made


def _is_plain(made: type) -> bool:
    """Whether nothing but a dataclass's own constructor makes and fills its objects, and they hold nothing but its fields."""
    own: list[Any] = [made.__new__, made.__setattr__, made.__getattribute__, type(made).__call__]
    usual: list[Any] = [object.__new__, object.__setattr__, object.__getattribute__, type.__call__]
    if own != usual or hasattr(made, "__post_init__") or inspect.isabstract(made):
        return False
    fields = {each.name: each for each in dataclasses.fields(made)}
    slots = {slot for base in made.__mro__ for slot in _slots(base)} - {"__weakref__"}
    if slots != {*fields, KEPT} or made.__dictoffset__ or not all(each.init for each in fields.values()):
        return False
    return all(isinstance(inspect.getattr_static(made, slot), MemberDescriptorType) for slot in slots)


def _slots(base: type) -> tuple[str, ...]:
    slots = vars(base).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _equal(self: Any, other: object) -> Any:
    """States are equal where all their fields are, whatever holds an array's elements."""
    if type(other) is not type(self):
        return NotImplemented
    table: Table = vars(type(self))["__vmstate__"]
    return all(each.type.same(table.get(self, each), table.get(other, each)) for each in table.fields)


def _rebind(function: object, old: type, new: type) -> None:
    """Let `super()` and `__class__` in a method mean the class made anew."""
    for wrapped in (function, *(getattr(function, name, None) for name in ("fget", "fset", "fdel", "__func__"))):
        if isinstance(wrapped, FunctionType):
            for cell in wrapped.__closure__ or ():
                try:
                    if cell.cell_contents is old:
                        cell.cell_contents = new
                except ValueError:
                    continue  # still empty

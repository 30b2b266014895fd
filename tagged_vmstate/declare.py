"""`@vmstate`: a class whose annotations are a table.

It becomes a dataclass: keyword-only, with slots, so that an assignment to a misspelt field raises. Everything
that can be wrong with it is said when it is made. The table is `__vmstate__` of the class.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import inspect
import keyword
import typing
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from types import FunctionType, MemberDescriptorType
from typing import Any, ClassVar, Final, TypeVar, get_origin, overload

from typing_extensions import Format, dataclass_transform, get_annotations

from tagged_vmstate.annotations import is_marked
from tagged_vmstate.errors import TableError
from tagged_vmstate.table import KEPT, NO_DEFAULT, Field, Legacy, Table, Untagged, check_default, check_keywords, keywords
from tagged_vmstate.wiretype import brief

T = TypeVar("T")
SHOWN: Final = 1 << 10
"""Bytes of a default that stand in the signature of a class."""
HOOKS: Final = ("check", "pre_save", "post_load")
"""The methods that a table calls."""
FIELD_KEYWORDS: Final = ("name", *(each for each in keywords(Field) if each != "attribute"))
TRANSIENT_KEYWORDS: Final = ("default", "default_factory")
TABLE_KEYWORDS: Final = ("aliases", "version", "minimum_version", "description", "legacy", "make")
OTHER_FIELDS: Final = ("attr.", "attrs.", "pydantic.")
"""The modules of what attrs and pydantic specify a field with."""
FOREIGN: Final = {
    "__dataclass_fields__": "a dataclass",
    "__attrs_attrs__": "an attrs class",
    "__pydantic_core_schema__": "a pydantic model",
}
"""What other tools leave in a class that they have made theirs."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What `field` or `transient` says of an attribute."""

    default: Any
    default_factory: Callable[[], Any] | None
    more: dict[str, Any]
    is_transient: bool = False

    def __repr__(self) -> str:
        return f"tv.{'transient' if self.is_transient else 'field'}(...)"


@overload
def field(
    *,
    default: T,
    previous_defaults: Sequence[T] = (),
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
    previous_defaults: Sequence[T] = (),
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
def transient(*, default: Any = NO_DEFAULT, default_factory: Any = None, **more: Any) -> Any:
    """An attribute that is no state: never saved, never loaded, left alone by a reset. It needs a default."""
    return _Said(default, default_factory, more, is_transient=True)


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
    make: Callable[[], Any] | None = None,
) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(kw_only_default=True, field_specifiers=(field, transient))
def vmstate(name: Any = None, /, **more: Any) -> Any:
    """Make a class the state of a device or struct.

    Args:
        name: Of the device in the snapshot; the class's own, unless given.
        more: `aliases`, `version`, `minimum_version`, `description`, `legacy` and `make`: see `Table`. A subclass has the
            versions of its base, unless given: its fields came with them.

    A class that has an `__init__` of its own keeps it; where that does not take the fields, only `make` makes new states.

    Methods `check`, `pre_save` and `post_load` are called as `Table` says.

    Raises:
        TableError: The declaration is wrong; the message names class and field.
    """
    if isinstance(name, type):
        return _declared(name, name.__name__, {})
    return lambda cls: _declared(cls, cls.__name__ if name is None else name, more)


def _declared(cls: type, name: str, more: dict[str, Any]) -> type:
    if not isinstance(cls, type):
        raise TableError("a class under @vmstate", brief(cls))
    try:
        check_keywords("@vmstate", more, TABLE_KEYWORDS)
        _check_class(cls)
        above = next((table for base in cls.__mro__[1:] if (table := vars(base).get("__vmstate__"))), None)
        if above:
            more = {"version": above.version, "minimum_version": above.minimum_version, **more}
        hints = _resolved(cls)
        own = inspect.get_annotations(cls)
        said = {key: _said(cls, key) for key in own if get_origin(hints[key]) is not ClassVar and hints[key] is not ClassVar}
        _check_annotated(cls, said, hints)
        inherited = {each.attribute: each for base in reversed(cls.__mro__[1:]) for each in _own_fields(base)}
        inherited = {key: each for key, each in inherited.items() if key not in said or not said[key].is_transient}
        fields = {key: _field(key, hints[key], each) for key, each in said.items() if not each.is_transient}
        memory = {attribute for attribute, each in fields.items() if each.type.wire.name == "sparse"}
        is_made_plainly = "__init__" not in vars(cls)
        made = _slotted(cls, said, memory)
        _check_reachable(made)
        hooks: dict[str, Any] = {hook: getattr(made, hook, None) for hook in HOOKS}
        is_plain = is_made_plainly and _is_plain(made)
        made.__vmstate__ = Table(name, {**inherited, **fields}.values(), state=made, is_plain=is_plain, **more, **hooks)  # type: ignore[attr-defined]
    except TableError as error:
        error.section = cls.__name__
        raise
    return made


def _check_class(cls: type) -> None:
    """Refuse what cannot become a dataclass, or holds state that no table would see."""
    if "__vmstate__" in vars(cls):
        raise TableError("@vmstate once", "it twice")
    base = next(base for base in cls.__mro__ if vars(builtins).get(base.__name__) is base)
    if base is not object or isinstance(cls, enum.EnumMeta):
        kind = "enum" if isinstance(cls, enum.EnumMeta) else base.__name__
        raise TableError("a class that holds nothing but its attributes", f"a subclass of `{kind}`")
    for base in cls.__mro__:
        # A plain dataclass may be a base: the dataclass that is made of the class fills its attributes, too.
        marks = FOREIGN if base is cls else FOREIGN.keys() - {"__dataclass_fields__"}
        words = next((FOREIGN[mark] for mark in marks if mark in vars(base)), None)
        if words:
            found = f"`{base.__name__}`, {words}: leave that out and annotate its fields for @vmstate"
            raise TableError("plain classes, of which @vmstate makes dataclasses", found)


def _check_annotated(cls: type, said: dict[str, _Said], hints: dict[str, Any]) -> None:
    """Refuse fields of a class and its plain bases that would not be saved, and attributes that cannot be fields."""
    for attribute, each in said.items():
        _check_attribute(cls, attribute, each)
    for attribute, value in vars(cls).items():
        is_specified = isinstance(value, _Said | dataclasses.Field) or type(value).__module__.startswith(OTHER_FIELDS)
        if attribute not in said and is_specified:
            found = "a ClassVar" if attribute in inspect.get_annotations(cls) else "none"
            raise TableError(f"an annotation beside it: `{attribute}: uint32 = tv.field(...)`", found, path=(attribute,))
    declared = [base for base in cls.__mro__[1:] if "__vmstate__" in vars(base)]
    known = {*said, *(each.name for base in declared for each in dataclasses.fields(base))}
    for base in cls.__mro__[1:]:
        if base not in declared:
            lost = [key for key, value in vars(base).items() if isinstance(value, _Said)]
            lost += [key for key in inspect.get_annotations(base) if is_marked(hints[key])]
            for attribute in lost:
                if attribute not in known:
                    raise TableError(f"@vmstate on `{base.__name__}` too, which has a field", "none", path=(attribute,))


def _check_attribute(cls: type, attribute: str, said: _Said) -> None:
    if attribute in HOOKS:
        expected = f"another attribute for it (name={attribute!r} keeps its name in the snapshot)"
        raise TableError(expected, f"`{attribute}`, which is a hook", path=(attribute,))
    is_special = attribute.startswith("__")  # in the body of a class, Python has renamed what does not end so
    if is_special or not attribute.isidentifier() or keyword.iskeyword(attribute):
        raise TableError("an attribute that can be assigned", f"`{attribute}`", path=(attribute,))
    if attribute.startswith(f"_{cls.__name__.lstrip('_')}__") and not said.is_transient and said.more.get("name") is None:
        expected = "one underscore, or a name= for the snapshot (Python puts the class's name into one with two)"
        raise TableError(expected, f"`{attribute}`", path=(attribute,))


def _check_reachable(made: type) -> None:
    """Refuse a class in which something else has taken the place of an inherited field."""
    own = {each.name for each in dataclasses.fields(made)}
    declared = (base for base in made.__mro__ if "__vmstate__" in vars(base))
    for attribute in (each.name for base in declared for each in dataclasses.fields(base) if each.name in _slots(base)):
        there = inspect.getattr_static(made, attribute, None)
        is_set = there.fset is not None if isinstance(there, property) else hasattr(type(there), "__set__")
        if not is_set or attribute not in own:
            expected = f"an annotation beside `{attribute}`, as it is a field of a base"
            raise TableError(expected, f"{brief(there)} in its place", path=(attribute,))


def _own_fields(base: type) -> tuple[Field, ...]:
    table: Table | None = vars(base).get("__vmstate__")
    return table.fields if table else ()


def _said(cls: type, attribute: str) -> _Said:
    value = vars(cls).get(attribute, NO_DEFAULT)
    if isinstance(value, dataclasses.Field):
        raise TableError("`tv.field` or `tv.transient`", "`dataclasses.field`", path=(attribute,))
    if isinstance(value, MemberDescriptorType):
        value = NO_DEFAULT  # a slot of its own
    if not isinstance(value, _Said):
        return _Said(value, None, {})
    try:
        if value.is_transient:
            check_keywords("tv.transient", value.more, TRANSIENT_KEYWORDS)
            check_default(value.default, value.default_factory)
            if value.default is NO_DEFAULT and value.default_factory is None:
                raise TableError("a default for a transient attribute: a load makes new objects", "none")
        else:
            check_keywords("tv.field", value.more, FIELD_KEYWORDS)
    except TableError as error:
        error.under(attribute)
        raise
    return value


def _resolved(cls: type) -> dict[str, Any]:
    """The annotations of a class and its bases as they are at run time."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        found = f"`{error.name}`, unknown so far: a struct cannot hold itself, and must stand before what holds it"
        hints = get_annotations(cls, format=Format.FORWARDREF)
        culprit = [attribute for attribute, hint in hints.items() if str(error.name) in str(hint)]
        expected = "annotations that are known when the class is made, at the top of a module"
        raise TableError(expected, found, path=tuple(culprit[:1])) from None
    except TypeError as error:
        raise TableError("annotations that are types", str(error)) from None


def _field(attribute: str, hint: Any, said: _Said) -> Field:
    more = dict(said.more)
    name = more.pop("name", None)
    return Field(
        attribute if name is None else name,
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
    # PyPy has no offset, and types in C no attribute.
    if any("__weakref__" in vars(base) or getattr(base, "__weakrefoffset__", 0) for base in cls.__mro__[1:]):
        inherited.add("__weakref__")
    own = {key for key, value in vars(plain).items() if isinstance(value, MemberDescriptorType)}
    body = {key: value for key, value in vars(plain).items() if key not in {*said, *own, KEPT, "__dict__", "__weakref__"}}
    slots = dict.fromkeys((*said, *_slots(cls), KEPT, "__weakref__"))
    body["__slots__"] = tuple(each for each in slots if each not in inherited)
    body.setdefault("__eq__", _equal)
    try:
        made = type(cls)(cls.__name__, cls.__bases__, body)
    except TypeError as error:  # arguments that its class statement had, for a metaclass or __init_subclass__
        raise TableError("a class that can be made again with slots", str(error)) from error
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
    has_dict = any("__dict__" in vars(base) for base in made.__mro__)
    if slots != {*fields, KEPT} or has_dict or not all(each.init for each in fields.values()):
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

"""The classes of each library, made of a shape as its users would write them."""

from __future__ import annotations

import dataclasses
import sys
from array import array
from collections.abc import Callable
from functools import lru_cache, partial
from types import ModuleType
from typing import Annotated, Any, Final, TypeAlias

import tagged_vmstate as tv
from benchmarks.shapes import Field, Shape

Classes: TypeAlias = "dict[str, type[Any]]"
"""The class of each shape, by its name."""
_PLAIN: Final = {"bool": bool, "buffer": bytes}
_WIRE: Final[dict[str, Any]] = {
    **{kind: getattr(tv, kind) for kind in ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64")},
    "bool": tv.boolean,
}

_COUNTED: Final[dict[str, Any]] = {
    "": bytes,
    "bytearray": bytearray,
    "list": list[tv.uint32],
    "array": Annotated[array, tv.uint32],
}
"""What has a length, by its holder; a buffer needs none."""


@lru_cache
def dataclass_of(shape: Shape, *, slots: bool = True) -> Classes:
    """Dataclasses; in a module, because `pickle` looks them up by name."""
    module = ModuleType(f"devices{len(sys.modules)}")
    sys.modules[module.__name__] = module
    return _classes(shape, partial(_dataclass, module, slots=slots))


def tagged(shape: Shape) -> Classes:
    """Classes under `@vmstate`; a machine has none of its own."""
    return _classes(shape, _tagged)


def structs(msgspec: Any, shape: Shape) -> Classes:
    """Structs of msgspec, with ranges."""
    return _classes(shape, partial(_struct, msgspec))


def models(pydantic: Any, shape: Shape) -> Classes:
    """Models of pydantic, strict, with ranges."""
    return _classes(shape, partial(_model, pydantic))


def _bounded(field: Field, classes: Classes, within: Callable[..., Any]) -> Any:
    """The type of a field, its range and length said by `within`: msgspec's `Meta` or pydantic's `Field`."""
    if field.struct:
        return classes[field.struct.name]
    if field.kind == "buffer":
        return Annotated[bytes, within(max_length=field.length)]
    if field.range is None:
        return _PLAIN[field.kind]
    least, greatest = field.range
    number = Annotated[int, within(ge=least, le=greatest) if greatest < 1 << 63 else within(ge=least)]
    return Annotated[list[number], within(max_length=field.length)] if field.holder else number


def _struct(msgspec: Any, shape: Shape, classes: Classes) -> type[Any]:
    fields = [
        (field.name, _bounded(field, classes, msgspec.Meta), *_default(field, classes, msgspec.field)) for field in shape.fields
    ]
    made: type[Any] = msgspec.defstruct(shape.name, fields, kw_only=True)
    return made


def _model(pydantic: Any, shape: Shape, classes: Classes) -> type[Any]:
    fields: dict[str, Any] = {}
    for field in shape.fields:
        [default] = _default(field, classes, pydantic.Field) or (...,)
        fields[field.name] = (_bounded(field, classes, pydantic.Field), default)
    made: type[Any] = pydantic.create_model(shape.name, __config__=pydantic.ConfigDict(strict=True), **fields)
    return made


def _classes(shape: Shape, one: Callable[[Shape, Classes], type[Any]]) -> Classes:
    found: Classes = {}
    for name, each in shape.shapes().items():
        found[name] = one(each, found)
    return found


def _default(field: Field, classes: Classes, factory: Callable[..., Any]) -> tuple[Any, ...]:
    """The default of a field: a value, or of a struct what its library's `factory` makes of the class; nothing where required."""
    if field.struct:
        return (factory(default_factory=classes[field.struct.name]),)
    return () if field.default is None else (field.default,)


def _dataclass(module: ModuleType, shape: Shape, classes: Classes, *, slots: bool) -> type[Any]:
    fields: list[Any] = [
        (field.name, _plain_type(field, classes), *_default(field, classes, dataclasses.field)) for field in shape.fields
    ]
    made = dataclasses.make_dataclass(shape.name, fields, slots=slots)
    made.__module__ = module.__name__  # from 3.12 on, make_dataclass puts that of its caller there
    setattr(module, shape.name, made)
    return made


def _plain_type(field: Field, classes: Classes) -> Any:
    if field.struct:
        return classes[field.struct.name]
    return list[int] if field.holder else _PLAIN.get(field.kind, int)


def _tagged(shape: Shape, classes: Classes) -> type[Any]:
    body = {field.name: each for field in shape.fields for each in _default(field, classes, tv.field)}
    hints = {field.name: _hint(field, classes) for field in shape.fields}
    made: type[Any] = tv.vmstate(type(shape.name, (), {"__annotations__": hints, **body}))
    return made


def _hint(field: Field, classes: Classes) -> Any:
    if field.struct:
        return classes[field.struct.name]
    if field.length is None:
        return _WIRE[field.kind]
    counted = _array() if field.holder == "numpy" else _COUNTED[field.holder]
    return Annotated[counted, tv.Length(field.length)]


def _array() -> Any:
    import numpy as np

    return np.ndarray[Any, np.dtype[np.uint32]]

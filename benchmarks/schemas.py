"""The schemas of peers that have one of their own: Avro's as JSON, protobuf's as a descriptor made at run time."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.shapes import Field, Shape

_PACKAGE: Final = "bench"
_AVRO: Final = {"bool": "boolean", "buffer": "bytes", "uint32": "long", "uint64": "long", "int64": "long"}
_PROTOBUF: Final = {
    **dict.fromkeys(("uint8", "uint16", "uint32"), "TYPE_UINT32"),
    **dict.fromkeys(("int16", "int32"), "TYPE_SINT32"),
    "uint64": "TYPE_UINT64",
    "int64": "TYPE_SINT64",
    "bool": "TYPE_BOOL",
    "buffer": "TYPE_BYTES",
    "struct": "TYPE_MESSAGE",
}


def avro(shape: Shape) -> Any:
    """A record. Avro's largest integer has 64 bits and a sign: a uint64 has to be wrapped into one."""
    return _record(shape, set())


def _record(shape: Shape, known: set[str]) -> Any:
    """A record where its name comes first, and its name from then on."""
    if shape.name in known:
        return shape.name
    known.add(shape.name)
    fields = [{"name": field.name, "type": _avro(field, known)} for field in shape.fields]
    return {"type": "record", "name": shape.name, "fields": fields}


def _avro(field: Field, known: set[str]) -> Any:
    if field.struct:
        return _record(field.struct, known)
    if field.holder:
        return {"type": "array", "items": _AVRO.get(field.kind, "int")} if field.holder == "list" else "bytes"
    return _AVRO.get(field.kind, "int")


def message(shape: Shape, descriptors: Any, pools: Any, factory: Any) -> Any:
    """The message class of a shape, from protobuf's `descriptor_pb2`, `descriptor_pool` and `message_factory`."""
    file = descriptors.FileDescriptorProto(name=f"{shape.name}.proto", package=_PACKAGE, syntax="proto3")
    for each in shape.shapes().values():
        described = file.message_type.add(name=each.name)
        for field in each.fields:
            described.field.add(**_described(field, descriptors.FieldDescriptorProto))
    pool = pools.DescriptorPool()
    pool.Add(file)
    return factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{shape.name}"))


def _described(field: Field, kinds: Any) -> dict[str, Any]:
    is_block = field.holder not in {"", "list"}
    label = kinds.LABEL_REPEATED if field.holder == "list" else kinds.LABEL_OPTIONAL
    found = {
        "name": field.name,
        "number": field.number,
        "label": label,
        "type": getattr(kinds, "TYPE_BYTES" if is_block else _PROTOBUF[field.kind]),
    }
    return {**found, "type_name": f".{_PACKAGE}.{field.struct.name}"} if field.struct else found

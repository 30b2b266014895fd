"""Who takes part. A contestant is a row: what it needs, what it says of itself, and how its codec is made of a shape.

Every codec takes and gives its library's own objects, unless its row says otherwise.
"""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeAlias
from unittest import mock

import tagged_vmstate as tv
from benchmarks import schemas
from benchmarks.classes import dataclass_of, models, structs, tagged
from benchmarks.generated import Adapt, Pair, dicts, messages, positional
from benchmarks.shapes import Shape, Values, make, plain
from tagged_vmstate import layout, prepared, saver
from tagged_vmstate.plan import plan
from tagged_vmstate.template import StraightPacker, StraightUnpacker

OURS: Final = "tagged-vmstate"
"""What all others are compared with."""
YARDSTICK: Final = "msgpack + generated dicts"
"""What a user in a hurry writes by hand: the peer that counts."""
MSGSPEC: Final = "msgspec Struct with ranges (C)"
STRUCT: Final = "struct, generated code, positional"
PROTOBUF: Final = "protobuf + copy to dataclasses"
PICKLE: Final = "pickle 5"
STRAIGHT: Final = f"{OURS}, nothing compiled"
FIELD_BY_FIELD: Final = f"{OURS}, field by field"
Encode: TypeAlias = "Callable[[Any], bytes]"
Decode: TypeAlias = "Callable[[bytes], Any]"


@dataclass(frozen=True, slots=True)
class Codec:
    """One shape under one contestant.

    Attributes:
        encode: A state to bytes.
        decode: Bytes to a state.
        make: Plain values to a state.
        plain: A state to plain values.
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    make: Callable[[Values], Any]
    plain: Callable[[Any], Values]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of a table.

    Attributes:
        name: What it is called.
        build: Its codec, from a shape and the modules that it needs.
        needs: Module -> what to install for it; Python's own need nothing.
        checks: What a load checks, beside the form of the bytes.
        names: What the bytes say of the fields, beside their values.
        holders: What it can have arrays of numbers in.
        evolves: Whether it loads a layout that is not its own.
    """

    name: str
    build: Callable[..., Codec]
    needs: Mapping[str, str] = field(default_factory=dict)
    checks: str = "-"
    names: str = "names"
    holders: tuple[str, ...] = ("list",)
    evolves: bool = False

    def missing(self) -> str | None:
        """What to install; None where nothing is missing."""
        for module, package in self.needs.items():
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:
                return package
        return None

    def codec(self, shape: Shape) -> Codec:
        """Its codec for a shape."""
        return self.build(shape, *map(importlib.import_module, self.needs))


def _codec(shape: Shape, encode: Encode, decode: Decode, classes: Mapping[str, Any]) -> Codec:
    return Codec(encode, decode, partial(make, classes, shape), partial(plain, shape))


def _paired(shape: Shape, encode: Encode, decode: Decode, pair: Pair) -> Codec:
    """Dataclasses that generated code turns into what a library takes, and back."""
    dump, load = pair.dump, pair.load
    return _codec(shape, lambda state: encode(dump(state)), lambda data: load(decode(data)), dataclass_of(shape))


def _dicts(shape: Shape, encode: Encode, decode: Decode, adapt: Adapt | None = None) -> Codec:
    return _paired(shape, encode, decode, dicts(shape, dataclass_of(shape), adapt))


class _Board:
    """The devices of a machine by their names, and the machine."""

    def __init__(self, **states: Any) -> None:
        self.states = states
        self.machine = tv.Machine(states.values())


def _default_board(shape: Shape, classes: Mapping[str, Any]) -> _Board:
    return _Board(**{field.name: classes[field.struct.name]() for field in shape.fields if field.struct})


def _ours(shape: Shape) -> Codec:
    return _tagged(shape, tagged(shape))


def _straight(shape: Shape) -> Codec:
    """This library where there was no compiler. Its templates are made here, before others are."""
    with mock.patch.object(saver, "Packer", StraightPacker), mock.patch.object(layout, "Unpacker", StraightUnpacker):
        classes = tagged(shape)
        found = _tagged(shape, classes)
        state = _default_board(shape, classes) if shape.is_machine else classes[shape.name]()
        for _ in range(4 * prepared.USES):
            found.decode(found.encode(state))
    return found


def _field_by_field(shape: Shape) -> Codec:
    """This library without its templates: its tables are never used often enough for them."""
    with mock.patch.object(prepared, "USES", sys.maxsize):
        classes = tagged(shape)
        for kind in classes.values():
            plan(((kind.__vmstate__, 0),))
        return _tagged(shape, classes)


def _tagged(shape: Shape, classes: Mapping[str, Any]) -> Codec:
    if not shape.is_machine:
        kind = classes[shape.name]
        return _codec(shape, tv.dumps, lambda data: tv.loads(data, kind), classes)
    board = _default_board(shape, classes)

    def encode(state: _Board) -> bytes:
        file = io.BytesIO()
        state.machine.save(file)
        return file.getvalue()

    def decode(data: bytes) -> Mapping[str, Any]:
        board.machine.load(data)
        return board.states

    return _codec(shape, encode, decode, {**classes, shape.name: _Board})


def _msgspec(shape: Shape, msgspec: Any) -> Codec:
    classes = structs(msgspec, shape)
    decoder = msgspec.msgpack.Decoder(classes[shape.name])
    return _codec(shape, msgspec.msgpack.Encoder().encode, decoder.decode, classes)


def _struct(shape: Shape) -> Codec:
    classes = dataclass_of(shape)
    pair = positional(shape, classes)
    return _codec(shape, pair.dump, pair.load, classes)


def _ormsgpack(shape: Shape, ormsgpack: Any) -> Codec:
    encode = partial(ormsgpack.packb, option=ormsgpack.OPT_SERIALIZE_NUMPY)
    return _codec(shape, encode, ormsgpack.unpackb, dataclass_of(shape, slots=False))


def _protobuf(shape: Shape, descriptors: Any, pools: Any, factory: Any) -> Codec:
    message = schemas.message(shape, descriptors, pools, factory)
    pair = messages(shape, dataclass_of(shape), message)
    return _paired(shape, message.SerializeToString, message.FromString, pair)


def _pydantic(shape: Shape, pydantic: Any, msgpack: Any) -> Codec:
    classes = models(pydantic, shape)
    validate = classes[shape.name].model_validate
    return _codec(shape, lambda state: msgpack.packb(state.model_dump()), lambda data: validate(msgpack.unpackb(data)), classes)


def _cattrs(shape: Shape, preconf: Any, _msgpack: Any) -> Codec:
    classes = dataclass_of(shape)
    converter, kind = preconf.make_converter(detailed_validation=False), classes[shape.name]
    return _codec(shape, converter.dumps, lambda data: converter.loads(data, kind), classes)


def _pickle(shape: Shape) -> Codec:
    return _codec(shape, partial(pickle.dumps, protocol=5), pickle.loads, dataclass_of(shape, slots=False))


def _avro(shape: Shape, fastavro: Any) -> Codec:
    schema = fastavro.parse_schema(schemas.avro(shape))

    def encode(record: Any) -> bytes:
        file = io.BytesIO()
        fastavro.writer(file, schema, [record])
        return file.getvalue()

    return _dicts(shape, encode, lambda data: next(fastavro.reader(io.BytesIO(data))), _SIGNED)


def _ion(shape: Shape, ion: Any) -> Codec:
    bare = ion.IonPyValueModel.MAY_BE_BARE
    return _dicts(shape, ion.dumps, partial(ion.loads, value_model=bare))


_SIGNED: Final[Adapt] = {"uint64": (f"({{}} ^ {1 << 63}) - {1 << 63}", f"({{}} + {1 << 63}) ^ {1 << 63}")}
"""A uint64 in a library whose largest integer is an int64."""
_HEX: Final[Adapt] = {"buffer": ("{}.hex()", "bytes.fromhex({})")}
"""A buffer in a library that has text alone."""
_MSGPACK: Final = {"msgpack": "msgpack"}
_PROTOBUF_NEEDS: Final = {
    f"google.protobuf.{module}": "protobuf" for module in ("descriptor_pb2", "descriptor_pool", "message_factory")
}
_ALL: Final = ("list", "array", "numpy")

_OURS: Final = Contestant(
    OURS, _ours, checks="type, range, length, sum, all names", names="name, type, length, flags", holders=_ALL, evolves=True
)
_ROWS: Final = (
    _OURS,
    replace(_OURS, name=STRAIGHT, build=_straight, holders=(), evolves=False),
    replace(_OURS, name=FIELD_BY_FIELD, build=_field_by_field),
    Contestant(MSGSPEC, _msgspec, {"msgspec": "msgspec"}, checks="type, range", evolves=True),
    Contestant(STRUCT, _struct, names="-", holders=_ALL),
    Contestant("ormsgpack (dataclass in, dict out)", _ormsgpack, {"ormsgpack": "ormsgpack"}),
    Contestant(YARDSTICK, lambda shape, msgpack: _dicts(shape, msgpack.packb, msgpack.unpackb), _MSGPACK, holders=_ALL),
    Contestant(
        "orjson + generated dicts",
        lambda shape, orjson: _dicts(shape, orjson.dumps, orjson.loads, _HEX),
        {"orjson": "orjson"},
    ),
    Contestant(PROTOBUF, _protobuf, _PROTOBUF_NEEDS, "wire type", "numbers", holders=_ALL, evolves=True),
    Contestant(
        "cbor2 + generated dicts",
        lambda shape, cbor2: _dicts(shape, cbor2.dumps, cbor2.loads),
        {"cbor2": "cbor2"},
        holders=_ALL,
    ),
    Contestant("pydantic strict + msgpack", _pydantic, {"pydantic": "pydantic", **_MSGPACK}, checks="type, range", evolves=True),
    Contestant("cattrs + msgpack", _cattrs, {"cattrs.preconf.msgpack": "cattrs", **_MSGPACK}, checks="converts", evolves=True),
    Contestant(PICKLE, _pickle, holders=_ALL),
    Contestant(
        "bson + generated dicts",
        lambda shape, bson: _dicts(shape, bson.encode, bson.decode, _SIGNED),
        {"bson": "pymongo"},
        holders=_ALL,
    ),
    Contestant("Avro container file + generated dicts", _avro, {"fastavro": "fastavro"}, "schema", "the schema", holders=_ALL),
    Contestant("amazon.ion + generated dicts", _ion, {"amazon.ion.simpleion": "amazon.ion"}, holders=_ALL),
)
CONTESTANTS: Final = {row.name: row for row in _ROWS}

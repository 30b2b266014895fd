"""Every wire type: its bytes, its edges, its JSON, and what it refuses."""

from __future__ import annotations

import contextlib
import math
import re
from array import array
from dataclasses import dataclass
from typing import Any, Final

import msgpack
import pytest

from tagged_vmstate import wire
from tagged_vmstate.errors import FormatError, LimitError, StateError
from tagged_vmstate.records import Record, decode_all, encode, from_json, to_json, wire_type
from tagged_vmstate.wire import APART, Opaque, equal, float_bits, float_from_bits
from tagged_vmstate.wiretype import brief


def _foreign(kind: str, packed: str, length: int | None = None) -> bytes:
    """A field `f`, its value in the hex of some MessagePack writer."""
    return b"\x95\xa1f" + Opaque.of(kind).raw + Opaque.of(length).raw + b"\x00" + bytes.fromhex(packed)


@dataclass(frozen=True)
class Case:
    """A value of a type, the MessagePack object that it is (in hex), and its JSON."""

    type: str
    length: int | None
    value: Any
    packed: str
    json: Any

    def record(self) -> Record:
        return Record("f", self.type, self.length, self.value)

    def encoded(self) -> bytes:
        return _foreign(self.type, self.packed, self.length)


QUIET32, SIGNALLING32, NEGATIVE32 = (float_from_bits(bits, 4) for bits in (0x7FC00001, 0x7F800001, 0xFFC12345))
QUIET64, SIGNALLING64 = (float_from_bits(bits, 8) for bits in (0x7FF8000000000123, 0xFFF0000000000001))

CASES = [
    Case("bool", None, True, "c3", True),
    Case("bool", None, False, "c2", False),
    Case("bool", 3, [True, False, True], "c403 010001", [True, False, True]),
    Case("bool", 0, [], "c400", []),
    Case("uint8", None, 0, "cc 00", 0),
    Case("uint8", None, 255, "cc ff", 255),
    Case("uint16", None, 65535, "cd ffff", 65535),
    Case("uint32", None, 7, "ce 00000007", 7),
    Case("uint32", None, 2**32 - 1, "ce ffffffff", 2**32 - 1),
    Case("uint64", None, 2**64 - 1, "cf ffffffffffffffff", 2**64 - 1),
    Case("int8", None, -128, "d0 80", -128),
    Case("int8", None, 127, "d0 7f", 127),
    Case("int16", None, -32768, "d1 8000", -32768),
    Case("int32", None, -1, "d2 ffffffff", -1),
    Case("int32", None, 2**31 - 1, "d2 7fffffff", 2**31 - 1),
    Case("int64", None, -(2**63), "d3 8000000000000000", -(2**63)),
    Case("int64", None, 2**63 - 1, "d3 7fffffffffffffff", 2**63 - 1),
    Case("timer", None, -1, "d3 ffffffffffffffff", -1),
    Case("timer", 2, [-1, 5], "c410 ffffffffffffffff 0500000000000000", [-1, 5]),
    Case("uint8", 2, [1, 255], "c402 01ff", [1, 255]),
    Case("int8", 2, [-1, 127], "c402 ff7f", [-1, 127]),
    Case("uint16", 2, [1, 0xABCD], "c404 0100 cdab", [1, 0xABCD]),
    Case("int16", 1, [-2], "c402 feff", [-2]),
    Case("uint32", 2, [1, 0x01020304], "c408 01000000 04030201", [1, 0x01020304]),
    Case("int32", 1, [-(2**31)], "c404 00000080", [-(2**31)]),
    Case("uint64", 1, [2**64 - 1], "c408 ffffffffffffffff", [2**64 - 1]),
    Case("int64", 1, [-(2**63)], "c408 0000000000000080", [-(2**63)]),
    Case("float32", None, 1.5, "ca 3fc00000", 1.5),
    Case("float32", None, -0.0, "ca 80000000", -0.0),
    Case("float32", None, 2.0**-149, "ca 00000001", 2.0**-149),
    Case("float32", None, math.inf, "ca 7f800000", "inf:7f800000"),
    Case("float32", None, QUIET32, "ca 7fc00001", "nan:7fc00001"),
    Case("float32", None, SIGNALLING32, "ca 7f800001", "nan:7f800001"),
    Case("float32", None, NEGATIVE32, "ca ffc12345", "nan:ffc12345"),
    Case("float32", 2, [SIGNALLING32, 1.0], "c408 0100807f 0000803f", ["nan:7f800001", 1.0]),
    Case("float64", None, 0.1, "cb 3fb999999999999a", 0.1),
    Case("float64", None, -math.inf, "cb fff0000000000000", "-inf:fff0000000000000"),
    Case("float64", None, 5e-324, "cb 0000000000000001", 5e-324),
    Case("float64", None, QUIET64, "cb 7ff8000000000123", "nan:7ff8000000000123"),
    Case("float64", None, SIGNALLING64, "cb fff0000000000001", "nan:fff0000000000001"),
    Case("float64", 1, [SIGNALLING64], "c408 010000000000f0ff", ["nan:fff0000000000001"]),
    Case("buffer", 3, b"\x00\x1c\xff", "c403 001cff", "00 1c ff"),
    Case("buffer", 0, b"", "c400", ""),
    Case("bitmap", 0, b"", "c400", ""),
    Case("bitmap", 1, b"\x01", "c401 01", "01"),
    Case("bitmap", 3, b"\x05", "c401 05", "05"),
    Case("bitmap", 16, b"\x05\xff", "c402 05ff", "05 ff"),
    Case("string", None, "é\x00", "a3 c3a900", "é\x00"),
    Case("string", 2, ["", "b"], "92 a0 a1 62", ["", "b"]),
    Case("sparse", 100, ((0, b"ab"), (98, b"cd")), "94 00 c402 6162 62 c402 6364", {"0x0": "6162", "0x62": "6364"}),
    Case("sparse", 1 << 40, (), "90", {}),
    Case("struct", None, (Record("a", "uint8", None, 9),), "91 95 a161 a575696e7438 c0 00 cc09", [{"name": "a", "type": "uint8", "value": 9}]),
    Case("struct", None, None, "c0", None),
    Case("struct", None, (), "90", []),
    Case("struct", 2, (None, ()), "92 c0 90", [None, []]),
    Case("pci config", 2, Opaque(b"\xc4\x02\x86\x80"), "c402 8680", {"$hex": "86 80"}),
    Case("future", None, Opaque(b"\x81\xa1a\xca\x3f\x80\x00\x00"), "81 a161 ca3f800000", {"a": {"$msgpack": "ca3f800000"}}),
    Case("future", None, Opaque(b"\x81\xa1a\x01"), "81 a161 01", {"a": 1}),
]  # fmt: skip


def _plain(value: Any) -> Any:
    """A value in a form that compares by bits."""
    if isinstance(value, float):
        return float_bits(value, 8)
    if isinstance(value, memoryview):
        return value.tobytes()
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.type}-{case.packed[:20]}")
class TestEveryType:
    def test_value_to_bytes(self, case: Case) -> None:
        assert encode(case.record()).hex() == case.encoded().hex()

    def test_bytes_to_value_and_back(self, case: Case) -> None:
        [record] = decode_all(case.encoded())
        assert (record.type, record.length) == (case.type, case.length)
        assert encode(record.replace()) == case.encoded()
        if case.length is None and case.type != "struct":
            assert _plain(record.value) == _plain(case.value)

    def test_json_both_ways(self, case: Case) -> None:
        [record] = decode_all(case.encoded())
        assert to_json(record)["value"] == case.json
        assert encode(from_json(to_json(record))) == case.encoded()

    def test_a_foreign_decoder_reads_it(self, case: Case) -> None:
        name, kind, length, flags, _ = msgpack.unpackb(case.encoded(), strict_map_key=False)
        assert (name, kind, length, flags) == ("f", case.type, case.length, 0)

    def test_every_cut_is_refused(self, case: Case) -> None:
        encoded = case.encoded()
        for size in range(1, len(encoded)):
            with pytest.raises(FormatError, match="byte"):
                decode_all(encoded[:size])


@pytest.mark.parametrize(
    ("kind", "packed", "value"),
    [
        ("float64", "01", 1.0),
        ("float64", "00", 0.0),
        ("float64", "ff", -1.0),
        ("float64", "d3 8000000000000000", -(2.0**63)),
        ("float64", "cf fffffffffffff800", 2.0**64 - 2**11),
        ("float32", "ce 01000000", 2.0**24),
        ("float32", "cf ffffff0000000000", 2.0**64 - 2**40),
    ],
)
def test_a_float_is_read_from_an_integer_that_it_holds_exactly(kind: str, packed: str, value: float) -> None:
    """Encoders of languages with one kind of number write 1.0 as 1."""
    [record] = decode_all(_foreign(kind, packed))
    assert (record.value, type(record.value)) == (value, float)
    assert str(to_json(record)["value"]) == str(value)
    assert encode(from_json(to_json(record))) == _foreign(kind, packed)


DEFAULT: Final = Record("a", "uint8", None, 0, is_default=True)
USED: Final = Record("b", "future", None, Opaque(b"\xc0"))


@pytest.mark.parametrize(
    ("fields", "length", "path"),
    [
        ((DEFAULT, USED), None, ("b",)),
        (((DEFAULT,), None, (USED,)), 3, (2, "b")),
        ((DEFAULT, Record("t", "struct", None, (DEFAULT,))), None, ("t",)),
        ((Record("t", "struct", None, (DEFAULT, USED), is_default=True),), None, ("t", "b")),
    ],
)
def test_a_struct_flagged_as_default_has_only_flagged_fields(fields: Any, length: int | None, path: tuple[Any, ...]) -> None:
    """A loader that does not know the struct goes by its flag, and would lose what is in use in it."""
    lying = Record("s", "struct", length, fields, is_default=True)
    for record in (lying, from_json(to_json(lying))):
        with pytest.raises(StateError, match="expected only fields at their default in a struct") as refused:
            encode(record)
        assert refused.value.path == ("s", *path)


def test_the_bytes_of_a_struct_whose_flag_lies_are_refused() -> None:
    packed = encode(Record("s", "struct", None, (DEFAULT, Record("t", "struct", 1, ((USED,),)))))
    for flag, path, offset in (
        (packed.index(b"struct") + 7, ("s", "t"), 26),
        (packed.rindex(b"struct") + 7, ("s", "t", 0, "b"), 40),
    ):
        lying = packed[:flag] + b"\1" + packed[flag + 1 :]
        with pytest.raises(FormatError, match="only fields at their default in a struct that is flagged is_default") as refused:
            decode_all(lying)
        assert (refused.value.path, refused.value.offset) == (path, offset)


@pytest.mark.parametrize("value", [None, (), (DEFAULT,), (Record("t", "struct", None, None, is_default=True),)])
def test_a_flag_that_contradicts_nothing_is_kept(value: Any) -> None:
    for is_default in (True, False):
        [record] = decode_all(encode(Record("s", "struct", None, value, is_default)))
        assert record.is_default == is_default


@pytest.mark.parametrize("sign", [0, 1])
def test_each_bit_of_a_nan_is_kept_or_refused(sign: int) -> None:
    for bit in range(23):
        bits = sign << 31 | 0x7F800000 | 1 << bit
        [record] = decode_all(_foreign("float32", f"ca {bits:08x}"))
        value: Any = record.value
        assert float_bits(value, 4) == bits
        assert encode(record.replace()) == _foreign("float32", f"ca {bits:08x}")
    for bit in range(52):
        nan = float_from_bits(sign << 63 | 0x7FF << 52 | 1 << bit, 8)
        assert float_bits(nan, 8) == sign << 63 | 0x7FF << 52 | 1 << bit
        with contextlib.nullcontext() if bit >= 29 else pytest.raises(StateError, match="in its range"):
            encode(Record("f", "float32", None, nan))


@pytest.mark.parametrize(
    ("data", "words", "offset"),
    [
        ("95 a461626364", "the type of a field, snapshot has nothing more (truncated)", 6),
        ("95 a5 61626364", "5 bytes of the name of a field, snapshot has only 4 bytes before its end (truncated)", 2),
        ("95 d905 616263", "the name of a field, snapshot has a length of 5 with 3 bytes left (truncated)", 1),
        ("93 c0c0", "a field (an array of 5 items), snapshot has a length of 3 with 2 bytes left (truncated)", 0),
        ("93 c0c0c0", "a field (an array of 5 items), snapshot has an array of another length", 0),
        ("dc 0005 c0c0c0c0", "a field (an array of 5 items), snapshot has a length of 5 with 4 bytes left (truncated)", 0),
        ("95 a161 a3 6f6464 c0 00 93 c0c0", "a value of `odd`, snapshot has a length of 3 with 2 bytes left (truncated)", 9),
        ("95 a161 a3 6f6464 c0 00 d0", "1 bytes of a value of `odd`, snapshot has only 0 bytes before its end (truncated)", 10),
        ("95 a161 a3 6f6464 c0 00 92 c0 cc", "1 bytes of a value of `odd`", 12),
    ],
)
def test_a_cut_field_says_how_much_is_there_and_where(data: str, words: str, offset: int) -> None:
    with pytest.raises(FormatError, match=re.escape(f"expected {words}")) as caught:
        decode_all(bytes.fromhex(data), base=1000)
    assert caught.value.offset == 1000 + offset


def test_large_values_have_wide_heads() -> None:
    text, data = "x" * 70_000, bytes(70_000)
    records = (
        Record("s", "string", None, text),
        Record("b", "buffer", 70_000, data),
        Record("a", "string", 70_000, [""] * 70_000),
    )
    encoded = b"".join(map(encode, records))
    assert b"\xdb\x00\x01\x11\x70x" in encoded
    assert b"\xc6\x00\x01\x11\x70\0" in encoded
    assert b"\xdd\x00\x01\x11\x70\xa0" in encoded
    assert [record.value for record in decode_all(encoded)] == [text, data, ("",) * 70_000]


def test_arrays_are_blocks_not_lists() -> None:
    [record] = decode_all(encode(Record("f", "uint16", 3, [1, 2, 3])))
    value = record.value
    assert isinstance(value, memoryview)
    assert (value.format, value.readonly, value.tolist()) == ("H", True, [1, 2, 3])


def test_buffers_are_taken_as_blocks() -> None:
    block = array("I", [1, 2, 3])
    assert encode(Record("f", "uint32", 3, memoryview(block))) == encode(Record("f", "uint32", 3, [1, 2, 3]))


@pytest.mark.parametrize(
    ("kind", "packed", "value"),
    [
        ("uint32", "07", 7),
        ("uint32", "cc 07", 7),
        ("uint8", "d3 0000000000000007", 7),
        ("int64", "ff", -1),
        ("int64", "d0 ff", -1),
        ("uint64", "d2 00000001", 1),
        ("timer", "e0", -32),
        ("float32", "cb 3ff8000000000000", 1.5),
        ("float64", "ca 3fc00000", 1.5),
        ("string", "d9 01 61", "a"),
        ("string", "db 00000001 61", "a"),
    ],
)
def test_any_fitting_encoding_is_read_and_kept(kind: str, packed: str, value: object) -> None:
    data = _foreign(kind, packed)
    [record] = decode_all(data)
    assert record.value == value
    assert encode(record) == data
    assert encode(record.replace()) != data


@pytest.mark.parametrize(
    ("kind", "length", "packed", "words"),
    [
        ("uint8", None, "cd 0100", r"expected `uint8` \(0 to 255\), snapshot has 256 - at f \(byte 11\)"),
        ("uint8", None, "ff", r"expected `uint8` \(0 to 255\), snapshot has -1"),
        ("int8", None, "cc 80", r"expected `int8` \(-128 to 127\), snapshot has 128"),
        ("int64", None, "cf 8000000000000000", "expected `int64`"),
        ("uint32", None, "c3", "expected `uint32`, snapshot has true"),
        ("uint32", None, "ca 3f800000", "snapshot has a float"),
        ("uint32", None, "c0", "snapshot has nil"),
        ("bool", None, "01", "expected `bool`, snapshot has an integer"),
        ("float64", None, "cf 0020000000000001", r"expected `float64`, snapshot has the integer 9007199254740993, which it cannot hold exactly - at f \(byte 13\)"),
        ("float32", None, "ce 01000001", "snapshot has the integer 16777217, which it cannot hold exactly"),
        ("float32", None, "d2 feffffff", "snapshot has the integer -16777217"),
        ("float64", None, "c2", "expected `float64`, snapshot has false"),
        ("float64", 1, "91 01", "expected bytes"),
        ("uint8", None, "cb 3ff0000000000000", "expected `uint8`, snapshot has a float"),
        ("float32", None, "cb 3fb999999999999a", "a float that needs 64 bits"),
        ("float32", None, "cb 7e37e43c8800759c", "a float that needs 64 bits"),
        ("string", None, "c401 61", "expected `string`, snapshot has bytes"),
        ("string", None, "a2 c328", r"expected UTF-8, snapshot has byte 0xc3 - at f \(byte 13\)"),
        ("string", None, "a3 61c328", r"expected UTF-8, snapshot has byte 0xc3 - at f \(byte 14\)"),
        ("uint8", None, "80", "expected `uint8`, snapshot has a map"),
        ("uint8", None, "df 00000000", "expected `uint8`, snapshot has a map"),
        ("string", None, "a3 eda080", "expected UTF-8"),
        ("string", 2, "91 a0", r"expected 2 elements for `string\[2\]`, snapshot has 1"),
        ("buffer", 2, "c401 00", r"expected 2 bytes for `buffer\[2\]`, snapshot has 1"),
        ("buffer", 2, "a2 6161", r"expected `buffer\[2\]`, snapshot has a string"),
        ("buffer", None, "c400", "expected a length in bytes for `buffer`, snapshot has nil"),
        ("bitmap", 3, "c401 08", r"expected spare bits 0 in `bitmap\[3\]`"),
        ("bitmap", 10, "c402 0108", r"expected spare bits 0 in `bitmap\[10\]`, snapshot has 0x08 - at f \(byte 15\)"),
        ("uint16", 2, "c403 000000", r"expected 4 bytes for `uint16\[2\]`, snapshot has 3"),
        ("uint16", 2, "92 01 02", r"expected bytes for `uint16\[2\]`, snapshot has an array"),
        ("bool", 2, "c402 0102", "expected bytes 0 and 1"),
        ("sparse", 4, "92 03 c402 0000", r"expected runs of `sparse\[4\]`, none of them empty, ascending, not overlapping and inside it, snapshot has 2 bytes at 3"),
        ("sparse", 9, "94 04 c401 00 02 c401 00", "1 bytes at 2"),
        ("sparse", 9, "94 00 c402 0000 01 c401 00", "1 bytes at 1"),
        ("sparse", 9, "94 00 c400 00 c400", "0 bytes at 0"),
        ("sparse", 0, "92 00 c401 00", "1 bytes at 0"),
        ("sparse", 9, "91 00", "an odd number of items"),
        ("sparse", 9, "92 ff c401 00", "1 bytes at -1"),
        ("struct", None, "01", "expected `struct`"),
        ("struct", 1, "c0", r"expected an array for `struct\[1\]`, snapshot has nil"),
        ("struct", None, "91 01", "expected a field"),
        ("struct", None, "91 94 a161 a0 c0 00", "expected a field"),
        ("future", None, "c1", "the byte 0xc1"),
        ("uint8", 1 << 62, "c401 00", "expected 4611686018427387904 bytes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_words(kind: str, length: int | None, packed: str, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        decode_all(_foreign(kind, packed, length))
    assert caught.value.path[0] == "f"
    assert 0 < caught.value.offset < 60


class _Endless(list[str]):
    """A list of more elements than a head can say."""

    def __len__(self) -> int:
        return 1 << 32


@pytest.mark.parametrize(
    ("kind", "length", "value", "words"),
    [
        ("uint8", None, 256, r"expected `uint8` \(0 to 255\), got 256 - at f"),
        ("uint8", None, True, "expected `uint8`, got True"),
        ("uint8", None, "1", "expected `uint8`, got '1'"),
        ("uint8", 2, [1, 300], r"expected `uint8` \(0 to 255\), got 300 - at f\[1\]"),
        ("uint8", 2, [1, True], r"got True - at f\[1\]"),
        ("uint8", 2, [1], r"expected `uint8\[2\]`, got 1 elements"),
        ("uint8", 2, 5, r"expected `uint8\[2\]`, got 5"),
        ("bool", None, 1, "expected `bool`, got 1"),
        ("bool", 1, [1], r"expected `bool`, got 1 - at f\[0\]"),
        ("float32", None, 1e300, "in its range"),
        ("float32", None, QUIET64, "in its range"),
        ("float32", 2, [0.0, 1e300], r"at f\[1\]"),
        ("float64", None, "x", "expected `float64`"),
        ("buffer", 2, b"abc", r"expected `buffer\[2\]`, got 3 bytes"),
        ("buffer", None, b"", "expected a length in bytes"),
        ("bitmap", 3, b"\x08", "expected spare bits 0"),
        ("bitmap", 10, b"\x01\x08", r"expected spare bits 0 in `bitmap\[10\]`, got 0x08 in the last byte"),
        ("sparse", 0, ((0, b"a"),), r"runs of `sparse\[0\]`, none of them empty, ascending, not overlapping and inside it, got 1 bytes at 0"),
        ("sparse", 4, ((0, b"ab"), (1, b"c")), "got 1 bytes at 1"),
        ("sparse", 4, ((0, b"a"), (1, b"")), "got 0 bytes at 1"),
        ("sparse", 4, ((4, b""),), "got 0 bytes at 4"),
        ("string", None, "\ud800", "that UTF-8 can hold"),
        ("string", 1, [b"x"], r"expected `string`, got b'x' - at f\[0\]"),
        ("sparse", 4, ((3, b"ab"),), "none of them empty, ascending, not overlapping and inside it"),
        ("sparse", 4, (3,), r"\(offset, bytes\)"),
        ("sparse", 4, 5, r"expected `sparse\[4\]` as \(offset, bytes\) runs, got 5"),
        ("string", 2, "ab", r"expected `string\[2\]`, got 'ab'"),
        ("string", 2, ["a"], r"expected `string\[2\]`, got 1 elements"),
        ("buffer", 2, "ab", r"expected `buffer\[2\]`, got 'ab'"),
        ("struct", 2, 5, r"expected `struct\[2\]`, got 5"),
        ("string", 1 << 32, _Endless(), r"`string\[4294967296\]` that MessagePack can hold \(below 4 GiB\)"),
        ("struct", None, (1,), "a sequence of records"),
        ("struct", None, (Record("a", "uint8", None, -1),), r"got -1 - at f/a"),
        ("struct", 2, (None, (Record("a", "uint8", None, -1),)), r"got -1 - at f\[1\]/a"),
        ("struct", None, (Record("a", "uint8", None, 1),) * 2, "a name once among its siblings"),
        ("uint8", -1, [], "a length of 0"),
        ("future", None, 5, "a type that this build does not know"),
        ("future", None, Opaque(b"\x92\x01"), r"expected an object, got a length of 2 with 1 bytes left \(truncated\) - at f"),
        ("future", None, Opaque(b"\x91" * 65 + b"\xc0"), "expected at most 64 levels of nesting, got more - at f"),
        ("future", None, Opaque(b"\x01\x01"), "one MessagePack object"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused_in_words(kind: str, length: int | None, value: Any, words: str) -> None:
    with pytest.raises(StateError, match=words) as caught:
        encode(Record("f", kind, length, value))
    assert caught.value.path[0] == "f"


def _json(**changes: Any) -> dict[str, Any]:
    """A field in JSON with some of it changed, or left out where it is None."""
    found = {"name": "f", "type": "uint8", "value": 1} | changes
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], r"a field as an object, got \[\]"),
        (_json(name=5), 'a field with "name" as a string, got 5'),
        (_json(name=None), 'a field with "name" as a string, got nothing'),
        (_json(type=5), '"type" as a string, got 5 - at f'),
        (_json(length=True), '"length" as an integer, got True - at f'),
        (_json(length="1"), "\"length\" as an integer, got '1' - at f"),
        (_json(is_default=1), '"is_default" as true or false, got 1 - at f'),
        (_json(size=1, more=2), "no keys but is_default, length, msgpack, name, type, value, got 'more' - at f"),
        (_json(msgpack="zz"), "\"msgpack\" as the bytes of one field in hex, got 'zz' - at f"),
        (_json(msgpack=5), '"msgpack" as the bytes of one field in hex, got 5 - at f'),
        (_json(msgpack="c0"), "\"msgpack\" as the bytes of one field in hex, got 'c0' - at f"),
        (_json(msgpack="95a16601c0"), '"msgpack" as the bytes of one field in hex'),
        (_json(length=2), r"expected `uint8\[2\]` as a list, got 1 - at f"),
        (_json(type="struct"), "expected `struct` as a list of fields, or null, got 1 - at f"),
        (_json(type="struct", value=[_json(name=5)]), '"name" as a string, got 5 - at f'),
        (_json(type="struct", length=1, value=[[_json(type=5)]]), r'"type" as a string, got 5 - at f\[0\]/f'),
        (_json(type="buffer", length=1), "bytes as a string of hex digits, got 1 - at f"),
        (_json(type="buffer", length=1, value="0"), "bytes as a string of hex digits, got '0' - at f"),
        (_json(type="sparse", length=1), r"expected `sparse\[1\]` as {offset: hex}, got 1 - at f"),
        (_json(type="sparse", length=1, value={"x": "00"}), "expected {offset: hex}, got {'x': '00'} - at f"),
        (_json(type="sparse", length=1, value={"0": 5}), "expected {offset: hex}, got {'0': 5} - at f"),
        (_json(type="float64", value=math.inf), r"expected `float64` \(in its range\), got inf - at f"),
        (_json(type="float64", value="nan"), "or a string such as \"nan:7ff8000000000000\", got 'nan' - at f"),
        (_json(type="float32", value="nan:7fc0"), 'or a string such as "nan:7fc00000", got'),
        (_json(type="float32", value="nan:7fc0000x"), 'or a string such as "nan:7fc00000", got'),
        (_json(type="float32", value="nan:07fc00000"), 'or a string such as "nan:7fc00000", got'),
        (_json(type="float32", value="inf:7fc00000"), 'or a string such as "nan:7fc00000", got'),
        (_json(type="float32", value="1.0:3f800000"), 'or a string such as "nan:7fc00000", got'),
        (_json(type="float32", length=1, value="x"), r"expected `float32\[1\]` as a list, got 'x' - at f"),
        (_json(type="float32", length=2, value=[0.5, "x"]), r"or a string such as .*, got 'x' - at f\[1\]"),
        (_json(type="float32", value="nan:\u0667fc00000"), 'or a string such as "nan:7fc00000", got'),
        (
            _json(type="odd", value={"$msgpack": "9201"}),
            r"no MessagePack object: expected an object, got a length of 2 with 1 bytes left",
        ),
        (_json(type="odd", value={"$msgpack": "0101"}), "bytes after the MessagePack object"),
        (_json(type="odd", value={"$msgpack": 5}), "hex digits should be a string"),
        (_json(type="odd", value={"$hex": "0"}), "no pairs of hex digits"),
        (_json(type="odd", value={"a": {"$b": 1}}), r"a key that begins with \$ means"),
        (_json(type="odd", value=1 << 64), "expected `odd`"),
        (_json(type="odd", value="\ud800"), "surrogates not allowed"),
    ],
    ids=str,
)
def test_json_that_is_no_field_is_refused_in_words(value: Any, words: str) -> None:
    with pytest.raises(StateError, match=words):
        encode(from_json(value))


def test_a_message_shows_up_to_60_characters_of_a_value() -> None:
    assert brief("x" * 58) == repr("x" * 58)
    assert brief("x" * 59) == repr("x" * 59)[:57] + "..."


def test_types_are_printed_by_their_names() -> None:
    assert [repr(wire_type(name)) for name in ("uint8", "struct", "odd")] == [
        f"<wire type {name}>" for name in ("uint8", "struct", "odd")
    ]


def test_a_record_says_what_it_is_and_not_where_it_was() -> None:
    record = Record("f", "uint8", None, 1)
    assert record.offset == -1
    [read] = decode_all(encode(record), base=100)
    assert (read.offset, read.encoded) == (100, encode(record))
    assert read == record
    assert repr(read) == repr(record) == "Record(name='f', type='uint8', length=None, value=1, is_default=False)"


def test_json_says_which_field_is_at_its_default() -> None:
    assert to_json(Record("f", "uint8", None, 1, is_default=True)) == {
        "name": "f",
        "type": "uint8",
        "is_default": True,
        "value": 1,
    }


def test_a_length_has_64_bits() -> None:
    [record] = decode_all(encode(Record("f", "odd", (1 << 64) - 1, Opaque(b"\xc0"))))
    assert record.length == (1 << 64) - 1
    with pytest.raises(StateError, match=r"a length of 0 to 2\*\*64-1, got 18446744073709551616 - at f"):
        encode(Record("f", "odd", 1 << 64, Opaque(b"\xc0")))


def test_an_unknown_type_shows_only_what_it_holds() -> None:
    with pytest.raises(StateError, match="expected `odd`, got 5"):
        to_json(Record("f", "odd", None, 5))


@pytest.mark.parametrize(("name", "size"), [(b"\xa0", 0), (b"\xda\x01\x00" + b"x" * 256, 256)])
def test_a_name_of_another_size_is_refused(name: bytes, size: int) -> None:
    with pytest.raises(FormatError, match=rf"the name of a field, of 1 to 255 bytes, snapshot has one of {size} - at byte 1$"):
        decode_all(b"\x95" + name + b"\xa5uint8\xc0\x00\xcc\x01")
    with pytest.raises(FormatError, match=rf"the type of a field, of 1 to 255 bytes, snapshot has one of {size} - at f"):
        decode_all(b"\x95\xa1f" + name + b"\xc0\x00\xcc\x01")


def test_a_caller_with_no_room_left_gets_our_error() -> None:
    before = encode(Record("f", "uint8", None, 1))
    data = before + _nested_bytes(64)

    def down() -> None:
        try:
            down()
        except RecursionError:
            try:
                decode_all(data, base=100)
            except LimitError as error:
                if error.offset > 100:
                    raise
                raise RecursionError from None  # no room even for what is not nested: the call above tries again

    with pytest.raises(LimitError, match=rf"structs as deep as the caller leaves room for, .* - at byte {100 + len(before)}$"):
        down()


@pytest.mark.parametrize("name", ["", "x" * 256, "\ud800"])
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(StateError, match="of 1 to 255 bytes of UTF-8"):
        encode(Record(name, "uint8", None, 1))
    with pytest.raises(StateError, match="of 1 to 255 bytes of UTF-8"):
        encode(Record("f", name, None, Opaque(b"\xc0")))


def test_the_longest_name_and_any_character_are_taken() -> None:
    for name in ("x" * 255, "é" * 127, "../[0] \x00\n#1", "__class__"):
        data = encode(Record(name, "uint8", None, 1))
        assert decode_all(data)[0].name == name


def _nested(levels: int) -> Record:
    record = Record("leaf", "uint8", None, 1)
    for _ in range(levels):
        record = Record("s", "struct", None, (record,))
    return record


def _nested_bytes(levels: int) -> bytes:
    # An inner record is five items around the next one: built by hand, because the writer refuses it.
    head = b"\x95\xa1s\xa6struct\xc0\x00\x91"
    return head * levels + b"\x95\xa1l\xa5uint8\xc0\x00\xcc\x01"


def _objects() -> dict[int, tuple[bytes, str]]:
    """MessagePack's table of formats: first byte -> an object that begins with it, and what it is."""
    found: dict[int, tuple[bytes, str]] = dict.fromkeys((*range(0x80), *range(0xE0, 0x100)), (b"", "an integer"))
    for count in range(16):
        found[0x80 + count] = b"\xc0" * 2 * count, "a map"
        found[0x90 + count] = b"\xc0" * count, "an array"
    found |= {0xA0 + size: (b"x" * size, "a string") for size in range(32)}
    found |= {0xC0: (b"", "nil"), 0xC2: (b"", "false"), 0xC3: (b"", "true")}
    found |= {0xC4 + place: ((3).to_bytes(1 << place, "big") + b"abc", "bytes") for place in range(3)}
    found |= {0xC7 + place: ((3).to_bytes(1 << place, "big") + b"\5abc", "an extension object") for place in range(3)}
    found |= {0xCA: (bytes(4), "a float"), 0xCB: (bytes(8), "a float")}
    found |= {first + place: (bytes(1 << place), "an integer") for first in (0xCC, 0xD0) for place in range(4)}
    found |= {0xD4 + place: (b"\5" + bytes(1 << place), "an extension object") for place in range(5)}
    found |= {0xD9 + place: ((3).to_bytes(1 << place, "big") + b"abc", "a string") for place in range(3)}
    found |= {0xDC + place: ((3).to_bytes(2 << place, "big") + b"\xc0" * 3, "an array") for place in range(2)}
    found |= {0xDE + place: ((3).to_bytes(2 << place, "big") + b"\xc0" * 6, "a map") for place in range(2)}
    return {first: (bytes((first,)) + body, what) for first, (body, what) in found.items()}


OBJECTS = _objects()


def test_the_table_of_formats_is_whole() -> None:
    assert OBJECTS.keys() == {*range(256)} - {0xC1}
    for raw, _ in OBJECTS.values():
        msgpack.unpackb(raw, strict_map_key=False)


@pytest.mark.parametrize("first", sorted(OBJECTS), ids=hex)
def test_any_object_is_kept_as_it_stands_and_named_where_it_is_wrong(first: int) -> None:
    raw, what = OBJECTS[first]
    other = encode(Record("g", "uint8", None, 1))
    odd, behind = decode_all(_foreign("odd", raw.hex()) + other)
    assert (odd.value, behind.name) == (Opaque(raw), "g")
    for size in range(len(raw)):
        with pytest.raises(FormatError, match="truncated"):
            decode_all(_foreign("odd", raw[:size].hex()))
    kind = "uint8" if first in {0xC2, 0xC3} else "bool"
    with pytest.raises(FormatError, match=f"expected `{kind}`, snapshot has {what} - at f") as caught:
        decode_all(_foreign(kind, raw.hex()))
    assert caught.value.offset == 6 + len(kind)


@pytest.mark.parametrize("first", sorted(first for first, (_, what) in OBJECTS.items() if what == "an integer"), ids=hex)
def test_an_integer_of_any_width_is_what_msgpack_says(first: int) -> None:
    for byte in (b"\x12", b"\x7f", b"\x80", b"\xff"):
        raw = OBJECTS[first][0][:1] + byte * (len(OBJECTS[first][0]) - 1)
        value = msgpack.unpackb(raw)
        [record] = decode_all(_foreign("uint64" if value >= 0 else "int64", raw.hex()))
        assert record.value == value


@pytest.mark.parametrize("bits", [0, 1, 4, 5, 7, 8, 15, 16, 31, 32, 63, 64])
def test_heads_are_in_the_shortest_form(bits: int) -> None:
    """As msgpack writes them, on both sides of each edge."""
    for number in ((1 << bits) - 1, 1 << bits):
        if number < 1 << 64:
            assert wire.pack_uint(number) == msgpack.packb(number)
        else:
            with pytest.raises(OverflowError):
                wire.pack_uint(number)
        if number < 1 << 17:
            assert wire.pack_str("x" * number) == msgpack.packb("x" * number)
            assert wire.pack_bin(bytes(number)) == msgpack.packb(bytes(number))
            assert wire.pack_array_head(number) + b"\xc0" * number == msgpack.packb([None] * number)
    assert wire.pack_bin_head((1 << 32) - 1) == b"\xc6\xff\xff\xff\xff"
    with pytest.raises(OverflowError):
        wire.pack_bin_head(1 << 32)


def test_64_levels_of_structs_are_taken_and_65_refused() -> None:
    assert decode_all(encode(_nested(64)))
    with pytest.raises(StateError, match="at most 64 levels"):
        encode(_nested(65))
    assert decode_all(_nested_bytes(64))
    for levels in (65, 100_000):
        with pytest.raises(LimitError, match="at most 64 levels") as caught:
            decode_all(_nested_bytes(levels), base=1000)
        assert caught.value.offset == 1000 + 64 * 13 + 12, "where the value of the 65th would be"
    assert decode_all(_foreign("odd", "91" * 64 + "c0"))
    for levels in (65, 1000):
        with pytest.raises(LimitError, match="at most 64 levels of nesting") as caught:
            decode_all(_foreign("odd", "91" * levels + "c0"), base=1000)
        assert caught.value.offset == 1000 + 9 + 65, "after the head of the 65th"


@pytest.mark.parametrize("empty", ["90", "80", "dc0000", "dd00000000", "de0000", "df00000000"])
def test_an_empty_array_or_map_is_a_level(empty: str) -> None:
    assert decode_all(_foreign("odd", "91" * 63 + empty))
    with pytest.raises(LimitError, match="at most 64 levels of nesting"):
        decode_all(_foreign("odd", "91" * 64 + empty))
    with pytest.raises(LimitError, match="at most 64 levels of nesting"):
        decode_all(_foreign("odd", "92" * 64 + empty + "c0" * 64))


def test_flags_other_than_is_default_are_refused() -> None:
    data = bytearray(encode(Record("f", "uint8", None, 1, is_default=True)))
    assert decode_all(bytes(data))[0].is_default
    for flags in (2, 3, 0x7F):
        data[-3] = flags
        with pytest.raises(FormatError, match=r"flags 0 or 1 \(is_default\); all other bits are reserved, snapshot has 0x"):
            decode_all(bytes(data))


def test_two_siblings_of_one_name_are_refused_at_every_level() -> None:
    one = encode(Record("f", "uint8", None, 1))
    with pytest.raises(FormatError, match=r"a name once among its siblings, snapshot has it twice - at f \(byte 13\)"):
        decode_all(one + one)
    with pytest.raises(FormatError, match="- at s/f"):
        decode_all(b"\x95\xa1s\xa6struct\xc0\x00\x92" + one + one)


@pytest.mark.parametrize("place", [0, 1, APART - 1, APART, 2 * APART])
def test_big_values_are_equal_only_where_every_byte_is(place: int) -> None:
    data = bytes(2 * APART + 1)
    other = bytearray(data)
    assert equal((data[:5], memoryview(other)), (data[:5], data))
    other[place] = 1
    assert not equal((data[:5], memoryview(other)), (data[:5], data))
    assert not equal((memoryview(data)[1:],), (data,))
    assert not equal((data,), (data, b""))


def test_json_nested_too_deep_is_no_object() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match=r"^values nested too deep$"):
        Opaque.from_json(deep)
    while isinstance(deep, list):
        deep = deep.pop()  # one after the other, for a stack of any size

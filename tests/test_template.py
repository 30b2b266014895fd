"""Templates, in Python and compiled: each packs and unpacks what is worked out here by hand, and refuses what is odd.

Where no compiler was at hand, the one in Python is tried twice; `.ci/run` makes sure that there is another.
"""

from __future__ import annotations

import enum
import gc
import struct
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tagged_vmstate import template
from tagged_vmstate.template import Hole, Place, StraightPacker, StraightUnpacker

PACKERS: Final = {"straight": StraightPacker, "installed": template.Packer}
UNPACKERS: Final = {"straight": StraightUnpacker, "installed": template.Unpacker}
packers = pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
unpackers = pytest.mark.parametrize("unpacker", UNPACKERS.values(), ids=UNPACKERS)

REFUSED: Final = (ValueError, OverflowError, TypeError, struct.error)
"""What is raised for a row or for bytes that do not fit: any of these."""

compiled = pytest.mark.skipif(
    not template.IS_COMPILED, reason="nothing was compiled; where .ci/run runs, something must have been"
)

RANGES: Final = {
    code: (-(1 << bits - 1), (1 << bits - 1) - 1) if code.islower() else (0, (1 << bits) - 1)
    for code, bits in {"b": 8, "B": 8, "h": 16, "H": 16, "i": 32, "I": 32, "q": 64, "Q": 64}.items()
}
"""What a number of each code can be."""


class Speed(enum.IntEnum):
    NONE = 0
    SLOW = 1
    FAST = 9


class Case(NamedTuple):
    """A field of a template under test: the constants before its flag and before its value, what it is, and what it holds."""

    head: bytes
    marker: bytes
    code: str
    size: int
    kind: type
    default: Any
    value: Any
    group: int


def numbers(code: str) -> st.SearchStrategy[int]:
    low, high = RANGES[code]
    near = st.sampled_from(sorted({low, high, *(each for each in (-1, 0, 1, 2) if low <= each <= high)}))
    return near | st.integers(low, high)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """One field of any kind, at its default as often as not."""
    code = draw(st.sampled_from([*RANGES, "enum", "?", "s", "-"]))
    kind: type
    values: st.SearchStrategy[Any]
    if code == "enum":
        code, size, kind, values = "B", 1, Speed, st.sampled_from(Speed)
    elif code == "s":
        size = draw(st.sampled_from([0, 1, 7, template.MASKED, template.MASKED + 1, 300]))
        kind, values = bytes, st.binary(min_size=size, max_size=size)
    elif code in {"?", "-"}:
        size, kind, values = int(code == "?"), bool, st.booleans()
    else:
        size, kind, values = struct.calcsize(code), int, numbers(code)
    default = draw(st.none() | values)
    value = default if default is not None and draw(st.booleans()) else draw(values)
    plain = int(default) if kind is Speed and default is not None else default
    texts = st.binary(min_size=1, max_size=9)
    return Case(draw(texts), draw(texts), code, size, kind, None if code == "-" else plain, value, draw(st.integers(0, 2)))


class Made(NamedTuple):
    """A template, and by hand what it makes of a row."""

    data: bytes
    holes: tuple[Hole, ...]
    structs: tuple[tuple[int, tuple[int, ...]], ...]
    row: tuple[Any, ...]
    packed: bytes


def bytes_of(field: Case) -> bytes:
    """Its value in the bytes."""
    if field.code == "?":
        return b"\xc3" if field.value else b"\xc2"
    if field.code in {"s", "-"}:
        return field.value if field.code == "s" else b""
    return struct.pack(f">{field.code}", field.value)


def made(fields: list[Case]) -> Made:
    """All fields in a row; groups of them are structs whose flags stand before the first, in a struct of structs."""
    data = packed = bytes(4)
    holes, flags = [], [False]
    members: list[list[int]] = [[1, 2, 3], [], [], []]
    set_by_struct: list[list[bool]] = [[], [], [], []]
    for each in fields:
        is_set = each.value if each.code == "-" else each.default is not None and each.value == each.default
        flag = len(data) + len(each.head)
        at = flag + 1 + len(each.marker)
        if each.code == "-":
            at = flag
        holes.append(Hole(each.code, at, each.size, flag, each.kind, each.default))
        marker = each.marker if each.code != "-" else b""
        value = bytes_of(each)
        data += each.head + b"\0" + marker + (b"\xc2" if each.code == "?" else bytes(each.size))
        packed += each.head + bytes([is_set]) + marker + value
        members[each.group + 1].append(flag)
        set_by_struct[each.group + 1].append(is_set)
    inner = [all(each) for each in set_by_struct[1:]]
    flags = [all(inner), *inner]
    structs = tuple((number, tuple(members[number])) for number in (1, 2, 3, 0))
    return Made(data, tuple(holes), structs, tuple(each.value for each in fields), bytes(flags) + packed[4:])


TEMPLATES: Final = st.lists(cases(), max_size=70).map(made)


@packers
@given(of=TEMPLATES)
@example(of=made([]))
def test_a_row_is_packed_as_by_hand(packer: Callable[..., Any], of: Made) -> None:
    assert packer(of.data, of.holes, of.structs).pack(of.row) == of.packed


@unpackers
@given(of=TEMPLATES, before=st.binary(max_size=3), random=st.randoms(use_true_random=False))
def test_a_row_is_unpacked_and_any_other_byte_refused(unpacker: Callable[..., Any], of: Made, before: bytes, random: Any) -> None:
    values = [(hole, value) for hole, value in zip(of.holes, of.row, strict=True) if hole.code != "-"]
    flags = (*(hole.flag for hole in of.holes), *range(4))
    places = tuple(Place(*hole[:3]) for hole, _ in values)
    unpack = unpacker(of.packed, places, flags).unpack
    for data in (before + of.packed + b"behind", memoryview(before + of.packed)):
        row = unpack(data, len(before))
        assert [*row] == [value for _, value in values]
        assert [type(each) for each in row] == [int if hole.kind is Speed else hole.kind for hole, _ in values]
    free = {at + each for code, at, size in places if code != "?" for each in range(size)}
    narrow = {*flags, *(at for code, at, _ in places if code == "?")}
    for place in narrow.union(random.sample(range(len(of.packed)), min(40, len(of.packed)))):
        for changed in {1, 1 << random.randrange(1, 8)}:
            other = bytearray(of.packed)
            other[place] ^= changed
            if place in free or (place in narrow and changed == 1):
                unpack(bytes(other), 0)
            else:
                with pytest.raises(REFUSED):
                    unpack(bytes(other), 0)
    for end in {len(of.packed) - 1, random.randrange(len(of.packed))}:
        with pytest.raises(REFUSED):
            unpack(of.packed[:end], 0)


def hole(code: str, size: int, kind: type, default: Any = None) -> tuple[bytes, tuple[Hole, ...], tuple[()]]:
    """A template of one hole."""
    return bytes(1 + size), (Hole(code, 1, size, 0, kind, default),), ()


class Number(int):
    """No int, though it is one."""


class Text(bytes):
    """No bytes, though it is."""


NUMBERS: Final = [(code, edge) for code, edges in RANGES.items() for edge in (edges[0] - 1, edges[1] + 1)]
ODD: Final[list[tuple[str, int, type, Any, Any]]] = [
    *((code, struct.calcsize(code), int, default, edge) for code, edge in NUMBERS for default in (None, 0, 1)),
    *((code, struct.calcsize(code), int, default, odd) for code in RANGES for default in (None, 0, 1, 7) for odd in (True, False, Number(0), Number(1), 7.0, None, "7", b"7", 1 << 70)),
    *(("B", 1, Speed, default, odd) for default in (None, 0, 9) for odd in (0, 9, True, False, None)),
    *(("?", 1, bool, default, odd) for default in (None, True, False) for odd in (0, 1, None, 2)),
    *(("s", 2, bytes, default, odd) for default in (None, b"ab") for odd in (b"a", b"abc", b"", bytearray(b"ab"), Text(b"ab"), "ab", None)),
]  # fmt: skip


@packers
@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_is_not_packed(packer: Callable[..., Any], odd: tuple[str, int, type, Any, Any]) -> None:
    code, size, kind, default, value = odd
    with pytest.raises(REFUSED):
        packer(*hole(code, size, kind, default)).pack((value,))


@packers
@pytest.mark.parametrize("default", [None, 0, 1, 7])
def test_a_number_of_another_class_is_packed_as_it_is_or_not_at_all(packer: Callable[..., Any], default: int | None) -> None:
    pack = packer(*hole("B", 1, int, default)).pack
    try:
        assert pack((Number(7),)) == bytes((default == 7, 7))
    except REFUSED:
        assert packer is template.Packer or default == 1


@packers
@pytest.mark.parametrize("row", [(), (1, 2), (1, 2, 3, 4)])
def test_a_row_of_another_length_is_not_packed(packer: Callable[..., Any], row: tuple[int, ...]) -> None:
    holes = tuple(Hole("B", 2 * each + 1, 1, 2 * each, int, None) for each in range(3))
    assert packer(bytes(6), holes, ()).pack((1, 2, 3)) == b"\0\1\0\2\0\3"
    with pytest.raises(REFUSED):
        packer(bytes(6), holes, ()).pack(row)


FAR: Final = (-(1 << 63), -2, (1 << 63) - 1, 1 << 70)
SIZES: Final = {"B": 1, "h": 2, "I": 4, "q": 8, "?": 1, "s": 3, "-": 0}
SAMPLES: Final = {"s": b"abc", "?": True, "-": True}


@compiled
@pytest.mark.parametrize(("code", "size"), SIZES.items())
def test_no_template_leads_out_of_its_bytes(code: str, size: int) -> None:
    """`.ci/run` watches each access besides."""
    value = SAMPLES.get(code, 1)
    for length in range(1, 12):
        data, near = bytes(length), (*range(-1, length + 3), *FAR)
        for at in near:
            is_inside = 0 <= at <= length - size
            for flag in near:
                holes = (Hole(code, at, size, flag, type(value), None),)
                if is_inside and 0 <= flag < length:
                    assert len(template.Packer(data, holes, ()).pack((value,))) == length
                else:
                    with pytest.raises(REFUSED):
                        template.Packer(data, holes, ())
            if code != "-" and is_inside:
                unpack = template.Unpacker(data, (Place(code, at, size),), ()).unpack
                assert len(unpack(bytes(length + 4), 4)) == 1
                for place in (-1, 5, *FAR):
                    with pytest.raises(REFUSED):
                        unpack(bytes(length + 4), place)
            else:
                with pytest.raises(REFUSED):
                    template.Unpacker(data, (Place(code, at, size),), ())


@compiled
def test_no_flag_leads_out_of_its_bytes() -> None:
    for place in (*range(-1, 6), *FAR):
        for results in _with_flag_at(place):
            if 0 <= place < 4:
                assert len(results()) in {0, 4}
            else:
                with pytest.raises(REFUSED):
                    results()


def _with_flag_at(place: int) -> tuple[Callable[[], Sequence[Any]], ...]:
    return (
        lambda: template.Packer(bytes(4), (), ((place, (0,)),)).pack(()),
        lambda: template.Packer(bytes(4), (), ((0, (1, place)),)).pack(()),
        lambda: template.Unpacker(bytes(4), (), (place,)).unpack(bytes(4), 0),
    )


@compiled
@pytest.mark.parametrize(
    "wrong", [("x", 1), ("s", -1), ("I", 2), ("q", 0), ("", 1), ("é", 1), ("BB", 1), (7, 1), ("B", None), ("B",)]
)
def test_a_hole_is_of_a_known_kind_and_size(wrong: Any) -> None:
    code, *size = wrong
    for make in (
        lambda: template.Packer(bytes(16), ((code, 0, *size, 0, int, None),), ()),  # type: ignore[arg-type]  # what is tested
        lambda: template.Unpacker(bytes(16), ((code, 0, *size),), ()),  # type: ignore[arg-type]  # what is tested
    ):
        with pytest.raises(REFUSED):
            make()


@compiled
@pytest.mark.parametrize("wrong", [(), (b"",), (b"", (), (), ()), ("", (), ()), (b"", [], ()), (b"", (), [])])
def test_the_compiled_ones_take_bytes_and_tuples(wrong: tuple[Any, ...]) -> None:
    for kind in (template.Packer, template.Unpacker):
        with pytest.raises(TypeError):
            kind(*wrong)


def rounds() -> Iterator[None]:
    """Everything that may hold on to something: made, packed, refused, unpacked, refused."""
    fields = [Case(b"h", b"m", code, struct.calcsize(code), int, 1, 1 << 6, 0) for code in RANGES]
    fields.append(Case(b"h", b"m", "s", 300, bytes, bytes(300), b"x" * 300, 1))
    of = made(fields)
    while True:
        packer = template.Packer(of.data, of.holes, of.structs)
        unpacker = template.Unpacker(of.packed, tuple(Place(*each[:3]) for each in of.holes), tuple(range(4)))
        assert unpacker.unpack(packer.pack(of.row), 0) is not None
        for row in ((*of.row[:-1], b""), ()):
            with pytest.raises(REFUSED):
                packer.pack(row)
        with pytest.raises(REFUSED):
            unpacker.unpack(of.packed[:-1], 0)
        yield


def test_nothing_is_held_on_to() -> None:
    each = rounds()
    for _ in range(20):
        next(each)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            next(each)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()

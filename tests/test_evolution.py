"""Defaults that change: no release drops or invents a value in silence, wherever in a table the field is."""

from __future__ import annotations

import io
import math
from array import array
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import Annotated, Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_example import IntArray

import tagged_vmstate as tv
from tagged_vmstate import Field, Length, LoadError, MaxLength, Table
from tagged_vmstate.prepared import prepared

pytestmark = pytest.mark.usefixtures("path")

FIRST: Final = 1
"""What a release that lacks the field does: the default that the field begins with."""
DEFAULTS: Final = (1, 2, 3)
History = tuple[int, ...]
"""The defaults of `f` so far, oldest first; none before it was added."""


def number(history: History) -> list[Field]:
    return [Field("f", tv.uint8, default=history[-1], previous_defaults=history[:-1])] if history else []


def struct(*fields: Field) -> Any:
    return Annotated[dict, Table("struct", [Field("other", tv.uint8, default=0), *fields])]


def value(history: History, f: int) -> dict[str, Any]:
    return {"other": 0, "f": f} if history else {"other": 0}


def plain(history: History) -> list[Field]:
    return number(history)


def in_struct(history: History) -> list[Field]:
    """A struct that every release has."""
    return [Field("s", struct(*number(history)), default_factory=lambda: value(history, history[-1] if history else 0))]


def with_struct(history: History) -> list[Field]:
    """A struct that comes with the field."""
    return in_struct(history) if history else []


def by_struct(history: History) -> list[Field]:
    """A struct that comes with the field, and whose own default says what the field's is."""
    fields = [Field("f", tv.uint8, default=FIRST)] if history else []
    states = [value(history, default) for default in history]
    found = (
        Field("s", struct(*fields), default_factory=lambda: dict(states[-1]), previous_defaults=states[:-1]) if history else None
    )
    return [found] if found else []


def deep(history: History) -> list[Field]:
    """A struct in a struct that every release has."""
    return [Field("t", struct(*with_struct(history)), default_factory=lambda: in_t(history, history[-1] if history else 0))]


def in_t(history: History, f: int) -> dict[str, Any]:
    return {"other": 0, "s": value(history, f)} if history else {"other": 0}


def in_array(history: History) -> list[Field]:
    """Structs in an array that comes with the field."""
    if not history:
        return []
    kind = Annotated[list[dict[str, int]], Table("struct", [Field("other", tv.uint8, default=0), *number(history)]), MaxLength(3)]
    return [Field("a", kind, default_factory=lambda: [value(history, history[-1]) for _ in range(2)])]


FORMS: Final[dict[str, tuple[Callable[[History], list[Field]], Callable[[History, int], dict[str, Any]]]]] = {
    "plain": (plain, lambda history, f: {"f": f} if history else {}),
    "in a struct": (in_struct, lambda history, f: {"s": value(history, f)}),
    "with a struct": (with_struct, lambda history, f: {"s": value(history, f)} if history else {}),
    "by a struct": (by_struct, lambda history, f: {"s": value(history, f)} if history else {}),
    "deep": (deep, lambda history, f: {"t": in_t(history, f)}),
    "in an array": (in_array, lambda history, f: {"a": [value(history, f), value(history, f)]} if history else {}),
}


@lru_cache
def release(form: str, history: History) -> Table:
    return Table("dev", FORMS[form][0](history))


def means(state: Any) -> set[int]:
    """What a state says of `f`, wherever it is."""
    if isinstance(state, list):
        return set().union(*map(means, state))
    if isinstance(state, dict):
        return {state["f"]} if "f" in state else set().union(*map(means, state.values()))
    return set()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("history", [(1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 3)])
def test_every_release_means_what_the_other_meant_or_refuses(form: str, history: History) -> None:
    releases = [history[:size] for size in range(len(history) + 1)]
    for writer, reader, f in product(releases, releases, DEFAULTS):
        data = tv.dumps(FORMS[form][1](writer, f), table=release(form, writer))
        if writer and not reader and {f} != set(writer):
            with pytest.raises(LoadError) as caught:
                tv.load(data, release(form, reader))
            assert [problem.rule for problem in caught.value.problems] == ["unknown-field"]
        else:
            assert (means(tv.load(data, release(form, reader))) or {FIRST}) == ({f} if writer else {FIRST})


@tv.vmstate
class Inner:
    f: tv.uint8 = tv.field(default=3, previous_defaults=(2,))
    g: Annotated[list[tv.uint16], Length(2)] = tv.field(default_factory=lambda: [0, 1], previous_defaults=([0, 0],))


@tv.vmstate("dev")
class Device:
    inner: Inner = tv.field(default_factory=Inner)
    given: Inner = tv.field(default_factory=lambda: Inner(f=5))
    own: Inner = tv.field(default_factory=Inner, previous_defaults=(Inner(f=4), Inner(f=6)))
    maybe: Inner | None = tv.field(default=None, previous_defaults=(Inner(),))
    many: Annotated[list[Inner], MaxLength(3)] = tv.field(default_factory=list, previous_defaults=([Inner()],))
    packet: Annotated[bytes, MaxLength(4)] = tv.field(default=b"ab", previous_defaults=(b"", b"ab"))
    numbers: Annotated[NDArray[np.uint16], Length(2)] = tv.field(
        default_factory=lambda: np.array([1, 2], "u2"), previous_defaults=(np.array([0, 0], "u2"),)
    )
    block: Annotated[IntArray, tv.uint8, Length(2)] = tv.field(
        default_factory=lambda: array("B", b"ab"), previous_defaults=(array("B", b"cd"),)
    )
    ram: Annotated[tv.sparse, Length(10_000)] = tv.field(
        default_factory=lambda: bytearray(b"x" * 10_000), previous_defaults=(bytearray(10_000),)
    )
    same: tv.uint8 = tv.field(default=1, previous_defaults=(1, 1))


NOTHING: Final = tv.Section("dev", 0, [])


def test_an_absent_field_gets_its_first_default_whatever_its_kind() -> None:
    found = tv.load(NOTHING, Device)
    old = Inner(f=2, g=[0, 0])
    assert found.inner == old
    assert found.given == Inner(f=5, g=[0, 0]), "5 is what this struct has always had"
    assert found.own == Inner(f=4, g=[0, 0])
    assert found.maybe == old
    assert found.many == [old]
    assert found.packet == b""
    assert found.numbers.tolist() == [0, 0]
    assert found.block.tolist() == [0x63, 0x64]
    assert found.ram == bytearray(10_000)


def test_a_default_is_itself_where_its_bits_are() -> None:
    inner = Table("inner", [Field("x", tv.float64, default=math.nan, previous_defaults=(-0.0,))])
    table = Table("dev", [Field("s", Annotated[dict, inner], default_factory=lambda: {"x": math.nan})])
    assert str(tv.load(NOTHING, table)) == "{'s': {'x': -0.0}}"


def test_what_is_filled_is_reported_with_its_value() -> None:
    findings = {each.path[0]: each for each in tv.Machine([Device()]).check(NOTHING).findings}
    assert findings["packet"].found == "no such field, filled with its first default, b''"
    assert "Inner(f=2, g=[0, 0])" in findings["inner"].found
    assert {each.rule for each in findings.values()} == {"filled"}


def test_a_new_device_and_a_reset_have_the_default_of_today() -> None:
    device = tv.load(NOTHING, Device)
    tv.reset(device)
    assert device == Device()
    device = tv.load(NOTHING, Device)
    file = io.BytesIO()
    tv.Machine([]).save(file)
    tv.Machine([device]).load(file.getvalue())
    assert device == Device()


def test_only_what_every_default_agrees_on_is_flagged() -> None:
    [section] = tv.Snapshot.read(tv.dumps(Device()))
    records = {record.name: record for record in section.records()}
    assert [name for name, record in records.items() if record.is_default] == ["same"]
    [section] = tv.Snapshot.read(tv.dumps(Device(same=2)))
    assert not any(record.is_default for record in section.records())


def test_memory_that_is_saved_in_parts_is_flagged_by_the_same_rule() -> None:
    def flags(**more: Any) -> set[bool]:
        table = Table(
            "ram", [Field("ram", Annotated[tv.sparse, Length(5 << 20)], default_factory=lambda: bytearray(5 << 20), **more)]
        )
        file = io.BytesIO()
        tv.Machine([tv.Device({"ram": bytearray(5 << 20)}, table=table)]).save(file)
        return {record.is_default for section in tv.Snapshot.read(file.getvalue()) for record in section.records()}

    assert flags() == flags(previous_defaults=(bytearray(5 << 20),)) == {True}
    assert flags(previous_defaults=(bytearray(b"x" * (5 << 20)),)) == {False}


def test_what_is_filled_belongs_to_the_state_alone() -> None:
    given = [[0, 0]]
    table = Table(
        "dev", [Field("x", Annotated[list[tv.uint8], Length(2)], default_factory=lambda: [1, 1], previous_defaults=given)]
    )
    given[0][0] = 9
    for _ in range(2):
        state = tv.load(NOTHING, table)
        assert state == {"x": [0, 0]}
        state["x"][0] = 5


def test_templates_leave_such_tables_alone() -> None:
    inner = vars(Inner)["__vmstate__"]
    for fields in (
        [Field("x", tv.uint8, default=1, previous_defaults=(2,))],
        [Field("x", Inner, default_factory=Inner)],
        [Field("x", Annotated[list[Inner], MaxLength(2)], default_factory=list)],
        [Field("x", struct(Field("y", Inner)))],
    ):
        assert prepared(Table("dev", fields)).shape is None
    assert inner.has_previous_defaults
    assert prepared(Table("dev", [Field("x", tv.uint8, default=1)])).shape is not None


@pytest.mark.parametrize(
    ("annotation", "more", "words"),
    [
        (tv.uint8, {"previous_defaults": (1,)}, "a default beside previous_defaults, got none - at x"),
        (
            tv.uint8,
            {"default": 1, "previous_defaults": (1, 300)},
            r"previous_defaults of `uint8`: `uint8` \(0 to 255\), got 300 - at x",
        ),
        (bytes, {"default": b"", "previous_defaults": b"ab"}, "previous_defaults as a tuple, oldest first, got b'ab' - at x"),
        (tv.uint8, {"default": 1, "previous_defaults": 2}, "previous_defaults as a tuple, oldest first, got 2 - at x"),
        (
            Inner,
            {"default_factory": Inner, "previous_defaults": (Inner(g=[1]),)},
            "previous_defaults of `struct`: .* got 1 elements",
        ),
    ],
)
def test_what_is_wrong_with_one_is_refused_when_it_is_declared(annotation: Any, more: Any, words: str) -> None:
    annotation = Annotated[bytes, MaxLength(4)] if annotation is bytes else annotation
    with pytest.raises(tv.TableError, match=words):
        Field("x", annotation, **more)

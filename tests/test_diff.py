"""What differs between two snapshots, and one value changed: with real streams, and by laws."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from conftest import stream_bytes
from hypothesis import given
from hypothesis import strategies as st
from strategies import snapshots

from tagged_vmstate.diff import RANGES, Difference, diff
from tagged_vmstate.edit import Target, changed, fields, laid_over, located
from tagged_vmstate.errors import StateError
from tagged_vmstate.frames import Lead
from tagged_vmstate.overview import WINDOW
from tagged_vmstate.paths import Pattern, format_path
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.records import Record, encode
from tagged_vmstate.sections import NO_ATTRIBUTES, EncodedSection, Section
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter, write
from tagged_vmstate.wire import Opaque


def made(*sections: Section) -> Snapshot:
    file = io.BytesIO()
    with SnapshotWriter(file) as writer:
        for section in sections:
            writer.write(section)
    return Snapshot.read(file.getvalue())


def one(*records: Record) -> Snapshot:
    return made(Section("dev", 0, records))


def imported(name: str) -> Snapshot:
    file = io.BytesIO()
    write(import_stream(io.BytesIO(stream_bytes(name))), file)
    return Snapshot.read(file.getvalue())


def places(differences: Iterable[Difference]) -> list[str]:
    return [difference.place for difference in differences]


@given(snapshots())
def test_a_snapshot_is_the_same_as_itself(data: bytes) -> None:
    assert list(diff(Snapshot.read(data), Snapshot.read(data))) == []


class TestFields:
    def difference(self, left: Record, right: Record) -> Difference:
        [found] = diff(one(left), one(right))
        [back] = diff(one(right), one(left))
        assert (found.kind, found.place) == (back.kind, back.place) == ("changed", "dev#0/x")
        return found

    def test_values_and_types(self) -> None:
        found = self.difference(Record("x", "uint8", None, 1), Record("x", "uint8", None, 2))
        assert (found.old_type, found.old, found.new) == ("uint8", 1, 2)
        found = self.difference(Record("x", "uint8", None, 1), Record("x", "uint16", None, 1))
        assert (found.old_type, found.new_type) == ("uint8", "uint16")
        found = self.difference(Record("x", "string", None, "a"), Record("x", "string", 1, ["a"]))
        assert (found.old, found.new) == ("a", ["a"])
        self.difference(Record("x", "struct", None, None), Record("x", "struct", None, ()))
        self.difference(Record("x", "odd", None, Opaque.of(1)), Record("x", "odd", None, Opaque.of(2)))
        self.difference(Record("x", "float64", None, 0.0), Record("x", "float64", None, -0.0))

    def test_what_is_the_same_state_is_no_difference(self) -> None:
        for left, right in (
            (Record("x", "float64", None, math.nan), Record("x", "float64", None, math.nan)),
            (Record("x", "uint8", None, 1), Record("x", "uint8", None, 1, is_default=True)),
            (Record("x", "sparse", 9000, ((0, b"\1\0\0"),)), Record("x", "sparse", 9000, ((0, b"\1"), (5000, b"\0")))),
        ):
            assert list(diff(one(left), one(right))) == []

    def test_ranges_of_bytes_and_elements(self) -> None:
        found = self.difference(
            Record("x", "buffer", 64, bytes(64)), Record("x", "buffer", 64, bytes(3) + b"\1\2" + bytes(57) + b"\3\4")
        )
        assert [(each.start, each.count, each.old, each.new) for each in found.ranges] == [
            (3, 2, "00 00", "01 02"),
            (62, 2, "00 00", "03 04"),
        ]
        assert found.count == 4
        left, right = [0] * 40, [0] * 40
        right[5], right[39] = 300, 1
        found = self.difference(Record("x", "uint16", 40, left), Record("x", "uint16", 40, right))
        assert [(each.start, each.count, each.old, each.new) for each in found.ranges] == [(5, 1, [0], [300]), (39, 1, [0], [1])]
        pci = [Record("x", "pci config", 4, Opaque.of(data)) for data in (b"abcd", b"abXd")]
        assert self.difference(*pci).ranges[0].start == 2

    def test_structs_by_path_and_index(self) -> None:
        def outer(*inner: Any) -> Snapshot:
            return one(
                Record("s", "struct", len(inner), inner), Record("t", "struct", None, (Record("y", "uint8", None, len(inner)),))
            )

        first, second = (Record("x", "uint8", None, 1),), (Record("x", "uint8", None, 2), Record("z", "bool", None, value=True))
        found = list(diff(outer(first, None), outer(second, (), first)))
        assert [(each.kind, each.place) for each in found] == [
            ("changed", "dev#0/s[0]/x"),
            ("added", "dev#0/s[0]/z"),
            ("changed", "dev#0/s[1]"),
            ("added", "dev#0/s[2]"),
            ("changed", "dev#0/t/y"),
        ]

    def test_devices_and_fields_on_one_side(self) -> None:
        left = made(Section("a", 0, []), Section("b", 1, [Record("x", "uint8", None, 1)]))
        right = made(Section("b", 1, [Record("y", "uint8", None, 1)]), Section("c", 0, []))
        found = [(each.kind, each.place) for each in diff(left, right)]
        assert found == [("removed", "a#0"), ("removed", "b#1/x"), ("added", "b#1/y"), ("added", "c#0")]

    def test_ignored_is_what_lies_below_too(self) -> None:
        left, right = (one(Record("s", "struct", None, (Record("y", "uint8", None, value),))) for value in (1, 2))
        assert list(diff(left, right, lambda _section, path: path == ("s",))) == []
        assert list(diff(left, right, lambda section, _path: section == "dev#0")) == []
        assert places(diff(left, right, lambda _section, path: path == ("y",))) == ["dev#0/s/y"]


class TestMemory:
    def memory(self, *parts: tuple[tuple[int, bytes], ...], length: int = 3 * WINDOW) -> Snapshot:
        records = [Record("ram", "sparse", length, runs) for runs in parts]
        kinds = ["part"] * (len(records) - 1) + ["section"]
        return made(*(Section("m", 0, [record], kind=kind) for record, kind in zip(records, kinds, strict=True)))  # type: ignore[arg-type]

    def test_it_is_laid_over_in_the_order_of_its_parts(self) -> None:
        left = self.memory(((0, b"aaaa"),), ((2, b"bb"), (WINDOW - 1, b"xy")))
        assert list(diff(left, self.memory(((0, b"aabb"), (WINDOW - 1, b"xy"))))) == []
        [found] = diff(left, self.memory(((0, b"aabb"), (WINDOW - 1, b"XY"))))
        assert [(each.start, each.count) for each in found.ranges] == [(WINDOW - 1, 2)]
        assert (found.count, found.more) == (2, 0)

    @pytest.mark.parametrize("place", [0, 1 << 16, WINDOW, 2 * WINDOW], ids=hex)
    @pytest.mark.parametrize("cuts", [(), (3,), (3, 9)], ids=str)
    def test_a_range_is_the_same_wherever_it_is_looked_at(self, place: int, cuts: tuple[int, ...]) -> None:
        """Over the edge of what is compared at once, and of parts, where a gap of 15 bytes is in a range and one of 16 is not."""
        data = b"ab" + bytes(15) + b"c" + bytes(16) + b"d"
        start = max(place - 10, 0)
        edges = [0, *(each * 4 for each in cuts), len(data)]
        pieces = [((start + low, data[low:high]),) if low < high else () for low, high in pairwise(edges)]
        [found] = diff(self.memory(()), self.memory(*pieces))
        assert [(each.start - start, each.count) for each in found.ranges] == [(0, 18), (34, 1)]
        assert (found.count, found.more) == (19, 0)

    def test_other_lengths_and_many_ranges(self) -> None:
        [found] = diff(self.memory(()), self.memory((), length=WINDOW))
        assert (found.old_type, found.new_type, found.ranges) == (f"sparse[{3 * WINDOW}]", f"sparse[{WINDOW}]", ())
        spread = tuple((offset, b"\1") for offset in range(0, 64 * 2 * RANGES, 64))
        [found] = diff(self.memory(()), self.memory(spread))
        assert (len(found.ranges), found.more, found.count) == (RANGES, RANGES, 2 * RANGES)

    def test_memory_that_is_something_else_on_the_other_side(self) -> None:
        left, right = one(Record("x", "sparse", 4, ((0, b"a"),))), one(Record("x", "uint8", None, 1))
        assert [(each.kind, each.old_type, each.new_type) for each in diff(left, right)] == [("changed", "sparse[4]", "uint8")]

    @given(st.binary(max_size=200), st.binary(max_size=200))
    def test_the_ranges_are_where_the_bytes_differ(self, left: bytes, right: bytes) -> None:
        size = max(len(left), len(right))
        left, right = left.ljust(size, b"\0"), right.ljust(size, b"\0")
        old, new = (self.memory(((0, each),) if each else ()) for each in (left, right))
        found = [each for difference in diff(old, new) for each in difference.ranges]
        different = {place for place in range(size) if left[place] != right[place]}
        covered = {place for each in found for place in range(each.start, each.start + each.count)}
        assert different <= covered
        for each in found:
            assert {each.start, each.start + each.count - 1} <= different


class TestRealMachines:
    def test_a_machine_that_ran_against_one_at_reset(self) -> None:
        found = places(diff(imported("pc-qemu7.2"), imported("pc-qemu7.2-reset")))
        assert "cpu#0/env.eip" in found
        assert "globalstate#0/runstate" in found
        assert len(found) < 30

    def test_two_qemus(self) -> None:
        found = [(each.kind, each.place) for each in diff(imported("pc-qemu7.2"), imported("pc-qemu10.0"))]
        assert ("removed", "hpet#0/num_timers") in found
        assert ("added", "hpet#0/num_timers_save") in found
        assert ("changed", "globalstate#0/runstate") in found


class TestChange:
    INNER = (Record("a", "uint8", None, 1, is_default=True), Record("b", "uint8", None, 2, is_default=True))
    RECORDS = (
        Record("s", "struct", None, INNER, is_default=True),
        Record("s/a", "uint8", None, 9),
        Record("l", "struct", 2, (INNER, None), is_default=True),
        Record("n[0]", "uint8", None, 7),
        Record("n", "uint8", 3, [1, 2, 3]),
    )

    def changed(self, path: str, value: Any) -> tuple[Snapshot, Snapshot]:
        before = one(*self.RECORDS)
        [section] = before
        [target] = located(section, Pattern(f"dev/{path}"))
        return before, made(changed(section, target, value))

    @pytest.mark.parametrize("path", ["s/b", "l[0]/a", '"s/a"', '"n[0]"'])
    def test_only_that_value_changes_and_its_flags(self, path: str) -> None:
        before, after = self.changed(path, 5)
        [found] = diff(before, after)
        assert (found.new, found.place) == (5, f"dev#0/{path}")
        [section] = after
        flags = {format_path(None, target.path): target.record.is_default for target in fields(section.records())}
        assert not flags[path]
        outer = path[0] if path in {"s/b", "l[0]/a"} else None
        assert {name for name, flag in flags.items() if flag} == {"s", "s/a", "s/b", "l", "l[0]/a", "l[0]/b"} - {path, outer}
        assert len(found.section) > 0

    def test_the_same_value_changes_nothing(self) -> None:
        before, after = self.changed("s/b", 2)
        assert next(iter(before)).payload() == next(iter(after)).payload()

    def test_a_path_names_a_field_or_an_element_of_one(self) -> None:
        assert [target.record.value for target in self.targets("s/a")] == [1, 9], "without quotes it may be either"
        assert [target.record.value for target in self.targets('"s/a"')] == [9]
        assert [target.path for target in self.targets("n[0]")] == [("n[0]",), ("n", 0)]
        assert [(target.record.name, target.index) for target in self.targets("n[1]")] == [("n", 1)]
        assert [target.path for target in self.targets("n[0x2]")] == [("n", 2)]
        assert [target.path for target in self.targets("l/a")] == [("l", 0, "a")], "all elements"
        for path in ("x", "s/x", "l[1]/a", "l[7]/a", "s[0]/a", "n[1]x", '"n"[', '"s"/"a/"'):
            assert self.targets(path) == []

    def targets(self, path: str) -> list[Target]:
        [section] = one(*self.RECORDS)
        return list(located(section, Pattern(f"dev/{path}")))

    def test_every_other_byte_stays_whatever_its_encoding(self) -> None:
        """A foreign writer's short integers, odd flags and long strings, around and above the change."""
        inner = b"\x95\xd9\x01a\xa5uint8\xc0\xcc\x01\x05", b"\x95\xa1b\xa5uint8\xc0\x01\xd2\x00\x00\x00\x06"
        raw = b"\x95\xa1s\xa6struct\xc0\xcd\x00\x01\xdc\x00\x02" + b"".join(inner)
        other = b"\x95\xa1t\xa5uint8\xc0\x00\x07"
        before = made(EncodedSection(Lead.of("section", "dev", 0, NO_ATTRIBUTES), raw + other))
        [section] = before
        [target] = located(section, Pattern("dev/s/b"))
        after = changed(section, target, 9)
        expected = raw.replace(b"\xcd\x00\x01", b"\x00").replace(inner[1], encode(Record("b", "uint8", None, 9)))
        assert after.payload() == expected + other

    def test_what_does_not_fit_is_refused_with_its_path(self) -> None:
        with pytest.raises(StateError, match=r"`uint8` \(0 to 255\), got 256 - at dev#0/l\[0\]/a"):
            self.changed("l[0]/a", 256)

    @given(
        st.lists(st.tuples(st.integers(0, 90), st.binary(min_size=1, max_size=9)), max_size=5),
        st.integers(0, 90),
        st.binary(min_size=1, max_size=20),
    )
    def test_memory_is_laid_over(self, pieces: list[tuple[int, bytes]], offset: int, data: bytes) -> None:
        memory = bytearray(120)
        runs: list[tuple[int, bytes]] = []
        for start, piece in sorted(pieces):
            if not runs or start >= runs[-1][0] + len(runs[-1][1]):
                runs.append((start, piece))
                memory[start : start + len(piece)] = piece
        memory[offset : offset + len(data)] = data
        again = bytearray(120)
        found = laid_over(tuple(runs), offset, data)
        for start, piece in found:
            again[start : start + len(piece)] = piece
        assert again == memory
        ends = {start + len(piece) for start, piece in found}
        assert not ends & {offset}, "touching runs are one"
        assert not {start for start, _ in found} & {offset + len(data)}
        encode(Record("x", "sparse", 120, found))

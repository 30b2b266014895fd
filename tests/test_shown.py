"""How `show` and `diff` print what a field holds: the same way in both, for a person, and never as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu_streams import EOF, MAGIC, description, device, field, full
from schemas import validator
from test_command import refused, run, shown

from tagged_vmstate.cli.main import cli
from tagged_vmstate.cli.textdiff import BUDGET, TextDiff
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import SnapshotWriter
from tagged_vmstate.wire import Opaque

LONG = "".join(f"<line n='{number}'/>\n" for number in range(20))


def struct(name: str, *fields: Record) -> Record:
    return Record(name, "struct", None, fields)


def opaque(value: object, length: int | None = None) -> Record:
    return Record("x", "virtio", length, Opaque.of(value))


def saved(path: Path, *records: Record) -> Path:
    with path.open("wb") as file, SnapshotWriter(file) as writer:
        writer.write(Section("dev", 0, records))
    return path


def printed(*arguments: object) -> str:
    """What a command prints, in this process."""
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as stdout:
        cli.main([*map(str, arguments)], standalone_mode=False)
        stdout.flush()
        return stdout.buffer.getvalue().decode()


def shown_as(tmp_path: Path, *records: Record) -> list[str]:
    """What `show` prints of a device, without its first line and the empty one."""
    return printed("show", saved(tmp_path / "one.tvm", *records)).splitlines()[1:-1]


def differences(tmp_path: Path, left: Sequence[Record], right: Sequence[Record]) -> list[str]:
    """What `diff` prints, without the device; the report for programs fits its schema."""
    files = saved(tmp_path / "left.tvm", *left), saved(tmp_path / "right.tvm", *right)
    report = json.loads(printed("diff", *files, "--format", "json"))
    validator("reports").validate(report)
    assert report["same"] == (not report["differences"])
    return printed("diff", *files).splitlines()[1:]


LINES = st.lists(st.sampled_from(["a", "b", "c"]))
U8 = Record("x", "uint8", None, 7)
INNER = struct("st", U8, struct("in", Record("x", "string", None, "a")), Record("n", "struct", None, None))


@pytest.mark.parametrize(
    ("record", "lines"),
    [
        (INNER, ["st  struct", "├─ x   uint8   7", "├─ in  struct", '│  └─ x  string  "a"', "└─ n   struct  absent"]),
        (
            Record("l", "struct", 3, ((U8,), (U8,), None)),
            ["l  struct[3]", "├─ [0]", "│  └─ x  uint8  7", "├─ [1]  like [0]", "└─ [2]  absent"],
        ),
        (Record("l", "struct", 0, ()), ["l  struct[0]  empty"]),
        (opaque(b"\x00\x01\x02", 3), ["x  virtio[3]  00 01 02"]),
        (opaque(bytes(400), 400), ["x  virtio[400]  00 x400"]),
        (opaque([b"ab", b"cd"], 2), ["x  virtio[2]", "├─ [0]  61 62", "└─ [1]  63 64"]),
        (opaque([b"ab", [b"c", 5]], 2), ["x  virtio[2]", "├─ [0]  61 62", "└─ [1]", "   ├─ [0]  63", "   └─ [1]  5"]),
        (opaque({"a": "b"}), ['x  virtio  {"a": "b"}']),
        (opaque("b"), ['x  virtio  "b"']),
        (opaque(None), ["x  virtio  null"]),
        (Record("x", "odd", None, Opaque(b"\xd4\x05\x09")), ["x  odd  MessagePack d4 05 09"]),
        (Record("x", "uint8", 20, [7] * 20), ["x  uint8[20]  7 x20"]),
        (Record("x", "sparse", 4096, ((16, b"ab"),)), ["x  sparse[4096]  2 bytes in 1 run, at 0x10: 61 62"]),
        (Record("x", "sparse", 4096, ()), ["x  sparse[4096]  all zero"]),
        (Record("x", "bitmap", 12, b"\x01\x02"), ["x  bitmap[12]  01 02"]),
        (Record("x", "buffer", 20, bytes(range(20))), [f"x  buffer[20]  {bytes(range(16)).hex(' ')} …"]),
        (Record("x", "string", None, "a\x1bb"), ['x  string  "a\\x1bb"']),
        (Record("x", "string", 2, ("a", "b")), ['x  string[2]  "a", "b"']),
        (
            Record("x", "string", None, "<a>\n\t<b>\x1b</b>\n\n</a>\n"),
            ["x  string", "<a>", "        <b>\\x1b</b>", "", "</a>"],
        ),
        (Record("x", "string", 2, ("a", "b\nc")), ["x  string[2]", '├─ [0]  "a"', "└─ [1]", "   b", "   c"]),
        (Record("x", "float64", None, math.nan), ["x  float64  nan:7ff8000000000000"]),
        (Record("x", "bool", None, value=True), ["x  bool  true"]),
    ],
)
def test_what_one_side_has_is_printed_as_show_prints_it(tmp_path: Path, record: Record, lines: list[str]) -> None:
    def plain(found: Sequence[str], margin: int) -> list[str]:
        return [" ".join(line[margin:].replace("│", " ").split()) for line in found]

    wanted = [" ".join(line.replace("│", " ").split()) for line in lines]
    assert plain(shown_as(tmp_path, record), 3) == wanted
    for sides, sign in ((([], [record]), "+"), (([record], []), "-")):
        found = differences(tmp_path, *sides)
        assert {line[:2].strip() for line in found} == {sign}
        assert plain(found, 5) == wanted


@pytest.mark.parametrize(
    ("left", "right", "lines"),
    [
        (opaque(b"\x00\x01", 2), opaque(b"\x00\x01\x02", 3), ["x  virtio[2] → virtio[3]  00 01 → 00 01 02"]),
        (opaque(b"ab", 2), opaque(b"aX", 2), ["x  virtio[2]  1 range, 1 byte", "   0x1  62 → 58"]),
        (
            opaque(bytes(300), 300),
            opaque(bytes(100) + b"\x07" + bytes(202) + b"\x05", 304),
            ["x  virtio[300] → virtio[304]  2 ranges, 5 bytes", "   0x64  00 → 07", "   0x12c..0x12f  nothing → 00 00 00 05"],
        ),
        (opaque(5), opaque({"a": 6}), ['x  virtio  5 → {"a": 6}']),
        (
            opaque([b"a", b"bb"], 2),
            opaque([b"a", b"cb", 5], 3),
            ["x[1]  virtio  1 range, 1 byte", "   0x0  62 → 63", "x[2]  virtio  5"],
        ),
        (
            Record("x", "uint16", 40, [0] * 40),
            Record("x", "uint16", 42, [0] * 39 + [5, 6, 300]),
            ["x  uint16[40] → uint16[42]  2 ranges, 3 elements", "   [39]  0 → 5", "   [40]..[41]  nothing → 6, 300"],
        ),
        (Record("x", "uint8", 2, [1, 2]), Record("x", "uint8", 3, [1, 2, 30]), ["x  uint8[2] → uint8[3]  1, 2 → 1, 2, 30"]),
        (Record("x", "uint64", None, 10), Record("x", "uint64", None, 11), ["x  uint64  10 → 11"]),
        (Record("x", "bitmap", 3, b"\1"), Record("x", "bitmap", 4, b"\1"), ["x  bitmap[3] → bitmap[4]  01 → 01"]),
        (
            Record("x", "bitmap", 300, bytes(38)),
            Record("x", "bitmap", 304, bytes(38)),
            ["x  bitmap[300] → bitmap[304]  00 x38 → 00 x38"],
        ),
        (Record("x", "uint8", None, 1), Record("x", "buffer", 1, b"\1"), ["x  uint8 → buffer[1]  1 → 01"]),
        (Record("x", "uint8", None, 1), Record("x", "struct", 1, (None,)), ["x  uint8 → struct[1]  1 → 1 element"]),
        (Record("x", "float32", None, 0.0), Record("x", "float32", None, -math.inf), ["x  float32  0.0 → -inf:ff800000"]),
        (Record("x", "string", None, "a"), Record("x", "string", None, ""), ['x  string  "a" → ""']),
        (Record("x", "string", 2, ["a", "b"]), Record("x", "string", 1, ["c"]), ['x[0]  string  "a" → "c"', 'x[1]  string  "b"']),
        (Record("x", "struct", None, None), struct("x", U8), ["x  struct  absent → present", "   └─ x  uint8  7"]),
        (Record("x", "struct", 1, ((),)), Record("x", "struct", 2, ((), (U8,))), ["x[1]  struct", "   └─ x  uint8  7"]),
        (
            Record("x", "sparse", 64, ((1, b"a"),)),
            Record("x", "string", None, "a"),
            ['x  sparse[64] → string  1 byte in 1 run, at 0x1: 61 → "a"'],
        ),
        (
            Record("x", "string", None, LONG),
            Record("x", "string", None, LONG.replace("'9'", "'\t'").removesuffix("\n")),
            [
                "x  string  2 lines removed, 1 added",
                "   @@ -7,7 +7,7 @@",
                *(f"    <line n='{number}'/>" for number in (6, 7, 8)),
                "   -<line n='9'/>",
                "   +<line n='       '/>",
                *(f"    <line n='{number}'/>" for number in (10, 11, 12)),
                "   @@ -18,4 +18,3 @@",
                *(f"    <line n='{number}'/>" for number in (17, 18, 19)),
                "   -",
            ],
        ),
        (
            Record("x", "string", None, "a" * 61),
            Record("x", "string", None, "b\x1b"),
            ["x  string  1 line removed, 1 added", "   @@ -1,1 +1,1 @@", f"   -{'a' * 61}", "   +b\\x1b"],
        ),
    ],
)
def test_two_values(tmp_path: Path, left: Record, right: Record, lines: list[str]) -> None:
    found = [line[2:].removeprefix("├─ ").removeprefix("└─ ") for line in differences(tmp_path, [left], [right])]
    assert [line.replace("│  ", "   ") for line in found] == lines
    back = differences(tmp_path, [right], [left])
    assert len(back) == len(lines)


def test_the_same_object_in_another_encoding_is_no_difference(tmp_path: Path) -> None:
    records = [Record("x", "odd", 2, Opaque(raw)) for raw in (b"\xc4\x02ab", b"\xc5\x00\x02ab")]
    assert differences(tmp_path, records[:1], records[1:]) == []


class TestArraysThatOnlyQemuReads:
    """One that QEMU writes by code of its own comes element by element: a PowerPC's `fpr`."""

    DATA = bytes(range(8)) * 3
    STREAM = MAGIC + full(3, "dev", DATA) + EOF + description(device("dev", field("fpr", "fpr", 8, array_len=3)))

    def changed(self, tmp_path: Path, path: str, value: str) -> bytes:
        (tmp_path / "vm.mig").write_bytes(self.STREAM)
        shown("set", tmp_path / "vm.mig", path, value, "-o", tmp_path / "changed.mig")
        return (tmp_path / "changed.mig").read_bytes()

    def test_one_element(self, tmp_path: Path) -> None:
        assert self.changed(tmp_path, "dev/fpr[1]", "11" * 8) == self.STREAM.replace(
            self.DATA, self.DATA[:8] + b"\x11" * 8 + self.DATA[16:]
        )
        found = run("diff", tmp_path / "vm.mig", tmp_path / "changed.mig").stdout.decode()
        assert found.splitlines()[1:] == ["  └─ fpr[1]  fpr  1 range, 8 bytes", "     0x0..0x7  00 01 02 03 04 05 06 07 → 11 x8"]
        assert "├─ [0]    00 01 02 03 04 05 06 07" in shown("show", tmp_path / "changed.mig", "dev")
        assert json.loads(shown("to-json", tmp_path / "vm.mig", "--values"))["dev"]["fpr"][0] == "00 01 02 03 04 05 06 07"

    def test_what_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "vm.mig").write_bytes(self.STREAM)
        set_command = ("set", tmp_path / "vm.mig")
        out = ("-o", tmp_path / "out.mig")
        assert "expected 8 bytes, as QEMU describes it, got 1 - at dev#0/fpr[1]" in refused(
            *set_command, "dev/fpr[1]", "11", *out
        )
        assert "expected an index of `fpr[3]`, got [3] - at dev#0/fpr[3]" in refused(*set_command, "dev/fpr[3]", "11" * 8, *out)
        assert "expected 3 elements, got 1 - at dev#0/fpr" in refused(*set_command, "dev/fpr", '[{"$hex": "00"}]', *out)

    def test_elements_of_no_bytes_stay_together(self, tmp_path: Path) -> None:
        stream = MAGIC + full(3, "dev", b"") + EOF + description(device("dev", field("fpr", "fpr", 0, array_len=1 << 60)))
        (tmp_path / "vm.mig").write_bytes(stream)
        assert run("export", tmp_path / "vm.mig").stdout == stream


class TestTextDiff:
    @given(old=LINES, new=LINES, is_bounded=st.booleans())
    def test_it_makes_the_one_of_the_other(self, old: list[str], new: list[str], *, is_bounded: bool) -> None:
        texts = TextDiff(0 if is_bounded else BUDGET)
        left, at = (old or [""]).copy(), 0
        found: list[str] = []
        for sign, line in texts.changes("\n".join(old), "\n".join(new)).lines:
            if sign == "@":
                start = int(line.split()[1].strip("-").split(",")[0]) - 1
                found += left[at:start]
                at = start
            elif sign == "+":
                found.append(line)
            else:
                assert left[at] == line
                at += 1
                found += [line] * (sign == " ")
        assert [*found, *left[at:]] == (new or [""])

    def test_long_texts_take_no_longer_than_their_lines(self) -> None:
        old, new = ("\n".join(f"{name}{number % 7}" for number in range(100_000)) for name in "ab")
        assert len(TextDiff().changes(f"same\n{old}", f"same\n{new}").lines) == 200_002, "difflib would take hours"

"""Devices that nothing describes and that come in several turns: the same value however many turns it took."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from qemu_streams import EOF, MAGIC, blocks, footer, full, head, page, ram, rebuilt
from test_command import run

from tagged_vmstate.errors import FormatError, StateError
from tagged_vmstate.jsonform import from_json, to_json
from tagged_vmstate.qemu import turns
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot, write

DEV = full(9, "dev", b"abc")


def turn(kind: int, data: bytes, name: str = "htab", number: int = 5, *, has_footer: bool = True) -> bytes:
    return head(kind, number, name) + data + (footer(number) if has_footer else b"")


def parts(stream: bytes) -> list[tuple[str, list[tuple[str, object]]]]:
    """Kind and fields of the parts of `htab`; the stream comes back from them."""
    file = io.BytesIO()
    write(import_stream(io.BytesIO(stream)), file)
    assert rebuilt(file.getvalue()) == stream
    found: list[Section] = [each for each in Snapshot.read(file.getvalue()) if each.device == "htab"]
    return [(each.kind, [(record.name, record.value) for record in each.records()]) for each in found]


@pytest.mark.parametrize("cuts", [(), (3,), (0,), (2, 4), (2, 2, 6)])
def test_successive_turns_are_one_value(cuts: tuple[int, ...]) -> None:
    data = b"onetwo"
    pieces = [data[start:end] for start, end in zip((0, *cuts), (*cuts, 6), strict=True)]
    kinds = [1, *(2 for _ in pieces[1:]), 3]
    stream = MAGIC + b"".join(map(turn, kinds, [*pieces, b""])) + DEV + EOF
    assert parts(stream) == [("section", [("bytes@0", data)])]


def test_other_items_between_them_leave_them_apart_and_count_on() -> None:
    memory = ram(blocks(mem=4096), page(0, b"\1", "mem"), b"")
    ends = memory.index(head(2, 2)), memory.index(head(3, 2))
    stream = (
        MAGIC
        + memory[: ends[0]]
        + turn(1, b"one")
        + memory[ends[0] : ends[1]]
        + turn(2, b"")
        + memory[ends[1] :]
        + turn(2, b"two")
        + turn(2, b"x")
        + b"\x08\0\x0b\0\0"
        + turn(3, b"end")
        + DEV
        + EOF
    )
    assert parts(stream) == [
        ("part", [("bytes@0", b"one")]),
        ("part", []),
        ("part", [("bytes@3", b"twox")]),
        ("section", [("bytes@7", b"end")]),
    ]
    found = import_stream(io.BytesIO(stream))
    assert list(found)
    assert [note for note in found.notes if note.startswith("htab")] == ["htab#0: 10 bytes are not described; kept as bytes"]


def test_two_devices_one_after_the_other() -> None:
    stream = MAGIC + turn(1, b"a") + turn(3, b"b") + turn(1, b"c", "other") + turn(3, b"d", "other") + DEV + EOF
    assert parts(stream) == [("section", [("bytes@0", b"ab")])]


def test_no_more_is_held_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "CHUNK_BYTES", 5)
    monkeypatch.setattr(turns, "_TURNS", 3)
    stream = MAGIC + turn(1, b"four") + turn(2, b"five5") + turn(2, b"a") + b"".join([turn(2, b"")] * 3) + turn(3, b"z") + EOF
    assert parts(stream) == [
        ("part", [("bytes@0", b"four")]),
        ("part", [("bytes@4", b"five5")]),
        ("part", [("bytes@9", b"a")]),
        ("section", [("bytes@10", b"z")]),
    ]


def test_what_came_before_damage_is_there() -> None:
    found = import_stream(io.BytesIO(MAGIC + turn(1, b"one") + turn(2, b"two") + b"\x08\0"), salvage=True)
    sections: list[Section] = []
    with pytest.raises(FormatError, match="a command"):
        sections.extend(found)
    assert [(each.kind, each.records()[0].value) for each in sections] == [("part", b"onetwo")]
    assert found.notes == ["htab#0: 6 bytes are not described; kept as bytes"]


def test_a_snapshot_of_an_earlier_build_is_exported() -> None:
    """Its fields were named for their places in the stream."""
    stream = MAGIC + turn(1, b"one") + DEV + turn(3, b"two") + EOF
    file, text, back = io.BytesIO(), io.BytesIO(), io.BytesIO()
    write(import_stream(io.BytesIO(stream)), file)
    to_json(Snapshot.read(file.getvalue()), text)
    write(from_json(io.BytesIO(text.getvalue().replace(b"bytes@3", b"bytes@62"))), back)
    assert back.getvalue() != file.getvalue()
    assert rebuilt(back.getvalue()) == stream


@pytest.mark.parametrize("lie", [[1, 3], [1, 99, 1, 3, 3, 1], ["x"] * 6, [1, 3, 1, 999, 3, 1]])
def test_turns_that_lie_are_refused(lie: list[object]) -> None:
    file, text, back = io.BytesIO(), io.BytesIO(), io.BytesIO()
    write(import_stream(io.BytesIO(MAGIC + turn(1, b"one") + turn(3, b"two") + EOF)), file)
    to_json(Snapshot.read(file.getvalue()), text)
    changed = text.getvalue().decode().replace("[1, 3, 1, 3, 3, 1]", repr(lie).replace("'", '"'))
    assert changed != text.getvalue().decode()
    write(from_json(io.BytesIO(changed.encode())), back)
    with pytest.raises(StateError, match="htab#0"):
        rebuilt(back.getvalue())


def test_equal_machines_do_not_differ_by_where_they_lie(tmp_path: Path) -> None:
    for name, pad in (("a", b"1234"), ("b", b"a longer one")):
        (tmp_path / name).write_bytes(MAGIC + full(1, "pads", pad) + turn(1, b"one") + turn(3, bytes(12)) + EOF)
    run("import", tmp_path / "a", "-o", tmp_path / "a.tvm")
    for left in ("a", "a.tvm"):
        done = run("diff", tmp_path / left, tmp_path / "b", "--ignore", "pads")
        assert (done.returncode, done.stdout) == (0, b"")

"""Big values go to a file and come from it as they lie in memory; what can change meanwhile is copied once."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import foreign_snapshots, snapshots
from test_snapshot import read_all, written

from tagged_vmstate import files, records, snapshot, wire
from tagged_vmstate.errors import FormatError
from tagged_vmstate.files import Input, Stretch
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot, write
from tagged_vmstate.wire import Piece

MIB = 1 << 20
SIZE = 64 * MIB
MOST = 4 * MIB
"""Far less than a copy, far more than what a read ahead holds."""

CHILD = """
import sys
from array import array
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter

def kept(word):
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(word))

way, kind, is_nested, path, size = sys.argv[1:]
size = int(size)
made = {"bytes": lambda: bytes(size), "bytearray": lambda: bytearray(size), "array": lambda: array("Q", bytes(size))}
value = made[kind]() if way == "write" else None
record = Record("a", "uint64", size // 8, value) if kind == "array" else Record("a", "buffer", size, value)
record = Record("s", "struct", None, (record,)) if is_nested else record
with open("/proc/self/clear_refs", "w") as peaks:
    peaks.write("5")
before = kept("VmRSS")
if way == "write":
    with open(path, "wb") as file, SnapshotWriter(file) as writer:
        writer.write(Section("dev", 0, [record]))
else:
    with Snapshot.read(path) as snapshot:
        [found] = [record for section in snapshot for record in section.records()]
    before += size
print(kept("VmHWM") - before)
"""


@pytest.mark.parametrize("nested", ["", "nested"])
@pytest.mark.parametrize("kind", ["bytes", "bytearray", "array"])
def test_only_what_can_change_is_copied_and_that_once(kind: str, nested: str, tmp_path: Path) -> None:
    for way in ("write", "read"):
        line = [sys.executable, "-c", CHILD, way, kind, nested, str(tmp_path / "a.tvm"), str(SIZE)]
        extra = int(subprocess.run(line, check=True, capture_output=True, timeout=60).stdout)
        assert extra < MOST + (SIZE if way == "write" and kind != "bytes" else 0), f"{way}: {extra} bytes beside the value"


@pytest.fixture(scope="class", params=[0, 1 << 20], ids=["left in the file", "held"])
def held(request: pytest.FixtureRequest) -> Iterator[None]:
    """A few bytes are many here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "HELD_BYTES", request.param)
        patch.setattr(records, "APART", 4)
        patch.setattr(wire, "APART", 4)
        patch.setattr(files, "WINDOW", 8)
        yield


@pytest.mark.usefixtures("held")
class TestTheSameHoweverMuchIsHeld:
    @given(st.one_of(snapshots(), foreign_snapshots()))
    def test_fields_and_their_bytes(self, data: bytes) -> None:
        again = io.BytesIO()
        source = Snapshot.read(data)
        write(source, again)
        assert again.getvalue() == data
        sections = [
            Section(each.device, each.instance, each.records(), kind=each.kind, attributes=each.raw_attributes) for each in source
        ]
        assert _rewritten(sections, source) == data

    def test_damage_is_found_before_anything_is_decoded(self) -> None:
        data = written([Section("dev", 0, [Record("a", "buffer", 1000, bytes(1000)), Record("b", "string", None, "text")])])
        hurt = data.replace(b"\xa4text", b"\xc1text")
        with pytest.raises(FormatError, match=r"the checksum 0x.*damaged"):
            read_all(hurt)

    def test_what_is_wrong_is_where_it_is(self) -> None:
        class Odd(Section):
            def pieces(self) -> list[Piece]:
                good = b"".join(Section("dev", 0, [Record("a", "buffer", 1000, bytes(1000))]).pieces())
                return [good, b"\x95\xa1b\xa6string\xc0\x00\xc1"]

        data = written([Odd("dev", 0, ())])
        with pytest.raises(FormatError, match="the byte 0xc1") as caught:
            read_all(data)
        assert caught.value.offset == data.index(b"\xc1\x93\xa3end")


def _rewritten(sections: list[Section], source: Snapshot) -> bytes:
    file = io.BytesIO()
    with snapshot.SnapshotWriter(file, source.raw_attributes) as writer:
        for section in sections:
            writer.write(section)
    return file.getvalue()


@given(st.binary(max_size=64), st.integers(1, 9), st.data())
def test_a_stretch_is_taken_like_bytes(data: bytes, window: int, drawn: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "WINDOW", window)
        found = Stretch(Input(io.BytesIO(b"before" + data + b"behind")), len(b"before"), len(data))
        assert len(found) == len(data)
        with pytest.raises(IndexError):
            found[len(data)]
        places = st.integers(0, len(data))
        for _ in range(8):
            low, high = sorted((drawn.draw(places), drawn.draw(places)))
            assert found[low:high] == data[low:high]
            assert found.startswith(data[low:high], low)
            assert not found.startswith(data[low:high] + b"odd", low)
            if low < len(data):
                assert found[low] == data[low]


def test_a_file_that_shrinks_while_it_is_read_is_told() -> None:
    file = io.BytesIO(bytes(100))
    found = Stretch(Input(file), 0, 100)
    file.truncate(50)
    with pytest.raises(OSError, match="shorter"):
        found[60]


def test_many_small_fields_are_joined_in_parts() -> None:
    """Python takes 80 bytes for each piece that it joins."""
    pieces = wire.gathered(b"ab" for _ in range(3 * wire.TOGETHER + 1))
    assert [len(piece) for piece in pieces] == [*[2 * wire.TOGETHER] * 3, 2]

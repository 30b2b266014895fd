"""The JSON form: lossless both ways, held to its schema, and exact about what is wrong in it."""

from __future__ import annotations

import codecs
import io
import json
import zlib
from typing import Any

import hostile
import jsonschema
import pytest
from conftest import STREAMS, stream_bytes
from hypothesis import given
from hypothesis import strategies as st
from schemas import validator
from strategies import foreign_snapshots, snapshots

from tagged_vmstate import jsonform
from tagged_vmstate.errors import FormatError
from tagged_vmstate.jsonform import from_json, to_json, to_values
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.records import Record
from tagged_vmstate.records import to_json as record_to_json
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter, write
from tagged_vmstate.wire import Opaque

VALIDATOR = validator("snapshot")


def as_json(data: bytes) -> bytes:
    file = io.BytesIO()
    to_json(Snapshot.read(data), file)
    return file.getvalue()


def as_snapshot(text: bytes) -> bytes:
    file = io.BytesIO()
    write(from_json(io.BytesIO(text)), file)
    return file.getvalue()


def snapshot(*records: Record) -> bytes:
    file = io.BytesIO()
    with SnapshotWriter(file, {"producer": "x"}) as writer:
        writer.write(Section("dev", 0, records))
    return file.getvalue()


@pytest.fixture(scope="module", params=[STREAMS[0], *(pytest.param(name, marks=pytest.mark.long) for name in STREAMS[1:])])
def imported(request: pytest.FixtureRequest) -> bytes:
    file = io.BytesIO()
    write(import_stream(io.BytesIO(stream_bytes(request.param))), file)
    return file.getvalue()


def test_real_machines_go_both_ways_and_fit_the_schema(imported: bytes) -> None:
    text = as_json(imported)
    assert as_snapshot(text) == imported
    VALIDATOR.validate(json.loads(text))


@given(snapshots())
def test_every_snapshot_goes_both_ways_and_fits_the_schema(data: bytes) -> None:
    text = as_json(data)
    assert as_snapshot(text) == data
    VALIDATOR.validate(json.loads(text))


@given(st.one_of(snapshots(), foreign_snapshots()))
def test_a_line_for_each_field_has_what_json_makes_of_the_field(data: bytes) -> None:
    """Many bytes are written in pieces: here three are many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonform, "_CHUNK", 3)
        lines = as_json(data).decode().split("\n")[2:]
    records = [to_line(record) for section in Snapshot.read(data) for record in section.records()]
    assert [line.strip().rstrip("],}") for line in lines if line.startswith(" ")] == [each.rstrip("],}") for each in records]


def to_line(record: Record) -> str:
    return json.dumps(record_to_json(record), ensure_ascii=False)


@given(snapshots())
def test_another_layout_of_the_same_json_means_the_same(data: bytes) -> None:
    again = json.dumps(json.loads(as_json(data)), indent=2, sort_keys=False).encode()
    assert as_snapshot(again) == data


def _foreign(kind: str, value: bytes) -> bytes:
    head = b"\x94\xaetagged-vmstate\x01\x81\xd9\x01a\xca\x3f\x80\x00\x00"
    head += b"\xce" + zlib.crc32(head).to_bytes(4, "big")
    field = b"\x95\xa1f" + Opaque.of(kind).raw + b"\xc0\x00" + value
    frame = b"\x96\xa7section\xa3dev\x00\x80\xcf" + len(field).to_bytes(8, "big")
    crc = zlib.crc32(frame + field).to_bytes(4, "big")
    end = b"\x93\xa3end\x01"
    total = zlib.crc32(head[-4:] + crc + end).to_bytes(4, "big")
    return head + frame + b"\xce" + crc + field + end + b"\xce" + total


@pytest.mark.parametrize(
    ("kind", "value"), [("uint32", b"\x07"), ("string", b"\xdb\x00\x00\x00\x01a"), ("float32", b"\xcb" + bytes(8))]
)
def test_encodings_that_others_chose_come_back(kind: str, value: bytes) -> None:
    data = _foreign(kind, value)
    text = as_json(data)
    assert b'"msgpack"' in text
    assert as_snapshot(text) == data


def test_an_edit_counts_and_not_the_bytes_beside_it() -> None:
    text = as_json(_foreign("uint32", b"\x07")).replace(b'"value": 7', b'"value": 8')
    [section] = Snapshot.read(as_snapshot(text))
    assert section.records()[0].value == 8
    assert b"\xce\x00\x00\x00\x08" in section.payload()


def test_the_short_form() -> None:
    file = io.BytesIO()
    to_values(import_stream(io.BytesIO(stream_bytes("pc-qemu7.2"))), file)
    found = json.loads(file.getvalue())
    keyboard = found["ps2kbd"]
    assert (keyboard["scan_enabled"], keyboard["translate"], keyboard["scancode_set"]) == (1, 0, 2)
    assert keyboard["parent_obj"]["queue.count"] == 0
    assert found["ram"]["pc.ram"] == {"length": 2 << 20, "stored": 0}
    assert {"dma", "dma#1"} < set(found)
    assert found["0000:00:00.0/I440FX"]["parent_obj"]["config[0]"].startswith("86 80 37 12")


GOOD = as_json(snapshot(Record("n", "uint8", None, 7), Record("s", "struct", 1, ((Record("b", "buffer", 1, b"a"),),))))


def broken(old: str, new: str) -> bytes:
    assert old.encode() in GOOD
    return GOOD.replace(old.encode(), new.encode(), 1)


def with_runs(offset: str) -> bytes:
    return as_json(snapshot(Record("m", "sparse", 64, ((0x10, b"a"),)))).replace(b'"0x10"', json.dumps(offset).encode())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (broken('"value": 7', '"value": 256'), r"expected `uint8` \(0 to 255\), JSON has 256 - at dev#0/n \(line 4, byte \d+\)"),
        (broken('"value": 7', '"value": "7"'), "expected `uint8`, JSON has '7' - at dev#0/n"),
        (broken('"value": 7', '"value": true'), "expected `uint8`, JSON has True - at dev#0/n"),
        (broken('"value": 7', '"valu": 7'), 'expected "value", JSON has none - at dev#0/n'),
        (broken('"value": 7', '"value": NaN'), "NaN, which JSON lacks"),
        (broken('"value": 7', '"value": 7, "value": 8'), "the key 'value' twice in one object"),
        (broken('"value": 7', '"value": ' + "9" * 5000), "an integer of more than 4300 digits"),
        (broken('"value": 7', '"value": ' + "[" * 100_000), "nested too deep"),
        (broken('"61"', '"6"'), r"hex digits, JSON has '6' - at dev#0/s\[0\]/b \(line 5"),
        (with_runs("0x" + "f" * 5000), "{offset: hex}, JSON has {'0xfff"),
        (with_runs("0x" + "f" * 900), r"ascending, not overlapping and inside it, JSON has 1 bytes at 5104866.*\.\.\."),
        (with_runs("0x_1"), "{offset: hex}, JSON has {'0x_1"),
        (with_runs("\u0663"), "{offset: hex}, JSON has {'\u0663"),
        (broken('"name": "n"', '"name": ""'), "a name of 1 to 255 bytes"),
        (broken('"instance": 0', '"instance": -1'), '"instance" as an integer'),
        (broken('"device": "dev", ', ""), '"device" as a string, JSON has nothing - at "section 0"'),
        (broken('"version": 1', '"version": 2'), '"version": 1, JSON has 2'),
        (broken('"version": 1', '"version": true'), '"version": 1, JSON has True'),
        (broken('"instance": 0', '"instance": 0, "kind": []'), r'"kind" as "section" or "part", JSON has \[\] - at "section 0"'),
        (broken('"device": "dev"', '"device": ""'), "a device of 1 to 255 bytes of UTF-8, JSON has ''"),
        (
            broken('"device": "dev"', '"device": "\\ud800"'),
            r"a device of 1 to 255 bytes of UTF-8, JSON has .* - at \".ud800\"#0 \(line 3",
        ),
        (broken('"x"', "[" * 65 + "1" + "]" * 65), "at most 64 levels of nesting, JSON has more"),
        (broken('"format": "tagged-vmstate"', '"format": "other"'), '"format": "tagged-vmstate", JSON has'),
        (broken('"attributes": {"producer": "x"},', ""), '"attributes" before "sections"'),
        (broken('"x"', '{"$hex": "0"}'), '"attributes" that MessagePack can hold'),
        (broken('"x"', "[1e400]"), "a number beyond the range of a float64"),
        (broken('"x"', '[{"$msgpack": "0102"}]'), "bytes after the MessagePack object"),
        (broken('"x"', '{"a": {"$hex": "01", "b": 1}}'), r"a key that begins with \$ means"),
        (broken('"value": 7', '"length": null, "value": 7'), '"length" as an integer, JSON has nothing - at dev#0/n'),
        (broken('"value": 7', '"value": 7, "msgpack": null'), '"msgpack" as the bytes of one field in hex'),
        (
            broken('"length": 1', '"length": 1, "is_default": true'),
            r"only fields at their default in a struct that is flagged is_default, JSON has .* - at dev#0/s\[0\]/b \(line 5, byte \d+\)",
        ),
        (broken('"value": 7', '"value": -7, "msgpack": "95a16ea575696e7438c00007"'), r"JSON has -7 - at dev#0/n \(line"),
        (GOOD + b"x", "nothing after the object"),
        (GOOD.replace(b'"dev"', b'"\xff"'), "expected UTF-8, JSON has the byte 0xff"),
    ],
)
def test_what_is_wrong_is_told_in_words(text: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        as_snapshot(text)


def test_runs_come_in_any_order() -> None:
    """A tool that sorts the keys of its JSON does so as text."""
    text = as_json(snapshot(Record("m", "sparse", 1 << 20, ((0x200, b"a"), (0x1000, b"b")))))
    runs = b'"0x200": "61", "0x1000": "62"'
    assert runs in text
    assert as_snapshot(text.replace(runs, b'"0x1000": "62", "0x200": "61"')) == as_snapshot(text)
    with pytest.raises(FormatError, match="not overlapping"):
        as_snapshot(text.replace(b"0x1000", b"0x0200"))


def test_one_odd_value_leaves_the_others_plain() -> None:
    raw = Opaque(bytes.fromhex("84 a161 01 a162 93 ca3f000000 c0 c40161 a163 81 01 c3 a164 82 a0 02 a26124 a1ff"))
    text = as_json(snapshot(Record("o", "odd", None, raw)))
    expected = b'{"a": 1, "b": [{"$msgpack": "ca3f000000"}, null, {"$hex": "61"}], "c": {"$msgpack": "8101c3"}, "d": {"": 2, "a$": {"$msgpack": "a1ff"}}}'
    assert expected in text
    assert as_json(as_snapshot(text)) == text


ENCODINGS = [
    *(("utf-8", b""), ("utf-8", codecs.BOM_UTF8)),
    *(("utf-16-le", b""), ("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", b""), ("utf-16-be", codecs.BOM_UTF16_BE)),
]


@pytest.mark.parametrize(("encoding", "mark"), ENCODINGS)
class TestEncodings:
    """What other tools write, PowerShell's UTF-16 with a mark among it."""

    def test_the_snapshot_is_the_same(self, encoding: str, mark: bytes) -> None:
        plain = as_json(snapshot(Record("é", "string", None, "\U0001f5a5"), Record("n", "uint8", None, 7)))
        text = mark + plain.decode().replace("\n", "\r\n").encode(encoding)
        assert as_snapshot(text) == as_snapshot(plain)
        assert as_json(as_snapshot(text)) == plain, "no mark is ever written"

    def test_the_byte_and_line_of_a_culprit_point_at_it(
        self, encoding: str, mark: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jsonform, "_CHUNK", 64)
        lines = (
            hostile.sections(40)
            .decode()
            .replace('{"device"', '\n{"device"')
            .replace('"fields"', '"attributes": {"é": 1}, "fields"')
        )
        broken = lines.replace('"instance": 38', '"instance": 38, "kind": 1')
        with pytest.raises(FormatError, match='"kind" as') as caught:
            list(from_json(io.BytesIO(mark + broken.encode(encoding))))
        before = broken[: broken.index("[]", broken.index('"kind"'))]
        assert caught.value.line == before.count("\n") + 1
        assert caught.value.offset == len(mark + before.encode(encoding))

    def test_a_byte_that_is_no_text_is_the_one_named(self, encoding: str, mark: bytes) -> None:
        before = mark + GOOD[: GOOD.index(b"dev")].decode().encode(encoding)
        alien = b"\xff" if encoding == "utf-8" else "\udfff".encode(encoding, "surrogatepass")
        with pytest.raises(FormatError, match=rf"expected UTF-\w+, JSON has the byte 0x{alien[0]:02x}") as caught:
            as_snapshot(before + alien + GOOD[GOOD.index(b"dev") :].decode().encode(encoding))
        assert (caught.value.offset, caught.value.line) == (len(before), 3)

    def test_every_cut_is_our_error(self, encoding: str, mark: bytes) -> None:
        text = mark + GOOD.decode().rstrip().encode(encoding)
        for size in range(len(text)):
            with pytest.raises(FormatError, match="byte"):
                as_snapshot(text[:size])


def test_the_byte_and_line_of_a_culprit_point_at_it() -> None:
    text = broken('"61"', '"zz"')
    with pytest.raises(FormatError) as caught:
        as_snapshot(text)
    assert text[caught.value.offset :].startswith(b'"zz"')
    assert caught.value.line == text[: caught.value.offset].count(b"\n") + 1


def test_the_first_key_that_comes_twice_is_named() -> None:
    text = as_json(snapshot()).replace(b'"instance": 0', b'"instance": 0, "b": 1, "a": 1, "a": 2, "b": 2')
    with pytest.raises(FormatError, match="the key 'a' twice in one object"):
        as_snapshot(text)


def test_places_stay_right_behind_a_big_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonform, "_CHUNK", 64)
    text = hostile.sections(40)
    assert len(list(from_json(io.BytesIO(text)))) == 41
    lines = text.replace(b'{"device"', b'\n{"device"')
    broken = lines.replace(b'"instance": 38', b'"instance": -1')
    with pytest.raises(FormatError, match=r"0 to 2\*\*32-1, JSON has -1") as caught:
        list(from_json(io.BytesIO(broken)))
    place = broken.rindex(b"{", 0, broken.index(b"-1"))
    assert (caught.value.line, caught.value.offset) == (broken[:place].count(b"\n") + 1, broken.index(b"[]", place))


def test_every_cut_is_our_error() -> None:
    for size in range(len(GOOD.rstrip())):
        with pytest.raises(FormatError, match="byte"):
            as_snapshot(GOOD[:size])


def test_small_pieces_read_the_same() -> None:
    class Drip(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 1, 1))

    file = io.BytesIO()
    write(from_json(Drip(GOOD)), file)
    assert as_json(file.getvalue()) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.update(version=2),
        lambda found: found.pop("sections"),
        lambda found: found["sections"][0].update(instance=-1),
        lambda found: found["sections"][0]["fields"][0].update(value=256),
        lambda found: found["sections"][0]["fields"][0].update(value="7"),
        lambda found: found["sections"][0]["fields"][0].pop("name"),
        lambda found: found["sections"][0]["fields"][0].update(size=1),
        lambda found: found["sections"][0]["fields"][1]["value"][0][0].update(value="zz"),
    ],
)
def test_the_schema_refuses_what_is_no_snapshot(change: Any) -> None:
    found = json.loads(GOOD)
    VALIDATOR.validate(found)
    change(found)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(found)

"""The snapshot file: golden bytes, lazy reading, streaming, damage named and the rest saved."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
from conftest import STREAMS, stream_bytes
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import snapshots

from tagged_vmstate import Device, Machine, Table, frames
from tagged_vmstate.errors import FormatError, LimitError, StateError
from tagged_vmstate.frames import Frame, Header, Kind, Lead, Order
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.records import Limits, Record
from tagged_vmstate.sections import NO_ATTRIBUTES, EncodedSection, Section
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter, write
from tagged_vmstate.sums import shifted
from tagged_vmstate.wire import Opaque, pack_str, pack_uint

GOLDEN = bytes.fromhex(
    "94"  # header: an array of 4
    "ae 7461676765642d766d7374617465"  # "tagged-vmstate"
    "01"  # version 1
    "81 a8 70726f6475636572 a1 78"  # {"producer": "x"}
    "ce fbb278ab"  # its sum
    "96"  # frame: an array of 6
    "a7 73656374696f6e"  # "section"
    "a3 646576"  # "dev"
    "00"  # instance 0
    "80"  # no attributes
    "cf 0000000000000044"  # 68 bytes of fields
    "ce 617598ab"  # its sum
    "95 a1 61 a6 75696e743332 c0 00 ce 00000007"  # ["a", "uint32", nil, 0, 7]
    "95 a1 70 a6 737472756374 c0 00 92"  # ["p", "struct", nil, 0, two fields:
    "95 a1 61 a6 75696e743332 c0 00 ce 00000009"  # ["a", "uint32", nil, 0, 9]
    "95 a1 62 a6 75696e743634 c0 00 cf 8000000000000000"  # ["b", "uint64", nil, 0, 2**63]]
    "93 a3 656e64 01"  # end: ["end", one frame,
    "ce 69409679"  # the sum over the sums]
)
GOLDEN_RECORDS = (
    Record("a", "uint32", None, 7),
    Record("p", "struct", None, (Record("a", "uint32", None, 9), Record("b", "uint64", None, 2**63))),
)


def written(sections: Iterable[Section], **attributes: object) -> bytes:
    file = io.BytesIO()
    with SnapshotWriter(file, attributes) as writer:
        for section in sections:
            writer.write(section)
    return file.getvalue()


def read_all(data: bytes) -> list[tuple[str, tuple[Record, ...]]]:
    return [(section.label, section.records()) for section in Snapshot.read(data)]


def verify(data: bytes) -> None:
    for section in Snapshot.read(data):
        section.verify()


def memory(*runs: tuple[int, bytes]) -> Record:
    return Record("ram", "sparse", 64, runs)


EIGHT = written(Section(f"dev{number % 5}", number // 5, [Record("n", "uint32", None, number)]) for number in range(8))


def test_golden_bytes() -> None:
    assert written([Section("dev", 0, GOLDEN_RECORDS)], producer="x") == GOLDEN
    assert read_all(GOLDEN) == [("dev#0", GOLDEN_RECORDS)]


def test_the_first_17_bytes_never_change() -> None:
    assert written([]).startswith(b"\x94\xaetagged-vmstate\x01")


@pytest.mark.parametrize("data", [GOLDEN, EIGHT], ids=["golden", "eight"])
def test_every_cut_and_every_flipped_bit_is_detected(data: bytes) -> None:
    for size in range(len(data)):
        with pytest.raises(FormatError, match="byte"):
            read_all(data[:size])
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError, match="byte"):
            read_all(bytes(flipped))


@pytest.mark.parametrize("extra", [b"\0", b"\xc0", GOLDEN])
def test_bytes_after_the_end_are_detected(extra: bytes) -> None:
    with pytest.raises(FormatError, match=rf"nothing after the end, snapshot has extra bytes - at byte {len(GOLDEN)}"):
        read_all(GOLDEN + extra)


def _frames(data: bytes) -> list[bytes]:
    """Header, frames and end of a snapshot, each whole and with its own correct sum."""
    snapshot = Snapshot.read(data)
    places = [(section.offset, section.end) for section in snapshot]
    return [data[: places[0][0]], *(data[start:end] for start, end in places), data[places[-1][1] :]]


def test_swapped_dropped_doubled_and_foreign_frames_are_detected() -> None:
    header, *frames, end = _frames(EIGHT)
    foreign = _frames(written([Section("other", 0, [Record("n", "uint32", None, 1)])]))[1]
    for one in range(8):
        for other in range(8):
            if one != other:
                swapped = list(frames)
                swapped[one], swapped[other] = frames[other], frames[one]
                with pytest.raises(FormatError, match=r"the checksum 0x.* over all frames"):
                    read_all(b"".join([header, *swapped, end]))
        with pytest.raises(FormatError, match="expected 8 frames before the end, snapshot has 7"):
            read_all(b"".join([header, *frames[:one], *frames[one + 1 :], end]))
        with pytest.raises(FormatError, match="each section once"):
            read_all(b"".join([header, *frames[: one + 1], *frames[one:], end]))
        with pytest.raises(FormatError, match=r"the checksum 0x.* over all frames"):
            read_all(b"".join([header, *frames[:one], foreign, *frames[one + 1 :], end]))


@given(snapshots())
def test_what_is_read_is_written_again_byte_for_byte(data: bytes) -> None:
    again = io.BytesIO()
    write(Snapshot.read(data), again)
    assert again.getvalue() == data
    decoded = io.BytesIO()
    snapshot = Snapshot.read(data)
    with SnapshotWriter(decoded, snapshot.raw_attributes) as writer:
        for section in snapshot:
            records = tuple(record.replace() for record in section.records())
            writer.write(Section(section.device, section.instance, records, kind=section.kind, attributes=section.raw_attributes))
    assert decoded.getvalue() == data


def _as_msgpack_sees_it(data: bytes) -> list[object]:
    # Attributes may hold what has no Python form: keys that cannot be hashed, strings that are not UTF-8.
    unpacker = msgpack.Unpacker(
        io.BytesIO(data), strict_map_key=False, object_pairs_hook=list, unicode_errors="replace", max_buffer_size=1 << 30
    )
    return list(unpacker)


def _expected_objects(data: bytes) -> int:
    return 2 + sum(1 + len(section.records()) for section in Snapshot.read(data))


@pytest.mark.parametrize("name", STREAMS)
def test_a_foreign_decoder_sees_header_frames_fields_and_end(name: str) -> None:
    file = io.BytesIO()
    write(import_stream(io.BytesIO(stream_bytes(name))), file)
    objects = _as_msgpack_sees_it(file.getvalue())
    assert len(objects) == _expected_objects(file.getvalue())
    names = [field[0] for field in objects if isinstance(field, list) and len(field) == 5]
    assert names == [record.name for section in Snapshot.read(file.getvalue()) for record in section.records()]


@given(snapshots())
def test_a_foreign_decoder_reads_every_generated_snapshot(data: bytes) -> None:
    try:
        header, *rest = _as_msgpack_sees_it(data)
    except ValueError as error:
        assume("nanoseconds" not in str(error))  # an impossible date, which that library refuses
        raise
    assert isinstance(header, list)
    assert header[:2] == ["tagged-vmstate", 1]
    assert len(rest) + 1 == _expected_objects(data)


def test_a_section_of_4_gib_is_listed_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "large.tvm"
    size = (1 << 32) - 64
    head = b"\x96\xa7section\xa3big\x00\x80\xcf" + size.to_bytes(8, "big")
    header = _frames(EIGHT)[0]
    with path.open("wb") as file:
        file.write(header + head + b"\xce\0\0\0\0")
        file.seek(size, os.SEEK_CUR)
        sums = zlib.crc32(header[-4:] + b"\0\0\0\0")
        file.write(b"\x93\xa3end\x01\xce" + zlib.crc32(b"\x93\xa3end\x01", sums).to_bytes(4, "big"))
    with Snapshot.read(path) as snapshot:
        assert [(section.label, section.size) for section in snapshot] == [("big#0", size)]


class _Pipe(io.RawIOBase):
    """Bytes that come a few at a time and cannot be sought."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = io.BytesIO(data)
        self._step = step

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, self._step))


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_pipe_is_read_in_order(step: int) -> None:
    snapshot = Snapshot.read(_Pipe(EIGHT, step))  # type: ignore[arg-type]  # all that reading needs
    assert [section.records()[0].value for section in snapshot] == list(range(8))


def test_parts_are_copied_from_a_pipe() -> None:
    """Their names are checked against each other, which looks at their fields once more."""
    first = Section("m", 0, [Record("ram", "sparse", 9, ((0, b"x"),))], kind="part")
    parts = [first, Section("m", 0, [Record("ram", "sparse", 9, ((4, b"x"),))])]
    data, copy = written(parts), io.BytesIO()
    write(Snapshot.read(_Pipe(data, 7)), copy)  # type: ignore[arg-type]  # all that reading needs
    assert copy.getvalue() == data


def test_a_section_that_a_pipe_has_passed_says_so() -> None:
    first, *_ = Snapshot.read(_Pipe(EIGHT, 7))  # type: ignore[arg-type]  # all that reading needs
    with pytest.raises(ValueError, match="this place has been passed"):
        first.records()


def test_writing_to_a_pipe_and_reading_from_it() -> None:
    out, into = os.pipe()
    with os.fdopen(out, "rb") as reader, os.fdopen(into, "wb") as sink:
        big = memory((0, bytes(range(64))))

        def write_it() -> None:
            with sink:
                write(Snapshot.read(written([Section("a", 0, [big])])), sink)

        thread = threading.Thread(target=write_it)
        thread.start()
        assert [section.records() for section in Snapshot.read(reader)] == [(big,)]
        thread.join()


def test_sections_in_parts_may_interleave() -> None:
    parts = [
        Section("ram", 0, [memory((0, b"a"))], kind="part"),
        Section("block", 0, [], kind="part"),
        Section("ram", 0, [memory((0, b"b"))], kind="part"),
        Section("block", 0, []),
        Section("ram", 0, []),
        Section("cpu", 0, []),
    ]
    found = [(section.label, section.kind) for section in Snapshot.read(written(parts))]
    assert found == [(section.label, section.kind) for section in parts]


def test_parts_without_a_last_one_are_refused() -> None:
    file = io.BytesIO()
    writer = SnapshotWriter(file)
    writer.write(Section("ram", 0, [], kind="part"))
    with pytest.raises(StateError, match="expected the last part of a section, got only earlier ones - at ram#0"):
        writer.close()
    header, part, _ = _frames(written([Section("ram", 0, [], kind="part"), Section("ram", 0, [])]))[0:3]
    sums = zlib.crc32(header[-4:] + part[-4:])
    end = b"\x93\xa3end\x01\xce" + zlib.crc32(b"\x93\xa3end\x01", sums).to_bytes(4, "big")
    with pytest.raises(FormatError, match=rf"the last part of a section.* - at ram#0 \(byte {len(header)}\)"):
        read_all(header + part + end)


def test_attributes_that_no_reader_takes_are_not_written() -> None:
    target = io.BytesIO()
    with pytest.raises(StateError, match="at most 1048576 bytes of attributes"):
        SnapshotWriter(target, {"a": bytes(1 << 20)})
    with pytest.raises(StateError, match="at most 1048576 bytes of attributes"):
        Machine([Device({}, 0, Table("dev", []))]).save(target, {"a": bytes(1 << 20)})
    deep: Any = "x"
    for _ in range(65):
        deep = {"a": deep}
    with pytest.raises(StateError, match="at most 64 levels of nesting"):
        SnapshotWriter(target, {"a": deep})
    assert not target.getvalue()
    with SnapshotWriter(target, {"a": deep["a"]["a"]}):
        pass
    assert Snapshot.read(target.getvalue()).attributes["a"] == deep["a"]["a"]


def test_a_section_is_written_once_and_only_what_a_reader_takes() -> None:
    writer = SnapshotWriter(io.BytesIO())
    writer.write(Section("a", 0, []))
    with pytest.raises(StateError, match="expected each section once, got one more after its last part - at a#0"):
        writer.write(Section("a", 0, []))
    with pytest.raises(StateError, match=r"an instance of 0 to 2\*\*32-1"):
        writer.write(Section("a", 1 << 32, []))
    for device in ("", "x" * 256, "\ud800"):
        with pytest.raises(StateError, match="a device of 1 to 255 bytes of UTF-8"):
            writer.write(Section(device, 0, []))
    with pytest.raises(StateError, match="a kind of `section` or `part`, got 'delta'"):
        writer.write(Section("b", 0, [], kind="delta"))  # type: ignore[arg-type]  # of a later version
    for attributes in (b"\x82\xa1a\1\xa1a\1", b"\x81\1\1", b"\xde\0\0", b"\x80\x80"):
        with pytest.raises(StateError, match="attribute"):
            writer.write(Section("b", 0, [], attributes=Opaque(attributes)))
    with pytest.raises(StateError, match="bytes of attributes"):
        writer.write(Section("b", 0, [], attributes={"a": bytes(1 << 20)}))
    with pytest.raises(StateError, match=r"got 300 - at b#0/s/n"):
        writer.write(Section("b", 0, [Record("s", "struct", None, (Record("n", "uint8", None, 300),))]))


@pytest.mark.parametrize("more", [0, 1])
def test_a_section_of_more_than_a_reader_takes_is_not_written(more: int) -> None:
    class Endless(bytes):
        def __len__(self) -> int:
            return (1 << 32) + more

    size = (1 << 20) - 8 + more
    large = Opaque(b"\x81\xa1a\xc6" + size.to_bytes(4, "big") + bytes(size))
    makers: list[Callable[[], Section]] = [
        lambda: EncodedSection(Lead.of("section", "a", 0, NO_ATTRIBUTES), Endless()),
        lambda: EncodedSection(Lead.of("section", "a", 0, large), b""),
    ]
    words = [
        r"4294967296 bytes of fields in one frame, got 4294967297 - at a#0",
        "1048576 bytes of attributes, got 1048577 - at a#0",
    ]
    for make, said in zip(makers, words, strict=True):
        with pytest.raises(StateError, match=f"at most {said}") if more else contextlib.nullcontext():
            SnapshotWriter(io.BytesIO()).write(make())


def test_the_longest_device_and_the_last_instance_are_taken() -> None:
    device = "é" * 127 + "x"
    [section] = Snapshot.read(written([Section(device, (1 << 32) - 1, [])]))
    assert (section.device, section.instance, repr(section)) == (device, (1 << 32) - 1, f"<section {device}#4294967295>")
    head = _with_header(b"\x80") + b"\x96\xa7section\xda\x01\x00" + b"x" * 256 + bytes(60)
    with pytest.raises(LimitError, match=r"the name of a device, of 1 to 255 bytes, snapshot has one of 256 - at byte 32"):
        read_all(head)


def test_fields_that_are_none_say_where() -> None:
    class Odd(Section):
        def payload(self) -> bytes:
            return b"\x94\xc0"

    header = Header(1, Opaque.of({})).encode()
    with pytest.raises(FormatError, match=rf"expected a field .* - at a#0 \(byte {len(header) + 27}\)"):
        read_all(_unchecked([Odd("a", 0, [])]))


def test_a_file_that_is_cut_while_it_is_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tvm"
    data = written([Section("a", 0, [Record("b", "buffer", 3 << 20, bytes(3 << 20))])])
    path.write_bytes(data)
    with Snapshot.read(path) as snapshot:
        [section] = snapshot
        os.truncate(path, 2 << 20)
        with pytest.raises(
            FormatError, match=r"expected 3145749 bytes of fields, snapshot has only 2097072 \(truncated\) - at a#0"
        ):
            section.records()


def test_a_file_that_is_cut_within_a_section_says_how_much_is_there() -> None:
    sections = list(Snapshot.read(EIGHT))
    words = rf"expected {sections[3].size} bytes of fields, snapshot has only {sections[3].size - 4} \(truncated\) - at dev3#0"
    with pytest.raises(FormatError, match=words) as caught:
        list(Snapshot.read(EIGHT[: sections[3].end - 4]))
    assert caught.value.offset == sections[3].end - 4


def test_a_file_that_is_no_snapshot_is_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.tvm"
    path.write_bytes(b"text")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FormatError):
        Snapshot.read(path)
    assert os.listdir("/proc/self/fd") == before


def test_a_file_that_somebody_else_opened_stays_open() -> None:
    file = io.BytesIO(EIGHT)
    with Snapshot.read(file):
        pass
    assert not file.closed


def test_a_head_that_never_ends_is_refused() -> None:
    endless = b"\xdf\xff\xff\xff\xff" + b"\xa1a\xc0" * (1 << 19)
    with pytest.raises(LimitError, match=r"a head of at most"):
        Snapshot.read(b"\x94\xaetagged-vmstate\x01" + endless)


def test_attributes_come_back_and_producer_is_ours_unless_given() -> None:
    data = written([Section("a", 0, [], attributes={"k": [1, b"x", {"d": None}]})], machine="pc")
    snapshot = Snapshot.read(data)
    assert snapshot.attributes["producer"].startswith("tagged-vmstate ")
    assert snapshot.attributes["machine"] == "pc"
    assert [section.attributes for section in snapshot] == [{"k": [1, b"x", {"d": None}]}]
    assert Snapshot.read(written([], producer="me")).attributes == {"producer": "me"}


def _with_header(attributes: bytes, version: bytes = b"\x01") -> bytes:
    head = b"\x94\xaetagged-vmstate" + version + attributes
    return head + b"\xce" + zlib.crc32(head).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "nothing at all"),
        (b"\x94\xaetagged", r"only 8 bytes \(truncated\)"),
        (b"\xff\xd8\xff\xe0 JFIF", "expected a snapshot, which begins with"),
        (_with_header(b"\x80", b"\x00"), "a version of 1 or more, snapshot has 0"),
        (_with_header(b"\x80", b"\xcc\x01"), "shortest form"),
        (_with_header(b"\x90"), "a map of attributes, snapshot has an array"),
        (_with_header(b"\x81\xa1a"), "truncated"),
        (_with_header(b"\x81\xa1a" + b"\x91" * 100 + b"\xc0"), "at most 64 levels of nesting"),
        (_with_header(b"\xdf\xff\xff\xff\xff"), "truncated"),
        (_with_header(b"\x80")[:-1] + b"\0", r"of the header, snapshot has .*\(damaged\)"),
        (_with_header(b"\x80"), r"expected a frame, or the end, snapshot has nothing more \(truncated\) - at byte 23"),
        (_with_header(b"\x80") + b"\x95", "an array of 6 items"),
        (_with_header(b"\x80") + b"\x96\xa5other" + bytes(60), "`section` or `part`, snapshot has `other`"),
        (_with_header(b"\x80") + b"\x96\xa7section\xa1a\xff\x80" + bytes(60), "an instance of 0 to"),
        (_with_header(b"\x80") + b"\x96\xa7section\xa1a\x00\x80\xce" + bytes(60), r"the size of a frame \(0xcf and 8 bytes\)"),
        (_with_header(b"\x80") + b"\x96\xa7section\xa1a\xcc\x00\x80\xcf" + bytes(8) + b"\xce" + bytes(60), "shortest form"),
        (_with_header(b"\x80") + b"\x96\xa7section\xa1a\x00\x80\xcf" + b"\xff" * 8 + b"\xce" + bytes(60), "a frame of at most"),
        (_with_header(b"\x80") + b"\x93\xa3end\xff\xce" + bytes(4), "the number of frames, snapshot has -1"),
    ],
)
def test_what_is_no_snapshot_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read_all(data)


FRAME = b"\x96\xa7section\xa1a"


@pytest.mark.parametrize(
    ("data", "words", "offset"),
    [
        (_with_header(b"\x80", b"\x00"), "a version of 1 or more, snapshot has 0", 16),
        (_with_header(b"\x80", b"\xcc\x01"), "shortest form", 0),
        (_with_header(b"\x80")[:-1] + b"\0", "of the header", 0),
        (b"\x94\xaetagged", "only 8 bytes", 0),
        (_with_header(b"\xa0"), "a map of attributes, snapshot has a string", 17),
        (_with_header(b"\x80") + b"\x95" + bytes(60), r"or the end \(of 3\), snapshot has an array", 23),
        (_with_header(b"\x80") + b"\x93\xa3abc" + bytes(60), r"or the end \(of 3\), snapshot has an array", 23),
        (_with_header(b"\x80") + b"\x94\xa3end\0\xc0\xce" + bytes(60), r"or the end \(of 3\), snapshot has an array", 23),
        (_with_header(b"\x80") + b"\x96\xa3end" + bytes(60), "`section` or `part`, snapshot has `end`", 24),
        (_with_header(b"\x80") + b"\x96\xa7section\xa0" + bytes(60), "of 1 to 255 bytes, snapshot has one of 0", 32),
        (_with_header(b"\xde\0\1\xa1a\0"), "the head of a map of attributes in MessagePack's shortest form", 17),
        (_with_header(b"\xdf\0\0\0\0"), "the head of a map of attributes in MessagePack's shortest form", 17),
        (_with_header(b"\x82\xa1a\0\7\0"), r"the name of an attribute \(a string\), snapshot has an integer", 21),
        (_with_header(b"\x82\xa1a\0\xc4\1a\0"), r"the name of an attribute \(a string\), snapshot has bytes", 21),
        (_with_header(b"\x82\xa1a\0\xa1\xff\0"), "expected UTF-8, snapshot has byte 0xff", 22),
        (_with_header(b"\x82\xa1a\1\xd9\1a\2"), "^duplicate attribute `a` - at byte 21$", 21),
        (_with_header(b"\x81\xa1a\xc1"), "the value of an attribute, snapshot has the byte 0xc1", 20),
        (_with_header(b"\x81\xa1a" + b"\x91" * 64 + b"\0"), "at most 64 levels of nesting", 84),
        (_with_header(b"\x81\xa1a" + b"\x91" * 63 + b"\x80"), "at most 64 levels of nesting", 84),
        (_with_header(b"\x80") + FRAME + b"\0\x82\xa1a\1\xa1a\2" + bytes(60), "^duplicate attribute `a`", 39),
        (_with_header(b"\x80") + b"\x96\xa5other" + bytes(60), "snapshot has `other`", 24),
        (_with_header(b"\x80") + FRAME + b"\xcf\0\0\0\1\0\0\0\0\x80" + bytes(60), "to 2[*]{2}32-1, snapshot has 4294967296", 34),
        (_with_header(b"\x80") + FRAME + b"\x00\xa0" + bytes(60), "a map of attributes, snapshot has a string", 35),
        (
            _with_header(b"\x80") + FRAME + b"\x00\x81\xa1a\xc4\xff" + bytes(300),
            "at most 100 bytes of attributes, snapshot has 260",
            35,
        ),
        (_with_header(b"\x80") + FRAME + b"\x00\x80\xce" + bytes(60), "the size of a frame .*, snapshot has 0xce", 36),
        (
            _with_header(b"\x80") + FRAME + b"\x00\x80\xcf\0\0\0\0\0\0\1\1" + bytes(300),
            "a frame of at most 256 bytes, snapshot has 257",
            36,
        ),
        (_with_header(b"\x80") + FRAME + b"\xcc\x00\x80\xcf" + bytes(8) + b"\xce" + bytes(60), "shortest form", 23),
        (_with_header(b"\x80") + b"\x93\xa3end\xff\xce" + bytes(4), "the number of frames, snapshot has -1", 28),
        (_with_header(b"\x80") + b"\x93\xa3end\xcc\x00\xce" + bytes(4), "shortest form", 23),
    ],
)
def test_where_a_head_is_wrong_is_said(data: bytes, words: str, offset: int) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        list(Snapshot.read(data, limits=Limits(attributes=100, frame=256)))
    assert caught.value.offset == offset


def test_a_frame_and_attributes_may_be_as_large_as_the_limit() -> None:
    data = written([Section("a", 0, [Record("b", "buffer", 40, bytes(40))], attributes={"k": bytes(20)})], producer="x")
    [section] = Snapshot.read(data)
    size, attributes = section.size, len(section.raw_attributes.raw)
    [again] = Snapshot.read(data, limits=Limits(attributes=attributes, frame=size))
    assert again.records() == section.records()
    for limits in (Limits(attributes=attributes - 1), Limits(frame=size - 1)):
        with pytest.raises(LimitError, match="at most"):
            list(Snapshot.read(data, limits=limits))


def test_attributes_nest_64_levels_with_their_map_and_empty_ones() -> None:
    for inner in (b"\x91" * 63 + b"\7", b"\x91" * 62 + b"\x90", b"\x91" * 62 + b"\x80", b"\x81\xc0" * 63 + b"\7"):
        assert Snapshot.read(_with_header(b"\x81\xa1a" + inner)).raw_attributes.raw == b"\x81\xa1a" + inner


def test_names_of_attributes_may_have_heads_of_any_width() -> None:
    for head in (b"\xa1", b"\xd9\1", b"\xda\0\1", b"\xdb\0\0\0\1"):
        assert Snapshot.read(_with_header(b"\x81" + head + b"a\x07")).attributes == {"a": 7}


def test_attributes_beyond_the_limit_are_refused_and_the_limit_can_be_raised() -> None:
    data = _with_header(b"\x81\xa1a\xc6\x00\x10\x00\x00" + bytes(1 << 20)) + written([])[-11:]
    with pytest.raises(LimitError, match="at most"):
        Snapshot.read(data)
    assert len(Snapshot.read(data, limits=Limits(attributes=1 << 21)).attributes["a"]) == 1 << 20
    size = (1 << 20) - 8
    largest = b"\x81\xa1a\xc6" + size.to_bytes(4, "big") + bytes(size)
    assert len(largest) == 1 << 20
    assert len(Snapshot.read(_with_header(largest)).attributes["a"]) == size
    with pytest.raises(LimitError, match="at most 1048576 bytes"):
        Snapshot.read(_with_header(b"\x81\xa2aa" + largest[3:]))


ODD_ATTRIBUTES = {
    "twice": Opaque(b"\x82\xa1a\x01\xa1a\x02"),
    "true and 1": Opaque(b"\x82\x01\xa1a\xc3\xa1b"),
    "latin 1": Opaque(b"\xa1\xe9"),
    "time": Opaque(b"\xc7\x0c\xff\xff\xff\xff\xff" + bytes(8)),
}


def test_attributes_without_a_python_form_are_kept_as_bytes_and_the_others_decoded() -> None:
    data = written([Section("a", 0, [], attributes={"k": 1, **ODD_ATTRIBUTES})], producer="x", **ODD_ATTRIBUTES)
    snapshot = Snapshot.read(data)
    assert snapshot.attributes == {"producer": "x", **ODD_ATTRIBUTES}
    [section] = snapshot
    assert section.attributes == {"k": 1, **ODD_ATTRIBUTES}
    assert written([Section("a", 0, [], attributes=section.attributes)], **snapshot.attributes) == data


def test_a_later_version_is_listed_not_decoded() -> None:
    head = _with_header(b"\x80", b"\x02")
    frames = b"".join(_frames(EIGHT)[1:-1])
    sums = zlib.crc32(head[-4:] + b"".join(section.crc.to_bytes(4, "big") for section in Snapshot.read(EIGHT)))
    end = b"\x93\xa3end\x08\xce" + zlib.crc32(b"\x93\xa3end\x08", sums).to_bytes(4, "big")
    snapshot = Snapshot.read(head + frames + end)
    assert snapshot.version == 2
    sections = list(snapshot)
    assert len(sections) == 8
    with pytest.raises(FormatError, match="expected version 1 of the format, snapshot has version 2"):
        sections[0].records()


def _false_frame(size: int) -> bytes:
    return Frame(Lead.of("section", "a", 0, NO_ATTRIBUTES), size, 0).encode()


def hostile(shape: str, size: int) -> bytes:
    """A snapshot full of what looks like frames; most claim what comes after them."""
    data = bytearray(_with_header(b"\x80"))
    number = 0
    while len(data) + 100 <= size:
        if shape == "attributes":
            # an attribute whose value hides a frame, to which all of the following ones are attributes
            data += b"\xa4%04x\xc4\x0f\x96\xa7section\xa1a\x00\xde\xff\xff" % number
            number += 1
            continue
        if shape == "side by side":
            data += _false_frame(0)
            continue
        if shape == "between intact ones":
            lead = Lead.of("section", "b", (1 << 16) + number, NO_ATTRIBUTES)
            data += Frame(lead, 0, Frame(lead, 0, 0).sum_of_head).encode()
        number += 1
        left = size - len(data) - len(_false_frame(0))
        data += _false_frame(left if shape != "any end" else number * 7919 % left)
    return bytes(data) + bytes(size - len(data))


class _Counting(io.BytesIO):
    """A file that counts what is read from it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


class TestDamage:
    """Read with ``damaged="report"``: what is hurt is named, the rest can be had."""

    def report(self, data: bytes) -> tuple[list[str], list[str], list[str]]:
        snapshot = Snapshot.read(data, damaged="report")
        sections = list(snapshot)
        sound = [section.label for section in sections if section.damage is None and section.records()]
        hurt = [str(section.damage) for section in sections if section.damage]
        return sound, hurt, [str(error) for error in snapshot.damage]

    def test_nothing_is_reported_of_a_whole_file(self) -> None:
        assert self.report(EIGHT) == ([section.label for section in Snapshot.read(EIGHT)], [], [])

    def test_a_flipped_bit_in_a_section_hurts_only_that(self) -> None:
        sections = list(Snapshot.read(EIGHT))
        data = bytearray(EIGHT)
        data[sections[3].end - 1] ^= 1
        sound, hurt, rest = self.report(bytes(data))
        assert len(sound) == 7
        assert "dev3#0" not in sound
        assert len(hurt) == 1
        assert "(damaged) - at dev3#0 (byte" in hurt[0]
        assert rest == []

    def test_a_pipe_is_refused_at_once(self) -> None:
        with pytest.raises(ValueError, match="needs input that can seek"):
            Snapshot.read(_Pipe(EIGHT, 7), damaged="report")  # type: ignore[arg-type]  # all that reading needs

    def test_every_flipped_bit_is_reported_and_at_most_one_section_lost(self) -> None:
        for bit in range(8 * len(EIGHT)):
            data = bytearray(EIGHT)
            data[bit // 8] ^= 1 << bit % 8
            if bit < 8 * 16:
                continue  # no snapshot any more
            try:
                sound, hurt, rest = self.report(bytes(data))
            except FormatError as error:
                assert "version" in str(error), bit  # noqa: PT017  # a later version's fields are not read
                continue
            assert len(sound) >= 7, bit
            assert hurt or rest, bit

    def test_lost_bytes_are_passed_over(self) -> None:
        sections = list(Snapshot.read(EIGHT))
        data = EIGHT[: sections[2].offset + 5] + EIGHT[sections[4].offset - 3 :]
        sound, _, rest = self.report(data)
        assert sound == ["dev0#0", "dev1#0", "dev4#0", "dev0#1", "dev1#1", "dev2#1"]
        assert rest

    def test_a_wrong_size_hurts_only_its_section(self) -> None:
        sections = list(Snapshot.read(EIGHT))
        data = bytearray(EIGHT)
        place = EIGHT.index((sections[3].size).to_bytes(8, "big"), sections[3].offset)
        data[place + 7] += 1
        sound, hurt, rest = self.report(bytes(data))
        assert sound == [section.label for section in sections if section.label != "dev3#0"]
        assert hurt == []
        assert f"(damaged); bytes {sections[3].offset} to {sections[3].end - 1} are lost - at dev3#0" in rest[0]

    def test_one_byte_too_many_hurts_nothing_but_the_order(self) -> None:
        sections = list(Snapshot.read(EIGHT))
        sound, hurt, rest = self.report(EIGHT[: sections[3].offset] + b"\xff" + EIGHT[sections[3].offset :])
        assert (len(sound), hurt) == (8, [])
        assert "a frame" in rest[0]

    def test_a_file_cut_behind_a_section_has_it(self) -> None:
        sections = list(Snapshot.read(EIGHT))
        sound, hurt, rest = self.report(EIGHT[: sections[5].end])
        assert sound == [section.label for section in sections[:6]]
        assert hurt == []
        assert "a frame, or the end, snapshot has nothing more (truncated)" in rest[0]

    def test_a_megabyte_of_junk_is_passed_over(self) -> None:
        sections = list(Snapshot.read(EIGHT))
        for size in ((1 << 20) - 9, (1 << 20) - 4, 1 << 20, 3 << 20):
            data = EIGHT[: sections[2].offset] + b"\x96" * size + EIGHT[sections[3].offset :]
            sound, _, rest = self.report(data)
            assert len(sound) == 7
            assert rest
        for junk in (bytes(3 << 20), b"\x96"):
            sound, _, rest = self.report(EIGHT[: sections[2].offset] + junk)
            assert sound == ["dev0#0", "dev1#0"]
            assert rest

    def test_a_cut_file_gives_what_is_whole(self) -> None:
        sections = list(Snapshot.read(EIGHT))
        sound, _, rest = self.report(EIGHT[: sections[5].end - 1])
        assert sound == [section.label for section in sections[:5]]
        assert "truncated" in rest[0]

    def test_a_hurt_header_gives_all_sections(self) -> None:
        data = bytearray(EIGHT)
        data[20] ^= 1
        sound, _, rest = self.report(bytes(data))
        assert len(sound) == 8
        assert "of the header" in rest[0]

    def test_false_frames_are_one_loss_and_hide_nothing(self) -> None:
        """False marks of every kind, each of which claims what comes after it, the intact sections among it."""
        sections = list(Snapshot.read(EIGHT))
        start, more = sections[3].offset, EIGHT[sections[3].offset :]
        long_head, end = b"\x96\xa7section\xa1a\0\xde\0\xff", b"\x93\xa3end\x03\xce\0\0\0\0"
        for mark in (_false_frame(len(more) + 40), _false_frame(0), long_head, end):
            sound, hurt, rest = self.report(EIGHT[:start] + 50 * (b"\0" + mark) + more)
            assert sound == [section.label for section in sections]
            assert hurt == []
            assert len(rest) == 1
            assert f"; bytes {start} to {start + 50 * (1 + len(mark)) - 1} are lost" in rest[0]

    @pytest.mark.parametrize("shape", ["same end", "any end", "between intact ones", "side by side", "attributes"])
    def test_what_is_read_grows_with_the_file(self, shape: str) -> None:
        counts = []
        for size in (1 << 17, 1 << 18):
            data = hostile(shape, size)
            file = _Counting(data)
            snapshot = Snapshot.read(file, damaged="report")
            found = [section.label for section in snapshot if section.damage is None]
            assert len(set(found)) == data.count(b"\x96\xa7section\xa1b")
            counts.append(file.count)
        assert counts[1] <= 2.3 * counts[0], counts

    def test_a_thousand_losses_are_reported_and_the_rest_counted(self) -> None:
        data = hostile("between intact ones", 1 << 17)
        snapshot = Snapshot.read(data, damaged="report")
        for _ in range(2):
            list(snapshot)
            assert len(snapshot.damage) == 1_000
            assert snapshot.more_damage == data.count(b"\x96\xa7section\xa1a") - 1_000

    @pytest.mark.parametrize("size", [0, 1, 255, 256, 257, (1 << 16) + 3, (1 << 24) + 1])
    def test_checksums_are_put_together(self, size: int) -> None:
        first, second = b"first", os.urandom(size)
        assert shifted(zlib.crc32(first), size) ^ zlib.crc32(second) == zlib.crc32(first + second)

    def test_what_is_reported_keeps_nothing_of_the_file(self) -> None:
        snapshot = Snapshot.read(hostile("same end", 1 << 12) + EIGHT, damaged="report")
        kept = [section.damage for section in snapshot if section.damage] + snapshot.damage
        assert kept
        assert all(error.__traceback__ is None and error.__context__ is None for error in kept)

    @given(st.binary(max_size=300), st.integers(0, len(EIGHT)), st.integers(0, len(EIGHT)))
    def test_any_bytes_in_the_middle_end_in_a_report(self, junk: bytes, start: int, end: int) -> None:
        data = EIGHT[:17] + EIGHT[17 : max(start, 17)] + junk + EIGHT[end:]
        try:
            sound, _, _ = self.report(data)
        except FormatError:
            return
        assert set(sound) <= {section.label for section in Snapshot.read(EIGHT)}


def later(*frames: Frame, more: tuple[object, ...] = ()) -> bytes:
    """A snapshot of version 2: frames with fields of zeros, and an end with more items."""
    header = Header(2, Opaque.of({"producer": "later"}))
    order = Order(header)
    data = header.encode()
    for frame in frames:
        summed = frame._replace(crc=zlib.crc32(bytes(frame.size), frame.sum_of_head))
        order.count(summed)
        data += summed.encode() + bytes(frame.size)
    return data + order.end(3 + len(more), b"".join(Opaque.of(item).raw for item in more)).encode()


def _later_frame(kind: str, device: str, instance: int = 0, size: int = 5, attributes: bytes = b"\x80") -> Frame:
    raw = b"\x96" + pack_str(kind) + pack_str(device) + pack_uint(instance) + attributes
    return Frame(
        Lead(cast("Kind", kind), device, instance, Opaque(attributes), raw, zlib.crc32(raw), f"{device}#{instance}"), size, 0
    )


LATER = (
    _later_frame("section", "dev"),
    _later_frame("delta", "dev", size=300),
    _later_frame("x" * 255, "é" * 127, 7, attributes=b"\x81\xa1a\1"),
    _later_frame("section", "dev"),
    _later_frame("é", "b", size=0),
    _later_frame("part", "never complete"),
)
MORE: tuple[tuple[object, ...], ...] = ((), (None,), (1, {"a": [b"x"]}, "y"), tuple(range(40)), ("x" * 500,))


class TestLaterVersion:
    """Kinds that nobody knows here, in any order, and an end with more items: all of it is listed, nothing is damaged."""

    @pytest.mark.parametrize("more", MORE, ids=map(len, MORE))
    def test_its_frames_are_listed_by_kind_and_size(self, more: tuple[object, ...]) -> None:
        data = later(*LATER, more=more)
        for damaged in ("error", "report"):
            snapshot = Snapshot.read(data, damaged=damaged)
            found = [(section.kind, section.device, section.instance, section.size, section.damage) for section in snapshot]
            assert found == [(lead.kind, lead.device, lead.instance, size, None) for lead, size, _ in LATER]
            assert (snapshot.damage, snapshot.attributes, snapshot.end_crc is None) == ([], {"producer": "later"}, False)

    def test_its_fields_are_neither_read_nor_copied(self) -> None:
        for section in Snapshot.read(later(*LATER)):
            section.verify()
            for read in (section.records, section.payload, lambda section=section: written([section])):
                with pytest.raises(FormatError) as caught:
                    read()
                assert str(caught.value) == (
                    "expected version 1 of the format, snapshot has version 2: a later build of this package reads it - at byte 16"
                )
        with pytest.raises(FormatError, match="a later build"):
            Machine([Device({}, 0, Table("dev", []))]).load(Snapshot.read(later()))
        with pytest.raises(FormatError, match="a later build"):
            Machine([Device({}, 0, Table("dev", []))]).load(later())

    @pytest.mark.parametrize("more", MORE, ids=map(len, MORE))
    def test_every_flipped_byte_is_detected_and_loses_one_frame_at_most(self, more: tuple[object, ...]) -> None:
        data = later(*LATER, more=more)
        for at in range(16, len(data)):
            flipped = data[:at] + bytes((data[at] ^ 0x11,)) + data[at + 1 :]
            with pytest.raises(FormatError):
                verify(flipped)
            snapshot = Snapshot.read(flipped, damaged="report")
            found = [section for section in snapshot if section.damage is None]
            assert len(found) >= len(LATER) - 1, at
            assert snapshot.damage or len(found) < len(LATER), at

    def test_frames_lost_and_swapped_are_detected(self) -> None:
        header, *rest, end = _frames(later(*LATER, more=(1,)))
        with pytest.raises(FormatError, match="6 frames before the end, snapshot has 5"):
            list(Snapshot.read(b"".join([header, *rest[1:], end])))
        with pytest.raises(FormatError, match="over all frames"):
            list(Snapshot.read(b"".join([header, rest[1], rest[0], *rest[2:], end])))

    @pytest.mark.parametrize(
        ("rest", "words"),
        [
            (b"\x96\xa0\xa1a\0\x80", "the kind of a frame, of 1 to 255 bytes, snapshot has one of 0"),
            (b"\x96\xda\1\0" + b"x" * 256 + b"\xa1a\0\x80", "the kind of a frame, of 1 to 255 bytes, snapshot has one of 256"),
            (b"\x96\x01", "the kind of a frame, or the end, snapshot has an integer"),
            (b"\x96\xd9\5delta\xa1a\0\x80", "shortest form"),
            (b"\x95\xa5delta\xa1a\0\x80", "a frame .an array of 6 items. or the end"),
            (b"\xc0", "a frame .an array of 6 items. or the end .of 3., snapshot has nil"),
            (b"\x92\xa3end\0", "the end .an array of 3 items or more., snapshot has one of 2"),
            (b"\xdc\0\4\xa3end\0\xc0\xce" + bytes(4), "shortest form"),
            (b"\x94\xa3end\0\xc1", "an item of the end, snapshot has the byte 0xc1"),
            (b"\x94\xa3end\0" + b"\x91" * 64 + b"\x90", "at most 64 levels"),
            (b"\x94\xa3end\0\xc5\x01\x00" + bytes(256), "at most 100 bytes of items of the end, snapshot has 259"),
            (b"\x94\xa3end\0\xc0\xcf" + bytes(8), "a checksum"),
        ],
    )
    def test_its_heads_are_as_strict(self, rest: bytes, words: str) -> None:
        header = later()[:-11]
        with pytest.raises(FormatError, match=words):
            list(Snapshot.read(header + rest + bytes(40), limits=Limits(attributes=100)))

    def test_kinds_and_ends_that_were_read_of_it_are_malformed_in_version_1(self) -> None:
        lead = _later_frame("delta", "dev").encode()
        list(Snapshot.read(later(_later_frame("delta", "dev"))))
        with pytest.raises(FormatError, match="`section` or `part`, snapshot has `delta`"):
            list(Snapshot.read(_with_header(b"\x80") + lead + bytes(60)))

    def test_its_version_is_known_where_its_header_is_damaged(self) -> None:
        for lost in (b"\xff", b"\2"):
            data = later(*LATER[:2]).replace(b"\x81\xa8producer", b"\x81\xa8produce" + lost)
            assert Snapshot.read(data, damaged="report").version == 2
            data = data[:16] + b"\xcd\1\0" + data[17:]  # 256
            assert Snapshot.read(data, damaged="report").version == 256
        data = data[:16] + b"\xc0" + data[19:]
        assert Snapshot.read(data, damaged="report").version == 1
        for version in (0, 2, 0x7F, 0x80, 0xFF):
            data = EIGHT[:16] + bytes((version,)) + EIGHT[17:]
            snapshot = Snapshot.read(data, damaged="report")
            assert (snapshot.version, len([section.records() for section in snapshot])) == (1, 8)


class TestHeadDamage:
    """Whatever byte of a head is damaged, one section is lost, with its byte range; all others are read."""

    @pytest.mark.parametrize("mask", [0x01, 0x10, 0x80, 0xFF])
    def test_every_byte_of_a_head(self, mask: int) -> None:
        data = written(
            Section(f"dev{number}", number, [Record("n", "uint32", None, number)], attributes={"at": number, "note": "x" * 40})
            for number in range(5)
        )
        sections = list(Snapshot.read(data))
        lost, whole = sections[2], [section.label for section in sections]
        for at in range(lost.offset, lost.end - lost.size):
            snapshot = Snapshot.read(data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :], damaged="report")
            found = list(snapshot)
            sound = [section.label for section in found if not section.damage and section.records()]
            assert sound == [*whole[:2], *whole[3:]], at
            named = [section for section in found if section.damage]
            if named:
                assert [(section.offset, section.end) for section in named] == [(lost.offset, lost.end)]
            else:
                assert f"bytes {lost.offset} to {lost.end - 1} are lost" in str(snapshot.damage[0])

    @pytest.mark.parametrize("more", [1 << 6, 1 << 12, 1 << 20, 1 << 31, 1 << 40, 1 << 63])
    def test_a_size_that_claims_more(self, more: int) -> None:
        sections = list(Snapshot.read(EIGHT))
        lost = sections[3]
        place = lost.end - lost.size - 13
        data = EIGHT[:place] + (lost.size + more).to_bytes(8, "big") + EIGHT[place + 8 :]
        snapshot = Snapshot.read(data, damaged="report")
        assert [section.label for section in snapshot if section.records()] == [
            section.label for section in sections if section is not lost
        ]
        assert f"bytes {lost.offset} to {lost.end - 1} are lost" in str(snapshot.damage[0])

    def test_a_snapshot_within_a_damaged_section_is_no_part_of_the_one_around_it(self) -> None:
        inner = Record("copy", "buffer", len(EIGHT), EIGHT)
        data = bytearray(written([Section("outer", 0, [inner]), Section("next", 0, [])]))
        data[data.index(b"copy")] ^= 1
        snapshot = Snapshot.read(bytes(data), damaged="report")
        assert [(section.label, section.damage is None) for section in snapshot] == [("outer#0", False), ("next#0", True)]
        assert snapshot.damage == []

    def test_a_header_that_nothing_intact_follows(self) -> None:
        with pytest.raises(FormatError, match="of the header"):
            Snapshot.read(_with_header(b"\x80")[:-1] + b"\0", damaged="report")

    def test_a_size_that_claims_the_sections_up_to_another(self) -> None:
        sections = list(Snapshot.read(EIGHT))
        first = sections[3]
        place = first.end - first.size - 13
        for last in sections[4:]:
            data = EIGHT[:place] + (last.end - first.end + first.size).to_bytes(8, "big") + EIGHT[place + 8 :]
            snapshot = Snapshot.read(data, damaged="report")
            found = [section.label for section in snapshot if not section.damage]
            assert found == [section.label for section in sections if section is not first]


@given(st.binary(max_size=200))
def test_any_bytes_either_read_or_raise_our_error(data: bytes) -> None:
    for whole in (data, GOLDEN[:30] + data, _with_header(b"\x80") + data):
        try:
            read_all(whole)
        except FormatError as error:
            assert "byte" in str(error)  # noqa: PT017  # either way is right; the words are what is held


REPEATED = "expected each name once over the parts of a section, unless it is `sparse` of one length"


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        (Record("pc.ram", "sparse", 64, ((0, b"a"),)), Record("pc.ram", "sparse", 64, ((0, b"b"),)), True),
        (Record("pc.ram", "sparse", 64, ()), Record("pc.ram", "sparse", 65, ()), False),
        (Record("a", "uint8", None, 1), Record("a", "uint8", None, 1), False),
        (Record("a", "uint8", None, 1), Record("b", "uint8", None, 1), True),
    ],
    ids=["memory written again", "another length", "no memory", "other names"],
)
def test_only_memory_comes_again_in_a_later_part(first: Record, second: Record, *, fits: bool) -> None:
    sections = [Section("ram", 0, [first], kind="part"), Section("ram", 0, [second])]
    if fits:
        data = written(sections)
        assert [part.records() for part in Snapshot.read(data)] == [(first,), (second,)]
        return
    with pytest.raises(StateError, match=REPEATED):
        written(sections)
    first_part, last_part = Snapshot.read(_unchecked(sections))
    assert first_part.records() == (first,)
    with pytest.raises(FormatError, match=REPEATED) as caught:
        last_part.records()
    assert (caught.value.section, caught.value.path) == ("ram#0", (second.name,))
    assert _unchecked(sections)[caught.value.offset] == 0x95


def _unchecked(sections: Iterable[Section]) -> bytes:
    """A snapshot as a careless writer would make it, its sums right."""
    header = Header(1, Opaque.of({}))
    order = Order(header)
    data = header.encode()
    for section in sections:
        payload = section.payload()
        bare = Frame(Lead.of(section.kind, section.device, section.instance, section.raw_attributes), len(payload), 0)
        frame = bare._replace(crc=zlib.crc32(payload, zlib.crc32(bare.encode()[:-5])))
        order.add(frame, 0)
        data += frame.encode() + payload
    return data + order.end().encode()


def test_more_sections_than_are_remembered_are_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written([Section(f"device{number}", number, []) for number in range(9)])
    monkeypatch.setattr(frames, "LEADS", 4)
    for _ in range(2):
        assert [section.instance for section in Snapshot.read(data)] == [*range(9)]


def test_every_cut_is_told_of_sections_that_were_read_before_too() -> None:
    read_all(EIGHT)
    for size in range(len(EIGHT)):
        with pytest.raises(FormatError, match="byte"):
            read_all(EIGHT[:size])

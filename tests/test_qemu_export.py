"""A snapshot becomes a QEMU stream again: the same, with one value changed, or for another QEMU."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner
from conftest import DATA, stream_bytes
from hypothesis import given
from hypothesis import strategies as st
from qemu_streams import (
    EOF,
    MAGIC,
    PAGE,
    blocks,
    configuration,
    description,
    device,
    field,
    full,
    page,
    ram,
    rebuilt,
    short,
    word,
)
from test_command import refused, run, shown

from tagged_vmstate.cli.main import cli
from tagged_vmstate.edit import changed, located
from tagged_vmstate.errors import FormatError, StateError
from tagged_vmstate.forms import form_of
from tagged_vmstate.jsonform import from_json, to_json
from tagged_vmstate.paths import Aliases, Pattern
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.qemu.describe import fitted
from tagged_vmstate.qemu.export import OriginError
from tagged_vmstate.qemu.like import Likeness
from tagged_vmstate.qemu.vmdesc import parse
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter, write
from tagged_vmstate.types import Runs

ALL = sorted(path.name.removesuffix(".mig.xz") for path in DATA.glob("*.mig.xz"))


def imported(stream: bytes) -> bytes:
    snapshot = io.BytesIO()
    write(import_stream(io.BytesIO(stream)), snapshot)
    return snapshot.getvalue()


def with_json(snapshot: bytes, change: Callable[[str], str]) -> bytes:
    """The snapshot, its JSON form changed as a person would in an editor."""
    text, back = io.BytesIO(), io.BytesIO()
    to_json(Snapshot.read(snapshot), text)
    write(from_json(io.BytesIO(change(text.getvalue().decode()).encode())), back)
    return back.getvalue()


@pytest.mark.parametrize("name", ALL)
def test_unchanged_it_is_the_same_stream(name: str) -> None:
    stream = stream_bytes(name)
    assert rebuilt(imported(stream)) == stream


def test_by_the_command_from_all_that_it_reads(tmp_path: Path, stream_path: Callable[[str], Path]) -> None:
    stream = stream_path("pc-qemu7.2")
    run("import", stream, "-o", tmp_path / "vm.tvm")
    run("to-json", tmp_path / "vm.tvm", "-o", tmp_path / "vm.json")
    for source in (tmp_path / "vm.tvm", tmp_path / "vm.json", stream):
        assert run("export", source, "-o", tmp_path / "out.mig").stderr == b""
        assert (tmp_path / "out.mig").read_bytes() == stream.read_bytes()
    assert run("export", "-", given=(tmp_path / "vm.tvm").read_bytes()).stdout == stream.read_bytes()


def set_value(snapshot: bytes, device_name: str, path: str, value: object) -> bytes:
    read = Snapshot.read(snapshot)
    out = io.BytesIO()
    with SnapshotWriter(out, read.raw_attributes) as writer:
        for section in read:
            targets = list(located(section, Pattern(f"{device_name}/{path}")))
            writer.write(changed(section, targets[0], value) if targets else section)
    return out.getvalue()


def differing(left: bytes, right: bytes) -> list[int]:
    assert len(left) == len(right)
    return [at for at, (one, other) in enumerate(zip(left, right, strict=True)) if one != other]


@pytest.mark.parametrize(
    ("device_name", "path", "value", "width"),
    [
        ("ps2kbd", "scancode_set", 0x01020304, 4),
        ("cpu", "env.regs", list(range(1, 17)), 16 * 8),
        ("mc146818rtc", "update_timer", -2, 8),
        ("hpet", "timer[1]/tn/config", 7, 8),
    ],
)
def test_after_a_change_only_its_bytes_differ(device_name: str, path: str, value: object, width: int) -> None:
    stream = stream_bytes("pc-qemu7.2")
    snapshot = imported(stream)
    if not any(list(located(each, Pattern(f"{device_name}/{path}"))) for each in Snapshot.read(snapshot)):
        path = path.replace("/tn/", "/")
    places = differing(rebuilt(set_value(snapshot, device_name, path, value)), stream)
    assert places
    assert places[-1] - places[0] < width


def test_memory_that_was_changed_by_a_piece(tmp_path: Path) -> None:
    """The piece comes with the last part; what the page held before comes from an earlier one."""
    first = blocks(r=3 * PAGE) + page(0, b"a" * PAGE, "r") + page(PAGE, b"\0") + page(2 * PAGE, b"\7")
    (tmp_path / "a.mig").write_bytes(small(memory=ram(first, page(2 * PAGE, b"\x08", "r"), b"")))
    source = tmp_path / "a.mig"
    for place, value in (("16", "ff"), (str(PAGE + 1), "01 02")):
        assert run("set", source, "ram", f"r[{place}]", value, "-o", tmp_path / "vm.tvm").returncode == 0
        source = tmp_path / "vm.tvm"
    assert run("export", source, "-o", tmp_path / "b.mig").returncode == 0
    whole = bytearray(b"a" * PAGE + bytes(PAGE) + b"\x08" * PAGE)
    whole[16], whole[PAGE + 1 : PAGE + 3] = 0xFF, b"\1\2"
    run("to-json", tmp_path / "b.mig", "--memory", tmp_path / "images", "-o", tmp_path / "vm.json")
    [image] = (tmp_path / "images").iterdir()
    assert image.read_bytes().ljust(3 * PAGE, b"\0") == whole


def test_memory_that_was_added_where_a_later_part_has_zeros() -> None:
    """The stream sends the zero page twice; the second does not undo what `set` put into the first."""
    turns = blocks(r=3 * PAGE) + page(0, b"\0", "r") + page(PAGE, b"\0"), page(0, b"\0", "r") + page(PAGE, b"\0"), b""
    stream = small(memory=ram(*turns))
    added = set_value(imported(stream), "ram", "r", ((7, b"x"),))
    assert memory_of(added)["r"] == b"x".rjust(8, b"\0").ljust(3 * PAGE, b"\0")
    assert memory_of(imported(rebuilt(added))) == memory_of(added)


def test_a_page_that_was_zero_before_it_had_bytes() -> None:
    """Both records lie in one part; the bytes belong to the second."""
    turn = blocks(r=2 * PAGE) + page(0, b"\0", "r") + page(PAGE, b"\0") + page(0, b"a" * PAGE) + page(PAGE, b"\7")
    stream = small(memory=ram(turn, b""))
    assert rebuilt(imported(stream)) == stream


@pytest.mark.parametrize(
    "added",
    [
        [(2, "q", 0, b"x" * PAGE)],
        [(1, "r", PAGE + 7, b"xy"), (2, "r", PAGE + 8, b"z")],
        [(1, "r", PAGE + 7, b"xy"), (2, "r", PAGE, b"z" * PAGE), (3, "r", PAGE + 9, b"v")],
        [(2, "r", 2 * PAGE - 3, b"on the edge")],
    ],
    ids=["in a block that the stream left", "piece over piece", "piece over page over piece", "over an edge"],
)
def test_memory_that_was_added_is_what_the_other_qemu_gets(added: list[tuple[int, str, int, bytes]]) -> None:
    """Wherever: at the end of a part, before that part's pages of another block go on."""
    turns = [page(0, b"a" * PAGE, "r"), page(3 * PAGE, b"b" * PAGE, "r"), page(4 * PAGE, b"c" * PAGE)]
    source = Snapshot.read(imported(small(memory=ram(blocks(r=5 * PAGE, q=PAGE), *turns, b""))))
    out = io.BytesIO()
    with SnapshotWriter(out, source.raw_attributes) as writer:
        for number, section in enumerate(each for each in source):
            runs = {record.name: [*cast("Runs", record.value)] for record in section.records() if record.type == "sparse"}
            lengths = {"r": 5 * PAGE, "q": PAGE}
            for part, name, offset, data in added:
                if section.device == "ram" and number == part + 1:
                    runs.setdefault(name, []).append((offset, data))
            records = [Record(name, "sparse", lengths[name], sorted(each)) for name, each in runs.items()]
            kind, attributes = section.kind, section.raw_attributes
            kept = section.records() if section.device != "ram" else records
            writer.write(Section(section.device, section.instance, kept, kind=kind, attributes=attributes))
    assert memory_of(imported(rebuilt(out.getvalue()))) == memory_of(out.getvalue())


def memory_of(snapshot: bytes) -> dict[str, bytearray]:
    found: dict[str, bytearray] = {}
    for section in Snapshot.read(snapshot):
        for record in section.records() if section.device == "ram" else ():
            memory = found.setdefault(record.name, bytearray(record.length or 0))
            for offset, data in cast("Runs", record.value):
                memory[offset : offset + len(data)] = data
    return found


def small(*fields: dict[str, object], data: bytes = b"", memory: bytes = b"", machine: str = "m") -> bytes:
    memory = memory or ram(blocks(r=2 * PAGE) + page(0, b"a" * PAGE, "r") + page(PAGE, b"\0"), b"")
    devices = full(3, "dev", data) + full(4, "timer", bytes(24))
    clock = [field("cpu_ticks_offset", "int64", 8), field("unused", "unused_buffer", 8), field("cpu_clock_offset", "int64", 8)]
    return (
        MAGIC + configuration(machine) + memory + devices + b"\0" + description(device("dev", *fields), device("timer", *clock))
    )


NUMBER = small(field("x", "uint8", 1), data=b"\5")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"type":"uint8","value":5', '"type":"uint16","value":500', "fits QEMU's `uint8`"),
        (
            '"type":"uint8","value":5',
            '"type":"buffer","length":2,"value":"0102"',
            "expected 1 byte, as QEMU describes it, got 2",
        ),
        ('"name":"x"', '"name":"y"', "the field, as QEMU describes this device, got none - at dev#0/x"),
        ('"type":"uint8","value":5', '"type":"string","value":"a"', "bytes, as only QEMU can read them"),
    ],
)
def test_what_no_longer_fits(old: str, new: str, words: str) -> None:
    def change(text: str) -> str:
        compact = json.dumps(json.loads(text), separators=(",", ":"))
        assert old in compact
        return compact.replace(old, new)

    snapshot = with_json(imported(NUMBER), change)
    with pytest.raises(StateError) as error:
        rebuilt(snapshot)
    assert words in str(error.value)


def test_a_number_in_another_type_that_fits() -> None:
    def change(text: str) -> str:
        compact = json.dumps(json.loads(text), separators=(",", ":"))
        return compact.replace('"type":"uint8","value":5', '"type":"uint64","value":9')

    assert rebuilt(with_json(imported(NUMBER), change)) == NUMBER.replace(b"\0\0\0\1\5", b"\0\0\0\1\x09")


def test_what_did_not_come_from_qemu(tmp_path: Path) -> None:
    with (tmp_path / "vm.tvm").open("wb") as file, SnapshotWriter(file) as writer:
        writer.write(Section("dev", 0, ()))
    assert "a snapshot that `import` made of a QEMU stream" in refused("export", tmp_path / "vm.tvm", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


LIBVIRT = b"LibvirtQemudSave" + struct.pack("<19I", 2, 10, 1, *[0] * 15, 1) + b"<domain/>\0"
SHARED = MAGIC + configuration("m", ("configuration/capabilities", struct.pack(">I", 1) + short("x-ignore-shared")))
SHARED += ram(word(PAGE, 4) + short("r") + struct.pack(">QQ", PAGE, 0xFEE0), b"") + EOF


@pytest.mark.parametrize("data", [NUMBER, LIBVIRT + NUMBER, SHARED])
def test_attributes_that_lie_are_refused(data: bytes) -> None:
    """Every attribute in turn: a stream comes out, or one of our errors."""
    snapshot = imported(data)
    text = io.BytesIO()
    to_json(Snapshot.read(snapshot), text)
    found = json.loads(text.getvalue())
    for section in found["sections"]:
        said = section["attributes"]["qemu"]
        for key in list(said):
            lies: tuple[object, ...] = (None, -1, 1 << 40, 1 << 63, "x", [], [0], {})
            for lie in lies:
                kept = said[key]
                said[key] = lie
                back = io.BytesIO()
                write(from_json(io.BytesIO(json.dumps(found).encode())), back)
                said[key] = kept
                try:
                    rebuilt(back.getvalue())
                except StateError:
                    continue


class TestLibvirt:
    """The header says how the stream behind it is compressed; so it comes out."""

    @staticmethod
    def image(number: int, stream: bytes, order: str = "<") -> bytes:
        xml = b"<domain/>\0"
        return b"LibvirtQemudSave" + struct.pack(f"{order}19I", 2, len(xml), 1, number, 0, *[0] * 14) + xml + stream

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize(("number", "library"), [(0, None), (1, gzip), (2, bz2), (3, lzma)])
    def test_as_libvirt_wrote_it(self, number: int, library: Any, order: str) -> None:
        image = self.image(number, library.compress(NUMBER) if library else NUMBER, order)
        found = rebuilt(imported(image))
        head = len(self.image(number, b""))
        assert found[:head] == image[:head]
        assert (library.decompress(found[head:]) if library else found[head:]) == NUMBER

    def test_a_number_that_is_not_so(self) -> None:
        assert rebuilt(imported(self.image(4, NUMBER))) == self.image(0, NUMBER), "lzop, said the header"
        assert rebuilt(imported(self.image(0, gzip.compress(NUMBER)))) == self.image(0, NUMBER)

    @staticmethod
    def odd(data: bytes, cookie: int = 0, *, version: int = 2, number: int = 0, order: str = "<", unused: int = 0) -> bytes:
        numbers = [version, len(data), 1, number, cookie, *[unused] * 14]
        return b"LibvirtQemudSave" + struct.pack(f"{order}19I", *numbers) + data + NUMBER

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize(
        ("data", "cookie"),
        [
            (b"<domain/>\n\0<cookie/>\0" + bytes(1000), 11),
            (b"<domain/>\0" + bytes(1000), 0),
            (b"<domain/>\0\0\0<cookie/>\0", 12),
            (b"<domain/><cookie/>", 9),
            (b"<dom\0ain/>\0<coo\0kie/>\0", 11),
            (b"<d\xff/>\0<c\xff/>\0", 6),
            (b"<domain/>\0", 10),
            (b"<domain/>\0", 11),
            (b"<domain/>\0", (1 << 32) - 1),
            (b"", 0),
        ],
    )
    def test_what_is_odd_comes_back(self, data: bytes, cookie: int, order: str) -> None:
        for more in ({}, {"number": 77}, {"version": 1, "unused": 9}):
            image = self.odd(data, cookie, order=order, **more)
            assert rebuilt(imported(image)) == image

    @given(st.binary(max_size=40), st.integers(0, 45), st.integers(0, 1 << 24), st.sampled_from("<>"))
    def test_anything_comes_back(self, data: bytes, cookie: int, version: int, order: str) -> None:
        image = self.odd(data, cookie, version=version, order=order)
        try:
            snapshot = imported(image)
        except FormatError:  # what looks like the other byte order has no such length
            return
        assert rebuilt(snapshot) == image

    def test_the_numbers_and_texts_are_fields(self, tmp_path: Path) -> None:
        file = tmp_path / "vm.save"
        file.write_bytes(self.odd(b"<domain>\n  <a/>\n</domain>\n\0<cookie/>\0" + bytes(64), 27, number=5))
        assert shown("show", file, "libvirt").splitlines() == [
            "libvirt#0",
            "├─ version        uint32  2",
            "├─ was_running    uint32  1",
            "├─ format         uint32  zstd (5)",
            "├─ cookie_offset  uint32  27 (0x1b)",
            "├─ xml            string",
            "│  <domain>",
            "│    <a/>",
            "│  </domain>",
            '└─ cookie         string  "<cookie/>"',
            "",
        ]

    @pytest.mark.parametrize(("size", "cookie"), [(4, 28), (27, 28), (28, 29), (80, 81), (400, 401)])
    def test_a_text_that_grows_takes_the_room_behind_it(self, tmp_path: Path, size: int, cookie: int) -> None:
        file = tmp_path / "vm.save"
        file.write_bytes(self.odd(b"<domain/>".ljust(28, b"\0") + b"<cookie/>\0" + bytes(64), 28))
        shown("set", file, "libvirt", "xml", "x" * size, "-o", file)
        shown("set", file, "libvirt", "was_running", "0", "-o", file)
        header = struct.unpack("<16s5I", file.read_bytes()[:36])
        room = max(28 + 10 + 64, cookie + 10)
        assert header[1:] == (2, room, 0, 0, cookie)
        texts = file.read_bytes()[92 : 92 + room]
        assert texts[:cookie].rstrip(b"\0") == b"x" * size
        assert texts[cookie - 1 :].strip(b"\0") == b"<cookie/>"
        assert file.read_bytes()[92 + room :] == NUMBER

    def test_a_snapshot_of_an_earlier_release(self) -> None:
        image = self.odd(b"<domain/>\0<cookie/>\0", 10, number=9)

        def earlier(text: str) -> str:
            found = json.loads(text)
            [section, *_] = found["sections"]
            section["attributes"]["qemu"] = {"type": "libvirt", "offset": 0}
            kept = {"header": image[:92], "xml": image[92 : -len(NUMBER)]}
            section["fields"] = [
                {"name": name, "type": "buffer", "length": len(data), "value": data.hex()} for name, data in kept.items()
            ]
            return json.dumps(found)

        assert rebuilt(with_json(imported(image), earlier)) == image

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("version", None, "number of a save image's header, .* got nothing - at libvirt#0/version"),
            ("was_running", -1, "number of a save image's header, .* got -1 - at libvirt#0/was_running"),
            ("cookie_offset", 0xFFFFFFFF, "at most 67108864 bytes of XML, got 4294967295 - at libvirt#0"),
            ("xml", 7, "text of a save image, or its bytes, got 7 - at libvirt#0/xml"),
        ],
    )
    def test_fields_that_lie_are_refused(self, name: str, value: int | None, words: str) -> None:
        def change(text: str) -> str:
            found = json.loads(text)
            fields = [field for field in found["sections"][0]["fields"] if field["name"] != name]
            more = [] if value is None else [{"name": name, "type": "int64", "value": value}]
            found["sections"][0]["fields"] = fields + more
            return json.dumps(found)

        snapshot = with_json(imported(self.odd(b"<domain/>\0<cookie/>\0", 10)), change)
        with pytest.raises(StateError, match=words):
            rebuilt(snapshot)

    def test_bare_it_is_the_stream_alone(self, tmp_path: Path) -> None:
        file = tmp_path / "vm.save"
        file.write_bytes(self.image(3, lzma.compress(NUMBER)))
        done = run("export", file, "--bare")
        assert (done.stdout, done.stderr) == (NUMBER, b"")
        done = run("export", file)
        assert done.stdout.startswith(b"LibvirtQemudSave")
        assert b"libvirt's save image, for virsh restore; --bare writes what -incoming takes" in done.stderr
        (tmp_path / "vm.mig").write_bytes(NUMBER)
        for options in ((), ("--bare",)):
            done = run("export", tmp_path / "vm.mig", *options)
            assert (done.stdout, done.stderr) == (NUMBER, b"")


COMPRESSIONS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "plain": (bytes, bytes),
    "gzip": (gzip.compress, gzip.decompress),
    "xz": (lzma.compress, lzma.decompress),
    "bzip2": (bz2.compress, bz2.decompress),
}


class TestSetKeepsTheKind:
    """Of a stream, a snapshot, its JSON form and a file of savevm version 2, compressed or not."""

    ARGUMENTS = ("dev", "x", "9")

    @staticmethod
    def kinds() -> dict[str, tuple[bytes, bytes]]:
        """What is given, and what it is after."""
        snapshot, text = imported(NUMBER), io.BytesIO()
        to_json(Snapshot.read(snapshot), text)
        after = NUMBER.replace(b"\0\0\0\1\5", b"\0\0\0\1\x09")
        image = TestLibvirt.image(0, b"")
        return {
            "stream": (NUMBER, after),
            "libvirt": (image + NUMBER, image + after),
            "snapshot": (snapshot, set_value(snapshot, "dev", "x", 9)),
            "JSON": (text.getvalue(), text.getvalue().replace(b'"type": "uint8", "value": 5', b'"type": "uint8", "value": 9')),
        }

    @pytest.mark.parametrize("compression", COMPRESSIONS)
    @pytest.mark.parametrize("kind", ["stream", "libvirt", "snapshot", "JSON"])
    def test_elsewhere_in_place_and_through_pipes(self, tmp_path: Path, kind: str, compression: str) -> None:
        compress, decompress = COMPRESSIONS[compression]
        given, after = self.kinds()[kind]
        assert given != after
        file = tmp_path / "file"
        file.write_bytes(packed := compress(given))
        shown("set", file, *self.ARGUMENTS, "-o", tmp_path / "other")
        assert file.read_bytes() == packed
        shown("set", file, *self.ARGUMENTS, "-o", file)
        piped = run("set", "-", *self.ARGUMENTS, "-o", "-", given=packed).stdout
        for found in (file.read_bytes(), (tmp_path / "other").read_bytes(), piped):
            assert decompress(found) == after
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]

    def test_a_stream_inside_a_save_image_stays_compressed(self, tmp_path: Path) -> None:
        file = tmp_path / "vm.save"
        file.write_bytes(TestLibvirt.image(3, lzma.compress(NUMBER)))
        shown("set", file, *self.ARGUMENTS, "-o", file)
        head = TestLibvirt.image(3, b"")
        assert file.read_bytes().startswith(head)
        assert lzma.decompress(file.read_bytes()[len(head) :]) == self.kinds()["stream"][1]

    def test_a_real_stream(self, tmp_path: Path, stream_path: Callable[[str], Path]) -> None:
        file = tmp_path / "vm.mig"
        file.write_bytes(stream := stream_path("pc-qemu7.2").read_bytes())
        shown("set", file, "ps2kbd", "scancode_set", "3", "-o", file)
        [place] = differing(file.read_bytes(), stream)
        assert file.read_bytes()[place] == 3

    def test_what_no_longer_fits_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        stream = small(field("u", "unused_buffer", 3), data=b"abc")
        (tmp_path / "vm.mig").write_bytes(stream)
        for out in (tmp_path / "vm.mig", "-"):
            assert "expected 3 bytes, as QEMU describes it, got 2 - at dev#0" in refused(
                "set", tmp_path / "vm.mig", "dev", "u", "0102", "-o", out
            )
        assert run("set", tmp_path / "vm.mig", "dev", "u", "0102", "-o", "-").stdout == b""
        assert (tmp_path / "vm.mig").read_bytes() == stream

    def test_json_whose_memory_lies_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "vm.mig").write_bytes(NUMBER)
        shown("to-json", tmp_path / "vm.mig", "--memory", tmp_path / "images", "-o", tmp_path / "vm.json")
        before = (tmp_path / "vm.json").read_bytes()
        assert "from-json" in refused("set", tmp_path / "vm.json", *self.ARGUMENTS, "-o", tmp_path / "vm.json")
        assert (tmp_path / "vm.json").read_bytes() == before
        with (tmp_path / "vm.json").open("rb") as file:
            sections = from_json(file, tmp_path / "images")
            assert [record.type for section in sections for record in section.records()].count("sparse") == 1
            with pytest.raises(StateError, match="make a snapshot of it first, with from-json --memory DIR"):
                form_of(sections)


class TestLike:
    @staticmethod
    def like(
        ours: bytes, reference: bytes, drop: str = "", *, takes: bool = False, resized: str = "", **aliases: str
    ) -> Likeness:
        named = Aliases((Pattern(key.replace("__", "/")), value) for key, value in aliases.items())
        drops = [Pattern(drop)] if drop else []
        read = Snapshot.read(imported(ours)), Snapshot.read(imported(reference))
        return Likeness(*read, named, drops, takes=takes, resized=[Pattern(resized)] if resized else [])

    @staticmethod
    def told(likeness: Likeness) -> list[tuple[str, str]]:
        return [(move.what, move.place) for move in likeness.moves]

    def stream(self, likeness: Likeness) -> bytes:
        out = io.BytesIO()
        likeness.write(out)
        return out.getvalue()

    def test_its_own_reference_changes_nothing(self) -> None:
        stream = stream_bytes("pc-qemu7.2")
        likeness = self.like(stream, stream)
        assert likeness.moves == []
        assert self.stream(likeness) == stream

    def test_values_by_name_in_the_layout_of_the_reference(self) -> None:
        new = small(field("b", "uint32", 4), field("a", "uint8", 1), data=b"\0\0\0\7\5", machine="new")
        old = small(
            field("a", "uint16", 2), field("b", "uint32", 4), field("c", "uint8", 1), data=bytes(6) + b"\x09", machine="old"
        )
        likeness = self.like(new, old)
        assert self.told(likeness) == [("resized", "dev#0/a"), ("filled", "dev#0/c")]
        assert self.stream(likeness) == old.replace(bytes(6) + b"\x09", b"\0\5\0\0\0\7\x09")

    def test_a_loss_is_refused_unless_named_or_at_its_default(self) -> None:
        new = small(field("a", "uint8", 1), field("n", "uint8", 1), data=b"\1\2")
        old = small(field("a", "uint8", 1), data=b"\0")
        assert self.told(self.like(new, old)) == [("lost", "dev#0/n")]
        assert self.told(self.like(new, old, drop="dev/n")) == [("dropped", "dev#0/n")]
        assert self.told(self.like(new, old, drop="dev#0")) == [("dropped", "dev#0/n")]

    def test_a_number_too_large_is_lost(self) -> None:
        new = small(field("a", "uint16", 2), data=b"\1\0")
        old = small(field("a", "uint8", 1), data=b"\3")
        assert self.told(self.like(new, old)) == [("lost", "dev#0/a")]
        assert self.stream(self.like(new, old, drop="dev/a")) == old

    def test_arrays_and_buffers_of_other_lengths(self) -> None:
        longer = small(field("a", "uint8", 1, array_len=3), field("b", "buffer", 3), data=b"\1\2\0xy\0")
        shorter = small(field("a", "uint8", 1, array_len=2), field("b", "buffer", 2), data=b"\7\x08zz")
        down, up = self.like(longer, shorter), self.like(shorter, longer)
        assert self.told(down) == self.told(up) == [("resized", "dev#0/a"), ("resized", "dev#0/b")]
        assert b"\1\2xy" in self.stream(down)
        assert b"\7\x08\0zz\0" in self.stream(up)
        cut = self.like(longer.replace(b"\1\2\0xy\0", b"\1\2\3xyz"), shorter)
        assert self.told(cut) == [("lost", "dev#0/a"), ("lost", "dev#0/b")]

    def test_unused_bytes_are_no_loss_and_take_no_value(self) -> None:
        real, unused = field("x", "uint32", 4), field("x", "unused_buffer", 4)
        kept = field("a", "uint8", 1)
        new, old = small(kept, real, data=b"\1abcd"), small(kept, unused, data=b"\2\0\0\0\0")
        bare = small(kept, data=b"\3")
        assert self.told(self.like(old, bare)) == self.told(self.like(bare, old)) == []
        assert self.stream(self.like(bare, old)) == old.replace(b"dev\0\0\0\0\0\0\0\1\2", b"dev\0\0\0\0\0\0\0\1\3")
        assert self.told(self.like(new, old)) == [("lost", "dev#0/x")], "the value of a field is"
        assert self.stream(self.like(new, old, drop="dev/x")) == old.replace(b"dev\0\0\0\0\0\0\0\1\2", b"dev\0\0\0\0\0\0\0\1\1")
        assert self.told(self.like(old, new)) == [("filled", "dev#0/x")]
        assert self.stream(self.like(old, new)) == new.replace(b"\1abcd", b"\2abcd")

    def test_aliases_of_fields_and_devices(self) -> None:
        new = small(field("new", "uint8", 1), data=b"\5")
        old = small(field("old", "uint8", 1), data=b"\0")
        likeness = self.like(new, old, dev__old="new")
        assert self.told(likeness) == [("renamed", "dev#0/old")]
        assert self.stream(likeness) == old.replace(b"\0\0\0\1\0\x7e", b"\0\0\0\1\5\x7e")
        other = new.replace(b"\3dev", b"\3DEV").replace(b'"name": "dev"', b'"name": "DEV"')
        assert ("renamed", "dev#0") in self.told(self.like(other, old, dev="DEV", dev__old="new"))
        assert self.told(self.like(new, old, dev__what="new")) == [("filled", "dev#0/old"), ("lost", "dev#0/new")]

    def test_structs_of_an_array_one_by_one(self) -> None:
        def table(count: int, *names: str) -> dict[str, object]:
            inner = {"vmsd_name": "s", "version": 1, "fields": [field(name, "uint8", 1) for name in names]}
            return field("s", "struct", len(names), array_len=count, struct=inner)

        new, old = small(table(2, "a", "b"), data=b"\1\2\3\4"), small(table(3, "a"), data=b"\7\x08\x09")
        likeness = self.like(new, old, drop="dev/s/b")
        assert self.told(likeness) == [("dropped", "dev#0/s[0]/b"), ("dropped", "dev#0/s[1]/b"), ("filled", "dev#0/s")]
        assert self.stream(likeness) == old.replace(b"\7\x08\x09", b"\1\3\x09")

    def test_devices_and_memory_that_one_of_the_two_lacks(self) -> None:
        fields = (field("a", "uint8", 1),)
        two = ram(
            blocks(r=2 * PAGE, more=PAGE)
            + page(0, b"a" * PAGE, "r")
            + page(0, b"b" * PAGE, "more")
            + page(PAGE, b"c" * PAGE, "r"),
            b"",
        )
        new = small(*fields, data=b"\1", memory=two)
        old = small(*fields, data=b"\2").replace(b"\3dev", b"\3old").replace(b'"name": "dev"', b'"name": "old"')
        likeness = self.like(new, old)
        assert self.told(likeness) == [("lost", "ram#0/more"), ("filled", "old#0"), ("lost", "dev#0")]
        dropped = self.like(new, small(*fields, data=b"\2"), drop="ram/more")
        assert dropped.lost == []
        memory = ram(blocks(r=2 * PAGE) + page(0, b"a" * PAGE, "r") + page(PAGE, b"c" * PAGE, "r"), b"")
        assert self.stream(dropped) == small(*fields, data=b"\1", memory=memory)

    def test_what_delimits_itself_goes_over_whole(self) -> None:
        """And the description says so: what comes out can be read again."""
        rest, more = field("u", "uint8", 1), field("v", "unused_buffer", 2)

        def stream(size: int, data: bytes) -> bytes:
            inside = {"vmsd_name": "s", "version": 1, "fields": [field("virtio", "virtio", size), rest]}
            return small(field("s", "struct", size + 1, struct=inside), more, data=data)

        mine, other = stream(5, b"rings\7uu"), stream(2, b"xy\1\0\0")
        likeness = self.like(mine, other)
        assert ("kept", "dev#0/s/virtio") in self.told(likeness)
        assert likeness.lost == []
        assert b"rings\7" in self.stream(likeness)
        [section] = [each for each in Snapshot.read(imported(self.stream(likeness))) if each.device == "dev"]
        [virtio, number] = cast("tuple[Record, ...]", section.records()[0].value)
        assert (virtio.length, number.value) == (5, 7)

    @pytest.mark.parametrize("kind", ["buffer", "bitmap"])
    def test_what_has_a_size_of_its_own_does_not(self, kind: str) -> None:
        mine, other = (small(field("b", kind, size), data=bytes(range(1, size + 1))) for size in (16, 8))
        assert self.told(self.like(mine, other)) == [("lost", "dev#0/b")]

    def test_a_device_that_nothing_describes_goes_over_whole_in_its_version(self) -> None:
        def stream(data: bytes, version: int = 1) -> bytes:
            return small().replace(
                full(4, "timer", bytes(24)), full(4, "timer", bytes(24)) + full(5, "own", data, version=version)
            )

        likeness = self.like(stream(b"mine"), stream(b"theirs"))
        assert self.told(likeness) == [("kept", "own#0/bytes@0")]
        assert self.stream(likeness) == stream(b"mine")
        assert self.told(self.like(stream(b"mine"), stream(b"theirs", 2))) == [("lost", "own#0")]
        assert self.stream(self.like(stream(b"mine"), stream(b"theirs", 2), drop="own")) == stream(b"theirs", 2)

    @pytest.mark.parametrize(
        ("evidence", "words"),
        [
            (full(4, "timer", bytes(23) + b"\1"), "its clock is at 0.00 s"),
            (
                full(4, "timer", bytes(24)) + full(5, "globalstate", b"\0\0\0\x07running\0".ljust(104, b"\0")),
                "its run state is `running`",
            ),
            (b"", "nothing in it says that it has not"),
        ],
        ids=["clock", "state", "neither"],
    )
    def test_of_a_reference_that_has_run_nothing_is_taken(self, evidence: bytes, words: str) -> None:
        reset = small(field("a", "uint8", 1), field("b", "uint8", 1), data=b"\1\2")
        ran = reset.replace(full(4, "timer", bytes(24)), evidence)
        mine = small(field("a", "uint8", 1), data=b"\5").replace(full(4, "timer", bytes(24)), evidence)
        assert self.told(self.like(mine, mine)) == []
        likeness = self.like(mine, ran)
        assert [(move.place, move.said) for move in likeness.taken] == [("dev#0/b", "`uint8`, the state of another guest")]
        assert likeness.has_run == words
        meant = self.like(mine, ran, takes=True)
        assert [move.said for move in meant.moves] == ["`uint8`: the reference machine's own state was written"]
        assert self.stream(meant) == ran.replace(b"\1\2\x7e", b"\5\2\x7e")

    def test_prelaunch_is_at_reset(self) -> None:
        state = full(4, "globalstate", b"\0\0\0\x0aprelaunch\0".ljust(104, b"\0"))
        reference = small(field("a", "uint8", 1), data=b"\1").replace(full(4, "timer", bytes(24)), state)
        assert self.like(small(), reference).has_run is None

    def test_what_is_dropped_has_no_value_of_another_guest(self) -> None:
        ran = full(4, "timer", bytes(23) + b"\1")
        mine = small(field("a", "uint16", 2), field("b", "uint8", 1, array_len=2), data=b"\1\0\2\2")
        other = small(field("a", "uint8", 1), field("b", "uint8", 1, array_len=3), data=b"\3\4\4\4")
        other = other.replace(full(4, "timer", bytes(24)), ran)
        told = [("dropped", "dev#0/a"), ("taken", "dev#0/a"), ("resized", "dev#0/b"), ("taken", "dev#0/b")]
        assert self.told(self.like(mine, other, drop="dev/a")) == told
        zeros = other.replace(b"\3\4\4\4", b"\3\4\4\0")
        assert self.told(self.like(mine, zeros, drop="dev/a"))[2:] == [("resized", "dev#0/b")]

    @pytest.mark.parametrize("name", ["timer", "globalstate"])
    @pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", bytes(16)])
    def test_a_clock_or_a_state_that_is_cut_says_nothing(self, name: str, data: bytes) -> None:
        reference = small().replace(full(4, "timer", bytes(24)), full(4, name, data))
        assert self.like(small(), reference).has_run == "nothing in it says that it has not"

    COUNTED: Any = (
        ({"array_len": 2}, {"array_len": 3}, b"\3abc", b"\2xy"),
        ({"array_len": 3}, {"array_len": 2}, b"\2ab", b"\3xyz"),
        ({}, {"array_len": 2}, b"\2ab", b"\1x"),
        ({"array_len": 2}, {}, b"\1a", b"\2xy"),
    )

    @pytest.mark.parametrize("is_struct", [False, True])
    @pytest.mark.parametrize(("there", "here", "mine", "other"), COUNTED, ids=["more", "fewer", "from one", "to one"])
    def test_an_array_that_a_field_counts_is_as_long_as_that_says(
        self, there: dict[str, int], here: dict[str, int], mine: bytes, other: bytes, *, is_struct: bool
    ) -> None:
        inside = {"struct": {"vmsd_name": "s", "version": 1, "fields": [field("x", "uint8", 1)]}} if is_struct else {}
        kind = "struct" if is_struct else "uint8"
        count = field("n", "uint8", 1)
        ours = small(count, field("a", kind, 1, **here, **inside), data=mine)
        reference = small(count, field("a", kind, 1, **there, **inside), data=other)
        likeness = self.like(ours, reference)
        assert self.told(likeness) == [("kept", "dev#0/a")]
        out = self.stream(likeness)
        assert full(3, "dev", mine) in out
        assert self.told(self.like(out, ours)) == [], "the description is that of the snapshot now"

    def test_a_length_that_only_looks_like_a_count(self) -> None:
        """The reference has two elements whatever comes: no field of the snapshot says so there, or the field follows."""
        arrays = [field("a", "uint8", 1, array_len=size) for size in (3, 2)]
        count = field("n", "uint8", 1)
        assert self.told(self.like(small(count, arrays[0], data=b"\3abc"), small(count, arrays[1], data=b"\7xy"))) == [
            ("lost", "dev#0/a")
        ]
        assert self.told(self.like(small(arrays[0], count, data=b"abc\3"), small(arrays[1], count, data=b"xy\2"))) == [
            ("lost", "dev#0/a")
        ]

    def test_the_version_of_a_struct_is_that_of_its_layout(self) -> None:
        """As in hw/scsi/esp.c: which fields QEMU reads hangs on a value in the stream."""

        def stream(version: int, said: int, name: str) -> bytes:
            inside = {"vmsd_name": "s", "version": version, "fields": [field(name, "uint8", 1)]}
            return small(field("mig", "uint8", 1), field("s", "struct", 1, struct=inside), data=bytes((said, 9)))

        mine, other = stream(6, 6, "a"), stream(7, 7, "a")
        likeness = self.like(mine, other)
        assert [(move.place, move.said) for move in likeness.moves] == [
            ("dev#0/mig", "7, the version of a struct beside it, from the reference")
        ]
        assert self.stream(likeness) == other
        for no_version in (stream(7, 6, "a"), stream(6, 5, "a"), stream(8, 6, "a")):
            assert self.told(self.like(no_version, other)) == []

    def test_an_array_of_no_elements_is_not_described(self) -> None:
        count, array = field("n", "uint8", 1), field("a", "uint8", 1, array_len=3)
        some, none = small(count, array, data=b"\3abc"), small(count, data=b"\0")
        assert self.told(self.like(some, none)) == [("lost", "dev#0/a")]
        assert self.stream(self.like(some, none, drop="dev/a")) == none, "what is dropped is not counted"
        empty = self.like(none, some)
        assert self.told(empty) == [("kept", "dev#0/a")]
        assert full(3, "dev", b"\0") in self.stream(empty)
        assert imported(self.stream(empty))

    def test_an_array_described_with_no_elements(self) -> None:
        element = field("a", "struct", 1, struct={"vmsd_name": "s", "version": 1, "fields": [field("x", "uint8", 1)]})
        count = field("n", "uint8", 1)
        some, none = small(count, element, data=b"\1\7"), small(count, element | {"array_len": 0}, data=b"\0")
        assert self.told(self.like(some, none)) == [("kept", "dev#0/a"), ("lost", "dev#0/a")]

    def test_keys_without_a_number_of_them(self) -> None:
        names = "cpreg_vmstate_indexes", "cpreg_vmstate_values", "cpreg_vmstate_array_len"
        none = small(*(field(name, "uint64", 8, array_len=0) for name in names))
        assert self.like(none, none).moves == []

    @pytest.mark.parametrize("lie", [None, [1], {}])
    def test_commands_that_no_import_wrote(self, lie: object) -> None:
        data = NUMBER.replace(ram(b"")[:5], b"\x08\0\x0b\0\0" + ram(b"")[:5], 1)
        good = imported(data)
        bad = with_json(good, lambda text: re.sub(r'"command":\s*11', f'"command": {json.dumps(lie)}', text))
        for mine, reference in ((good, bad), (bad, good)):
            with pytest.raises(OriginError, match="what `import` notes of a QEMU stream"):
                Likeness(Snapshot.read(mine), Snapshot.read(reference), Aliases())

    def test_a_description_of_more_elements_than_memory_has(self) -> None:
        inside = {"vmsd_name": "s", "version": 1, "fields": [field("x", "uint8", 1)]}
        data = small(field("a", "struct", 1, array_len=2, struct=inside), data=b"\1\2")
        structs = parse(
            json.dumps({"devices": [device("dev", field("a", "struct", 1, array_len=1 << 62, struct=inside))]}).encode()
        )
        records = next(each.records() for each in Snapshot.read(imported(data)) if each.device == "dev")
        assert [each.count for each in fitted(structs.devices[0].struct, records).fields] == [2]

    def test_keys_and_values(self) -> None:
        """As the registers of ARM have them: the reference's keys with the snapshot's values."""

        def stream(pairs: dict[int, int]) -> bytes:
            rows = [struct.pack(f">{len(pairs)}Q", *row) for row in (pairs, pairs.values())]
            kinds = [field(name, "uint64", 8, array_len=len(pairs)) for name in ("cpreg_vmstate_indexes", "cpreg_vmstate_values")]
            return small(
                field("cpreg_vmstate_array_len", "int32 le", 4), *kinds, data=struct.pack(">I", len(pairs)) + b"".join(rows)
            )

        constant, selector = 0x603000000013C00A, 0x603000000013D000
        mine = stream({1: 10, 2: 20, constant: 30, selector: 31})
        other = stream({1: 11, 3: 33, 4: 44, constant: 32, selector: 35, selector + 1: 36})
        likeness = self.like(mine, other, drop="dev/cpreg_vmstate_indexes[1]")
        assert self.told(likeness) == [
            ("dropped", "dev#0/cpreg_vmstate_indexes[1]"),
            ("lost", "dev#0/cpreg_vmstate_values[2]"),
            ("filled", "dev#0/cpreg_vmstate_indexes"),
        ]
        assert likeness.moves[0].said == "the key 0x2 with the value 0x14, which the reference does not have"
        whole = self.like(mine, other, drop="dev/cpreg_vmstate_*")
        assert self.stream(whole) == stream({1: 10, 3: 33, 4: 44, constant: 32, selector: 31, selector + 1: 36})

    @pytest.mark.parametrize(("kind", "theirs", "ours"), [("uint8 equal", 3, 4), ("uint8 equal", 4, 3), ("uint8 le", 3, 4)])
    def test_what_the_other_qemu_compares(self, kind: str, theirs: int, ours: int) -> None:
        mine, other = (small(field("n", kind, 1), data=bytes((value,))) for value in (ours, theirs))
        likeness = self.like(mine, other)
        most = "only" if "equal" in kind else "at most"
        [move] = likeness.lost
        assert move.said == f"{ours} in the snapshot, where the other QEMU loads {most} {theirs}"
        assert self.stream(self.like(mine, other, drop="dev/n")) == other
        assert self.told(self.like(mine, mine)) == []

    def test_arm_registers_of_two_qemus(self, tmp_path: Path, stream_path: Callable[[str], Path]) -> None:
        new, old, reset = (stream_path(f"armvirt-qemu{name}") for name in ("10.0", "7.2", "7.2-reset"))
        done = run("export", old, "--like", new, "-o", tmp_path / "out.mig")
        said = done.stderr.decode()
        assert done.returncode == 1
        assert "lost: cpu#0/cpreg_vmstate_indexes[86]: the key 0x40200000200f3a00 with the value 0x0" in said
        assert "0x3010006 of the constant 0x603000000013c00a, where the other QEMU loads only 0x3000006" in said
        assert (
            "(its run state is `running`): take the reference from a QEMU started with -S, or allow it by --reference-values"
            in said
        )
        done = run("export", new, "--like", reset, "--drop", "*/*", "-o", tmp_path / "out.mig")
        assert done.returncode == 0, done.stderr
        cpu = json.loads(shown("to-json", tmp_path / "out.mig", "--values"))["cpu"]
        theirs = json.loads(shown("to-json", reset, "--values"))["cpu"]
        assert cpu["cpreg_vmstate_array_len"] == len(cpu["cpreg_vmstate_values"]) == 258
        assert cpu["cpreg_vmstate_indexes"] == theirs["cpreg_vmstate_indexes"]

    def test_another_architecture(self) -> None:
        with pytest.raises(StateError, match="a reference of the same architecture"):
            self.like(stream_bytes("pc-qemu7.2"), stream_bytes("armvirt-qemu7.2"))

    def test_a_block_of_another_size_is_a_loss_unless_asked_for(self) -> None:
        """QEMU's own words are in the message, so that a search for them finds it."""
        one, three = (small(memory=ram(blocks(r=count * PAGE), b"")) for count in (1, 3))
        for other, words in ((one, "0x2000 != 0x1000"), (three, "0x2000 != 0x3000")):
            [move] = self.like(small(), other).moves
            assert (move.what, move.place) == ("lost", "ram#0/r")
            assert f"Size mismatch: r: {words}; --resize-block r " in move.said
            assert self.told(self.like(small(), other, resized="ram/r")) == [("resized", "ram#0/r")]
            dropped = self.like(small(), other, drop="ram/r")
            assert self.told(dropped) == [("dropped", "ram#0/r")], "the machine keeps its own"
            assert memory_of(imported(self.stream(dropped))) == {}

    def test_a_longer_block_ends_with_zeros(self) -> None:
        """They are written: a block that is not sent to its end keeps what the machine has there."""
        source = blocks(q=PAGE, r=2 * PAGE) + page(0, b"a" * PAGE, "q") + page(0, b"b" * PAGE, "r") + page(PAGE, b"\7")
        other = ram(blocks(q=PAGE, r=4 * PAGE), b"")
        found = self.stream(self.like(small(memory=ram(source, b"")), small(memory=other), resized="ram/r"))
        added = page(2 * PAGE, b"\0", "r") + page(3 * PAGE, b"\0")
        assert found == small(memory=ram(blocks(q=PAGE, r=4 * PAGE) + added + source[len(blocks(q=PAGE, r=PAGE)) :], b""))

    @pytest.mark.parametrize(
        ("last", "place"),
        [
            ([b"\0"], None),
            ([b"x" * PAGE, b"\0"], None),
            ([b"\0", bytes(PAGE - 1) + b"x"], 0x2FFF),
            ([b"x" * PAGE], 0x2000),
            ([b"\7"], 0x2000),
        ],
        ids=["zero", "zero in the end", "used in the end", "bytes", "filled"],
    )
    def test_a_block_is_cut_where_zeros_are(self, last: list[bytes], place: int | None) -> None:
        pages = page(0, b"a" * PAGE, "r") + page(PAGE, b"b" * PAGE)
        turns = [blocks(r=4 * PAGE), pages, *(page(2 * PAGE, each, "r") for each in last), b""]
        likeness = self.like(small(memory=ram(*turns)), small(), resized="ram/r")
        [move] = likeness.moves
        if place is None:
            assert move.what == "resized"
            left = [blocks(r=2 * PAGE), pages, *(b"" for _ in last), b""]
            assert self.stream(likeness) == small(memory=ram(*left))
        else:
            assert move.what == "lost"
            assert move == self.like(small(memory=ram(*turns)), small()).moves[0], "said before it is asked for"
            assert f"it cannot be cut: the byte at {place:#x} is not zero" in move.said

    def test_what_an_aliased_device_loses_is_dropped_by_either_name(self) -> None:
        new = small(field("a", "uint8", 1), field("n", "uint8", 1), data=b"\1\2").replace(b"\3dev", b"\3DEV")
        new = new.replace(b'"name": "dev"', b'"name": "DEV"')
        old = small(field("a", "uint8", 1), data=b"\0")
        for name in ("dev/n", "DEV#0/n"):
            likeness = self.like(new, old, drop=name, dev="DEV")
            assert self.told(likeness) == [("renamed", "dev#0"), ("dropped", "dev#0/n")]
            assert [pattern.text for pattern in likeness.dropped] == [name]

    def test_qemu_10_for_qemu_7(self, tmp_path: Path, stream_path: Callable[[str], Path]) -> None:
        new, old, out = stream_path("pc-qemu10.0"), stream_path("pc-qemu7.2-reset"), tmp_path / "out.mig"
        done = run("export", new, "--like", old, "-o", out)
        said = done.stderr.decode()
        assert done.returncode == 1
        assert "lost: hpet#0/num_timers_save: `uint8`" in said
        assert "refused: 4 values in use would be lost; name each with --drop, or by --alias" in said
        assert not out.exists()
        (tmp_path / "aliases").write_text("# from 10.0 back to 7.2\nhpet/num_timers=num_timers_save\n")
        done = run("export", new, "--like", old, "--alias", f"@{tmp_path / 'aliases'}", "--drop", "globalstate/*", "-o", out)
        assert done.returncode == 0
        assert "lost" not in done.stderr.decode()
        values = json.loads(shown("to-json", out, "--values"))
        assert values["hpet"]["num_timers"] == 3
        assert values["configuration"]["name"] == "pc-i440fx-7.2"
        assert "no field `hpet/num_timer`; near it: hpet#0/num_timers" in refused(
            "export", new, "--like", old, "--alias", "hpet/num_timer=x", "-o", out
        )
        assert "no field `hpet/nun_timers_save`; near it: hpet#0/num_timers_save" in refused(
            "export", new, "--like", old, "--drop", "hpet/nun_timers_save", "-o", out
        )
        assert b"expected PATH=NAME" in run("export", new, "--like", old, "--alias", "hpet", "-o", out).stderr
        assert b"belong to --like" in run("export", new, "--drop", "hpet", "-o", out).stderr


class TestExitStatus:
    """1: the answer is no. 2: the input cannot be read, or the command is wrong."""

    @staticmethod
    def make(folder: Path) -> None:
        """The inputs, each named for what is wrong with it."""
        (folder / "vm.mig").write_bytes(NUMBER)
        (folder / "cut.mig").write_bytes(NUMBER[: len(NUMBER) // 2])
        (folder / "less.mig").write_bytes(small())
        (folder / "shorter.mig").write_bytes(small(field("x", "uint8", 1), data=b"\5", memory=ram(blocks(r=PAGE), b"")))
        (folder / "arm.mig").write_bytes(small(memory=ram(blocks(mach_virt=PAGE), b"")))
        text = io.BytesIO()
        to_json(Snapshot.read(imported(NUMBER)), text)
        found = json.loads(text.getvalue())
        [device] = [section for section in found["sections"] if section["device"] == "dev"]
        device["fields"][0] |= {"type": "uint16", "value": 500}
        (folder / "large.json").write_text(json.dumps(found))
        device["fields"][0] |= {"type": "string", "value": "five"}
        (folder / "text.json").write_text(json.dumps(found))
        del device["attributes"]["qemu"]["id"]
        (folder / "lies.json").write_text(json.dumps(found))
        with (folder / "elsewhere.tvm").open("wb") as file, SnapshotWriter(file) as writer:
            writer.write(Section("dev", 0, ()))

    @pytest.mark.parametrize(
        ("line", "status", "words"),
        [
            ("vm.mig", 0, ""),
            ("vm.mig --like vm.mig", 0, ""),
            ("large.json", 1, "large.json: expected what fits QEMU's `uint8`"),
            ("text.json", 1, "text.json: expected bytes, as only QEMU can read them"),
            ("large.json --like vm.mig", 1, "refused: 1 value in use would be lost"),
            ("vm.mig --like less.mig", 1, "refused: 1 value in use would be lost"),
            ("vm.mig --like shorter.mig", 1, "Size mismatch: r: 0x2000 != 0x1000"),
            ("vm.mig --like shorter.mig --resize-block r", 0, "resized: ram#0/r: 8192 bytes to 4096: only zeros are cut off"),
            ("vm.mig --like shorter.mig --resize-block ram#0/r", 0, "resized"),
            ("vm.mig --like shorter.mig --resize-block q", 2, "no field `ram/q`; near it: ram#0/r"),
            ("vm.mig --like less.mig --drop dev/y", 2, "no field `dev/y`; near it: dev#0/x"),
            ("vm.mig --like vm.mig --alias dev/y=x", 2, "no field `dev/y`"),
            ("vm.mig --like vm.mig --alias dev/x=z", 2, "vm.mig: no `z` there, which --alias names for dev#0/x"),
            ("vm.mig --like vm.mig --alias dev=z", 2, "vm.mig: no `z` there, which --alias names for dev#0"),
            ("vm.mig --resize-block r", 2, "--resize-block belong to --like"),
            ("cut.mig", 2, "cut.mig: "),
            ("cut.mig --like vm.mig", 2, "cut.mig: "),
            ("vm.mig --like cut.mig", 2, "cut.mig: "),
            ("nothing.mig", 2, "nothing.mig: No such file"),
            ("vm.mig --like nothing.mig", 2, "nothing.mig: No such file"),
            ("elsewhere.tvm", 2, "elsewhere.tvm: expected a snapshot that `import` made of a QEMU stream"),
            ("elsewhere.tvm --like vm.mig", 2, "elsewhere.tvm: expected a snapshot that `import` made of a QEMU stream"),
            ("vm.mig --like elsewhere.tvm", 2, "elsewhere.tvm: expected a snapshot that `import` made of a QEMU stream"),
            ("vm.mig --like arm.mig", 2, "arm.mig: expected a reference of the same architecture"),
            (
                "lies.json",
                2,
                "lies.json: expected what `import` notes of a QEMU stream, in the attributes, got KeyError('id') - at dev#0",
            ),
            ("lies.json --like vm.mig", 2, "got KeyError('id') - at dev#0"),
            ("vm.mig --like lies.json", 2, "got KeyError('id') - at dev#0"),
            ("vm.mig --tables nothing.json", 2, "got `nothing.json`, which is no file"),
        ],
    )
    def test_rows(self, line: str, status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.make(tmp_path)
        monkeypatch.chdir(tmp_path)
        done = CliRunner().invoke(cli, ["export", *line.split(), "-o", "out"])
        assert (done.exit_code, (tmp_path / "out").exists()) == (status, not status), done.output
        assert words in done.output
        assert "Traceback" not in done.output


class TestDefaults:
    def test_only_what_the_guest_has_changed(self, tmp_path: Path, stream_path: Callable[[str], Path]) -> None:
        ran, reset, out = stream_path("pc-qemu7.2"), stream_path("pc-qemu7.2-reset"), tmp_path / "vm.tvm"
        run("import", ran, "--defaults", reset, "-o", out)
        tree = shown("show", "--non-default", out)
        assert "env.eip" in tree
        assert "scancode_set" not in tree
        assert tree.count("\n") < 60
        assert rebuilt(out.read_bytes()) == ran.read_bytes()
        run("import", reset, "--defaults", reset, "-o", out)
        assert "env.eip" not in shown("show", "--non-default", out)

    def test_what_is_flagged_may_be_lost(self, tmp_path: Path) -> None:
        new = small(field("a", "uint8", 1), field("n", "uint8", 1), data=b"\1\2")
        (tmp_path / "new.mig").write_bytes(new)
        (tmp_path / "reset.mig").write_bytes(small(field("a", "uint8", 1), field("n", "uint8", 1), data=b"\0\2"))
        (tmp_path / "old.mig").write_bytes(small(field("a", "uint8", 1), data=b"\0"))
        run("import", tmp_path / "new.mig", "--defaults", tmp_path / "reset.mig", "-o", tmp_path / "vm.tvm")
        done = run("export", tmp_path / "vm.tvm", "--like", tmp_path / "old.mig", "-o", tmp_path / "out.mig")
        assert done.stderr == b"tagged-vmstate: dropped: dev#0/n: `uint8`, at its default\n"
        assert (tmp_path / "out.mig").read_bytes() == small(field("a", "uint8", 1), data=b"\1")

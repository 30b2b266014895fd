"""A snapshot becomes a QEMU stream again: the same, with one value changed, or for another QEMU."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import DATA, stream_bytes
from hypothesis import given
from hypothesis import strategies as st
from qemu_streams import MAGIC, PAGE, blocks, configuration, description, device, field, full, page, ram, rebuilt
from test_command import refused, run, shown

from tagged_vmstate.edit import changed, located
from tagged_vmstate.errors import FormatError, StateError
from tagged_vmstate.forms import form_of
from tagged_vmstate.jsonform import from_json, to_json
from tagged_vmstate.paths import Aliases, Pattern
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.qemu.like import Likeness
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
    return MAGIC + configuration(machine) + memory + full(3, "dev", data) + b"\0" + description(device("dev", *fields))


NUMBER = small(field("x", "uint8", 1), data=b"\5")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"type":"uint8","value":5', '"type":"uint16","value":500', "fits QEMU's `uint8`"),
        (
            '"type":"uint8","value":5',
            '"type":"buffer","length":2,"value":"0102"',
            "expected 1 bytes, as QEMU describes it, got 2",
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


def test_attributes_that_lie_are_refused() -> None:
    """Every byte of the attributes in turn: a stream comes out, or one of our errors."""
    snapshot = imported(NUMBER)
    text = io.BytesIO()
    to_json(Snapshot.read(snapshot), text)
    found = json.loads(text.getvalue())
    for section in found["sections"]:
        said = section["attributes"]["qemu"]
        for key in list(said):
            lies: tuple[object, ...] = (None, -1, 1 << 40, "x", [], {})
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
    def like(ours: bytes, reference: bytes, drop: str = "", **aliases: str) -> Likeness:
        named = Aliases((Pattern(key.replace("__", "/")), value) for key, value in aliases.items())
        drops = [Pattern(drop)] if drop else []
        return Likeness(Snapshot.read(imported(ours)), Snapshot.read(imported(reference)), named, drops)

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

    def test_another_architecture_or_size(self) -> None:
        with pytest.raises(StateError, match="a reference of the same architecture"):
            self.like(stream_bytes("pc-qemu7.2"), stream_bytes("armvirt-qemu7.2"))
        larger = small(memory=ram(blocks(r=3 * PAGE), b""))
        with pytest.raises(StateError, match="take that of a machine with as much memory, got 8192 - at ram#0/r"):
            self.like(small(), larger)

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

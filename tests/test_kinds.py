"""Every command takes every kind of input, and what is intact of a damaged one is found whatever its kind."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import kinds
import pytest
from qemu_streams import EOF, MAGIC, PAGE, blocks, configuration, description, device, field, full, head, page, ram, word
from test_command import refused, run, shown

import tagged_vmstate as tv
from tagged_vmstate.errors import FormatError
from tagged_vmstate.jsonform import to_json
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.qemu.savevm import RawSection, write_v2, write_v3
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter, write
from tagged_vmstate.sources import open_sections

TOLD = description(device("one", field("a", "uint32", 4)), device("two", field("b", "uint8", 1)))
FIRST = MAGIC + configuration("board") + full(3, "one", b"\0\0\0\7")
STREAM = FIRST + full(4, "two", b"\5") + EOF + TOLD


@pytest.mark.long
def test_the_tables_are_what_the_commands_do() -> None:
    page = kinds.PAGE.read_text()
    done = subprocess.run([sys.executable, kinds.__file__, "--plain"], capture_output=True, text=True, check=True)
    assert done.stdout == kinds.plain_rows(page), "write them anew: python tests/kinds.py --write"


@pytest.mark.long
def test_the_tables_are_what_the_commands_do_with_what_is_compressed() -> None:
    page = kinds.PAGE.read_text()
    done = subprocess.run([sys.executable, kinds.__file__], capture_output=True, text=True, check=True)
    assert page.endswith(done.stdout), "write them anew: python tests/kinds.py --write"


def snapshot_of(stream: bytes) -> bytes:
    file = io.BytesIO()
    write(import_stream(stream), file)
    return file.getvalue()


def json_of(snapshot: bytes) -> bytes:
    file = io.BytesIO()
    to_json(Snapshot.read(snapshot), file)
    return file.getvalue()


def salvaged(data: bytes) -> tuple[list[str], list[str]]:
    """The labels of what is intact, and what is said of the damage."""
    sections = open_sections(io.BytesIO(data), salvage=True)
    labels = [section.label for section in sections if section.records() is not None]
    return labels, [str(error) for error in sections.damage]


class TestImport:
    def test_a_snapshot_and_its_json_form_are_copied(self, tmp_path: Path) -> None:
        data = snapshot_of(STREAM)
        for given in (data, json_of(data), gzip.compress(data)):
            shown("import", "-", "-o", tmp_path / "copy.tvm", given=given)
            assert (tmp_path / "copy.tvm").read_bytes() == data

    def test_they_are_flagged_as_the_stream_they_came_from(self, stream_path: Callable[[str], Path], tmp_path: Path) -> None:
        stream, reset = stream_path("isapc-qemu7.2"), tmp_path / "reset.tvm"
        plain, text, expected, found = (tmp_path / name for name in ("a.tvm", "a.json", "expected.tvm", "found.tvm"))
        run("import", stream, "-o", plain)
        text.write_bytes(json_of(plain.read_bytes()))
        shown("set", plain, "ps2kbd/scancode_set", "1", "-o", reset)
        shown("import", stream, "--defaults", reset, "-o", expected)
        for source in (plain, text):
            shown("import", source, "--defaults", reset, "-o", found)
            assert found.read_bytes() == expected.read_bytes() != plain.read_bytes()

    def test_tables_read_what_nothing_describes_in_a_snapshot_too(self, tmp_path: Path) -> None:
        (tmp_path / "board.py").write_text(BOARD)
        stream = io.BytesIO()
        write_v3([RawSection("one", 0, 1, b"\0\0\0\7")], stream)
        read = run("import", "-", "--tables", "board:MACHINE", given=stream.getvalue(), cwd=tmp_path).stdout
        again = run("import", "-", "--tables", "board:MACHINE", given=snapshot_of(stream.getvalue()), cwd=tmp_path).stdout
        assert again == read
        assert [record.name for [section] in [Snapshot.read(read)] for record in section.records()] == ["a"]

    def test_one_standard_input_is_enough(self) -> None:
        assert "only one of the two files" in " ".join(run("import", "-", "--defaults", "-").stderr.decode().split())


BOARD = """
import tagged_vmstate as tv

@tv.vmstate("one", version=1)
class One:
    a: tv.uint32 = 0

MACHINE = tv.Machine([One()])
"""


class TestMemory:
    @pytest.fixture
    def tvm(self, tmp_path: Path) -> Path:
        path = tmp_path / "a.tvm"
        with path.open("wb") as file, SnapshotWriter(file) as writer:
            writer.write(Section("cpu", 0, [Record("pc", "uint8", None, 7)]))
            writer.write(Section("ram", 0, [Record("pc.ram", "sparse", 32, ((0, b"aaaa"), (31, b"d")))]))
        return path

    @pytest.fixture
    def text(self, tvm: Path, tmp_path: Path) -> Path:
        """Its JSON form, with images."""
        shown("to-json", tvm, "--memory", tmp_path / "images", "-o", tmp_path / "a.json")
        return tmp_path / "a.json"

    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_it_is_written_from_a_pipe(self, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
        pages = ram(blocks(pc=4 * PAGE) + page(0, b"a" * PAGE, "pc"), page(PAGE, b"b" * PAGE, "pc") + page(0, b"c" * PAGE, "pc"))
        stream = MAGIC + pages + full(3, "one", b"\0\0\0\7") + EOF + TOLD
        for name, given in (("stream", stream), ("snapshot", snapshot_of(stream)), ("json", json_of(snapshot_of(stream)))):
            (tmp_path / name).write_bytes(given)
            expected = shown("to-json", tmp_path / name, "--memory", tmp_path / "images")
            image = (tmp_path / "images" / "ram#0 pc").read_bytes()
            assert image == b"c" * PAGE + b"b" * PAGE + bytes(2 * PAGE)
            assert shown("to-json", "-", "--memory", tmp_path / "images", given=pack(given)) == expected
            assert (tmp_path / "images" / "ram#0 pc").read_bytes() == image
            assert run("from-json", "-", "--memory", tmp_path / "images", given=expected.encode()).stdout == snapshot_of(stream)

    @pytest.mark.long
    def test_every_command_finds_it_beside_the_json_form(self, tvm: Path, text: Path, tmp_path: Path) -> None:
        assert json.loads(text.read_text())["memory"] == "images"
        (tmp_path / "board.py").write_text(BOARD)
        text.with_suffix(".json.xz").write_bytes(lzma.compress(text.read_bytes()))
        for source in (text, text.with_suffix(".json.xz")):
            for command in (("show",), ("show", "--salvage"), ("to-json",)):
                assert shown(*command, source) == shown(*command, tvm)
            for command in (("from-json",), ("import",)):
                assert run(*command, source).stdout == tvm.read_bytes()
            assert shown("diff", source, tvm) == ""
            done = run("check", source.name, "--against", "board:MACHINE", "--unknown", "ignore", cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, b"")

    def test_so_does_the_library(self, text: Path) -> None:
        @tv.vmstate("ram")
        class Ram:
            memory: Annotated[tv.sparse, tv.Length(32)] = tv.field(default_factory=lambda: bytearray(32), name="pc.ram")

        found = tv.load(text, Ram, unknown="ignore")
        assert bytes(found.memory) == b"aaaa" + bytes(27) + b"d"

    def test_only_a_folder_beside_is_named(self, tvm: Path, tmp_path: Path) -> None:
        (tmp_path / "below").mkdir()
        odd = tmp_path / "below" / "\udcff"
        for folder, out in (
            (tmp_path / "images", tmp_path / "below" / "a.json"),
            (tmp_path, tmp_path / "a.json"),
            (odd, odd.with_name("b.json")),
        ):
            shown("to-json", tvm, "--memory", folder, "-o", out)
            assert "memory" not in json.loads(out.read_text())
            assert "name its folder with from-json --memory DIR - at ram#0" in refused("show", out)
            assert run("from-json", out, "--memory", folder).stdout == tvm.read_bytes()
        printed = run("to-json", tvm, "--memory", "here", cwd=tmp_path).stdout
        assert json.loads(printed)["memory"] == "here"

    def test_it_is_told_otherwise_where_it_lies(self, tvm: Path, text: Path, tmp_path: Path) -> None:
        (tmp_path / "images").rename(tmp_path / "moved")
        done = run("show", "a.json", cwd=tmp_path)
        assert done.returncode == 2
        assert b"the file 'ram#0 pc.ram' in the folder 'images', JSON has No such file or directory" in done.stderr
        assert run("from-json", text, "--memory", tmp_path / "moved").stdout == tvm.read_bytes()

    def test_a_pipe_has_no_folder(self, text: Path, tvm: Path, tmp_path: Path) -> None:
        for command in (("show",), ("to-json",), ("from-json",), ("export",)):
            assert "name its folder with from-json --memory DIR - at ram#0" in refused(*command, "-", given=text.read_bytes())
        done = run("from-json", "-", "--memory", tmp_path / "images", given=text.read_bytes())
        assert done.stdout == tvm.read_bytes()

    @pytest.mark.parametrize("name", ["..", ".", "", "/etc", "images/below", "a\0b", "\ud800", 7, None, ["images"]])
    def test_a_name_is_no_path(self, name: object, text: Path) -> None:
        found = json.loads(text.read_text())
        found["memory"] = name
        text.write_text(json.dumps({key: found[key] for key in ("format", "version", "attributes", "memory", "sections")}))
        assert '"memory" as the name of a folder that lies beside it' in refused("show", text)

    def test_the_folder_is_no_link(self, tvm: Path, text: Path, tmp_path: Path) -> None:
        (tmp_path / "images").rename(tmp_path / "far")
        (tmp_path / "images").symlink_to("far")
        assert "'images', a symbolic link, which is not followed" in refused("show", text)
        shown("to-json", tvm, "--memory", tmp_path / "images", "-o", text)
        assert "memory" not in json.loads(text.read_text())

    def test_the_folder_is_named_before_the_sections(self, text: Path) -> None:
        found = json.loads(text.read_text())
        text.write_text(json.dumps({key: found[key] for key in ("format", "version", "attributes", "sections", "memory")}))
        assert "line 1" in refused("from-json", text, "--memory", text.parent / "images")


class TestDamage:
    def test_a_stream(self) -> None:
        assert salvaged(STREAM) == (["configuration#0", "one#0", "two#0", "vmdescription#0"], [])
        whole_without = len(STREAM) - len(TOLD)
        for cut in {*range(len(FIRST) + 1, len(STREAM) - 1)} - {whole_without}:
            labels, [damage] = salvaged(STREAM[:cut])
            assert labels[:2] == ["configuration#0", "one#0"]
            assert labels[2:] in ([], ["two#0"])
            assert "truncated" in damage

    def test_what_is_before_the_damage_is_described_where_the_description_is_intact(self) -> None:
        odd = STREAM.replace(full(4, "two", b"\5"), b"\xee" + full(4, "two", b"\5")[1:])
        sections = open_sections(io.BytesIO(odd), salvage=True)
        found = {section.label: [record.name for record in section.records()] for section in sections}
        assert found == {"configuration#0": ["name"], "one#0": ["a"]}
        assert "the byte 0xee" in str(sections.damage[0])
        with pytest.raises(FormatError, match="the byte 0xee"):
            list(open_sections(io.BytesIO(odd)))

    def test_a_stream_without_footers(self) -> None:
        stream = io.BytesIO()
        write_v3([RawSection("one", 0, 1, b"\0\0\0\7"), RawSection("two", 0, 1, b"\5")], stream, has_footers=False)
        labels, [damage] = salvaged(stream.getvalue()[:-1])
        assert (labels, "two#0" in damage) == (["one#0"], True)

    def test_a_file_of_version_2(self) -> None:
        stream = io.BytesIO()
        write_v2([RawSection("one", 0, 1, b"abc"), RawSection("two", 0, 1, b"de")], stream)
        labels, [damage] = salvaged(stream.getvalue()[:-1])
        assert (labels, damage) == (
            ["one#0"],
            "expected 2 bytes of a record, stream has only 1 before its end (truncated) - at two#0 (byte 51)",
        )

    def test_memory_up_to_the_damage(self, tmp_path: Path) -> None:
        cut = (
            MAGIC
            + head(1, 2, "ram", 0, 4)
            + blocks(pc=PAGE)
            + word(0, 0x10)
            + b"\x7e\0\0\0\2"
            + head(2, 2)
            + page(0, b"a" * PAGE, "pc")[:-1]
        )
        assert salvaged(cut)[0] == ["ram#0"]
        (tmp_path / "cut.mig").write_bytes(cut)
        assert "pc  sparse[4096]" in run("show", "--salvage", tmp_path / "cut.mig").stdout.decode()

    def image(self, stream: bytes, magic: bytes = b"LibvirtQemudSave") -> bytes:
        return magic + struct.pack("<19I", 2, 10, 1, 0, 0, *[0] * 14) + b"<domain/>\0" + stream

    def test_a_libvirt_image(self) -> None:
        all_of_it = ["libvirt#0", "configuration#0", "one#0", "two#0", "vmdescription#0"]
        assert salvaged(self.image(STREAM)) == (all_of_it, [])
        assert salvaged(self.image(STREAM[:-9]))[0] == all_of_it[:-1]
        assert salvaged(self.image(STREAM, b"LibvirtQemudPart")) == (
            all_of_it,
            ["expected a finished save image, stream has one that libvirt never finished - at byte 0"],
        )
        packed = gzip.compress(STREAM)
        labels, [damage] = salvaged(self.image(packed[:-8]))
        assert (labels, "whole gzip data" in damage) == (all_of_it, True)
        labels, [damage] = salvaged(self.image(gzip.compress(FIRST + full(4, "two", bytes(range(256))))[:-200]))
        assert (labels, "whole gzip data" in damage) == (all_of_it[:3], True)

    def test_a_json_form(self) -> None:
        text = json_of(snapshot_of(STREAM))
        assert salvaged(text)[1] == []
        assert salvaged(text[: text.index(b'"two"')])[0] == ["configuration#0", "one#0"]
        labels, damage = salvaged(text.replace(b'"value": 7', b'"value": -7'))
        assert labels == ["configuration#0", "two#0", "vmdescription#0"]
        assert damage == ["expected `uint32` (0 to 4294967295), JSON has -7 - at one#0/a (line 6, byte 526)"]

    def test_damage_is_counted_after_a_thousand(self) -> None:
        text = json_of(snapshot_of(STREAM)).replace(b'{"device": "one"', b"{}, " * 1_003 + b'{"device": "one"')
        sections = open_sections(io.BytesIO(text), salvage=True)
        assert len(list(sections)) == 4
        assert (len(sections.damage), sections.more_damage) == (1_000, 3)

    @pytest.mark.long
    @pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
    def test_what_is_compressed(self, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
        for plain in (STREAM, snapshot_of(STREAM), json_of(snapshot_of(STREAM))):
            whole = pack(plain)
            for packed in (whole[:-2], whole[:-3] + bytes((whole[-3] ^ 1,)) + whole[-2:]):
                (tmp_path / "packed").write_bytes(packed)
                given, expected = (
                    run("info", "-", "--format", "json", given=packed),
                    run("info", tmp_path / "packed", "--format", "json"),
                )
                assert (given.returncode, given.stdout) == (1, expected.stdout)
                found = json.loads(given.stdout)
                assert "two" in [section["device"] for section in found["sections"]]
                assert " data, file has it cut or damaged" in found["damage"][-1]

    def test_the_command_tells_what_is_intact_then_what_is_not(self, tmp_path: Path) -> None:
        cut = STREAM[: len(FIRST) + 5]
        done = run("info", "-", given=cut)
        assert done.returncode == 1
        assert done.stdout.decode().index("one#0") < done.stdout.decode().index("damaged: expected")
        done = run("show", "--salvage", "-", "two", given=cut)
        assert done.returncode == 2
        first, second = done.stderr.decode().splitlines()
        assert ("damaged: expected" in first, "no device `two`" in second) == (True, True)
        for command in (("show",), ("to-json",), ("diff", "-"), ("check", "--against", "board:MACHINE")):
            (tmp_path / "board.py").write_text(BOARD)
            (tmp_path / "cut.mig").write_bytes(cut)
            done = run(*command, "cut.mig", given=cut, cwd=tmp_path)
            assert (done.returncode, b"truncated" in done.stderr) == (2, True)

    def test_what_is_of_no_kind_is_refused(self) -> None:
        for command in (("info",), ("show", "--salvage")):
            for given in (b"", b"\xff\xd8", gzip.compress(b"\xff\xd8"), gzip.compress(STREAM)[:10], b"QEVM\0\0"):
                refused(*command, "-", given=given)

    def test_from_json_names_who_takes_the_others(self) -> None:
        for given in (STREAM, snapshot_of(STREAM)):
            assert "expected a JSON form, file has another kind: import takes it" in refused("from-json", "-", given=given)


class TestWhatIsLost:
    def test_memory_that_is_lost_is_not_zero(self, tmp_path: Path) -> None:
        path = tmp_path / "damaged.tvm"
        with path.open("wb") as file, SnapshotWriter(file) as writer:
            writer.write(Section("ram", 0, [Record("m", "sparse", 64, ((0, b"lost"),))], kind="part"))
            writer.write(Section("ram", 0, [Record("m", "sparse", 64, ())]))
        path.write_bytes(path.read_bytes().replace(b"lost", b"LOST"))
        done = run("show", "--salvage", path)
        assert (done.returncode, "ram#0  incomplete" in done.stdout.decode()) == (1, True)
        assert "nothing intact" in done.stdout.decode()
        [section] = json.loads(run("show", "--salvage", path, "--format", "json").stdout)["sections"]
        assert section["incomplete"] is True

    def test_a_description_that_cannot_be_read_is_damage(self) -> None:
        place = STREAM.rindex(b'"one"')
        for odd, words in ((b"\xff", "no UTF-8: the byte 0xff"), (b"}", "no JSON from byte")):
            stream = STREAM[:place] + odd + STREAM[place + 1 :]
            for command in (("info",), ("show", "--salvage")):
                done = run(*command, "-", given=stream)
                assert (done.returncode, b"one#0" in done.stdout) == (1, True)
                told = done.stdout + done.stderr
                assert f"a description that can be read, stream has {words}" in told.decode()

    def test_sections_before_a_byte_that_is_no_text_are_intact(self) -> None:
        text = json_of(snapshot_of(STREAM))
        place = text.index(b'"two"')
        done = run("info", "-", given=text[:place] + b"\xff" + text[place:])
        assert (done.returncode, b"one#0" in done.stdout) == (1, True)
        assert b"expected UTF-8, JSON has the byte 0xff" in done.stdout

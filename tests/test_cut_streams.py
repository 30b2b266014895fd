"""Streams that were cut, and streams in volumes of fixed size: what is intact is there, and what is odd is said."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import stream_bytes
from qemu_streams import EOF, MAGIC, blocks, configuration, description, device, field, footer, full, head, page, ram, rebuilt
from test_command import run

from tagged_vmstate.errors import FormatError, LimitError
from tagged_vmstate.files import Input
from tagged_vmstate.qemu.bridge import Import, import_stream
from tagged_vmstate.qemu.stream import DESCRIPTION_BYTES, StreamReader, Turn
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter, write
from tagged_vmstate.sources import open_sections

ZEROS = bytes(4096)
OLD = bytes(range(256)) * 5000


def imported(source: Any) -> tuple[bytes, list[str]]:
    """The snapshot of a stream, and the notes."""
    found = import_stream(source)
    file = io.BytesIO()
    write(found, file)
    return file.getvalue(), found.notes


def salvaged(data: bytes) -> tuple[list[str], str, list[str]]:
    """What is intact, what is damaged, and the notes."""
    sections = open_sections(io.BytesIO(data), salvage=True)
    labels = list(dict.fromkeys(section.label for section in sections))
    assert isinstance(sections.sections, Import)
    return labels, " ".join(map(str, sections.damage)), sections.sections.notes


def turns(data: bytes) -> Iterator[tuple[Turn, int]]:
    """The sections of a stream, and where each ends."""
    source = Input(io.BytesIO(data))
    for event in StreamReader(source, {}).events():
        if isinstance(event, Turn):
            yield event, source.position


def is_last(turn: Turn) -> bool:
    return isinstance(turn.body, bytes) or (turn.head.type == 3 and turn.body.last)


@pytest.mark.parametrize("name", ["pc-qemu10.0", "isapc-qemu7.2"])
class TestEveryCut:
    def test_inside_a_section_it_is_named_and_what_is_ahead_of_it_is_listed(self, name: str) -> None:
        data, listed = stream_bytes(name), ["configuration#0"]
        for turn, end in turns(data):
            label = turn.head.label if turn.head.label not in listed else f"{turn.head.name}#1"
            size = len(turn.body) if isinstance(turn.body, bytes) else 8
            cuts = {end - 1, end - 5, end - 5 - size // 2, end - 5 - size}
            for cut in cuts if "ram#0" in listed else [end - 1]:  # that there are footers the first one shows
                labels, damage, notes = salvaged(data[:cut])
                assert {*labels} - {"ram#0", "command#0"} == {*listed} - {"ram#0"}
                assert f"at {turn.head.label}" in damage.replace('"', "")
                assert "(truncated)" in damage or "nothing but zeros from there on" in damage
                assert not any("cut" in note for note in notes)
            with pytest.raises(FormatError, match=r"\(truncated\)"):
                list(import_stream(data[: end - 1]))
            if is_last(turn):
                listed.append(label)
            labels, damage, _ = salvaged(data[:end])
            assert label in labels, "whole, so it is listed"
            assert damage.startswith("expected a section, a command or the end, stream has nothing more (truncated)")

    def test_followed_by_zeros(self, name: str) -> None:
        data = stream_bytes(name)
        for turn, end in turns(data):
            said = f"no description and nothing but zeros (4095 bytes) follow the last section, {turn.head.label}: "
            labels, damage, notes = salvaged(data[:end] + ZEROS)
            assert turn.head.label in labels
            assert f"{said}the stream may be cut there" in notes
            assert ("the last turn of the section, stream has the end of all - at ram#0" in damage) is not is_last(turn)
            if isinstance(turn.body, bytes) and data[end - 6]:
                _, damage, _ = salvaged(data[: end - 5] + ZEROS)
                assert "nothing but zeros from there on (cut and padded)" in damage
                assert damage.endswith(f"(byte {end - 5})")

    def test_behind_the_sections(self, name: str) -> None:
        data = stream_bytes(name)
        *_, (turn, end) = turns(data)
        labels, damage, notes = salvaged(data[: end + 1])
        assert (turn.head.label in labels, damage) == (True, "")
        assert f"no description follows the last section, {turn.head.label}, and QEMU writes one" in notes[0]
        for cut in (end + 2, end + 4, end + 6, end + 100, len(data) - 1):
            labels, damage, notes = salvaged(data[:cut])
            assert (turn.head.label in labels, "truncated" in damage) == (True, True)
            assert not any("cut" in note for note in notes)
        done = run("info", "-", given=data[:cut])
        assert (done.returncode, b"damaged: expected" in done.stdout) == (1, True)


@pytest.mark.parametrize("name", ["pc2.2-qemu7.2", "pc2.3-qemu7.2", "pc-qemu7.2", "arm1k-qemu7.2"])
def test_a_sound_stream_is_not_doubted(name: str) -> None:
    _, damage, notes = salvaged(stream_bytes(name))
    assert (damage, [note for note in notes if "not described" not in note]) == ("", [])


class TestCut:
    IMAGE = b"LibvirtQemudSave" + struct.pack("<19I", 2, 10, 1, 0, 0, *[0] * 14) + b"<domain/>\0"

    def test_the_first_footer(self) -> None:
        whole = MAGIC + full(1, "dev", b"abc")
        _, damage, _ = salvaged(MAGIC + ram(blocks(m=4096))[:-2])
        assert damage.startswith("expected the footer of section 2, stream has 7e 00 00 (truncated) - at ram#0")
        assert salvaged(whole)[0] == ["dev#0"]

    @pytest.mark.parametrize("size", [0, 5, 8, 10, 15])
    def test_what_a_save_image_has_ahead_of_it_is_intact(self, size: int) -> None:
        stream = MAGIC + configuration("board") + full(1, "dev", b"abc")
        labels, damage, _ = salvaged(self.IMAGE + stream[:size])
        assert (labels, damage != "") == (["libvirt#0"], True)
        if size > 8:
            assert salvaged(stream[:size])[0] == []

    def test_the_machine_followed_by_zeros(self) -> None:
        with pytest.raises(FormatError, match="the machine's name, stream has zeros in it"):
            import_stream(MAGIC + configuration("board")[:-2] + ZEROS)

    def test_memory_followed_by_zeros(self) -> None:
        whole = ram(blocks(m=8192), page(0, OLD[:4096], "m"), b"")
        cut = MAGIC + whole[: whole.index(OLD[:4096]) + 100] + ZEROS * 2
        labels, damage, _ = salvaged(cut)
        assert labels == ["ram#0"]
        assert "expected a page record, stream has zeros, as where a stream is cut and padded - at ram#0" in damage

    def test_a_section_without_footer_followed_by_zeros_does_not_take_them(self) -> None:
        stream = MAGIC + full(1, "dev", b"abc", has_footer=False)
        snapshot, notes = imported(stream + ZEROS)
        assert [section.records()[0].length for section in Snapshot.read(snapshot)] == [3, 4095]
        assert notes[0].startswith("no description and nothing but zeros (4095 bytes) follow the last section, dev#0: ")

    def test_a_description_longer_than_any(self) -> None:
        with pytest.raises(LimitError, match="a description of at most 67108864 bytes"):
            list(import_stream(MAGIC + EOF + b"\6" + struct.pack(">I", DESCRIPTION_BYTES + 1)))


class _Pipe(io.RawIOBase):
    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


def piped(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(_Pipe(data))


def devices(snapshot: bytes) -> list[tuple[str, tuple[Record, ...]]]:
    return [(section.label, section.records()) for section in Snapshot.read(snapshot) if section.device != "trailing"]


class TestPadding:
    NOTES: ClassVar = {"zeros": "3000000 bytes of zeros follow the stream, as in a volume of fixed size", "old": "kept as bytes"}

    @pytest.mark.parametrize("name", ["pc-qemu7.2", "pc2.3-qemu7.2", "armvirt-qemu7.2"])
    @pytest.mark.parametrize("kind", ["zeros", "old"])
    def test_devices_are_described_and_the_rest_is_one_section(self, name: str, kind: str) -> None:
        data = stream_bytes(name)
        rest = bytes(3_000_000) if kind == "zeros" else bytes(5000) + OLD + bytes(1_000_000) + OLD + bytes(99) + data[-70:]
        snapshot, notes = imported(data + rest)
        assert ["described" not in section.attributes["qemu"] for section in Snapshot.read(snapshot)].count(False) == 0
        assert len(devices(snapshot)) == len(devices(imported(data)[0]))
        trailing = [section for section in Snapshot.read(snapshot) if section.device == "trailing"]
        assert ({section.label for section in trailing}, trailing[-1].kind) == ({"trailing#0"}, "section")
        assert [record.describe() for record in trailing[0].records()] == [f"sparse[{len(rest)}]"]
        assert ([self.NOTES[kind] in note for note in notes], len(snapshot) < 3_200_000) == ([True], True)
        assert rebuilt(snapshot) == data + rest
        if name != "pc2.3-qemu7.2":
            assert imported(piped(data + rest)) == (snapshot, notes), "a pipe works where there are footers"
        assert imported(gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data + rest)))) == (snapshot, notes)

    @pytest.mark.parametrize("rest", [b"", ZEROS, OLD, b"\0\6\0\0\0\2{}"], ids=["nothing", "zeros", "old bytes", "a false one"])
    def test_the_description_counts_where_it_stands(self, rest: bytes) -> None:
        """Without footers it alone shows where a device ends."""
        trap = full(9, "trap", b"", has_footer=False)
        described = device("dev", field("a", "buffer", len(trap))), device("end", field("x", "uint8", 1))
        stream = MAGIC + ram(blocks(m=4096), b"") + full(1, "dev", trap, has_footer=False)
        stream = stream.replace(footer(2), b"") + full(2, "end", b"x", has_footer=False) + EOF + description(*described)
        snapshot, _ = imported(stream + rest)
        found = {label: [record.value for record in records] for label, records in devices(snapshot)}
        assert (found["dev#0"], found["end#0"], "trap#0" in found) == ([trap], [120], False)
        assert rebuilt(snapshot) == stream + rest

    def test_what_an_earlier_build_imported_comes_back(self) -> None:
        stream = MAGIC + full(1, "dev", b"abc") + EOF
        plain, _ = imported(stream)
        file = io.BytesIO()
        with SnapshotWriter(file, Snapshot.read(plain).raw_attributes) as writer:
            for section in Snapshot.read(plain):
                writer.write(section)
            for number, data in enumerate((OLD, ZEROS, b"end")):
                attributes = {"qemu": {"type": "trailing", "offset": len(stream)}}
                writer.write(Section("trailing", number, [Record("bytes@0", "buffer", len(data), data)], attributes=attributes))
        assert rebuilt(file.getvalue()) == stream + OLD + ZEROS + b"end"

    @pytest.mark.parametrize("cut", [0, 25_000], ids=["whole", "cut"])
    @pytest.mark.parametrize("fill", [b"", OLD[:4096]], ids=["zeros", "old bytes"])
    def test_memory_is_bounded(self, cut: int, fill: bytes, tmp_path: Path) -> None:
        data = stream_bytes("pc-qemu7.2")
        with (tmp_path / "volume").open("wb") as file:
            file.write(data[: cut or None])
            file.writelines([fill] * 16_000)
            os.truncate(file.fileno(), max(64 << 20, file.tell()))
        tracemalloc.start()
        try:
            with (tmp_path / "volume").open("rb") as file, Path(os.devnull).open("wb") as nowhere:
                sections = open_sections(file, salvage=True)
                write(sections, nowhere)
                assert bool(sections.damage) is bool(cut)
            assert tracemalloc.get_traced_memory()[1] < 32 << 20
        finally:
            tracemalloc.stop()

    def test_a_list_of_sections_has_one_row_for_it(self, tmp_path: Path) -> None:
        (tmp_path / "volume").write_bytes(stream_bytes("pc-qemu7.2") + bytes(5 << 20) + OLD * 5)
        done = run("info", tmp_path / "volume")
        assert (done.returncode, done.stdout.count(b"trailing#")) == (0, 1)
        run("import", tmp_path / "volume", "-o", tmp_path / "a.tvm")
        assert run("export", tmp_path / "a.tvm").stdout == (tmp_path / "volume").read_bytes()
        assert run("diff", tmp_path / "volume", tmp_path / "a.tvm").returncode == 0


def test_an_unknown_setting_is_kept_wherever_it_ends() -> None:
    stream = MAGIC + configuration("pc", ("configuration/vendor", b"\1\2\3")) + head(4, 1, "dev", 0, 1) + b"abc" + footer(1) + EOF
    assert rebuilt(imported(stream)[0]) == stream

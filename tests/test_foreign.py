"""Files of other kinds are named wherever a file is read, with the way from there."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from qemu_streams import EOF, MAGIC, configuration, full
from test_command import refused, run

from tagged_vmstate.errors import FormatError
from tagged_vmstate.foreign import FOREIGN, foreign
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.sources import check_foreign, check_head, open_sections

CORE = b"\x7fELF\2\1\1" + bytes(9) + b"\4\0\x3e\0"


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("vm.mig"), io.BytesIO())
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("vm.mig", b"QEVM")
    return file.getvalue()


MET = {
    "qcow2": (
        b"QFI\xfb\0\0\0\3",
        "a qcow2 disk image: qemu-img snapshot -l lists its snapshots; load one in a QEMU, with -loadvm",
    ),
    "core": (CORE, "an ELF core, as dump-guest-memory writes: it holds memory and CPUs, but no devices: crash or gdb reads it"),
    "core of s390x": (b"\x7fELF\2\2\1" + bytes(9) + b"\0\4\0\x16", "an ELF core, as dump-guest-memory writes"),
    "program": (b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\x3e\0", "an ELF program: it holds no state of a machine"),
    "kdump": (b"KDUMP   \6\0\0\0", "a kdump file, as dump-guest-memory -z writes"),
    "flattened kdump": (b"makedumpfile\0\0\0\0", "crash, after makedumpfile -R, reads it"),
    "tar": (tar(), "a tar archive: unpack it first, with tar -xf FILE"),
    "zip": (zipped(), "a zip archive: unpack it first, with unzip FILE"),
    "lz4": (b"\x04\x22\x4d\x18\x64", "lz4 data: decompress it first, with lz4 -d"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04", "zstd data: decompress it first, with zstd -d"),
    "lzop": (b"\x89LZO\0\r\n\x1a\n", "lzop data: decompress it first, with lzop -d"),
    "VDI": (
        b"<<< QEMU VM Virtual Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe",
        "a VDI disk image: a disk holds no state",
    ),
    "disk": (bytes(510) + b"\x55\xaa", "a disk, by its boot sector"),
    "zeros": (
        bytes(4096) + b"QEVM",
        "zeros: a stream that QEMU wrote at an offset (migrate file:FILE,offset=N) begins after them",
    ),
    "XML": (b"<domain type='kvm'>", "virsh save writes its state"),
}


@pytest.mark.parametrize("name", MET)
def test_it_is_named(name: str) -> None:
    data, words = MET[name]
    for given in (data, data + bytes(5000)):
        with pytest.raises(FormatError, match="a snapshot, its JSON form or a QEMU migration stream, file has ") as caught:
            open_sections(io.BytesIO(given))
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        *("info F", "show F", "show --salvage F", "from-json F", "diff F F", "set F a/b 1 -o out"),
        *("compat F tables.json", "compat tables.json F", "import vm.mig --tables F"),
        *("import vm.mig --defaults F", "export vm.mig --like F"),
    ],
)
def test_every_command_names_it(command: str, tmp_path: Path) -> None:
    (tmp_path / "tables.json").write_text('{"vmschkmachine": {"Name": "pc"}}')
    (tmp_path / "vm.mig").write_bytes(MAGIC + configuration("pc") + full(1, "dev", b"abc") + EOF)
    (tmp_path / "F").write_bytes(MET["qcow2"][0])
    done = run(*command.split(), cwd=tmp_path)
    assert (done.returncode, b"F: expected " in done.stderr, b"a qcow2 disk image: qemu-img" in done.stderr) == (2, True, True)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_it_is_named_inside_a_compression(pack: Callable[[bytes], bytes]) -> None:
    for name in ("tar", "qcow2", "disk"):
        assert MET[name][1] in refused("info", "-", given=pack(MET[name][0] + bytes(9000)))


def test_it_is_named_inside_a_save_image() -> None:
    xml = b"<domain/>\0"
    image = b"LibvirtQemudSave" + struct.pack("<19I", 2, len(xml), 1, 0, 0, *[0] * 14) + xml
    with pytest.raises(FormatError, match=r"lz4 data: .*, with tail -c \+103 FILE \| lz4 -dc - at byte 102"):
        import_stream(image + MET["lz4"][0])


def test_marks_further_on_make_no_snapshot_foreign() -> None:
    for head in (MAGIC, b"LibvirtQemudSave", b'{"format": ""'):
        given = bytearray(head.ljust(600, b" "))
        given[64:68], given[257:262], given[510:512] = b"\x7f\x10\xda\xbe", b"ustar", b"\x55\xaa"
        for check in (check_head, check_foreign):
            check(bytes(given))


def test_every_row_is_found_and_has_one_place() -> None:
    for kind in FOREIGN:
        head = bytearray(600)
        for at, magic in kind.marks:
            head[at : at + len(magic)] = magic
        assert foreign(bytes(head)) is kind
        assert all(at + len(magic) <= 512 for at, magic in kind.marks)

"""Files of other kinds that are met, each with the way from it: a row for each, found by its first bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Foreign:
    """A kind of file that is not read here.

    Attributes:
        marks: (offset, bytes) that stand in all files of this kind.
        name: What it is.
        way: What to do with it.
        filter: For what is compressed, the command that undoes it from standard input.
    """

    marks: tuple[tuple[int, bytes], ...]
    name: str
    way: str
    filter: str | None = None


def _packed(magic: bytes, name: str, tool: str) -> Foreign:
    return Foreign(((0, magic),), f"{name} data", f"decompress it first, with {tool} -d", f"{tool} -dc")


def _archive(offset: int, magic: bytes, name: str, command: str) -> Foreign:
    return Foreign(((offset, magic),), f"a {name} archive", f"unpack it first, with {command} FILE")


def _disk(offset: int, magic: bytes, name: str) -> Foreign:
    return Foreign(((offset, magic),), name, "a disk holds no state of a running machine; capture takes that")


def _dump(name: str, reader: str, *marks: tuple[int, bytes]) -> Foreign:
    return Foreign(marks, name, f"it holds memory and CPUs, but no devices: {reader} reads it; capture takes all")


def _state(magic: bytes, name: str) -> Foreign:
    return Foreign(((0, magic),), f"the saved state of a {name} machine", f"only {name} reads it")


_ELF: Final = b"\x7fELF"
FOREIGN: Final = (
    Foreign(
        ((0, b"QFI\xfb"),),
        "a qcow2 disk image",
        "qemu-img snapshot -l lists its snapshots; load one in a QEMU, with -loadvm, and capture it",
    ),
    _dump("an ELF core, as dump-guest-memory writes", "crash or gdb", (0, _ELF), (5, b"\1"), (16, b"\4\0")),
    _dump("an ELF core, as dump-guest-memory writes", "crash or gdb", (0, _ELF), (5, b"\2"), (16, b"\0\4")),
    Foreign(((0, _ELF),), "an ELF program", "it holds no state of a machine"),
    _dump("a kdump file, as dump-guest-memory -z writes", "crash", (0, b"KDUMP   ")),
    _dump("a kdump file, as dump-guest-memory -z writes", "crash", (0, b"DISKDUMP")),
    _dump("a flattened kdump file, as dump-guest-memory -z writes", "crash, after makedumpfile -R,", (0, b"makedumpfile\0")),
    _dump("a Windows crash dump, as dump-guest-memory -w writes", "WinDbg", (0, b"PAGEDU64")),
    _dump("a Windows crash dump, as dump-guest-memory -w writes", "WinDbg", (0, b"PAGEDUMP")),
    _state(b"\x7fVirtualBox SavedState", "VirtualBox"),
    _state(b"Xen saved domain", "Xen"),
    *(_state(magic, "VMware") for magic in (b"\xd0\xbe\xd2\xbe", b"\xd1\xba\xd1\xba", b"\xd2\xbe\xd2\xbe", b"\xd3\xbe\xd3\xbe")),
    _packed(b"\x28\xb5\x2f\xfd", "zstd", "zstd"),
    _packed(b"\x04\x22\x4d\x18", "lz4", "lz4"),
    _packed(b"\x02\x21\x4c\x18", "lz4", "lz4"),
    _packed(b"\x89LZO", "lzop", "lzop"),
    _packed(b"LZIP", "lzip", "lzip"),
    _packed(b"\x5d\0\0", "lzma", "xz --format=lzma"),
    _packed(b"\x1f\x9d", "compress", "gzip"),
    _archive(257, b"ustar", "tar", "tar -xf"),
    _archive(0, b"PK\x03\x04", "zip", "unzip"),
    _archive(0, b"PK\x05\x06", "zip", "unzip"),
    _archive(0, b"7z\xbc\xaf\x27\x1c", "7z", "7z x"),
    _archive(0, b"Rar!\x1a\x07", "rar", "unrar x"),
    _archive(0, b"07070", "cpio", "cpio -i <"),
    _disk(0, b"KDMV", "a VMDK disk image"),
    _disk(0, b"# Disk DescriptorFile", "the descriptor of a VMDK disk image"),
    _disk(64, b"\x7f\x10\xda\xbe", "a VDI disk image"),
    _disk(0, b"vhdxfile", "a VHDX disk image"),
    _disk(0, b"conectix", "a VHD disk image"),
    _disk(0, b"QED\0", "a QED disk image"),
    _disk(0, b"LUKS\xba\xbe", "a LUKS volume"),
    _disk(510, b"\x55\xaa", "a disk, by its boot sector"),
    Foreign(
        ((0, bytes(512)),),
        "zeros",
        "a stream that QEMU wrote at an offset (migrate file:FILE,offset=N) begins after them; "
        "tail -c +$((N + 1)) FILE takes it out",
    ),
    Foreign(((0, b"<"),), "XML or HTML", "a domain's XML holds its settings; virsh save writes its state"),
)


def foreign(head: bytes) -> Foreign | None:
    """What a file that begins so is, if it is known and not read here."""
    return next((kind for kind in FOREIGN if all(head.startswith(magic, at) for at, magic in kind.marks)), None)

"""The real loads behind docs/qemu-loads.md: each of two QEMUs saves machines, and the other loads them.

`python tests/real_loads.py --old PROGRAM --new PROGRAM` records what they do in tests/data, for the architecture of the two; `--write`
writes the page of all that is recorded. For a row four machines are started: one of each QEMU is saved at reset, and one of each loads
what the other saved. Where one refuses, a fifth shows whether that QEMU refuses its own stream, too.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from arguments import Arguments
from qemu_loads import PAGE, Load, Qemu, Record, Row, Section, add_record, renewed
from qemu_machine import SPINNING_BIOS, Machine

from tagged_vmstate.files import Input
from tagged_vmstate.qemu.dumpstate import MACHINE
from tagged_vmstate.qemu.stream import find_description

_DISK: Final = "-blockdev null-co,node-name=d,size=1048576,read-zeroes=on"
_CHARDEV: Final = "-chardev null,id=c"
_SOUND: Final = "-audiodev none,id=s"
_BMC: Final = "-device ipmi-bmc-sim,id=b"
_MEMORY: Final = "-object memory-backend-ram,id=o,size=128M"

_X86: Final = {
    "pc-q35-7.2": f"""
        -device virtio-balloon-pci
        {_DISK} -device virtio-blk-pci,drive=d
        -device virtio-gpu-pci
        -device virtio-vga,romfile=
        -device virtio-iommu-pci
        -device virtio-keyboard-pci
        -device virtio-mouse-pci
        -device virtio-tablet-pci
        -device virtio-net-pci,romfile=
        -device virtio-net-pci-non-transitional,romfile=
        -device virtio-rng-pci
        {_DISK} -device virtio-scsi-pci -device scsi-hd,drive=d
        {_CHARDEV} -device virtio-serial-pci -device virtconsole,chardev=c
        -device e1000,romfile=
        -device e1000e,romfile=
        -device rtl8139,romfile=
        -device pcnet,romfile=
        -device ne2k_pci,romfile=
        -device vmxnet3,romfile=
        -device i82559er,romfile=
        -device i82801,romfile=
        -device tulip,romfile=
        -device ich9-ahci
        {_DISK} -device ich9-ahci,id=a -device ide-hd,bus=a.0,drive=d
        -device piix3-usb-uhci
        -device ich9-usb-uhci1
        -device usb-ehci
        -device pci-ohci
        -device nec-usb-xhci
        -device qemu-xhci
        -device qemu-xhci -device usb-kbd
        -device qemu-xhci -device usb-mouse
        -device qemu-xhci -device usb-tablet
        -device qemu-xhci -device usb-hub
        {_DISK} -device qemu-xhci -device usb-storage,drive=d
        -device qemu-xhci -device usb-bot
        -device qemu-xhci -device usb-ccid
        -device lsi53c810
        {_DISK} -device lsi53c895a -device scsi-hd,drive=d
        -device megasas
        -device megasas-gen2
        -device mptsas1068
        -device pvscsi
        -device am53c974
        {_DISK} -device am53c974 -device scsi-cd,drive=d
        -device dc390
        -device sdhci-pci
        {_DISK} -device sdhci-pci -device sd-card,drive=d
        {_SOUND} -device AC97,audiodev=s
        {_SOUND} -device ES1370,audiodev=s
        -device intel-hda
        {_SOUND} -device intel-hda -device hda-duplex,audiodev=s
        {_SOUND} -device ich9-intel-hda -device hda-output,audiodev=s
        {_SOUND} -device sb16,audiodev=s
        {_SOUND} -device gus,audiodev=s
        {_SOUND} -device cs4231a,audiodev=s
        -device VGA,romfile=
        -device secondary-vga,romfile=
        -device cirrus-vga,romfile=
        -device vmware-svga,romfile=
        -device ati-vga,romfile=
        -device bochs-display
        -device isa-vga
        -device isa-cirrus-vga
        {_CHARDEV} -device isa-serial,chardev=c
        {_CHARDEV} -device isa-parallel,chardev=c
        {_CHARDEV} -device pci-serial,chardev=c
        {_BMC} -device isa-ipmi-kcs,bmc=b
        {_BMC} -device isa-ipmi-bt,bmc=b
        {_BMC} -device pci-ipmi-kcs,bmc=b
        {_BMC} -device pci-ipmi-bt,bmc=b
        {_BMC} -device smbus-ipmi,bmc=b
        -device pcie-root-port
        -device pcie-root-port,id=r -device pcie-pci-bridge,bus=r
        -device ioh3420
        -device x3130-upstream
        -device i82801b11-bridge
        -device pci-bridge,chassis_nr=1
        -device pxb-pcie,bus_nr=128
        -device i6300esb
        -device ib700
        -device pvpanic-pci
        -device vmcoreinfo
        -device vmgenid
        -device intel-iommu
        -object memory-backend-file,id=o,size=64K,mem-path=/dev/zero,share=off -device acpi-erst,memdev=o
        -device tpci200 -device ipoctal232
        -object can-bus,id=k -device kvaser_pci,canbus=k
        -device i2c-ddc,address=0x50
        -m 16M,maxmem=1G {_MEMORY} -device virtio-mem-pci,memdev=o,block-size=2M
        -smp 2
        ! o /b 0x20 0x19
    """,
    "pc-i440fx-7.2": """
        -device piix3-usb-uhci
        -device piix4-usb-uhci
        -device piix3-ide
        -device piix4-ide
        -device isa-fdc
        -device isa-ide,iobase=0x168,iobase2=0x36e,irq=10
        -device ne2k_isa,iobase=0x320
    """,
    "microvm": """
        -device virtio-rng-device
        -device virtio-net-device
    """,
    "pc-q35-6.2": "",
    "pc-q35-4.2": "",
    "pc-q35-2.4": "",
    "pc-i440fx-2.10": "",
    "isapc": "",
    "pc": "",
    "q35": "",
}
_ARM: Final = (
    *("collie", "emcraft-sf2", "lm3s811evb", "microbit", "netduino2", "stm32vldiscovery", "imx25-pdk", "kzm", "palmetto-bmc"),
    *("supermicrox11-bmc", "mps2-an385", "mps2-an511", "ast1030-evb", "npcm750-evb", "raspi1ap", "lm3s6965evb", "nuri"),
    *("mps2-an500", "netduinoplus2", "virt-7.2", "virt"),
)
ROWS: Final[Mapping[str, Mapping[str, str]]] = {"x86_64": _X86, "aarch64": dict.fromkeys(_ARM, "")}
"""Architecture -> machine type -> options that are added to it, a row each; the machine without any is a row of its own.

What follows `!` is typed into the monitor of the machine that is saved.
"""

_PLAIN: Final = {"x86_64": "-m 16M -bios {bios}", "aarch64": ""}
"""Architecture -> what all its machines are started with."""


def _sections(stream: bytes) -> list[Section]:
    description = find_description(Input(io.BytesIO(stream)))
    assert description, "the stream has no description"
    found = [each for each in json.loads(description)["devices"] if "vmsd_name" in each]
    return [
        Section(each["name"], each["instance_id"], each["vmsd_name"], _size(each), sorted(set(_parts(each)))) for each in found
    ]


def _size(value: Mapping[str, Any]) -> int:
    fields = sum(int(each["size"]) * int(each.get("array_len", 1)) for each in value.get("fields", []))
    return fields + sum(map(_size, value.get("subsections", [])))


def _parts(value: Mapping[str, Any]) -> Iterator[str]:
    for each in value.get("fields", []):
        yield each["name"]
        yield from _parts(each.get("struct", {}))
    for each in value.get("subsections", []):
        yield each["vmsd_name"]
        yield from _parts(each)


def _machine_of(stream: bytes) -> str:
    assert stream[8] == 7, "the stream names no machine type"
    return stream[13 : 13 + int.from_bytes(stream[9:13], "big")].decode()


def _short(words: str) -> str:
    """What QEMU said, without its name and its warnings."""
    lines = [re.sub(r"^\S*qemu-system-\w+: ", "", line) for line in words.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("qemu: ", "warning:", "info:", "-device", "Timer with"))]
    return "; ".join(kept)


def _version(program: str) -> tuple[int, ...]:
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, words.split()[3].split(".")))


_SWITCHOVER: Final = (8, 1)


def _architecture(program: str) -> str:
    return program.rpartition("qemu-system-")[2]


def _program(text: str) -> str:
    """The path of a QEMU that there are rows for."""
    if _architecture(text) not in ROWS:
        raise argparse.ArgumentTypeError(f"expected qemu-system-{' or -'.join(ROWS)}, got `{text}`")
    path = shutil.which(text)
    if not path:
        raise argparse.ArgumentTypeError(f"there is no program `{text}`")
    return path


class Pair:
    """Two QEMUs, either of which loads what the other saves.

    Args:
        programs: The older and the newer.
        folder: Where their files are.
    """

    def __init__(self, programs: Sequence[str], folder: Path) -> None:
        self.architecture = _architecture(programs[0])
        self._programs = programs
        self._versions = [_version(program) for program in programs]
        self._folder = folder
        (folder / "bios").write_bytes(SPINNING_BIOS)

    def record(self) -> Record:
        """All rows, run."""
        rows = list(self._rows())
        kinds = {section.kind for row in rows for load in row.loads.values() for section in load.sections}
        return Record(self.architecture, [self._qemu(number, kinds) for number in (0, 1)], rows)

    def _rows(self) -> Iterator[Row]:
        for machine, lines in ROWS[self.architecture].items():
            plain = None
            for line in ["", *filter(None, map(str.strip, lines.splitlines()))]:
                try:
                    row = self._row(machine, line, plain)
                except (AssertionError, OSError, ValueError) as error:  # QEMU has none, or ended
                    print(f"left out: {machine} {line}: {error}")
                else:
                    plain = plain or row
                    yield row

    def _row(self, machine: str, options: str, plain: Row | None = None) -> Row:
        added, _, typed = (part.strip() for part in options.partition("!"))
        saved = [self._saved(number, machine, added, typed) for number in (0, 1)]
        streams = [stream for stream, _ in saved]
        loads = {}
        for name, writer, reader in (("upgrade", 0, 1), ("downgrade", 1, 0)):
            refusal = self._refusal(reader, machine, added, streams[writer])
            loads_own = not refusal or not self._refusal(reader, machine, added, streams[reader])
            known = {(each.name, each.instance) for each in plain.loads[name].sections} if plain and added else set()
            sections = [each for each in _sections(streams[writer]) if (each.name, each.instance) not in known]
            assert sections, f"{options}: nothing of it is in the stream"
            loads[name] = Load(_machine_of(streams[writer]), saved[writer][1], sections, refusal, loads_own=loads_own)
        return Row(machine, options, loads)

    def _start(self, number: int, machine: str, options: str, *more: str) -> Machine:
        plain = _PLAIN[self.architecture].format(bios=self._folder / "bios")
        # QEMU 8.1 and later send a command that earlier ones refuse, unless the machine type is of an earlier one
        quiet = ["-global", "migration.send-switchover-start=off"] if self._versions[number] >= _SWITCHOVER else []
        return Machine(self._programs[number], self._folder, "-S", "-M", machine, *plain.split(), *options.split(), *quiet, *more)

    def _saved(self, number: int, machine: str, options: str, typed: str) -> tuple[bytes, list[str]]:
        """The stream of a machine, and the types of devices that it has."""
        stream = self._folder / "stream"
        with self._start(number, machine, options) as running:
            if typed:
                running.monitor(typed)
            types = re.findall(r"\(([^()\n]+)\)\s*$", running.monitor("info qom-tree"), re.MULTILINE)
            running.migrate(f"exec:cat > {stream}")
        return stream.read_bytes(), sorted(set(types))

    def _refusal(self, reader: int, machine: str, options: str, stream: bytes) -> str:
        """What a QEMU says that refuses a stream; nothing where it loads."""
        (self._folder / "stream").write_bytes(stream)
        with self._start(reader, machine, options, "-incoming", "defer") as running:
            return _short(running.load(self._folder / "stream"))

    def _qemu(self, number: int, kinds: set[str]) -> Qemu:
        """A QEMU's version and its dump, of which the devices in the rows are kept."""
        path = self._folder / "dump.json"
        subprocess.run([self._programs[number], "-M", "none", "-dump-vmstate", path], stderr=subprocess.DEVNULL, check=True)
        dump = json.loads(path.read_bytes())
        kept = {name: each for name, each in dump.items() if name == MACHINE or each["Description"]["name"] in kinds}
        return Qemu(".".join(map(str, self._versions[number])), kept)


if __name__ == "__main__":
    arguments = Arguments(__doc__)
    arguments.add_argument("--old", metavar="PROGRAM", type=_program, help="The older QEMU.")
    arguments.add_argument("--new", metavar="PROGRAM", type=_program, help="The newer one.")
    arguments.add_argument("--write", action="store_true", help="Write the page.")
    given = arguments.parse_args()
    if given.old and given.new:
        if _architecture(given.old) != _architecture(given.new):
            arguments.error("expected two QEMUs of one architecture")
        with tempfile.TemporaryDirectory() as name:
            add_record(Pair([given.old, given.new], Path(name)).record())
    elif given.old or given.new or not given.write:
        arguments.error("expected --old and --new, or --write")
    if given.write:
        PAGE.write_text(renewed(PAGE.read_text()))

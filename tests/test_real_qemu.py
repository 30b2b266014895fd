"""Streams that a real QEMU writes now, of many machines: all of each is in its snapshot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from qemu_machine import SPINNING_BIOS, WRITING_BIOS, Machine
from qemu_streams import rebuilt

pytestmark = pytest.mark.long

MACHINES = {
    "pc": ("x86_64", "-M", "pc", "-m", "16M", "-device", "virtio-net-pci,romfile=", "-device", "VGA,romfile=,vgamem_mb=1"),
    "q35": ("x86_64", "-M", "q35", "-m", "16M", "-device", "qemu-xhci", "-device", "usb-kbd", "-device", "virtio-rng-pci"),
    "q35-devices": (
        *(
            "x86_64",
            "-M",
            "q35",
            "-m",
            "16M",
            "-smp",
            "2",
            "-device",
            "intel-hda",
            "-device",
            "hda-duplex",
            "-device",
            "e1000,romfile=",
        ),
        *("-device", "virtio-serial-pci", "-device", "virtio-balloon-pci", "-device", "virtio-blk-pci,drive=d"),
        *(
            "-drive",
            "if=none,id=d,driver=null-co,size=1M",
            "-device",
            "megasas",
            "-device",
            "lsi53c895a",
            "-device",
            "rtl8139,romfile=",
        ),
    ),
    "isapc": ("x86_64", "-M", "isapc", "-m", "16M"),
    "microvm": ("x86_64", "-M", "microvm", "-m", "16M"),
    "virt": ("aarch64", "-M", "virt,gic-version=3", "-cpu", "cortex-a72", "-smp", "2", "-m", "16M"),
    "versatilepb": ("arm", "-M", "versatilepb", "-m", "16M"),
    "vexpress-a9": ("arm", "-M", "vexpress-a9", "-m", "16M"),
    "mps2-an385": ("arm", "-M", "mps2-an385"),
    "stm32vldiscovery": ("arm", "-M", "stm32vldiscovery"),
}


EMPTY = {"versatilepb"}
"""With an array of numbers that has no elements (`realview_sysctl/db_clock`): to `check` a field that is missing."""


def command(*arguments: object, stdin: int | None = None) -> bytes:
    line = [sys.executable, "-m", "tagged_vmstate", *map(str, arguments)]
    done = subprocess.run(line, stdin=stdin, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_at_reset(name: str, tmp_path: Path) -> None:
    stream, snapshot = tmp_path / "stream", tmp_path / "snapshot"
    architecture, *arguments = MACHINES[name]
    with Machine(architecture, tmp_path, "-S", *arguments) as machine:
        machine.migrate(f"exec:cat > {stream}")
    command("import", stream, "-o", snapshot)
    assert rebuilt(snapshot.read_bytes()) == stream.read_bytes()
    command("show", snapshot)
    dump = tmp_path / "dump.json"
    program = [f"qemu-system-{architecture}", "-nodefaults", "-display", "none", *arguments, "-dump-vmstate", dump]
    subprocess.run(list(map(str, program)), check=True, timeout=60)
    line = [
        sys.executable,
        "-m",
        "tagged_vmstate",
        "check",
        str(snapshot),
        "--against",
        str(dump),
    ]  # it loads what it wrote itself
    refused = [
        each for each in subprocess.run(line, capture_output=True, check=False).stdout.split(b"\n") if b"  refused: " in each
    ]
    assert len(refused) == (name in EMPTY)


def test_a_machine_that_runs(tmp_path: Path) -> None:
    """Memory that changes while it is sent comes more than once; the snapshot has every copy, in its order."""
    stream, snapshot, bios = tmp_path / "stream", tmp_path / "snapshot", tmp_path / "bios"
    bios.write_bytes(WRITING_BIOS)
    with Machine("x86_64", tmp_path, "-M", "pc", "-m", "16M", "-bios", bios) as machine:
        machine("migrate-set-parameters", **{"max-bandwidth": 4 << 20})
        machine.migrate(f"exec:cat > {stream}")
        changed = machine("query-migrate")["ram"]["dirty-sync-count"]
    assert changed > 1
    command("import", stream, "-o", snapshot)
    assert rebuilt(snapshot.read_bytes()) == stream.read_bytes()


def test_straight_out_of_qemu_through_a_pipe(tmp_path: Path) -> None:
    snapshot, bios, fifo = tmp_path / "snapshot", tmp_path / "bios", tmp_path / "fifo"
    bios.write_bytes(SPINNING_BIOS)
    subprocess.run(["mkfifo", fifo], check=True)
    with Machine("x86_64", tmp_path, "-M", "pc", "-m", "16M", "-bios", bios) as machine:
        reader = subprocess.Popen([sys.executable, "-m", "tagged_vmstate", "import", fifo, "-o", snapshot])
        machine.migrate(f"exec:cat > {fifo}")
        assert reader.wait(60) == 0
    assert b"scancode_set" in command("show", snapshot, "ps2kbd")

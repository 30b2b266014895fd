"""A real QEMU is the judge: it loads what `export` writes, and `capture` takes it while it runs."""

from __future__ import annotations

import json
import lzma
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from qemu_machine import COUNTING_BIOS, SPINNING_BIOS, WRITING_BIOS, Machine
from test_command import run, shown

pytestmark = pytest.mark.long

VGA = ("-device", "VGA,romfile=,vgamem_mb=1")
LINES = {
    "pc-qemu7.2": ("x86_64", "-M", "pc-i440fx-7.2", "-m", "2M", "-nic", "none", "-vga", "none", *VGA),
    "isapc-qemu7.2": ("x86_64", "-M", "isapc", "-m", "2M", "-nic", "none", "-vga", "none"),
    "armvirt-qemu7.2": ("aarch64", "-M", "virt-7.2", "-cpu", "cortex-a57", "-m", "32M"),
}
"""The command lines of data/README.md; `-nodefaults` takes nothing away that these streams hold."""


def incoming(name: str, stream: Path, folder: Path) -> Machine:
    architecture, *arguments = LINES[name]
    bios = folder / "bios"
    bios.write_bytes(SPINNING_BIOS)
    more = () if architecture == "aarch64" else ("-bios", bios)
    return Machine(architecture, folder, *arguments, *more, "-S", "-incoming", f"exec:cat {stream}", nodefaults=False)


def registers(name: str, stream: Path, folder: Path) -> str:
    with incoming(name, stream, folder) as machine:
        return machine.registers()


@pytest.mark.parametrize("name", LINES)
def test_it_loads_what_was_exported(name: str, tmp_path: Path, stream_path: Callable[[str], Path]) -> None:
    assert run("import", stream_path(name), "-o", tmp_path / "vm.tvm").returncode == 0
    assert run("export", tmp_path / "vm.tvm", "-o", tmp_path / "vm.mig").returncode == 0
    found = registers(name, tmp_path / "vm.mig", tmp_path)
    assert "PC=" in found or "EAX=" in found
    assert found == registers(name, stream_path(name), tmp_path)


LED_BIOS = (
    # out 0x60, 0xed; out 0x60, 7: the keyboard's lamps on; hlt
    bytes.fromhex("b0ede660b007e660f4ebfd").ljust(0xFFF0, b"\0") + b"\xe9\x0d\x00"
).ljust(65536, b"\0")


def saved(folder: Path, name: str, *arguments: object, bios: bytes = LED_BIOS, runs: bool = False) -> Path:
    """A stream of a machine, from its reset or from when its firmware halts."""
    (folder / "bios").write_bytes(bios)
    with Machine("x86_64", folder, "-M", "pc-i440fx-7.2", "-bios", folder / "bios", "-S", *arguments) as machine:
        if runs:
            machine("cont")
            while "HLT=1" not in machine.monitor("info registers"):
                time.sleep(0.02)
            machine("stop")
        machine.registers()
        machine.migrate(f"exec:cat > {folder / name}")
    return folder / name


def loads(folder: Path, stream: Path, *arguments: object) -> bool:
    more = ("-M", "pc-i440fx-7.2", "-bios", folder / "bios", "-S", "-incoming", f"exec:cat {stream}")
    try:
        with Machine("x86_64", folder, *more, *arguments) as machine:
            machine.registers()
    except (AssertionError, OSError, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    ("ours", "theirs", "block"),
    [
        (("-m", "2M"), ("-m", "4M"), "pc.ram"),
        (("-m", "4M"), ("-m", "2M"), "pc.ram"),
        (("-m", "2M", *VGA), ("-m", "2M", "-device", "VGA,romfile=,vgamem_mb=2"), "*vga.vram"),
        (("-m", "2M", "-device", "VGA,romfile=,vgamem_mb=2"), ("-m", "2M", *VGA), "*vga.vram"),
    ],
    ids=["more memory", "less memory", "more video memory", "less video memory"],
)
def test_memory_of_another_size(ours: tuple[str, ...], theirs: tuple[str, ...], block: str, tmp_path: Path) -> None:
    ran, reset, out = saved(tmp_path, "ran.mig", *ours, runs=True), saved(tmp_path, "reset.mig", *theirs), tmp_path / "out.mig"
    tables = tmp_path / "dump.json"
    subprocess.run(["qemu-system-x86_64", "-M", "pc-i440fx-7.2", "-dump-vmstate", tables], check=True, capture_output=True)
    options = ("--like", reset, "--tables", tables, "-o", out)
    assert not loads(tmp_path, ran, *theirs)
    refused = run("export", ran, *options)
    assert (refused.returncode, b"Size mismatch: " in refused.stderr) == (1, True)
    assert run("export", ran, *options, "--resize-block", block).returncode == 0
    assert loads(tmp_path, out, *theirs)


def test_a_subsection_that_only_the_dump_knows(tmp_path: Path) -> None:
    """The reference's keyboard has no lamps on; what QEMU loads has, and so has what it saves again."""
    machine = ("-m", "2M")
    ran, reset, out = (
        saved(tmp_path, "ran.mig", *machine, runs=True),
        saved(tmp_path, "reset.mig", *machine),
        tmp_path / "out.mig",
    )
    tables = tmp_path / "dump.json"
    subprocess.run(["qemu-system-x86_64", "-M", "pc-i440fx-7.2", "-dump-vmstate", tables], check=True, capture_output=True)
    refused = run("export", ran, "--like", reset, "-o", out)
    assert (refused.returncode, b"-dump-vmstate may know it" in refused.stderr) == (1, True)
    assert run("export", ran, "--like", reset, "--tables", tables, "-o", out).returncode == 0
    assert shown("diff", ran, out) == ""
    again = saved(tmp_path, "again.mig", *machine, "-incoming", f"exec:cat {out}")
    keyboard = json.loads(shown("to-json", again, "--values"))["ps2kbd"]
    assert keyboard["ps2kbd/ledstate"] == {"ledstate": 7}


@pytest.mark.parametrize("options", [("--bare",), ("--like", "vm.save", "--bare"), ("--like", "vm.save")], ids=" ".join)
def test_it_loads_the_stream_of_a_save_image(
    options: tuple[str, ...], tmp_path: Path, stream_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "pc-qemu7.2"
    monkeypatch.chdir(tmp_path)
    xml = b"<domain/>\0<cookie/>\0" + bytes(1 << 16)
    header = b"LibvirtQemudSave" + struct.pack("<19I", 2, len(xml), 1, 3, 10, *[0] * 14)
    Path("vm.save").write_bytes(header + xml + lzma.compress(stream_path(name).read_bytes()))
    assert run("import", "vm.save", "-o", "vm.tvm").returncode == 0
    assert run("export", "vm.tvm", *options, "-o", "vm.mig").returncode == 0
    assert registers(name, tmp_path / "vm.mig", tmp_path) == registers(name, stream_path(name), tmp_path)


def test_from_qemu_10_back_to_7(tmp_path: Path, stream_path: Callable[[str], Path]) -> None:
    new, out = stream_path("pc-qemu10.0"), tmp_path / "old.mig"
    with pytest.raises((AssertionError, OSError, ValueError)):
        registers("pc-qemu7.2", new, tmp_path)
    options = ("--alias", "hpet/num_timers=num_timers_save", "--drop", "globalstate/*")
    assert run("export", new, "--like", stream_path("pc-qemu7.2-reset"), *options, "-o", out).returncode == 0
    found = registers("pc-qemu7.2", out, tmp_path)
    values = shown("to-json", new, "--values")
    eip = re.search(r'"env.eip": ?(\d+)', values)
    assert eip
    assert f"EIP={int(eip[1]):08x}" in found
    assert found == registers("pc-qemu7.2", stream_path("pc-qemu7.2"), tmp_path), "both spin in the same loop"


def test_arm_from_qemu_10_back_to_7(tmp_path: Path, stream_path: Callable[[str], Path]) -> None:
    """With the keys and the constants of the other QEMU; with others it refuses the processor."""
    new, reset, out = stream_path("armvirt-qemu10.0"), stream_path("armvirt-qemu7.2-reset"), tmp_path / "old.mig"
    aliases = [
        option
        for number, name in enumerate(("PHYS", "VIRT"))
        for option in ("--alias", f'cpu/"gt_timer[{number}]"="gt_timer[GTIMER_{name}]"')
    ]
    drops = [option for name in ("cpu/cpreg_vmstate_*", "pl011/unused", "globalstate/*") for option in ("--drop", name)]
    done = run("export", new, "--like", reset, *aliases, *drops, "-o", out)
    assert done.returncode == 0, done.stderr
    pc = re.search(r'"env.pc": ?(\d+)', shown("to-json", new, "--values"))
    assert pc
    assert f"PC={int(pc[1]):016x}" in registers("armvirt-qemu7.2", out, tmp_path)


class Counting:
    """A machine whose guest counts on its virtio disk (`COUNTING_BIOS`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._disk = folder / "disk"
        self._disk.write_bytes(bytes(1 << 20))
        (folder / "bios").write_bytes(COUNTING_BIOS)

    def machine(self, *more: object, device: str = "") -> Machine:
        drive = ("-drive", f"if=none,id=disk,format=raw,file={self._disk}", "-bios", self._folder / "bios")
        line = ("-M", "pc-i440fx-7.2", "-m", "2M", "-vga", "none", "-device", f"virtio-blk-pci,drive=disk,addr=5{device}")
        return Machine("x86_64", self._folder, *line, *drive, *more)

    def reaches(self, number: int) -> bool:
        """Whether the guest writes a number, or a higher one, in half a minute."""
        for _ in range(1500):
            if self.number() >= number:
                return True
            time.sleep(0.02)
        return False

    def number(self) -> int:
        return int.from_bytes(self._disk.read_bytes()[512:516], "little")


def test_a_guest_of_qemu_10_writes_to_its_disk_in_7(tmp_path: Path, stream_path: Callable[[str], Path]) -> None:
    """The rings of its virtio disk lie where the guest has put them, which no reference knows."""
    out, guest = tmp_path / "vm.mig", Counting(tmp_path)
    options = ("--alias", "hpet/num_timers=num_timers_save", "--drop", "globalstate/*")
    done = run("export", stream_path("counting-qemu10.0"), "--like", stream_path("counting-qemu7.2-reset"), *options, "-o", out)
    assert done.returncode == 0, done.stderr
    with guest.machine("-S", "-incoming", f"exec:cat {out}") as machine:
        machine.registers()
        number = int(machine.monitor("xp /1wx 0x18200").split()[1], 16)
        assert number > 0
        machine("cont")
        assert guest.reaches(number + 10)


def test_so_it_does_where_the_reference_has_other_queues(tmp_path: Path) -> None:
    stream, reference, out = (tmp_path / name for name in ("vm.mig", "reference.mig", "out.mig"))
    guest = Counting(tmp_path)
    with guest.machine() as machine:
        assert guest.reaches(10)
        machine.migrate(f"exec:cat > {stream}")
    with guest.machine("-S", device=",num-queues=4,vectors=5") as machine:
        machine.migrate(f"exec:cat > {reference}")
    done = run("export", stream, "--like", reference, "-o", out)
    assert done.returncode == 0, done.stderr
    assert b'kept: "0000:00:05.0/virtio-blk"#0/virtio: `virtio[' in done.stderr
    before = guest.number()
    with guest.machine("-incoming", f"exec:cat {out}"):
        assert guest.reaches(before + 10)


def eax(text: str) -> str:
    found = re.search(r"[ER]AX=([0-9a-f]+)", text)
    assert found
    return found[1]


def test_captured_edited_exported_and_there(tmp_path: Path) -> None:
    """The proof end to end."""
    (tmp_path / "bios").write_bytes(SPINNING_BIOS)
    line = ("x86_64", tmp_path, "-M", "pc-i440fx-7.2", "-m", "16M", "-bios", tmp_path / "bios")
    with Machine(*line) as machine:
        done = run("capture", machine.second, "-o", tmp_path / "vm.tvm")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(rb"tagged-vmstate: the guest stood still for \d+\.\d\d s\n", done.stderr)
        assert machine("query-status")["status"] == "running"
        before = machine.monitor("info registers")
    assert run("set", tmp_path / "vm.tvm", "cpu", "env.regs[0]", "0x12345678", "-o", tmp_path / "vm.tvm").returncode == 0
    assert run("export", tmp_path / "vm.tvm", "-o", tmp_path / "vm.mig").returncode == 0
    with Machine(*line, "-S", "-incoming", f"exec:cat {tmp_path / 'vm.mig'}") as machine:
        after = machine.registers()
        assert machine.monitor("info status").startswith("VM status: paused")
    assert eax(before) != "12345678"
    assert eax(after) == "12345678"


def test_a_stream_changed_in_place_and_there(tmp_path: Path, stream_path: Callable[[str], Path]) -> None:
    """A register, and memory where the stream sends a zero page twice."""
    stream = tmp_path / "vm.mig"
    stream.write_bytes(stream_path("pc-qemu7.2").read_bytes())
    for device, field, value in (("cpu", "env.regs[0]", "0x12345678"), ("ram", "pc.ram[0x7c00]", "eb fe 01 02")):
        assert run("set", stream, device, field, value, "-o", stream).returncode == 0
    with incoming("pc-qemu7.2", stream, tmp_path) as machine:
        assert eax(machine.registers()) == "12345678"
        assert machine.monitor("xp /1wx 0x7c00").split() == ["0000000000007c00:", "0x0201feeb"]


@pytest.fixture
def running(tmp_path: Path) -> Machine:
    (tmp_path / "bios").write_bytes(WRITING_BIOS)
    return Machine("x86_64", tmp_path, "-M", "pc", "-m", "64M", "-bios", tmp_path / "bios")


class Slowly:
    """A capture in a process of its own, slow enough to be met on the way."""

    def __init__(self, machine: Machine, folder: Path, *options: str, way: str = "unix", bandwidth: int = 64 << 10) -> None:
        machine("migrate-set-parameters", **{"max-bandwidth": bandwidth})
        self._machine = machine
        self._out = folder / "out" / "vm.tvm"
        self._out.parent.mkdir(exist_ok=True)
        self._out.unlink(missing_ok=True)
        address = f"127.0.0.1:{machine.port}" if way == "tcp" else str(machine.second)
        line = [sys.executable, "-m", "tagged_vmstate", "capture", address, "-o", str(self._out), *options]
        self._process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)

    def until_it_writes(self) -> None:
        while not os.listdir(self._out.parent):
            assert self._process.poll() is None
            time.sleep(0.01)

    def until_it_migrates(self) -> None:
        self.until_it_writes()
        while self._machine("query-migrate").get("status") != "active":
            time.sleep(0.02)

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def ends(self) -> tuple[int, str]:
        """Exit status and standard error; nothing is left of the output."""
        found = self.stopped()
        assert os.listdir(self._out.parent) == []
        return found

    def stopped(self) -> tuple[int, str]:
        said = self._process.communicate(timeout=60)[1]
        return self._process.returncode, said

    def has_written(self) -> bool:
        """Whether the whole snapshot is there; if not, nothing is."""
        names = os.listdir(self._out.parent)
        assert names in (["vm.tvm"], [])
        return bool(names)


class TestCapture:
    def test_over_tcp_while_it_runs(self, running: Machine, tmp_path: Path) -> None:
        with running as machine:
            done = run("capture", f"127.0.0.1:{machine.port}", "--live", "-o", tmp_path / "vm.tvm")
            assert done.returncode == 0, done.stderr
            assert b"stood still for" in done.stderr
            assert machine("query-status")["status"] == "running"
        assert "scancode_set" in shown("show", tmp_path / "vm.tvm", "ps2kbd")

    def test_it_stays_paused_when_asked_or_when_it_was(self, running: Machine, tmp_path: Path) -> None:
        with running as machine:
            done = run("capture", machine.second, "--stay-paused", "-o", tmp_path / "vm.tvm")
            assert done.stderr == b"tagged-vmstate: the guest is paused\n"
            assert machine("query-status")["running"] is False
            again = run("capture", machine.second, "-o", tmp_path / "no.tvm")
            assert again.returncode == 2
            assert b"QEMU refuses `migrate`" in again.stderr
            machine("cont")
            machine("stop")
            assert run("capture", machine.second, "-o", tmp_path / "vm.tvm").returncode == 0
            assert machine("query-status")["running"] is False
        assert not (tmp_path / "no.tvm").exists()

    def test_what_somebody_has_switched_on_is_off_meanwhile(self, running: Machine, tmp_path: Path) -> None:
        """Each of these makes a stream that is none, waits for an answer, or stops halfway."""
        names = ["multifd", "postcopy-ram", "return-path", "pause-before-switchover"]
        with running as machine:
            machine("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in names])
            done = run("capture", machine.second, "--live", "-o", tmp_path / "vm.tvm")
            assert done.returncode == 0, done.stderr
            assert all(f"`{name}`".encode() in done.stderr for name in names)
            states = machine("query-migrate-capabilities")
            assert sorted(names) == sorted(each["capability"] for each in states if each["state"] and each["capability"] in names)
            assert machine("query-status")["status"] == "running"
            version = machine("query-version")
        attributes = json.loads(shown("info", tmp_path / "vm.tvm", "--format", "json"))["attributes"]
        assert attributes["capture"]["qemu"].endswith(f"({version['package']})")
        assert attributes["capture"]["command"][-1] == str(tmp_path / "bios")
        assert (attributes["capture"]["guest"], attributes["capture"]["live"]) == ("running", True)

    def test_a_full_disk_leaves_the_guest_running(self, running: Machine, tmp_path: Path) -> None:
        with running as machine:
            done = run("capture", machine.second, "--live", "-o", "/dev/full")
            assert done.stderr == b"tagged-vmstate: /dev/full: cannot write: No space left on device\n"
            assert machine("query-status")["status"] == "running"
            assert run("capture", machine.second, "-o", tmp_path / "vm.tvm").returncode == 0

    def test_a_guest_that_cannot_migrate(self, tmp_path: Path) -> None:
        drive = ("-drive", "if=none,id=d,driver=null-co,size=1M", "-device", "nvme,drive=d,serial=1")
        with Machine("x86_64", tmp_path, "-M", "pc", "-m", "16M", *drive) as machine:
            done = run("capture", machine.second, "-o", tmp_path / "vm.tvm")
            assert done.returncode == 2
            assert b"nvme" in done.stderr
            assert done.stderr.count(b"\n") == 1
            assert machine("query-status")["status"] == "running"
        assert not (tmp_path / "vm.tvm").exists()

    @pytest.mark.parametrize("way", ["unix", "tcp"])
    def test_qemu_dies_in_the_middle(self, way: str, running: Machine, tmp_path: Path) -> None:
        with running as machine:
            capturing = Slowly(machine, tmp_path, "--live", way=way)
            capturing.until_it_migrates()
            machine.kill()
            status, said = capturing.ends()
        assert status == 2
        assert said.count("\n") == 1
        assert "closed the connection" in said

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_interrupted_the_guest_goes_on(self, number: int, status: int, running: Machine, tmp_path: Path) -> None:
        with running as machine:
            capturing = Slowly(machine, tmp_path)
            capturing.until_it_migrates()
            capturing.send(number)
            assert capturing.ends() == (status, "tagged-vmstate: interrupted\n" if number == signal.SIGINT else "")
            assert machine("query-status")["status"] == "running"
            assert machine("query-migrate")["status"] in {"cancelled", "failed"}
            machine("migrate-set-parameters", **{"max-bandwidth": 1 << 30})
            assert run("capture", machine.second, "-o", tmp_path / "vm.tvm").returncode == 0

    @pytest.mark.parametrize(("way", "options"), [("unix", ()), ("tcp", ("--live",))], ids=["stopped", "live"])
    def test_interrupted_at_any_moment(self, options: tuple[str, ...], way: str, running: Machine, tmp_path: Path) -> None:
        """From the connection to the last answer; where the snapshot is there already, it stays."""
        interrupted = 0
        with running as machine:
            for moment in range(10):
                capturing = Slowly(machine, tmp_path, *options, way=way, bandwidth=8 << 20)
                capturing.until_it_writes()
                time.sleep(moment / 10)
                capturing.send(signal.SIGINT)
                found = capturing.stopped()
                if not capturing.has_written():
                    assert found == (130, "tagged-vmstate: interrupted\n")
                    interrupted += 1
                assert machine("query-status")["status"] == "running", moment
        assert interrupted

    def test_a_qemu_that_hangs(self, running: Machine, tmp_path: Path) -> None:
        with running as machine:
            capturing = Slowly(machine, tmp_path, "--live", "--timeout", "1")
            capturing.until_it_migrates()
            machine.signal(signal.SIGSTOP)
            found = capturing.ends()
            again = run("capture", machine.second, "--timeout", 1, "-o", tmp_path / "vm.tvm")
            machine.signal(signal.SIGCONT)
            assert machine("query-status")["status"] == "running"
        doubt = "the guest may be paused: `cont` in QEMU's monitor lets it run on"
        assert found == (2, f"tagged-vmstate: {machine.second}: the migration got no further for 1 s; {doubt}\n")
        assert b"no QMP greeting there in 1 s" in again.stderr

    def test_a_bar_for_a_person(self, running: Machine, tmp_path: Path) -> None:
        leader, follower = pty.openpty()
        with running as machine:
            machine("migrate-set-parameters", **{"max-bandwidth": 1 << 20})
            line = [sys.executable, "-m", "tagged_vmstate", "capture", str(machine.second), "-o", str(tmp_path / "vm.tvm")]
            assert subprocess.run(line, stderr=follower, check=False, timeout=60).returncode == 0
        os.close(follower)
        assert b"memory" in os.read(leader, 1 << 16)
        os.close(leader)

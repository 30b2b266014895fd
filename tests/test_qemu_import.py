"""Real QEMU streams as snapshots: every device, every page, nothing missing."""

from __future__ import annotations

import io
from typing import Any

import pytest
from conftest import STREAMS, stream_bytes
from qemu_streams import rebuilt

from tagged_vmstate.files import Input
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.qemu.stream import Description, StreamReader, Turn
from tagged_vmstate.records import Record
from tagged_vmstate.snapshot import Snapshot, write


def imported(data: bytes) -> bytes:
    file = io.BytesIO()
    write(import_stream(io.BytesIO(data)), file)
    return file.getvalue()


@pytest.fixture(scope="module", params=STREAMS)
def stream(request: pytest.FixtureRequest) -> tuple[str, bytes, bytes]:
    data = stream_bytes(request.param)
    return request.param, data, imported(data)


def section(data: bytes, device: str, instance: int = 0) -> dict[str, Record]:
    [found] = [each for each in Snapshot.read(data) if (each.device, each.instance) == (device, instance)]
    return {record.name: record for record in found.records()}


def test_nothing_of_the_stream_is_missing(stream: tuple[str, bytes, bytes]) -> None:
    _, data, snapshot = stream
    assert rebuilt(snapshot) == data


def test_everything_is_interpreted(stream: tuple[str, bytes, bytes]) -> None:
    _, data, _ = stream
    found = import_stream(io.BytesIO(data))
    assert list(found)
    assert found.notes == []


def test_a_pipe_gives_the_same_snapshot(stream: tuple[str, bytes, bytes]) -> None:
    _, data, snapshot = stream
    pipe = io.BufferedReader(_Pipe(data))
    file = io.BytesIO()
    write(import_stream(pipe), file)
    assert file.getvalue() == snapshot


class _Pipe(io.RawIOBase):
    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer[:1000])


def test_the_header_names_machine_and_producer(stream: tuple[str, bytes, bytes]) -> None:
    name, _, snapshot = stream
    machines = {"armvirt-qemu7.2": "virt-7.2", "isapc-qemu7.2": "isapc", "pc-qemu10.0": "pc-i440fx-10.0"}
    attributes = Snapshot.read(snapshot).attributes
    assert attributes["machine"] == machines.get(name, "pc-i440fx-7.2")
    assert attributes["producer"].startswith("tagged-vmstate ")


@pytest.mark.parametrize("name", [name for name in STREAMS if "pc" in name])
def test_ps2kbd(name: str) -> None:
    found = section(imported(stream_bytes(name)), "ps2kbd")
    plain = {key: (found[key].type, found[key].value) for key in ("scan_enabled", "translate", "scancode_set")}
    assert plain == {"scan_enabled": ("int32", 1), "translate": ("int32", 0), "scancode_set": ("int32", 2)}
    queue: Any = found["parent_obj"].value
    assert [(record.name, record.describe()) for record in queue][-1] == ("queue.data", "buffer[256]")


def test_memory_is_a_sparse_field_for_each_block() -> None:
    snapshot = imported(stream_bytes("armvirt-qemu7.2"))
    memory = {}
    for each in Snapshot.read(snapshot):
        if each.device == "ram":
            memory.update({record.name: record for record in each.records()})
    lengths = {name: (record.type, record.length) for name, record in memory.items()}
    assert lengths["mach-virt.ram"] == ("sparse", 32 << 20)
    assert lengths["virt.flash0"] == lengths["virt.flash1"] == ("sparse", 64 << 20)
    runs: Any = memory["mach-virt.ram"].value
    assert runs[0][1].startswith(b"\xd0\x0d\xfe\xed"), "the device tree blob lies at the start of memory"
    assert len(snapshot) < 200_000, "pages of zeros cost nothing"


def test_arrays_are_the_same_however_qemu_describes_them() -> None:
    """QEMU 10 leaves the index off the last element, and indexes what 7.2 told by a length."""
    shapes = {}
    for name in ("pc-qemu7.2", "pc-qemu10.0"):
        snapshot = imported(stream_bytes(name))
        floppy: Any = section(snapshot, "fdc")["state"].value
        slots = section(snapshot, "0000:00:01.3/piix4_pm")["acpi_pci_hotplug.acpi_pcihp_pci_status"]
        drives = next(record for record in floppy if record.name == "drives")
        shapes[name] = (drives.describe(), slots.describe(), [record.name for record in drives.value[0]])
    assert shapes["pc-qemu7.2"] == shapes["pc-qemu10.0"]
    assert shapes["pc-qemu7.2"][:2] == ("struct[2]", "struct[256]")


def test_subsections_are_structs_and_what_only_qemu_reads_keeps_its_type() -> None:
    snapshot = imported(stream_bytes("armvirt-qemu7.2"))
    cpu = section(snapshot, "cpu")
    assert cpu["cpu/vfp"].type == "struct"
    assert (cpu["cpsr"].type, cpu["cpsr"].length) == ("cpsr", 4)
    assert cpu["cpreg_vmstate_array_len"].value == cpu["cpreg_vmstate_indexes"].length == 258, "le means at most"
    bridge: Any = section(snapshot, "0000:00:00.0/gpex_root")["parent_obj"].value
    assert [record.describe() for record in bridge] == ["int32", "pci config[256]", "pci irq state[16]"]
    page_bits: Any = section(snapshot, "configuration")["configuration/target-page-bits"].value
    assert [(record.name, record.value) for record in page_bits] == [("target_page_bits", 12)]


def test_two_controllers_of_one_number_are_both_there() -> None:
    snapshot = imported(stream_bytes("isapc-qemu7.2"))
    instances = [each.instance for each in Snapshot.read(snapshot) if each.device == "isa-ide"]
    assert instances == [0, 1]


def test_the_size_of_self_description() -> None:
    """Tagged devices cost less than three times their raw bytes, and a third of raw bytes with QEMU's JSON."""
    data = stream_bytes("pc-qemu7.2")
    tagged = sum(each.end - each.offset for each in Snapshot.read(imported(data)) if each.attributes["qemu"]["type"] == 4)
    events = list(StreamReader(Input(io.BytesIO(data)), {}).events())
    raw = sum(len(each.body) for each in events if isinstance(each, Turn) and isinstance(each.body, bytes))
    json = sum(len(each.data) for each in events if isinstance(each, Description))
    assert tagged < 3 * raw
    assert tagged < 0.35 * (raw + json)


@pytest.mark.parametrize("name", ["arm1k", "live", "pc2.2", "pc2.3", "q35"])
def test_other_shapes_of_streams_are_all_there_too(name: str) -> None:
    data = stream_bytes(f"{name}-qemu7.2")
    assert rebuilt(imported(data)) == data


def test_without_footers_and_description_each_device_is_a_buffer() -> None:
    devices = [each for each in Snapshot.read(imported(stream_bytes("pc2.2-qemu7.2"))) if each.attributes["qemu"]["type"] == 4]
    assert len(devices) > 20
    assert {record.name for each in devices for record in each.records()} == {"bytes@0"}

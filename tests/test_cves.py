"""The holes that QEMU mended in 2013 and 2014, and two later ones, as tables of ours: each hostile snapshot is refused whole.

Every one was a number from the stream that was used as a count, an index or a length before anybody compared it with the array
that it addresses. Here the table says the bound, and the loader asks before anything is assigned.
"""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from annotated_types import Ge, Le, Lt
from qemu_streams import EOF, MAGIC, PAGE, blocks, configuration, page, ram

import tagged_vmstate as tv
from tagged_vmstate import Field, FormatError, Length, LoadError, Mask, MaxLength, Table
from tagged_vmstate.frames import Lead
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.records import Record, decode_all, encode_plain
from tagged_vmstate.sections import NO_ATTRIBUTES, EncodedSection
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter

pytestmark = pytest.mark.usefixtures("path")


@dataclass(frozen=True)
class Hole:
    """One hole: what the table says of a field, and the value that went through."""

    cve: str
    device: str
    field: str
    annotation: Any
    good: Any
    hostile: Any
    check: Any = None

    @property
    def table(self) -> Table:
        # a field before it and one behind it: neither may change
        fields = [
            Field("before", tv.uint32, default=1),
            Field(self.field, self.annotation, default_factory=lambda: copy.deepcopy(self.good)),
            Field("behind", Annotated[list[tv.uint32], Length(4)], default_factory=lambda: [0] * 4),
        ]
        return Table(self.device, fields, check=self.check)


ELEMENT = Table("element", [Field("x", tv.uint32, default=0)])
PORTS = [{"x": 0}] * 6


def setup(state: dict[str, Any]) -> None:
    if state["setup"][1] > state["setup"][0]:
        raise ValueError("setup_index behind setup_len")


def endpoint(state: dict[str, Any]) -> None:
    if any(number >= 31 for number in state["epid"]):
        raise ValueError("an endpoint beyond the slot's")


def queue(state: dict[str, Any]) -> None:
    rptr, wptr, count = state["queue"]
    if not (0 <= rptr < 256 and 0 <= wptr < 256 and 0 <= count <= 256):
        raise ValueError("outside of 256 bytes")


def many(element: Any, most: int) -> Any:
    return Annotated[list[element], MaxLength(most)]


HOLES = [
    # a count larger than its array
    Hole("2013-4149", "virtio-net", "mac_table_in_use", Annotated[tv.uint32, Le(64)], 1, 65),
    Hole("2013-4150", "virtio-net", "curr_queues", Annotated[tv.uint16, Ge(1), Le(8)], 1, 9),
    Hole("2013-4151", "virtio", "vq", Annotated[list[dict[str, int]], ELEMENT, MaxLength(64)], [], [{"x": 1}] * 65),
    Hole("2013-6399", "virtio", "queue_sel", Annotated[tv.uint16, Lt(64)], 0, 64),
    Hole("2013-4526", "ahci", "ports", Annotated[list[dict[str, int]], ELEMENT, Length(6)], PORTS, [*PORTS, {"x": 7}]),
    Hole("2013-4527", "hpet", "num_timers", Annotated[tv.uint8, Ge(3), Le(32)], 3, 33),
    Hole("2013-4529", "pcie-aer", "log_num", Annotated[tv.uint16, Le(8)], 0, 0xFFFF),
    Hole("2013-4533", "pxa2xx-ssp", "rx_level", Annotated[tv.uint32, Le(16)], 0, 17),
    Hole("2013-4534", "openpic", "dst_nb", Annotated[tv.uint32, Le(32)], 1, 33),
    Hole("2013-4535", "virtio-blk", "out_sg", many(tv.uint64, 128), [], [0] * 129),
    Hole("2013-4536", "virtio-blk", "in_num", Annotated[tv.uint32, Le(1024)], 0, 1025),
    Hole("2013-4542", "virtio-scsi", "in_num", Annotated[tv.uint32, Le(1024)], 0, 0xFFFF_FFFF),
    Hole("2014-0182", "virtio", "config", Annotated[bytes, MaxLength(64)], b"", bytes(65)),
    # an index or a cursor outside of its buffer
    Hole("2013-4530", "pl022", "tx_fifo_head", Annotated[tv.int32, Ge(0), Lt(8)], 0, 8),
    Hole("2013-4532", "stellaris-enet", "tx_fifo_len", Annotated[tv.int32, Ge(-1), Le(2048)], -1, 2049),
    Hole("2013-4537", "ssi-sd", "arglen", Annotated[tv.int32, Ge(0), Le(4)], 0, 5),
    Hole("2013-4538", "ssd0323", "cursor", Annotated[list[Annotated[tv.int32, Ge(0), Lt(64)]], Length(3)], [0] * 3, [0, 64, 0]),
    Hole("2013-4539", "tsc210x", "precision", Annotated[tv.uint8, Lt(4)], 0, 4),
    # a sign
    Hole("2013-4148", "virtio-net", "mac_table_first_multi", Annotated[tv.int32, Ge(0), Le(64)], 0, -1),
    Hole("2013-4531", "cpu", "cpreg_array_len", Annotated[tv.int32, Ge(0), Le(200)], 0, -1),
    Hole("2013-4541", "usb-device", "setup_len", Annotated[tv.int32, Ge(0), Le(4096)], 0, -2),
    Hole("2014-3461", "usb-device", "setup", Annotated[list[tv.int32], Length(2)], [8, 0], [8, 9], setup),
    # a mask wider than its array
    Hole("2013-4540", "scoop", "gpio_level", Annotated[tv.uint32, Mask(0xFFFF)], 0, 1 << 16),
    # later, of the same kind
    Hole("2014-5263", "xhci", "epid", Annotated[list[tv.uint32], Length(2)], [0, 0], [0, 31], endpoint),
    Hole("2017-16845", "ps2kbd", "queue", Annotated[list[tv.int32], Length(3)], [0, 0, 0], [0, 0, 257], queue),
]


def hostile_snapshot(hole: Hole) -> bytes:
    """The value in a snapshot, other fields changed beside it, as a table without the bound would write it."""
    before = Record("before", "uint32", None, 77)
    [good] = [record for record in _records(tv.dumps(_state(hole), table=hole.table)) if record.name == hole.field]
    value = hole.hostile
    if good.type == "struct":
        value = tuple((Record("x", "uint32", None, each["x"]),) for each in value)
    length = None if good.length is None else len(value)
    records = (before, good.replace(value=value, length=length, is_default=False), Record("behind", "uint32", 4, [7, 7, 7, 7]))
    file = io.BytesIO()
    with SnapshotWriter(file) as writer:
        payload = b"".join(map(encode_plain, records))
        writer.write(EncodedSection(Lead.of("section", hole.device, 0, NO_ATTRIBUTES), payload))
    assert [record.name for record in decode_all(payload)] == ["before", hole.field, "behind"]
    return file.getvalue()


def _state(hole: Hole) -> dict[str, Any]:
    return {field.name: field.make_default() for field in hole.table.fields}


def _records(data: bytes) -> tuple[Record, ...]:
    [section] = Snapshot.read(data)
    return section.records()


@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: f"CVE-{hole.cve}")
def test_refused_before_anything_is_assigned(hole: Hole) -> None:
    table = hole.table
    state = _state(hole)
    machine = tv.Machine([tv.Device(state, 0, table)])
    kept = copy.deepcopy(state)
    with pytest.raises(LoadError) as error:
        machine.load(hostile_snapshot(hole))
    assert state == kept
    assert hole.check is not None or error.value.problems[0].path[0] == hole.field
    machine.load(tv.dumps(kept, table=table))
    assert state == kept


@pytest.mark.parametrize("address", [2 * PAGE, 3 * PAGE, (1 << 64) - PAGE])
def test_cve_2014_7840_a_page_lies_in_its_block(address: int) -> None:
    """By an addition that cannot wrap."""
    stream = MAGIC + configuration("m") + ram(blocks(r=2 * PAGE) + page(address, b"a" * PAGE, "r"), b"") + EOF
    with pytest.raises(FormatError, match=r"a page inside `r` \(8192 bytes\)"):
        list(import_stream(io.BytesIO(stream)))


def test_all_of_the_advisories_are_here() -> None:
    assert len({hole.cve for hole in HOLES}) + 1 == 26

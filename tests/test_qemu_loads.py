"""What `compat` reports of two QEMUs is what they did: loads of real streams, recorded."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import real_loads
from qemu_loads import AGREES, DIFFERS, PAGE, read_records, renewed

SHIFTED = {"-device am53c974", "-device am53c974 -device scsi-cd,drive=d", "-device dc390"}
"""QEMU 7.2 loads these from 10.0, and takes bytes of one field for another."""
UNUSED_QUEUE = "vring.num 1024 exceeds allocated max"
"""QEMU 11.1 refuses a value that 10.0 has at reset: no dump shows values."""


def test_what_is_reported_is_what_the_loads_did() -> None:
    answers = [each for record in read_records() for each in record.answers]
    assert len({row.options for row, _, each in answers if "-device" in row.options and each.listed}) > 60
    differing = [(row, direction, each.load) for row, direction, each in answers if each.outcome == DIFFERS]
    loaded = {(row.options[row.options.find("-device") :], direction) for row, direction, load in differing if not load.refusal}
    assert loaded == {(options, "downgrade") for options in SHIFTED}
    assert [load.refusal for *_, load in differing if load.refusal and UNUSED_QUEUE not in load.refusal] == []


def test_a_search_for_the_message_of_qemu_finds_what_is_reported() -> None:
    """A finding shows the words that QEMU printed, but for the bus that the device is on."""
    found = [each for record in read_records() for _, _, each in record.answers if each.load.refusal and each.reasons]
    assert len(found) > 20
    for each in found:
        message = re.sub(r"\b0000:[^ ']*/", "", each.load.refusal)
        assert any(phrase in message for reason in each.reasons for phrase in reason.change.phrases), each


def test_the_page_shows_the_recorded_loads() -> None:
    page = PAGE.read_text()
    assert all(f"\n## {record.title}\n" in page for record in read_records())
    assert renewed(page) == page, "write it anew: python tests/real_loads.py --write"


@pytest.mark.long
def test_a_qemu_loads_its_own_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("qemu-system-x86_64")
    assert program, "qemu-system-x86_64 is not installed: `apt-get install qemu-system-x86`"
    rows = {"pc": "-device virtio-rng-pci\n-device nosuch", "isapc": ""}
    monkeypatch.setattr(real_loads, "ROWS", {"x86_64": rows})
    record = real_loads.Pair([program, program], tmp_path).record()
    assert [(row.machine, row.options) for row in record.rows] == [("pc", ""), ("pc", "-device virtio-rng-pci"), ("isapc", "")]
    assert {answer.outcome for _, _, answer in record.answers} == {AGREES}
    [section] = record.rows[1].loads["upgrade"].sections
    assert (section.name, section.kind) == ("0000:00:02.0/virtio-rng", "virtio-rng")

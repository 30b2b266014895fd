"""`check STREAM --against DUMP` and `compat --machine STREAM`: whether another QEMU loads this stream."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import junit
import pytest
from conftest import DATA
from qemu_streams import EOF, MAGIC, blocks, configuration, description, device, full, ram
from qemu_streams import field as written
from schemas import validator
from test_command import run
from test_qemu_dumps import described, field, struct

from tagged_vmstate.errors import LimitError, StateError
from tagged_vmstate.qemu import against, differences, dumpstate, vmdesc
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import SnapshotWriter
from tagged_vmstate.sources import open_sections

DUMPS = {name: DATA / f"{name}.vmstate.json.xz" for name in ("pc-qemu7.2", "pc7.2-qemu10.0")}
MACHINE = "pc-i440fx-7.2"


def stream(*devices: Any, machine: str = MACHINE, version: int = 1, name: str = "") -> bytes:
    """A stream of described devices: zeros, as nobody reads them here."""
    listed = [each | {"name": name or each["name"]} for each in devices]
    sizes = [each.struct.size for each in vmdesc.parse(json.dumps({"devices": listed}).encode()).devices]
    sections = [full(number, each["name"], bytes(sizes[number]), version=version) for number, each in enumerate(listed)]
    return MAGIC + configuration(machine) + b"".join(sections) + EOF + description(*listed)


def judged(data: bytes, **devices: Any) -> against.Verdict:
    """What comes of a stream in a QEMU with some types of device."""
    found = {name.replace("_", "-"): {"Description": each} for name, each in devices.items()}
    dump = dumpstate.parse({"vmschkmachine": {"Name": MACHINE}, **found})
    return against.judge(open_sections(io.BytesIO(data)), dump)


def outcomes(mine: list[Any], theirs: list[Any], *, subsections: Any = None, readable: Any = (), **more: Any) -> list[str]:
    """What differs for one device of the same name on both sides."""
    # a field with `num` somewhere makes it a dump that has the lengths of arrays
    other = described(field("z", num=2), name="other")
    verdict = judged(
        stream(device("nic", *mine, subsections=subsections)),
        nic_pci=described(*theirs, subsections=readable, **more),
        other=other,
    )
    return [f"{each.place} {each.outcome}" for each in verdict.changes]


def element(index: int | None, *fields: Any, subsections: Any = ()) -> dict[str, Any]:
    """An element of an array of structs."""
    inside = {"vmsd_name": "s", "version": 1, "fields": list(fields), "subsections": list(subsections)}
    size = sum(each["size"] for each in fields)
    return written("s", "struct", size, struct=inside, **({} if index is None else {"index": index}))


A, B = written("a", "uint32", 4), written("b", "uint8", 1)
SUB = {"vmsd_name": "nic/extra", "version": 2, "fields": [A]}


class TestFields:
    def test_what_the_stream_has_is_read(self) -> None:
        assert outcomes([A, B], [field("a"), field("b", 1)]) == []
        assert outcomes([A], [field("a"), field("b", 1)]) == ["nic-pci/b refused"]
        assert outcomes([A, B], [field("a")]) == ["nic-pci/b refused"]
        assert outcomes([A], [field("a", 8)]) == ["nic-pci/a refused"]
        assert outcomes([A], [field("a"), field("b", 1, 2)], version=2) == []  # as of section version 2, and this is 1

    def test_a_condition_is_decided_by_the_stream(self) -> None:
        assert outcomes([A, B], [field("a", conditional=True), field("b", 1)]) == []
        assert outcomes([B], [field("a", conditional=True), field("b", 1)]) == [
            "nic-pci/a loads while its condition does not hold"
        ]
        assert outcomes([A], [field("a", 8, conditional=True)]) == ["nic-pci/a refused"]

    @pytest.mark.parametrize("size", [256, 4096])
    def test_one_of_several_of_a_name_is_enough(self, size: int) -> None:
        """PCI devices have either 256 bytes or 4096; the stream numbers them."""
        both = [field("config", 256, conditional=True), field("config", 4096, conditional=True)]
        assert outcomes([written(f"config[{size // 4096}]", "buffer", size)], both) == []
        assert outcomes([written("config[0]", "buffer", 512)], both) == ["nic-pci/config refused"]

    def test_one_of_several_structs_of_a_name_is_enough(self) -> None:
        both = [struct("kcs", field("a"), field("b", 1)) | {"field_exists": True}, struct("kcs", field("a"), field("b", 1))]
        inside = {"vmsd_name": "kcs-state", "version": 1, "fields": [A, B]}
        assert outcomes([written("kcs[1]", "struct", 5, struct=inside)], both) == []

    def test_how_many_elements(self) -> None:
        three = [written("a", "uint32", 4, array_len=3)]
        assert outcomes(three, [field("a", num=3)]) == []
        assert outcomes(three, [field("a", num=4)]) == ["nic-pci/a refused"]
        assert outcomes(three, [field("a")]) == []  # as many as another field holds

    def test_elements_that_differ(self) -> None:
        theirs = [struct("s", field("a"), field("b", 1, conditional=True), num=3)]
        assert outcomes([element(0, A, B), element(1, A), element(None, A, B)], theirs) == [
            "nic-pci/s/b loads while its condition does not hold"
        ]
        assert outcomes([element(0, A, B), element(1, B), element(None, A, B)], theirs) == ["nic-pci/s/a refused"]
        assert outcomes([element(0, A, B), element(1, A)], theirs)[0] == "nic-pci/s refused"
        sub = {"vmsd_name": "s/extra", "version": 1, "fields": []}
        found = outcomes([element(0, A, B), element(1, A, B, subsections=[sub]), element(2, A, B)], theirs)
        assert found == ['nic-pci/s/"s/extra" refused']

    def test_an_array_without_elements_is_in_no_stream(self) -> None:
        assert outcomes([A], [field("a"), struct("s", field("b"))]) == [
            "nic-pci/s loads while it is an array without elements there"
        ]
        assert outcomes([A], [field("a"), struct("s", field("b"), num=2)]) == ["nic-pci/s refused"]

    def test_pointers_some_of_which_are_null(self) -> None:
        nulls = [written("s", "nullptr", 1, array_len=2), element(None, A)]
        assert outcomes(nulls, [struct("s", field("a"), num=3)]) == []
        assert outcomes([written("s", "nullptr", 1, array_len=3)], [struct("s", field("a"), num=3)]) == []

    def test_what_qemu_writes_by_code_of_its_own(self) -> None:
        """The dump has the size in memory, and what lies in an element of a list."""
        assert outcomes([written("virtio", "virtio", 45541)], [field("virtio", 0)]) == []
        assert outcomes([written("t", "timer", 8)], [field("t", 48)]) == []
        assert outcomes([A, written("list", "qtailq", 9)], [field("a"), struct("list", field("x"), field("y"))]) == []
        assert outcomes([written("data", "buffer", 16)], [field("data", 0)]) == []

    def test_bytes_that_mean_nothing(self) -> None:
        unused = [written("unused", "unused_buffer", 5)]
        assert outcomes(unused, [field("a"), field("b", 1)]) == ["nic-pci/a fine"]
        assert outcomes(unused, [field("a")]) != ["nic-pci/a fine"]

    def test_subsections_were_sent(self) -> None:
        theirs = described(field("a"), name="nic/extra", version=2)
        assert outcomes([B], [field("b", 1)], subsections=[SUB], readable=[theirs]) == []
        assert outcomes([B], [field("b", 1)], readable=[theirs]) == []
        assert outcomes([B], [field("b", 1)], subsections=[SUB]) == ['nic-pci/"nic/extra" refused']
        older = described(field("a"), name="nic/extra", version=1)
        assert outcomes([B], [field("b", 1)], subsections=[SUB], readable=[older]) == ['nic-pci/"nic/extra" refused']

    @pytest.mark.parametrize(
        ("version", "phrase"),
        [
            (3, "savevm: unsupported version 3 for 'nic' v2"),
            (1, "nic: incoming version_id 1 is too old for local minimum version_id"),
        ],
    )
    def test_the_version_of_the_section_counts(self, version: int, phrase: str) -> None:
        [change] = judged(stream(device("nic"), version=version), nic=described(version=2, minimum=2)).changes
        assert (change.effect, change.phrases[0], change.section) == ("refused", phrase, "nic#0")


class TestSections:
    def test_the_type_that_fits_best(self) -> None:
        types = {"isa_nic": described(field("b", 1)), "other_nic": described(field("a"))}
        verdict = judged(stream(device("nic", A)), **types)
        assert (verdict.loads, verdict.sections, verdict.changes) == (True, {"nic#0": "other-nic"}, [])

    def test_a_pci_device_has_a_place_on_its_bus(self) -> None:
        """Of the name alone it would be another device, which no dump has."""
        pci = described(field("parent_obj", Description=described(field("a"), name=against.PCI)))
        inside = {"vmsd_name": against.PCI, "version": 1, "fields": [A]}
        nic = device("nic", written("parent_obj", "struct", 4, struct=inside))
        assert judged(stream(nic, name="0000:00:02.0/nic"), nic=pci).sections == {"0000:00:02.0/nic#0": "nic"}
        [change] = judged(stream(nic), nic=pci).changes
        assert str(change) == "nic: refused (qemu-device-unknown: written it, read no device type)"
        assert change.phrases[0] == "Unknown savevm section or instance 'nic' 0"

    def test_what_no_dump_has_is_left(self) -> None:
        memory = ram(blocks(m=1 << 12), b"")
        command = b"\x08\0\x0b\0\0"
        data = MAGIC + memory + command + full(9, "timer", b"1234") + full(8, "nic", b"", version=2) + EOF + description()
        verdict = judged(data, nic=described(field("a")))
        assert verdict.unjudged == [
            against.Unjudged("command#0", "command 0xb of the migration, which only a later QEMU may know"),
            against.Unjudged("timer#0", "not in the dump"),
            against.Unjudged("nic#0", against.NOT_DESCRIBED),
        ]
        assert [each.rule.id for each in verdict.changes] == ["qemu-version-too-new"]
        assert verdict.loads is False

    def test_what_is_compared_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(differences, "FIELDS", 3)
        two, pair = device("nic", A, B), described(field("a"), field("b", 1))
        assert judged(stream(two), nic=pair).loads
        with pytest.raises(LimitError, match="at most 3 fields and subsections to compare"):
            judged(stream(two, two), nic=pair)
        with pytest.raises(LimitError, match="at most 3 fields and subsections to compare"):
            judged(stream(device("nic")), nic=described(subsections=[described(name=f"nic/{number}") for number in range(4)]))

    @pytest.mark.parametrize(("kind", "key"), [(4, "version"), (4, "instance"), (8, "command")])
    @pytest.mark.parametrize("value", [None, -1, "1", 1 << 32])
    def test_attributes_that_no_import_wrote(self, kind: int, key: str, value: object) -> None:
        said = {"type": kind, "offset": 9, "id": 1, "version": 1, "footer": True, key: value}
        file = io.BytesIO()
        with SnapshotWriter(file, {"qemu": {"stream": 3, "page_size": 4096}}) as writer:
            writer.write(Section("nic", 0, (), attributes={"qemu": said}))
        file.seek(0)
        with pytest.raises(StateError, match=f"got {key} .* - at nic#0"):
            against.judge(open_sections(file), dumpstate.parse({"vmschkmachine": {"Name": MACHINE}}))

    def test_another_machine_type(self) -> None:
        [change] = judged(stream(machine="q35")).changes
        assert change.phrases == (f"Machine type received is 'q35' and local is '{MACHINE}'",)
        assert judged(stream()).changes == []


EMPTY = 'loads while it is an array without elements there: PIIX4_PM/"piix4_pm/memhp"/acpi_memory_hotplug/devs'
LEFT = 'timer#0, cpu_common#0, cpu#0, apic#0, PCIBUS#0, "0000:00:01.1/ide"#0, i2c_bus#0, acpi_build#0, globalstate#0'
RECORDED = [
    ("pc-qemu7.2", "pc-qemu7.2", None),
    ("pc-qemu7.2", "pc7.2-qemu10.0", None),
    ("scsi-qemu7.2", "pc-qemu7.2", None),
    ("scsi-qemu10.0", "pc7.2-qemu10.0", None),
    ("scsi-qemu7.2", "pc7.2-qemu10.0", "Missing section footer for 0000:00:02.0/pciespscsi"),
    ("pc-qemu10.0", "pc-qemu7.2", "Machine type received is 'pc-i440fx-10.0' and local is 'pc-i440fx-7.2'"),
    ("q35-qemu7.2", "pc-qemu7.2", "Machine type received is 'pc-q35-7.2' and local is 'pc-i440fx-7.2'"),
    ("isapc-qemu7.2", "pc-qemu7.2", "Machine type received is 'isapc' and local is 'pc-i440fx-7.2'"),
]
"""A stream, the dump of the QEMU that was to load it, and what that said."""


class TestCommand:
    @pytest.mark.parametrize(("name", "dump", "message"), RECORDED)
    def test_what_a_real_qemu_answered(self, name: str, dump: str, message: str | None) -> None:
        done = run("check", DATA / f"{name}.mig.xz", "--against", DUMPS[dump])
        *lines, verdict = done.stdout.decode().splitlines()
        assert done.returncode == (1 if message else 0)
        assert verdict.startswith("cannot be loaded: " if message else "can be loaded as far as the dump says: ")
        assert (f"QEMU's message: {message}" in "\n".join(lines)) == bool(message)
        assert not message or any(line.startswith("  refused: ") for line in lines)

    def test_what_only_the_reader_has_on_a_condition_is_one_line(self) -> None:
        text = run("check", DATA / "pc-qemu7.2.mig.xz", "--against", DUMPS["pc-qemu7.2"]).stdout.decode()
        assert text.splitlines() == [
            'not in the stream, loads while its condition does not hold: PIIX4_PM/"acpi_pci_hotplug.acpi_pcihp_pci_status[0x0]"',
            f"not in the stream, {EMPTY}",
            f"not in the dump: {LEFT}",
            "can be loaded as far as the dump says: 23 sections compared, 0 refused, 2 on a condition, 0 fine",
        ]

    def test_without_a_description_nothing_can_be_judged(self) -> None:
        done = run("check", DATA / "pc2.2-qemu7.2.mig.xz", "--against", DUMPS["pc7.2-qemu10.0"])
        *_, left, verdict = done.stdout.decode().splitlines()
        assert left.startswith(f"{against.NOT_DESCRIBED}: kvm-tpr-opt#0, fw_cfg#0, ")
        assert verdict.startswith("cannot be judged: the stream does not describe its devices: 21 sections compared, 0 refused, ")
        assert done.returncode == 2

    def test_reports_for_programs(self) -> None:
        arguments = "check", DATA / "scsi-qemu7.2.mig.xz", "--against", DUMPS["pc7.2-qemu10.0"]
        found = json.loads(run(*arguments, "--format", "json").stdout)
        validator("reports").validate(found)
        assert (found["report"], found["loads"], found["refused"]) == ("check-stream", False, 2)
        refused = [each for each in found["changes"] if each["effect"] == "refused"]
        assert {(each["device"], each["section"]) for each in refused} == {("am53c974", "0000:00:02.0/pciespscsi#0")}
        assert {"section": "0000:00:02.0/pciespscsi#0", "device": "am53c974"} in found["sections"]
        assert {"section": "timer#0", "reason": "not in the dump"} in found["not_compared"]
        [suite] = junit.parse(run(*arguments, "--format", "junit").stdout)
        outcomes = junit.outcomes(suite)
        assert [name for name, outcome in outcomes.items() if outcome == "failure"] == ['"0000:00:02.0/pciespscsi"#0']
        assert outcomes["i8254#0"] == "passed"
        lines = run(*arguments, "--format", "github").stdout.decode().splitlines()
        assert sum(line.startswith("::error ") for line in lines) == 2

    def test_a_snapshot_of_a_stream_is_one(self, tmp_path: Path) -> None:
        snapshot = tmp_path / "vm.tvm"
        assert run("import", DATA / "scsi-qemu7.2.mig.xz", "-o", snapshot).returncode == 0
        once, again = (
            run("check", file, "--against", DUMPS["pc7.2-qemu10.0"]) for file in (DATA / "scsi-qemu7.2.mig.xz", snapshot)
        )
        assert (once.returncode, once.stdout) == (again.returncode, again.stdout)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (
                ("check", DATA / "format-v1.tvm.xz"),
                "expected a snapshot that `import` made of a QEMU stream, got one from elsewhere",
            ),
            (
                ("check", DATA / "pc-qemu7.2.mig.xz", "--unknown", "keep"),
                "--unknown is for tables: QEMU refuses what it does not",
            ),
        ],
    )
    def test_one_sentence(self, arguments: tuple[object, ...], words: str) -> None:
        done = run(*arguments, "--against", DUMPS["pc-qemu7.2"])
        assert (done.returncode, words in done.stderr.decode()) == (2, True)


class TestMachine:
    def test_only_the_devices_of_the_stream(self) -> None:
        arguments = "compat", *DUMPS.values(), "--direction", "upgrade", "--format", "json"
        everything = json.loads(run(*arguments).stdout)["upgrade"]
        done = run(*arguments, "--machine", DATA / "scsi-qemu7.2.mig.xz")
        found = json.loads(done.stdout)["upgrade"]
        refused = {each["device"] for each in found["changes"] if each["effect"] == "refused"}
        assert (done.returncode, refused) == (1, {"am53c974", "dc390"})  # of one section
        assert refused < {each["device"] for each in everything["changes"] if each["effect"] == "refused"}
        assert run(*arguments, "--machine", DATA / "pc-qemu7.2.mig.xz").returncode == 0

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("format-v1.tvm.xz", "expected a snapshot that `import` made of a QEMU stream"),
            ("pc2.2-qemu7.2.mig.xz", "expected a stream that describes its devices, got one without a description"),
            ("pc-qemu7.2.vmstate.json.xz", "JSON has a dump of QEMU's (-dump-vmstate), no stream - at line 2"),
            ("q35-qemu7.2.mig.xz", "expected a stream of the machine type of the dumps (pc-i440fx-7.2), got one of pc-q35-7.2"),
        ],
    )
    def test_what_is_no_machine(self, name: str, words: str) -> None:
        done = run("compat", *DUMPS.values(), "--machine", DATA / name)
        assert (done.returncode, done.stdout) == (2, b"")
        assert words in done.stderr.decode()

    def test_tables_have_no_machine(self, tmp_path: Path) -> None:
        (tmp_path / "t.json").write_text('{"format": "tagged-vmstate tables", "version": 1, "devices": []}')
        done = run("compat", tmp_path / "t.json", tmp_path / "t.json", "--machine", DATA / "pc-qemu7.2.mig.xz")
        assert (done.returncode, "--machine is for dumps of QEMU's: compare two of them" in done.stderr.decode()) == (2, True)

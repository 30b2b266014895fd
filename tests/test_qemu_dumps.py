"""`compat` of two dumps of QEMU's -dump-vmstate: what its loader (migration/vmstate.c, savevm.c) does with each difference."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA
from schemas import validator
from test_command import run

import tagged_vmstate as tv
from tagged_vmstate.changes import Change
from tagged_vmstate.qemu import dumpstate
from tagged_vmstate.qemu.differences import IN_STRUCT, differences

MACHINE = "pc-1.0"


def field(name: str, size: int = 4, since: int = 0, *, conditional: bool = False, **more: Any) -> dict[str, Any]:
    return {"field": name, "version_id": since, "field_exists": conditional, "size": size, **more}


def described(*fields: dict[str, Any], name: str = "nic", version: int = 1, minimum: int = 1, subsections: Any = ()) -> Any:
    found = {"name": name, "version_id": version, "minimum_version_id": minimum, "Fields": list(fields)}
    return {**found, "Subsections": list(subsections)} if subsections else found


def struct(name: str, *fields: dict[str, Any], version: int = 1, since: int = 0, **more: Any) -> dict[str, Any]:
    return field(name, 999, since, Description=described(*fields, name=f"{name}-state", version=version), **more)


def machine(*fields: dict[str, Any], machine: str = MACHINE, device: str = "nic-pci", **more: Any) -> dict[str, Any]:
    return {"vmschkmachine": {"Name": machine}, device: {"Description": described(*fields, **more)}}


def compared(old: Any, new: Any) -> tuple[list[Change], list[Change]]:
    """What an upgrade and a downgrade meet."""
    before, after = dumpstate.parse(old), dumpstate.parse(new)
    return dumpstate.compare(before, after), dumpstate.compare(after, before)


def both(old: Any, new: Any) -> tuple[list[str], list[str]]:
    upgrade, downgrade = compared(old, new)
    return list(map(str, upgrade)), list(map(str, downgrade))


def outcomes(old: Any, new: Any) -> list[list[str]]:
    return [[f"{each.place} {each.outcome}" for each in found] for found in compared(old, new)]


TAIL = field("x", 1)


class TestLengths:
    def test_another_number_of_elements(self) -> None:
        old, new = (machine(field("regs", num=count), TAIL) for count in (5, 6))
        assert both(old, new) == (
            ["nic-pci/regs: refused (qemu-field-resized: written 5 x 4 bytes, read 6 x 4 bytes)"],
            ["nic-pci/regs: refused (qemu-field-resized: written 6 x 4 bytes, read 5 x 4 bytes)"],
        )

    def test_as_many_bytes_in_other_elements(self) -> None:
        old, new = machine(field("regs", 4, num=5), TAIL), machine(field("regs", 1, num=20), TAIL)
        assert both(old, new) == ([], [])

    def test_an_array_of_structs_is_one_finding(self) -> None:
        old, new = (machine(struct("ring", field("head"), field("tail"), num=count)) for count in (1, 2))
        assert both(old, new)[0] == ["nic-pci/ring: refused (qemu-field-resized: written 1 element, read 2 elements)"]

    def test_a_length_that_another_field_holds(self) -> None:
        """A single field, or an array of a length that another field holds: a dump shows both alike."""
        old, new = machine(field("regs"), field("mac", num=6)), machine(field("regs", num=3), field("mac", num=6))
        held = "loads while another field holds its length, and that is the same"
        assert outcomes(old, new) == [[f"nic-pci/regs {held}"]] * 2

    def test_a_dump_without_lengths(self) -> None:
        """QEMU before 8.1: it is on a condition, once for all arrays, and no array is refused."""
        old, new = machine(field("regs"), TAIL), machine(field("regs", num=6), TAIL)
        held = "vmschkmachine loads while each array has as many elements on both sides"
        assert outcomes(old, new) == [[held], [held]]
        gone = machine(field("regs"), field("mac")), machine(field("unused", 20), field("mac", num=6))
        assert outcomes(*gone)[0][1:] == ["nic-pci/regs loads while they are as many bytes"]
        assert "length unknown" in both(*gone)[0][1]

    def test_what_qemu_delimits_by_itself(self) -> None:
        """Its size is 0 in a dump: a bitmap, say."""
        old, new = machine(field("map", 0), TAIL, field("y", num=1)), machine(field("bits", 64), TAIL, field("y", num=1))
        assert outcomes(old, new)[0] == ["nic-pci/map loads while they are as many bytes"]
        assert outcomes(old, machine(field("map", 64), TAIL, field("y", num=1)))[0] == outcomes(old, new)[0]
        assert outcomes(old, machine(field("bits", 0), TAIL, field("y", num=1)))[0] == ["nic-pci/map fine"]

    def test_arrays_of_none_are_no_bytes(self) -> None:
        assert both(machine(TAIL, field("y", num=1)), machine(TAIL, field("regs", num=0), field("y", num=1))) == ([], [])


class TestUnused:
    NAMES = ("irq", "dma", "hdma", "port", "ver")

    def test_they_count_by_their_bytes(self) -> None:
        old, new = machine(*map(field, self.NAMES), TAIL), machine(field("unused", 20), TAIL)
        names = "`irq`, `dma`, `hdma`, `port`, `ver` (20 bytes)"
        assert both(old, new) == (
            [f"nic-pci/irq: fine (qemu-field-unused: written {names}, read 20 unused bytes (dropped))"],
            [f"nic-pci/irq: fine (qemu-field-unused: written 20 unused bytes (zeros), read {names})"],
        )

    @pytest.mark.parametrize("pads", [(8, 12), (1, 19), (4, 4, 4, 4, 4)])
    def test_they_may_be_cut_otherwise(self, pads: tuple[int, ...]) -> None:
        old, new = machine(field("unused", 20), TAIL), machine(*(field("unused", size) for size in pads), TAIL)
        assert both(old, new) == ([], [])

    def test_a_field_more_or_less_than_they_are(self) -> None:
        assert outcomes(machine(*map(field, self.NAMES)), machine(field("unused", 16))) == [
            ["nic-pci/irq fine", "nic-pci/ver refused"],
            ["nic-pci/irq fine", "nic-pci/ver refused"],
        ]
        old, new = machine(field("a", num=1), TAIL), machine(field("unused", 3), field("b", num=1), TAIL)
        assert all(each.effect == "refused" for found in compared(old, new) for each in found if each.path != ("b",))

    def test_a_condition_decides_about_them(self) -> None:
        old, new = machine(field("irq", conditional=True), TAIL), machine(field("unused", conditional=True), TAIL)
        assert outcomes(old, new)[0] == ["nic-pci/irq loads while the conditions agree"]


class TestConditions:
    def test_both_have_one_whatever_their_names(self) -> None:
        old, new = machine(field("a", conditional=True), TAIL), machine(field("b", conditional=True), TAIL)
        assert outcomes(old, new)[0] == ["nic-pci/a loads while the two conditions agree"]
        resized = machine(field("a", 8, conditional=True), TAIL)
        assert outcomes(old, resized)[0] == ["nic-pci/a loads while neither side's condition holds"]
        old, moved = (
            machine(field("a", conditional=True), field("b"), TAIL),
            machine(field("b"), TAIL, field("a", conditional=True)),
        )
        assert outcomes(old, moved)[0] == ["nic-pci/a loads while neither side's condition holds"]

    def test_one_has_one(self) -> None:
        old, new = machine(field("a", conditional=True), TAIL), machine(field("b"), TAIL)
        assert outcomes(old, new)[0] == ["nic-pci/a fine", "nic-pci/a loads while the condition holds"]
        assert outcomes(old, machine(field("a", 8), TAIL))[0][0] == "nic-pci/a refused"

    def test_fields_beside_them_are_the_same_bytes(self) -> None:
        old, new = machine(field("a", conditional=True), field("b"), TAIL), machine(field("c"), TAIL)
        assert outcomes(old, new)[0] == ["nic-pci/b fine", "nic-pci/a loads while its condition does not hold"]

    def test_that_of_a_struct_holds_for_all_in_it(self) -> None:
        inner = field("id"), field("fb")
        old, new = machine(struct("scanout", *inner, conditional=True), TAIL), machine(TAIL)
        assert outcomes(old, new)[0] == ["nic-pci/scanout loads while its condition does not hold"]
        always = machine(struct("scanout", *inner), TAIL)
        assert outcomes(old, always)[0] == ["nic-pci/scanout loads while the condition holds"]

    def test_it_decides_whatever_the_version(self) -> None:
        old, new = machine(TAIL), machine(TAIL, field("y", since=9, conditional=True))
        assert outcomes(old, new)[0] == ["nic-pci/y loads while its condition does not hold"]


class TestStructs:
    OLD = machine(struct("scanout", field("id")), field("tail"))

    def test_their_own_version_counts_on_either_side(self) -> None:
        """QEMU reads a struct as of its own description's version, whatever the writer had: a later version does not help."""
        new = machine(struct("scanout", field("id"), field("fb", 8, since=2), version=2), field("tail"))
        for changes in compared(self.OLD, new):
            change, version = changes
            assert (change.place, change.effect, change.rule.remedy) == ("nic-pci/scanout/fb", "refused", IN_STRUCT)
            assert (version.rule.id, version.effect) == ("qemu-struct-version", "fine")

    def test_a_condition_may_ask_for_their_version(self) -> None:
        """In QEMU's `esp`, `mig_ti_cmd` is there for versions 5 and 6 of the struct."""
        inner = struct("bus", field("id"), field("ti_cmd", conditional=True))
        old, new = (machine(struct("esp", inner, version=version)) for version in (6, 7))
        text = "nic-pci/esp: loads while no condition of its fields asks for the version"
        assert both(old, new)[0] == [f"{text} (qemu-struct-version: written version 6, read version 7)"]

    def test_what_is_above_their_version_is_never_there(self) -> None:
        new = machine(struct("scanout", field("id"), field("fb", 8, since=2)), field("tail"))
        assert both(self.OLD, new) == ([], [])

    def test_a_struct_as_a_whole_follows_the_section(self) -> None:
        new = machine(struct("scanout", field("id")), field("tail"), struct("more", field("a"), field("b"), since=2), version=2)
        upgrade, downgrade = compared(self.OLD, new)
        assert upgrade == []
        assert [each.place for each in downgrade] == ["nic-pci", "nic-pci/more"]
        assert downgrade[1].writer == "a struct of 8 bytes"
        assert "raise version_id" in downgrade[1].rule.remedy


class TestMachines:
    def test_another_one_is_refused_before_any_device(self) -> None:
        old, new = machine(TAIL, machine="pc-q35-10.0"), machine(field("x", 2), machine="pc-q35-7.2")
        for (change, *rest), names in zip(compared(old, new), (("10.0", "7.2"), ("7.2", "10.0")), strict=True):
            received, local = (f"pc-q35-{name}" for name in names)
            assert str(change) == f"vmschkmachine: refused (qemu-machine-changed: written `{received}`, read `{local}`)"
            assert change.phrases == (f"Machine type received is '{received}' and local is '{local}'",)
            assert [each.place for each in rest] == ["nic-pci/x"]

    def test_qemu_compares_only_what_was_sent_of_the_name(self) -> None:
        """configuration_post_load asks strncmp for as many letters as the stream has."""
        old, new = machine(TAIL, machine="pc-i440fx-2.1"), machine(TAIL, machine="pc-i440fx-2.10")
        assert [[each.effect for each in found] for found in compared(old, new)] == [["while"], ["refused"]]


class TestQemusOwnWords:
    """The text of QEMU 7.2 and 10.0; where 11.1 has another, both."""

    def words(self, old: Any, new: Any) -> list[tuple[str, tuple[str, ...]]]:
        return [(each.section, each.phrases) for each in compared(old, new)[0]]

    def test_bytes(self) -> None:
        phrases = "Missing section footer for nic", "Failed to load ring-state:head"
        old, new = (machine(struct("ring", field("head", size)), TAIL) for size in (4, 8))
        assert self.words(old, new) == [("nic", phrases)]

    def test_versions(self) -> None:
        new = machine(TAIL, version=3, minimum=2)
        assert self.words(new, machine(TAIL)) == [("nic", ("savevm: unsupported version 3 for 'nic' v1",))]
        old = "nic: incoming version_id 1 is too old for local minimum version_id"
        assert self.words(machine(TAIL), new) == [("nic", (old,))]

    def test_sections(self) -> None:
        unknown = "Unknown savevm section or instance 'nic' 0", "Unknown section or instance 'nic' 0"
        assert self.words(machine(TAIL), machine(TAIL, name="net")) == [("nic", unknown)]
        gone = (*unknown, "'nic-pci' is not a valid device model name")
        assert self.words(machine(TAIL), {"vmschkmachine": {"Name": MACHINE}}) == [("nic", gone)]

    def test_subsections(self) -> None:
        sub = described(field("y"), name="nic/extra", version=2)
        phrases = (
            "VM subsection 'nic/extra' in 'nic' does not exist",
            "error while loading state for instance 0x0 of device 'nic'",
        )
        old = machine(TAIL, subsections=[sub])
        assert self.words(old, machine(TAIL)) == [("nic", phrases)]
        too_new = "nic/extra: incoming version_id 2 is too new for local version_id 1"
        assert self.words(old, machine(TAIL, subsections=[{**sub, "version_id": 1}])) == [("nic", (too_new,))]

    def test_what_is_fine_has_none(self) -> None:
        assert self.words(machine(field("a")), machine(field("b"))) == [("nic", ())]

    def test_they_are_in_every_report(self, tmp_path: Path) -> None:
        for name, size in (("old", 4), ("new", 8)):
            (tmp_path / f"{name}.json").write_text(json.dumps(machine(struct("ring", field("head", size)))))
        shown = {
            form: run("compat", tmp_path / "old.json", tmp_path / "new.json", "--format", form).stdout.decode()
            for form in ("text", "json", "junit", "github")
        }
        for text in shown.values():
            for each in ("nic-pci", "nic", "Missing section footer for nic", "Failed to load ring-state:head"):
                assert each in text
        validator("reports").validate(json.loads(shown["json"]))
        assert "section nic\n" in shown["text"]


class TestSubsections:
    def test_of_two_of_one_name_qemu_reads_the_first(self) -> None:
        """sd-card of QEMU 11.1 has two `sd-card/ext_csd_modes-state`: the second is read as the first, by its own build too."""
        subs = [described(field(name, size), name="nic/extra") for name, size in (("y", 4), ("z", 8))]
        one, two = machine(TAIL, subsections=subs[:1]), machine(TAIL, subsections=subs)
        assert both(one, two)[0] == []
        place = 'nic-pci/"nic/extra[1]"'
        for found in (both(one, two)[1], both(two, two)[0]):
            assert [line.split(": ")[0] for line in found] == [f"{place}/z", f"{place}/y"]

    def test_they_are_found_in_another_struct(self) -> None:
        sub = described(field("y"), name="nic-state/extra")
        inner = {**described(TAIL, name="nic-state"), "Subsections": [sub]}
        old, new = machine(TAIL, subsections=[sub]), machine(field("nic", 9, Description=inner))
        assert [each.effect for each in compared(old, new)[0]] == ["fine"]


class TestWhatWasSent:
    """The writer is a stream: its subsections are there, and no condition is left of it."""

    def test_a_subsection_is_refused(self) -> None:
        sub = described(field("y"), name="nic/extra")
        ours = dumpstate.parse(machine(TAIL, subsections=[sub])).devices["nic-pci"]
        for new in (machine(TAIL), machine(TAIL, subsections=[described(field("y", 8), name="nic/extra")])):
            theirs = dumpstate.parse(new).devices["nic-pci"]
            assert [each.effect for each in differences("nic-pci", ours, theirs)] == ["while"]
            [change] = differences("nic-pci", ours, theirs, "0000:00:02.0/nic", is_sent=True)
            assert (change.effect, change.section) == ("refused", "0000:00:02.0/nic")
            assert any("0000:00:02.0/nic" in each for each in change.phrases)


# What scripts/vmstate-static-checker.py of QEMU 10.0 reports of the two, beside its warning that the machine types differ; and what
# we do: a place and a rule. None: QEMU loads it.
FINDINGS: list[tuple[str, tuple[str, str, str] | None]] = [
    ('Section "fw_cfg" does not exist in dest', None),  # only the type has another name: the stream has the section's
    ('Section "fusbh200-ehci-usb" version error: 2 > 1', None),  # the description says 2 on both sides, and QEMU reads that
    (
        'Section "fusbh200-ehci-usb", Description "ehci-core": expected field "usbsts", got "usbsts_pending"; skipping rest',
        ("fusbh200-ehci-usb/ehci/usbsts", "qemu-field-unknown", "refused"),
    ),
    (
        'Section "pci-serial-4x" Description "pci-serial-multi": Entry "Fields" missing',
        ("pci-serial-4x/dev", "qemu-field-unknown", "refused"),
    ),
    (
        'Section "intel-hda-generic", Description "intel-hda", Field "pci": missing description',
        ("intel-hda-generic/pci", "qemu-field-missing", "refused"),
    ),
    ('Section "cfi.pflash01": Entry "Description" missing', ("cfi.pflash01", "qemu-device-unknown", "while")),
    (
        'Section "megasas", Description "PCIDevice": expected field "irq_state", while dest has no further fields',
        ("megasas/parent_obj/irq_state", "qemu-field-unknown", "refused"),
    ),
    (
        'Section "PIIX3-xen" Description "PIIX3": minimum version error: 1 < 2',
        ("PIIX3-xen", "qemu-version-too-old", "refused"),
    ),
    (
        'Section "PIIX3-xen" Description "PIIX3": Entry "Subsections" missing',
        ('PIIX3-xen/"PIIX3/rcr"', "qemu-subsection-unknown", "while"),
    ),
    (
        'Section "tpci200": Description "tpci200" missing, got "tpci2002" instead; skipping',
        ("tpci200", "qemu-section-renamed", "refused"),
    ),
    ('Section "sun-fdtwo" Description "fdc": version error: 2 > 1', ("sun-fdtwo", "qemu-version-too-new", "refused")),
    (
        'Section "sun-fdtwo", Description "fdrive": Subsection "fdrive/media_rate" not found',
        ('sun-fdtwo/state/drives/"fdrive/media_rate"', "qemu-subsection-unknown", "while"),
    ),
    (
        'Section "usb-kbd" Description "usb-kbd" Field "kbd.keycodes" size mismatch: 4 , 2',
        ("usb-kbd/kbd.keycodes", "qemu-field-resized", "refused"),
    ),
]


def checkers(name: str) -> Any:
    return json.loads(lzma.decompress((DATA / f"checker-{name}.json.xz").read_bytes()))


class TestQemusChecker:
    @pytest.mark.parametrize(("finding", "ours"), FINDINGS)
    def test_each_of_its_findings_is_one_of_ours(self, finding: str, ours: tuple[str, str, str] | None) -> None:
        upgrade, _ = compared(checkers("dump1"), checkers("dump2"))
        found = [(each.place, each.rule.id, each.effect) for each in upgrade]
        if ours is not None:
            assert ours in found
        device = finding.split('"')[1]
        others = {each[0] for _, each in FINDINGS if each is not None}
        assert ours is not None or all(place in others for place, *_ in found if place.split("/")[0] == device)

    def test_the_rest_is_the_machine_type_and_what_loads(self) -> None:
        upgrade, _ = compared(checkers("dump1"), checkers("dump2"))
        known = {(each[0], each[1]) for _, each in FINDINGS if each is not None}
        rest = [each for each in upgrade if (each.place, each.rule.id) not in known and each.effect != "fine"]
        assert [each.place for each in rest] == [
            "vmschkmachine",
            "pci-serial-4x/state",
            "pci-serial-4x/level",
            "intel-hda-generic/pci",
        ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda each: {**each, "num": -1}, r'"num" of 0 to 2\*\*31-1, JSON has -1 - at nic-pci/x'),
        (lambda each: {**each, "num": "5"}, '"num" as a JSON integer'),
        (lambda each: {**each, "num": 1 << 31}, r'"num" of 0 to 2\*\*31-1'),
        (lambda each: {**each, "size": -4}, r'"size" of 0 to 2\*\*63-1, JSON has -4 - at nic-pci/x'),
        (lambda each: {**each, "Description": {"version_id": 1}}, '"name" as a JSON string, .* JSON has nothing - at nic-pci/x'),
        (
            lambda each: {**each, "Description": {"name": "x"}},
            '"version_id" as a JSON integer, .* JSON has nothing - at nic-pci/x',
        ),
    ],
)
def test_lengths_that_cannot_be(change: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(tv.FormatError, match=words):
        dumpstate.parse(machine(change(TAIL)))


def test_many_sections_of_the_name_of_a_long_one_are_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would be compared with all of it."""
    sections = {f"nic-{number}": {"Description": described()} for number in range(600)}
    old, new = machine() | sections, machine(*(field(f"f{number}") for number in range(600)))
    (tmp_path / "old.json").write_text(json.dumps(old))
    (tmp_path / "new.json").write_text(json.dumps(new))
    monkeypatch.chdir(tmp_path)
    expected = b"tagged-vmstate: old.json, new.json: expected at most 262144 fields and subsections to compare, dump has more"
    done = run("compat", "old.json", "new.json")
    assert (done.returncode, done.stderr[: len(expected)]) == (2, expected)


def test_many_long_arrays_in_each_other_are_a_number_that_can_be_printed() -> None:
    found = field("y", (1 << 63) - 1, num=(1 << 31) - 1)
    for _ in range(60):
        found = struct("x", found, num=(1 << 31) - 1)
    assert "written a struct of" in str(compared(machine(found), machine(TAIL))[0][1])

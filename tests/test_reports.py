"""What the commands say to programs: JUnit that Jenkins and GitLab take, annotations of GitHub's, JSON held to its schemas."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import junit
import pytest
from conftest import DATA, stream_bytes
from hypothesis import given
from hypothesis import strategies as st
from schemas import validator
from strategies import snapshots
from test_command import refused, run, shown
from test_snapshot import LATER, later
from typing_example import Everything

import tagged_vmstate as tv
from tagged_vmstate.cli.files import Trouble
from tagged_vmstate.cli.main import cli
from tagged_vmstate.devices import Entry
from tagged_vmstate.frames import Frame, Header, Order
from tagged_vmstate.fuzz.strategies import tables as fuzz_tables
from tagged_vmstate.sections import NO_ATTRIBUTES
from tagged_vmstate.tablejson import tables_to_json

DUMP = DATA / "pc-qemu7.2.vmstate.json.xz"

CHIPS = """
from typing import Annotated
import tagged_vmstate as tv

@tv.vmstate("uart", aliases=("serial",))
class Uart:
    baud: tv.{BAUD} = 0

@tv.vmstate("timer")
class Timer:
    count: tv.uint8 = 0
    {MORE}

@tv.vmstate({ODD!r})
class Odd:
    x: tv.{BAUD} = 0

MACHINE = tv.Machine([(Timer(), 0), (Timer(), 1), Uart(), Odd()])
FEWER = tv.Machine([Timer()])
"""
ODD = "a<&\"'>\x00\x1b\x85\u2028\ufffe\N{GRINNING FACE}é%"
"""A name with what XML cannot hold, what it must quote, and what a terminal must not see."""


@pytest.fixture
def chips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modules `old`, `new` (which adds a field that can be at its default) and `other` (with another type)."""
    more = {"old": "", "new": "mode: tv.uint8 = 0", "other": ""}
    for name, field in more.items():
        kind = "uint32" if name == "other" else "uint16"
        (tmp_path / f"{name}.py").write_text(CHIPS.replace("{BAUD}", kind).replace("{MORE}", field).replace("{ODD!r}", repr(ODD)))
    (tmp_path / "none.json").write_text('{"format": "tagged-vmstate tables", "version": 1, "devices": []}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMES = ["timer", "uart", r""" "a<&\"'>\u0000\u001b\u0085\u2028\ufffe""".strip() + '\N{GRINNING FACE}é%"']


class TestJUnit:
    def suites(self, *arguments: object, status: int) -> dict[str, dict[str, str]]:
        done = run(*arguments, "--format", "junit")
        assert (done.returncode, done.stderr) == (status, b"")
        assert done.stdout.isascii()
        return {suite.get("name", ""): junit.outcomes(suite) for suite in junit.parse(done.stdout)}

    def test_a_good_result_is_a_passed_test_for_each_device(self, chips: Path) -> None:
        assert chips.is_dir()
        passed = dict.fromkeys(NAMES, "passed")
        assert self.suites("compat", "old:MACHINE", "old:MACHINE", status=0) == {"upgrade": passed, "downgrade": passed}
        both = self.suites("compat", DUMP, DUMP, status=0)
        assert both["upgrade"] == both["downgrade"]
        assert {"hpet", "mc146818rtc"} <= both["upgrade"].keys()
        assert set(both["upgrade"].values()) == {"passed"}

    def test_a_condition_is_skipped_and_fails_where_the_exit_status_does(self, chips: Path) -> None:
        assert chips.is_dir()
        passed = dict.fromkeys(NAMES, "passed")
        found = self.suites("compat", "old:MACHINE", "new:MACHINE", status=0)
        assert found == {"upgrade": passed, "downgrade": {**passed, "timer": "skipped"}}
        found = self.suites("compat", "old:MACHINE", "new:MACHINE", "--strict", status=1)
        assert found == {"upgrade": passed, "downgrade": {**passed, "timer": "failure"}}

    def test_devices_of_either_side_are_tests_and_a_renamed_one_is_one(self, chips: Path) -> None:
        assert self.suites("compat", "old:FEWER", "old:MACHINE", status=0)["upgrade"] == dict.fromkeys(NAMES, "passed")
        (chips / "first.py").write_text((chips / "old.py").read_text().replace('"uart", aliases=("serial",)', '"serial"'))
        found = self.suites("compat", "first:MACHINE", "other:MACHINE", status=1)
        assert found["upgrade"] == {"timer": "passed", "serial": "failure", NAMES[2]: "failure"}
        assert found["downgrade"].keys() == found["upgrade"].keys()
        one = self.suites("compat", "old:FEWER", "old:FEWER", "--direction", "downgrade", status=0)
        assert one == {"downgrade": {"timer": "passed"}}

    def test_no_device_at_all(self, chips: Path) -> None:
        assert chips.is_dir()
        found = self.suites("compat", "none.json", "none.json", status=0)
        assert found == {key: {"no devices": "passed"} for key in ("upgrade", "downgrade")}

    def test_all_changes_of_a_device_are_told_the_worst_first(self, chips: Path) -> None:
        (chips / "most.py").write_text((chips / "new.py").read_text().replace("count: tv.uint8", "count: tv.int64"))
        done = run("compat", "most:MACHINE", "old:MACHINE", "--format", "junit", "--direction", "upgrade")
        [failure] = junit.parse(done.stdout)[0].findall("testcase[@name='timer']/failure")
        lines = (failure.text or "").splitlines()
        assert [line.split("(")[1].split(":")[0] for line in lines] == ["type-changed", "field-unknown"]
        assert failure.attrib == {"type": "type-changed", "message": f"{lines[0]}, and 1 more"}
        assert lines[0].endswith("; fix: declare the narrower type in widens_from, or a new field beside the old one")

    def test_of_a_check(self, chips: Path) -> None:
        made_by(chips, "import old, tagged_vmstate as tv; tv.Machine([old.Timer(count=1), old.Uart(baud=2)]).save('vm.old.tvm')")
        found = self.suites("check", "vm.old.tvm", "--against", "old:MACHINE", status=0)
        assert found == {"vm.old.tvm": dict.fromkeys(["timer#0", "timer#1", "uart#0", f"{NAMES[2]}#0"], "passed")}
        [suite] = junit.parse(run("check", "vm.old.tvm", "--against", "other:MACHINE", "--format", "junit").stdout)
        assert list(junit.outcomes(suite).values()) == ["passed", "passed", "failure", "passed"]
        assert {case.get("classname") for case in suite} == {"check.vm_old_tvm"}
        found = self.suites("check", "vm.old.tvm", "--against", "old:FEWER", status=1)
        assert found == {"vm.old.tvm": {"timer#0": "passed", "uart#0": "failure"}}
        found = self.suites("check", "vm.old.tvm", "--against", "none.json", "--unknown", "ignore", status=0)
        assert found == {"vm.old.tvm": {"timer#0": "passed", "uart#0": "passed"}}

    def test_what_exported_tables_lack_is_skipped(self, chips: Path) -> None:
        source = (chips / "old.py").read_text().replace("count: tv.uint8 = 0", "count: tv.uint8 = 0\n    def check(self): pass")
        (chips / "checked.py").write_text(source)
        shown("tables", "checked:MACHINE", "-o", "checked.json")
        made_by(chips, "import old; old.MACHINE.save('vm.tvm')")
        found = self.suites("check", "vm.tvm", "--against", "checked.json", status=0)["vm.tvm"]
        assert found == {**dict.fromkeys([*found][:-1], "passed"), "what is not in the tables": "skipped"}

    def test_findings_that_are_not_listed_count(self, chips: Path) -> None:
        records = [tv.Record(f"x{number}", "uint8", None, 1) for number in range(1_200)]
        with (chips / "many.tvm").open("wb") as file, tv.SnapshotWriter(file) as writer:
            writer.write(tv.Section("timer", 0, records))
        found = self.suites("check", "many.tvm", "--against", "old:FEWER", status=1)
        assert found == {"many.tvm": {"timer#0": "failure", "the rest": "failure"}}


def made_by(folder: Path, code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)


class TestGitHub:
    def test_levels_follow_the_exit_status(self, chips: Path) -> None:
        assert chips.is_dir()
        for options, level in ([], "warning"), (["--strict"], "error"):
            lines = run("compat", "old:MACHINE", "new:MACHINE", "--format", "github", *options).stdout.decode().splitlines()
            assert [line.split("::")[1] for line in lines] == [
                "notice title=upgrade field-missing",
                f"{level} title=downgrade field-unknown",
            ]

    def test_a_check_is_told_too_and_what_github_takes_for_its_own_is_quoted(self, chips: Path) -> None:
        made_by(chips, "import old; old.MACHINE.save('a,b:c.tvm')")
        lines = run("check", "a,b:c.tvm", "--against", "other:MACHINE", "--format", "github").stdout.decode().splitlines()
        assert [line.split("::")[1] for line in lines] == ["error title=a%2Cb%3Ac.tvm wrong-type"] * 2
        assert lines[1].split("::")[2].startswith(NAMES[2].replace("%", "%25"))


class TestChecksums:
    """`info` shows what it checked: a column, a line, and in JSON each part's."""

    @pytest.fixture
    def data(self) -> bytes:
        """A snapshot of two sections, one of them in two parts."""
        file = io.BytesIO()
        with tv.SnapshotWriter(file) as writer:
            writer.write(tv.Section("memory", 0, [tv.Record("n", "uint8", None, 1)], kind="part"))
            writer.write(tv.Section("b", 0, [tv.Record("x", "uint8", None, 1)]))
            writer.write(tv.Section("memory", 0, [tv.Record("m", "uint8", None, 2)]))
        return file.getvalue()

    @staticmethod
    def crcs(data: bytes) -> list[str]:
        """What stands in the file, by its specification: each a uint32 of MessagePack over the bytes before it."""
        sections = list(tv.Snapshot.read(data))
        start = sections[0].offset
        found = [data[start - 4 : start], *(data[each.end - each.size - 4 : each.end - each.size] for each in sections)]
        assert zlib.crc32(data[: start - 5]) == int.from_bytes(found[0])
        return [each.hex() for each in (*found, data[-4:])]

    def test_of_an_intact_snapshot(self, data: bytes) -> None:
        header, first, b, second, end = self.crcs(data)
        lines = shown("info", "-", given=data).splitlines()
        assert [line.split()[-2:] for line in lines if line.endswith("  ok")] == [["intact", "ok"], [b, "ok"]]
        assert "  2 intact  ok" in "\n".join(lines)
        assert lines[-1] == f"checksums  header 0x{header}, 3 parts, end 0x{end}: all right"
        found = json.loads(shown("info", "-", "--format", "json", given=data))
        assert found["checksums"] == {"header": f"0x{header}", "end": f"0x{end}"}
        expected = [[{"crc32": f"0x{each}", "intact": True} for each in parts] for parts in ([first, second], [b])]
        assert [each["checksums"] for each in found["sections"]] == expected

    @pytest.mark.parametrize(
        ("place", "line"),
        [
            (lambda data: data.index(b"producer"), "no intact header, 3 parts, no intact end"),
            (lambda data: list(tv.Snapshot.read(data))[2].end - 1, "header 0x{header}, 2 of 3 parts, end 0x{end}"),
            (lambda data: len(data) - 1, "header 0x{header}, 3 parts, no intact end"),
        ],
    )
    def test_of_a_damaged_one(self, data: bytes, place: Callable[[bytes], int], line: str) -> None:
        header, *_, end = self.crcs(data)
        at = place(data)
        damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        lines = run("info", "-", given=damaged).stdout.decode().splitlines()
        assert f"checksums  {line.format(header=header, end=end)}: damaged" in lines
        assert ("  1 of 2 intact  damaged" in "\n".join(lines)) is ("2 of 3" in line)
        found = json.loads(run("info", "-", "--format", "json", given=damaged).stdout)
        said = found["checksums"]["header"], found["checksums"]["end"]
        assert said == (f"0x{header}" if "header 0x" in line else None, f"0x{end}" if "end 0x" in line else None)
        assert [part["intact"] for part in found["sections"][0]["checksums"]] == [True, "2 of 3" not in line]

    def test_a_whole_section_in_the_wrong_place_has_its_checksum(self, data: bytes) -> None:
        _, second, _ = tv.Snapshot.read(data)
        again = data[: second.end] + data[second.offset : second.end] + data[second.end :]
        found = json.loads(run("info", "-", "--format", "json", given=again).stdout)
        assert [part["intact"] for part in found["sections"][1]["checksums"]] == [True, True]
        assert "once" in found["sections"][1]["damage"][0]

    def test_streams_and_json_have_none(self, data: bytes) -> None:
        for other in (stream_bytes("pc-qemu7.2"), run("to-json", "-", given=data).stdout):
            text = shown("info", "-", given=other)
            assert "crc32" not in text
            assert "checksums" not in text
            found = json.loads(shown("info", "-", "--format", "json", given=other))
            assert found["checksums"] is None
            assert not any(each["checksums"] for each in found["sections"])


REPORTS = validator("reports")
TABLES = validator("tables")


def said(*arguments: object) -> Any:
    """What a command prints as JSON, from a run in this process: it may be run hundreds of times."""
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as stdout:
        cli.main([*map(str, arguments), "--format", "json"], standalone_mode=False)
        stdout.flush()
    found = json.loads(stdout.buffer.getvalue())
    REPORTS.validate(found)
    assert found["report"] == arguments[0]
    return found


class TestSchemas:
    """What info, show and tables print fits its schema, and little else does."""

    @pytest.mark.long
    @pytest.mark.parametrize("name", ["isapc-qemu7.2", "pc-qemu7.2"])
    def test_of_real_streams_in_all_forms(self, name: str, stream_path: Callable[[str], Path], tmp_path: Path) -> None:
        stream, snapshot, text = stream_path(name), tmp_path / "vm.tvm", tmp_path / "vm.json"
        assert run("import", stream, "-o", snapshot).returncode == 0
        shown("to-json", snapshot, "-o", text)
        sections = labels(json.loads(text.read_text()))
        for file in (stream, snapshot, text):
            assert labels(said("info", file)) == labels(said("show", file)) == sections
        assert said("show", snapshot, "cpu*", "--non-default")["sections"]

    @given(snapshots())
    def test_of_every_snapshot(self, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(suffix=".tvm") as file:
            file.write(data)
            file.flush()
            assert said("info", file.name)["damage"] == []
            sections = {(each.device, each.instance) for each in tv.Snapshot.read(data)}
            assert labels(said("show", file.name)) == sections

    @given(snapshots(), st.data())
    def test_of_a_damaged_one(self, data: bytes, drawn: st.DataObject) -> None:
        at = drawn.draw(st.integers(20, len(data) - 1))
        with tempfile.NamedTemporaryFile(suffix=".tvm") as file:
            file.write(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
            file.flush()
            with contextlib.suppress(Trouble):  # a header that nothing intact follows
                assert said("info", file.name)["damage"]

    def test_of_a_later_version(self, stored: Path) -> None:
        data = stored.read_bytes()
        [section] = tv.Snapshot.read(data)
        header = Header(2, NO_ATTRIBUTES)
        order = Order(header)
        order.count(Frame(section.lead, section.size, section.crc))
        stored.write_bytes(header.encode() + data[section.offset : section.end] + order.end().encode())
        found = said("info", stored)
        assert (found["version"], found["sections"][0]["fields"], found["damage"]) == (2, None, [])
        assert [row["kind"] for row in found["sections"]] == ["section"]

    def test_of_kinds_and_an_end_that_only_a_later_version_has(self, tmp_path: Path) -> None:
        path = tmp_path / "later.tvm"
        path.write_bytes(later(*LATER, more=(1, "x")))
        found = said("info", path)
        assert [(row["kind"], row["device"], row["size"], row["parts"]) for row in found["sections"]] == [
            ("section", "dev", 10, 2),
            ("delta", "dev", 300, 1),
            ("x" * 255, "é" * 127, 5, 1),
            ("é", "b", 0, 1),
            ("part", "never complete", 5, 1),
        ]
        assert found["damage"] == []
        text = shown("info", path)
        assert re.search(r"^section +kind +parts +fields +size +crc32 +state$", text, re.MULTILINE)
        assert re.search(r"^dev#0 +delta +1 +\? +300 bytes +[0-9a-f]{8} +ok$", text, re.MULTILINE)
        assert re.search(r"^checksums .* 6 parts, .*: all right$", text, re.MULTILINE)
        for command in (("show",), ("show", "--salvage"), ("to-json",), ("export",)):
            assert refused(*command, path) == (
                f"tagged-vmstate: {path}: expected version 1 of the format, snapshot has version 2: "
                "a later build of this package reads it - at byte 16"
            )

    @given(fuzz_tables())
    def test_of_any_tables(self, table: tv.Table) -> None:
        exported = tables_to_json([Entry(table, number, None) for number in range(2)])
        TABLES.validate(json.loads(json.dumps(exported)))

    def test_of_tables_of_every_kind_as_the_command_exports_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(Path(__file__).parent)
        for name in ("Everything", "More"):
            TABLES.validate(json.loads(shown("tables", f"typing_example:{name}")))

    @pytest.mark.parametrize(
        "change",
        [
            lambda found: found.update(report="show"),
            lambda found: found.pop("report"),
            lambda found: found.update(more=1),
            lambda found: found.pop("checksums"),
            lambda found: found["checksums"].update(header="c09cd1e3"),
            lambda found: found["checksums"].pop("end"),
            lambda found: found["sections"][0].pop("size"),
            lambda found: found["sections"][0].update(instance=-1),
            lambda found: found["sections"][0].update(fields="1"),
            lambda found: found["sections"][0]["checksums"][0].update(crc32=1),
            lambda found: found["sections"][0]["checksums"][0].pop("intact"),
            lambda found: found["damage"].append(None),
        ],
    )
    def test_what_is_no_info_is_refused(self, stored: Path, change: Callable[[Any], object]) -> None:
        self.refuse(REPORTS, said("info", stored), change)

    @pytest.mark.parametrize(
        "change",
        [
            lambda found: found.update(report="info"),
            lambda found: found.pop("sections"),
            lambda found: found.update(sections=found["sections"][0]),
            lambda found: found["sections"][0].pop("device"),
            lambda found: found["sections"][0]["fields"][0].update(value=256),
        ],
    )
    def test_what_is_no_show_is_refused(self, stored: Path, change: Callable[[Any], object]) -> None:
        self.refuse(REPORTS, said("show", stored), change)

    @pytest.mark.parametrize(
        "change",
        [
            lambda found: found.update(version=2),
            lambda found: found.pop("format"),
            lambda found: found["devices"][0].pop("instances"),
            lambda found: found["devices"][0].update(instances=[-1]),
            lambda found: found["devices"][0].update(hooks=["pre_save"]),
            lambda found: found["devices"][0].pop("class"),
            lambda found: found["devices"][0].update(more=1),
            lambda found: field_of(found, "u8").update(type="uint9"),
            lambda found: field_of(found, "u8").update(default=256),
            lambda found: field_of(found, "u8").update(default=[1]),
            lambda found: field_of(found, "u8").update(previous_defaults=[-1]),
            lambda found: field_of(found, "u8").pop("name"),
            lambda found: field_of(found, "u8").update(more=1),
            lambda found: field_of(found, "u8").update(optional=True),
            lambda found: field_of(found, "u32").update(widens_from=[]),
            lambda found: field_of(found, "u32").update(display="octal"),
            lambda found: field_of(found, "masked")["bounds"].update(mask=1.5),
            lambda found: field_of(found, "masked")["bounds"].update(predicate="x"),
            lambda found: field_of(found, "mode").update(enum={"IDLE": "0"}),
            lambda found: field_of(found, "step").update(display={"enum": {}}),
            lambda found: field_of(found, "buffer").update(default="xy"),
            lambda found: field_of(found, "buffer").pop("length"),
            lambda found: field_of(found, "numbers").update(default=0),
            lambda found: field_of(found, "numbers").update(capacity=3),
            lambda found: field_of(found, "memory").update(default={"7": "00"}),
            lambda found: field_of(found, "msix").pop("struct"),
            lambda found: field_of(found, "msix")["struct"].update(instances=[0]),
            lambda found: field_of(found, "msix")["struct"]["fields"][0].pop("type"),
            lambda found: field_of(found, "queues").update(default=[1, 2]),
        ],
    )
    def test_what_are_no_tables_is_refused(self, change: Callable[[Any], object]) -> None:
        self.refuse(TABLES, json.loads(json.dumps(tables_to_json(tv.Machine([Everything(required=1)]).entries))), change)

    @staticmethod
    def refuse(schema: jsonschema.Draft202012Validator, found: Any, change: Callable[[Any], object]) -> None:
        schema.validate(found)
        change(found)
        with pytest.raises(jsonschema.ValidationError):
            schema.validate(found)

    @pytest.fixture
    def stored(self, tmp_path: Path) -> Path:
        with (tmp_path / "vm.tvm").open("wb") as file, tv.SnapshotWriter(file) as writer:
            writer.write(tv.Section("chip", 0, [tv.Record("n", "uint8", None, 7)]))
        return tmp_path / "vm.tvm"


def labels(found: Any) -> set[tuple[str, int]]:
    """The sections of a report."""
    return {(each["device"], each["instance"]) for each in found["sections"]}


def field_of(found: Any, name: str) -> Any:
    """A field of the first device."""
    return next(each for each in found["devices"][0]["fields"] if each["name"] == name)

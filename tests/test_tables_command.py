"""`check`, `compat`, `tables`, `diff` and `set` as people run them; one sentence for everything that is wrong."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA
from schemas import validator
from test_command import refused, run, shown

import tagged_vmstate as tv
from tagged_vmstate import Record, Section

STREAM = DATA / "pc-qemu7.2.mig.xz"
RESET = DATA / "pc-qemu7.2-reset.mig.xz"
DUMP = DATA / "pc-qemu7.2.vmstate.json.xz"
SCHEMA = validator("reports")

BOARD = """
from typing import Annotated
import tagged_vmstate as tv

@tv.vmstate
class PS2:
    write_cmd: tv.int32 = 0
    rptr: tv.int32 = tv.field(default=0, name="queue.rptr")
    wptr: tv.int32 = tv.field(default=0, name="queue.wptr")
    count: tv.int32 = tv.field(default=0, name="queue.count")
    data: Annotated[bytes, tv.Length(256)] = tv.field(default=bytes(256), name="queue.data")

@tv.vmstate("ps2kbd")
class Keyboard:
    queue: PS2 = tv.field(default_factory=PS2, name="parent_obj")
    scan_enabled: tv.int32 = 0
    translate: tv.int32 = 0
    scancode_set: tv.{TYPE} = 0

@tv.vmstate("mc146818rtc")
class Clock:
    cmos_data: Annotated[bytes, tv.Length(128)] = bytes(128)
    cmos_index: tv.uint8 = 0

MACHINE = tv.Machine([Keyboard(), Clock()])

def make():
    return tv.Machine([Keyboard()])

def fails():
    return 1 / 0

def exits():
    raise SystemExit

number = 3
"""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `board` in the folder where the command is run, and `newer`, with another type."""
    (tmp_path / "board.py").write_text(BOARD.replace("{TYPE}", "int32"))
    (tmp_path / "newer.py").write_text(BOARD.replace("{TYPE}", "int16"))
    (tmp_path / "broken.py").write_text("import tagged_vmstate as tv\n@tv.vmstate\nclass Broken:\n    x: tv.uint8 = 300\n")
    (tmp_path / "syntax.py").write_text("def\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit('no screen')\n")
    (tmp_path / "boards").mkdir()
    (tmp_path / "boards" / "pc.py").write_text("from board import MACHINE\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*arguments: object, status: int) -> Any:
    done = run(*arguments, "--format", "json")
    assert (done.returncode, done.stderr) == (status, b"")
    found = json.loads(done.stdout)
    SCHEMA.validate(found)
    return found


SHOWN = """
import enum
from typing import Annotated
import tagged_vmstate as tv

class Mode(enum.IntEnum):
    IDLE = 0
    BUSY = 1

class Lines(enum.IntFlag):
    RX = 1
    TX = 2

@tv.vmstate
class Channel:
    mode: Annotated[Mode, tv.uint8] = Mode.IDLE

@tv.vmstate("chip", aliases=("old-chip",))
class Chip:
    base: tv.uint32 = tv.field(default=0x3F8, display="hex", aliases=("address",))
    enabled: tv.uint16 = tv.field(default=0, display="flags")
    state: tv.int8 = tv.field(default=1, display=Mode)
    lines: tv.uint8 = tv.field(default=3, display=Lines)
    ports: Annotated[list[tv.uint16], tv.Length(3)] = tv.field(default_factory=lambda: [16, 16, 17], display="hex")
    channels: Annotated[list[Channel], tv.Length(2)] = tv.field(default_factory=lambda: [Channel(), Channel(mode=Mode.BUSY)])
    plain: tv.uint8 = 20

MACHINE = tv.Machine([Chip()])
"""


@pytest.fixture(scope="module")
def shown_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown")
    (folder / "shown.py").write_text(SHOWN)
    code = (
        "import json\nfrom shown import *\nfrom tagged_vmstate.tablejson import tables_to_json\nMACHINE.save('old.tvm')\n"
        "tv.Machine([Chip(base=1, enabled=0x8001, state=-7, lines=0x82, ports=[16, 18, 17])]).save('new.tvm')\n"
        "json.dump(tables_to_json(MACHINE.entries), open('shown.json', 'w'))\n"
        "@tv.vmstate('old-chip')\nclass Old:\n    address: tv.uint32 = 0x10\ntv.dump(Old(), 'aliased.tvm')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
    return folder


class TestDisplay:
    """Integers as their fields display them, by tables of a module or exported ones."""

    @pytest.fixture(params=["shown:MACHINE", "shown.json"])
    def tables(self, request: pytest.FixtureRequest, shown_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.chdir(shown_folder)
        return str(request.param)

    def test_show(self, tables: str) -> None:
        assert shown("show", "new.tvm", "--tables", tables).splitlines() == [
            "chip#0",
            "├─ base      uint32     0x1",
            "├─ enabled   uint16     0x8001 (bits 0, 15)",
            "├─ state     int8       -7",
            "├─ lines     uint8      TX | 0x80 (0x82)",
            "├─ ports     uint16[3]  0x10, 0x12, 0x11",
            "├─ channels  struct[2]    default",
            "│  ├─ [0]",
            "│  │  └─ mode  uint8  IDLE (0)  default",
            "│  └─ [1]",
            "│     └─ mode  uint8  BUSY (1)  default",
            "└─ plain     uint8      20 (0x14)  default",
            "",
        ]
        assert "bits" not in shown("show", "new.tvm")

    def test_diff(self, tables: str) -> None:
        done = run("diff", "old.tvm", "new.tvm", "--tables", tables)
        assert done.stdout.decode().splitlines() == [
            "  chip#0",
            "  ├─ base  uint32  0x3f8 → 0x1",
            "  ├─ enabled  uint16  0x0 (no bits) → 0x8001 (bits 0, 15)",
            "  ├─ state  int8  BUSY (1) → -7",
            "  ├─ lines  uint8  RX | TX (0x3) → TX | 0x80 (0x82)",
            "  └─ ports  uint16[3]  1 range, 1 element",
            "     [1]  0x10 → 0x12",
        ]
        found = report("diff", "old.tvm", "new.tvm", "--tables", tables, status=1)
        assert (found["differences"][0]["old"], found["differences"][0]["new"]) == (0x3F8, 1)

    def test_other_names_and_tables_that_know_nothing_of_it(self, shown_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(shown_folder)
        assert "address  uint32  0x10  default" in shown("show", "aliased.tvm", "--tables", "shown.json")
        assert shown("show", STREAM, "ps2kbd", "--tables", "shown.json") == shown("show", STREAM, "ps2kbd")
        assert "no `MACHIN`; near it: MACHINE" in refused("diff", "old.tvm", "new.tvm", "--tables", "shown:MACHIN")


class TestCheck:
    def test_a_real_stream_against_two_tables_one_with_a_wrong_type(self, board: Path) -> None:
        assert board.is_dir()
        found = report("check", STREAM, "--against", "newer:MACHINE", status=1)
        assert found["loads"] is False
        rules = {(each["rule"], each["section"], *each["path"]) for each in found["findings"] if each["refuses"]}
        assert ("wrong-type", "ps2kbd#0", "scancode_set") in rules
        assert ("unknown-device", "cpu#0") in rules
        assert ("unknown-field", "mc146818rtc#0", "periodic_timer") in rules
        assert len(rules) > 40
        assert all(each["remedy"] for each in found["findings"])
        text = run("check", STREAM, "--against", "newer:MACHINE").stdout.decode()
        assert (
            "refused  ps2kbd#0/scancode_set  wrong-type\n         expected `int16`, snapshot has `int32`\n         fix: declare"
            in text
        )
        assert text.splitlines()[-1].startswith("cannot be loaded: ")

    def test_what_can_be_loaded(self, board: Path) -> None:
        assert board.is_dir()
        assert report("check", STREAM, "--against", "board:MACHINE", "--unknown", "ignore", status=0)["loads"] is True
        lines = shown("check", STREAM, "--against", "board:make", "--unknown", "keep").splitlines()
        assert lines[-1].startswith("can be loaded: 0 problems, ")
        assert "fine     cpu#0  kept" in lines

    def test_more_findings_than_are_listed(self, board: Path) -> None:
        records = [Record(f"x{number}", "uint8", None, 0, is_default=number < 1_100) for number in range(2_300)]
        with (board / "many.tvm").open("wb") as file, tv.SnapshotWriter(file) as writer:
            writer.write(Section("mc146818rtc", 0, records))
        found = report("check", "many.tvm", "--against", "board:MACHINE", status=1)
        assert (len(found["findings"]), found["more"]) == (2_000, 303)
        lines = run("check", "many.tvm", "--against", "board:MACHINE").stdout.decode().splitlines()
        assert lines[-2:] == ["and 303 more", "cannot be loaded: 1200 problems, 1103 notes"]

    def test_tables_that_were_exported(self, board: Path) -> None:
        shown("tables", "newer:MACHINE", "-o", board / "newer.json")
        first = report("check", STREAM, "--against", "newer:MACHINE", status=1)
        second = report("check", STREAM, "--against", board / "newer.json", status=1)
        for each in (*first["findings"], *second["findings"]):
            each["found"] = each["found"].replace("`Clock`", "`mc146818rtc`")
        assert first == second


RING = """
from typing import Annotated
from annotated_types import Predicate
import tagged_vmstate as tv

def is_even(x): return x % 2 == 0

@tv.vmstate("ring")
class Ring:
    count: tv.uint8 = 0
    even: Annotated[tv.uint8, Predicate(is_even)] = 0
    chip: object = tv.transient(default=None)

    def check(self):
        if self.count > 3: raise ValueError("count too big")

    def post_load(self):
        if self.chip: self.chip.append(self.count)
        if self.count == 2: raise ValueError("no twos")

@tv.vmstate("ring")
class Plain:
    count: tv.uint8 = 0
    even: tv.uint8 = 0

@tv.vmstate("ring")
class Wired(Ring):
    def __init__(self, chip):
        self.chip, self.count, self.even = chip, 0, 0

MACHINE = [Ring]
LIVE = tv.Machine([Ring(chip=[1])])
def make(): return [Wired([1])]
WIRED = [Wired]
"""


class TestHooks:
    """A check refuses what a load refuses; exported tables say what they cannot know."""

    @pytest.fixture(autouse=True)
    def ring(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "ring.py").write_text(RING)
        monkeypatch.chdir(tmp_path)
        for name, count, even in (("good", 1, 2), ("check", 4, 2), ("predicate", 1, 1), ("hook", 2, 2)):
            records = [tv.Record("count", "uint8", None, count), tv.Record("even", "uint8", None, even)]
            with (tmp_path / f"{name}.tvm").open("wb") as file, tv.SnapshotWriter(file) as writer:
                writer.write(tv.Section("ring", 0, records))

    @pytest.mark.parametrize(
        ("machine", "snapshot", "rule"),
        [
            ("MACHINE", "check", "check"),
            ("MACHINE", "hook", "hook"),
            ("LIVE", "predicate", "out-of-range"),
            ("make", "hook", "hook"),
        ],
    )
    def test_against_a_module_all_hooks_run(self, machine: str, snapshot: str, rule: str) -> None:
        found = report("check", f"{snapshot}.tvm", "--against", f"ring:{machine}", status=1)
        assert [each["rule"] for each in found["findings"] if each["refuses"]] == [rule]
        assert not found["loads"]

    def test_against_a_module_that_takes_it_nothing_is_left_open(self) -> None:
        assert shown("check", "good.tvm", "--against", "ring:make") == "can be loaded: 0 problems\n"

    def test_a_class_of_which_no_object_can_be_made_is_named(self) -> None:
        assert "`Wired`, which takes others" in refused("check", "good.tvm", "--against", "ring:WIRED")
        shown("tables", "ring:WIRED")

    def test_exported_tables_say_what_they_lack(self) -> None:
        shown("tables", "ring:MACHINE", "-o", "ring.json")
        found = report("check", "hook.tvm", "--against", "ring.json", status=0)
        assert [(each["kind"], each["class"], each["name"], each["field"]) for each in found["not_in_tables"]] == [
            ("check", "Ring", "check", None),
            ("post_load", "Ring", "post_load", None),
            ("predicate", "Ring", "is_even", "even"),
        ]
        words = "can be loaded as far as these tables say: 1 check, 1 predicate, 1 post_load are not in them\n"
        assert shown("check", "predicate.tvm", "--against", "ring.json") == words
        value = json.loads(Path("ring.json").read_text())
        value["devices"][0].pop("hooks")
        Path("old.json").write_text(json.dumps(value))
        words = "can be loaded as far as these tables say: an earlier release exported them, without its checks and predicates\n"
        assert shown("check", "good.tvm", "--against", "old.json") == words
        Path("wrong.json").write_text(json.dumps({**value, "devices": [{**value["devices"][0], "fields": []}]}))
        assert (
            run("check", "good.tvm", "--against", "wrong.json").stdout.decode().splitlines()[-1] == "cannot be loaded: 2 problems"
        )

    def test_compat_compares_them_by_name(self) -> None:
        shown("tables", "ring:MACHINE", "-o", "ring.json")
        assert shown("compat", "ring.json", "ring:MACHINE").count("0 refused, 0 on a condition, 0 fine") == 2
        found = report("compat", "ring:Plain", "ring.json", status=0)
        assert [(each["rule"], each["condition"]) for each in found["upgrade"]["changes"]] == [
            ("check-added", "the check takes it"),
            ("range-changed", "it is one that meets is_even"),
        ]


class TestCompat:
    def test_tables_of_two_releases(self, board: Path) -> None:
        shown("tables", "board:MACHINE", "-o", board / "old.json")
        found = report("compat", board / "old.json", "newer:MACHINE", status=1)
        assert [each["rule"] for each in found["upgrade"]["changes"]] == ["type-changed"]
        assert found["downgrade"]["refused"] == 1
        assert shown("compat", board / "old.json", "board:MACHINE").count("0 refused, 0 on a condition, 0 fine") == 2
        text = run("compat", "board:MACHINE", "newer:MACHINE").stdout.decode()
        assert (
            "upgrade: NEW loads what OLD saved\n  ps2kbd#0/scancode_set  type-changed\n    refused: written `int32`, read `int16`\n"
            in text
        )

    def test_conditions_count_when_strict(self, board: Path) -> None:
        assert board.is_dir()
        text = shown("compat", "board:make", "board:MACHINE")
        assert "  mc146818rtc#0  device-unknown\n    loads while all of it is at its default: written it, read nothing\n" in text
        assert run("compat", "board:make", "board:MACHINE", "--strict").returncode == 1
        assert run("compat", "board:make", "board:MACHINE", "--strict", "--direction", "upgrade").returncode == 0

    def test_dumps_of_qemu(self, tmp_path: Path) -> None:
        dump = json.loads(lzma.decompress(DUMP.read_bytes()))
        dump["hpet"]["Description"]["Fields"][1]["field"] = "status"
        dump["hpet"]["Description"]["version_id"] = 3
        (tmp_path / "new.json").write_text(json.dumps(dump))
        assert "0 refused, 0 on a condition, 0 fine" in shown("compat", DUMP, DUMP)
        found = report("compat", DUMP, tmp_path / "new.json", status=1)
        assert [each["rule"] for each in found["upgrade"]["changes"]] == ["qemu-field-renamed"]
        assert [each["rule"] for each in found["downgrade"]["changes"]] == ["qemu-version-too-new", "qemu-field-renamed"]
        (tmp_path / "aliases").write_text("# what changed\nhpet/isr=status\n\n")
        for option in (["--alias", "hpet/isr=status"], ["--aliases", tmp_path / "aliases"]):
            found = report("compat", DUMP, tmp_path / "new.json", *option, "--direction", "upgrade", status=0)
            assert found == {"report": "compat", "upgrade": {"refused": 0, "while": 0, "fine": 0, "changes": []}}


def _tables(members: str) -> str:
    return f'{{"format":"tagged-vmstate tables","version":1,"devices":[{{"device": "d", {members}}}]}}'


class TestBadTables:
    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            ("nowhere:MACHINE", "cannot import nowhere: ModuleNotFoundError: No module named 'nowhere'"),
            ("syntax:MACHINE", "cannot import syntax: SyntaxError: "),
            ("broken:MACHINE", "cannot import broken: expected a default: `uint8` (0 to 255), got 300 - at Broken/x"),
            ("board:MACHIN", "board has no `MACHIN`; near it: MACHINE"),
            ("board:number", "board:number: expected a Machine, or classes under @vmstate, got 3"),
            ("board:fails", "board:fails cannot be called: ZeroDivisionError: division by zero"),
            ("nothere.json", "expected module:MACHINE, or tables exported as JSON, got `nothere.json`, which is no file"),
            ("board", "got `board`, which is no file; near it: board:MACHINE, board:PS2, board:Keyboard"),
            ("board.py", "expected module:MACHINE, or tables exported as JSON, got `board.py`; near it: board:MACHINE, "),
            ("board:", "expected module:MACHINE, got `board:`; near it: board:MACHINE, board:PS2, board:Keyboard"),
            (":MACHINE", "expected module:MACHINE, got `:MACHINE`"),
            ("board.py:make", "expected module:MACHINE, got `board.py:make`; near it: board:make"),
            ("./board:MACHINE", "expected module:MACHINE, got `./board:MACHINE`; near it: board:MACHINE"),
            ("boards/pc.py:MACHINE", "expected module:MACHINE, got `boards/pc.py:MACHINE`; near it: boards.pc:MACHINE"),
            ("..board:MACHINE", "expected module:MACHINE, got `..board:MACHINE`"),
            ("board:nothing", "board has no `nothing`; near it: MACHINE, PS2, Keyboard"),
            ("exits:MACHINE", "cannot import exits: SystemExit: no screen"),
            ("board:exits", "board:exits cannot be called: SystemExit"),
            (
                STREAM,
                "expected tables as JSON, or module:MACHINE, found a QEMU migration stream, which `check STREAM --against DUMP` takes",
            ),
        ],
    )
    def test_one_sentence(self, board: Path, spec: object, words: str) -> None:
        assert board.is_dir()
        assert words in refused("check", STREAM, "--against", spec)

    def test_a_dump_of_qemu_names_no_types(self) -> None:
        assert "a dump of QEMU's knows no names and types" in refused("show", STREAM, "--tables", DUMP)

    def test_of_another_version(self, tmp_path: Path) -> None:
        (tmp_path / "tables.json").write_text('{"format": "tagged-vmstate tables", "version": 9, "devices": []}')
        words = "expected tables of version 1, JSON has version 9: a later build of this package reads it - at line 1, byte 0"
        assert words in refused("check", STREAM, "--against", tmp_path / "tables.json")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{", "found no JSON (expected tables, JSON has nothing more (truncated) - at line 1, byte 1)"),
            ('{"format": 1, "format": 2}', "the key 'format' twice in one object"),
            ("[" * 100_000, "found no JSON (expected tables, JSON has "),
            ('{"version": NaN}', "NaN, which JSON lacks"),
            (
                _tables('"fields": [], "instances": [[]]'),
                '"instances" as a JSON array of integers, JSON has [[]] - at d (line 1, byte 57)',
            ),
            (_tables('"fields": [{"name": "a", "type": "buffer", "length": -1}]'), "JSON has -1 - at d/a (line 1, byte 84)"),
            ('{"vmschkmachine": {"Name": 3}}', '"Name" as a JSON string, as -dump-vmstate writes it, JSON has 3'),
        ],
    )
    def test_what_is_in_a_file_is_named(self, tmp_path: Path, text: str, words: str) -> None:
        path = tmp_path / "tables.json"
        path.write_text(text)
        assert words in refused("compat", path, path)
        assert str(path) in refused("check", STREAM, "--against", path)

    def test_that_are_of_two_kinds(self, board: Path) -> None:
        assert board.is_dir()
        assert "compare two of one kind" in refused("compat", DUMP, "board:MACHINE")

    def test_aliases_that_are_none(self) -> None:
        done = run("compat", DUMP, DUMP, "--alias", "x")
        assert done.returncode == 2
        assert b"expected PATH=NAME, not `x`" in done.stderr
        assert "nothere: No such file or directory" in refused("compat", DUMP, DUMP, "--aliases", "nothere")


class TestDiff:
    def test_a_machine_against_itself_at_reset(self) -> None:
        done = run("diff", STREAM, RESET)
        assert (done.returncode, done.stderr) == (1, b"")
        text = done.stdout.decode()
        assert "  cpu#0\n  └─ env.eip  uint64  65521 → 65520\n" in text
        assert "     0x0..0x8  72 75 6e 6e 69 6e 67 00 00 → 70 72 65 6c 61 75 6e 63 68\n" in text
        found = report("diff", STREAM, RESET, status=1)
        assert {(each["device"], *each["path"]) for each in found["differences"]} >= {
            ("cpu", "env.eip"),
            ("timer", "cpu_clock_offset"),
        }

    def test_the_same_in_all_forms(self, tmp_path: Path) -> None:
        shown("import", STREAM, "-o", tmp_path / "a.tvm")
        shown("to-json", STREAM, "-o", tmp_path / "a.json")
        assert shown("diff", STREAM, tmp_path / "a.tvm") == shown("diff", tmp_path / "a.json", tmp_path / "a.tvm") == ""
        assert shown("diff", "-", STREAM, given=(tmp_path / "a.tvm").read_bytes()) == ""
        assert report("diff", STREAM, STREAM, status=0)["same"] is True

    def test_ignore_and_max(self) -> None:
        globs = ["timer", "cpu*", "i8259#0", "**/*next*", "mc146818rtc/cmos_data", "globalstate/*"]
        text = run("diff", STREAM, RESET, *(part for glob in globs for part in ("--ignore", glob))).stdout.decode()
        assert text.split() == [
            *("mc146818rtc#0", "├─", "base_rtc", "uint64", *text.split()[4:7]),
            *("├─", "last_update", "uint64", *text.split()[10:13]),
            *("└─", "update_timer", "timer", *text.split()[16:19]),
        ]
        assert run("diff", STREAM, RESET, "--max", "1").stdout.decode().splitlines()[-1] == "… 15 more differences"
        assert report("diff", STREAM, RESET, "--max", "0", status=1)["cut"] == 16

    def test_two_standard_inputs(self) -> None:
        done = run("diff", "-", "-")
        assert done.returncode == 2
        assert b"only one of the two can be standard input" in done.stderr


class TestSet:
    def test_one_register(self, tmp_path: Path) -> None:
        shown("import", STREAM, "-o", tmp_path / "a.tvm")
        shown("set", tmp_path / "a.tvm", "ps2kbd", "scancode_set", "3", "-o", tmp_path / "b.tvm")
        done = run("diff", tmp_path / "a.tvm", tmp_path / "b.tvm")
        assert done.stdout.decode() == "  ps2kbd#0\n  └─ scancode_set  int32  2 → 3\n"
        before, after = (tmp_path / "a.tvm").read_bytes(), (tmp_path / "b.tvm").read_bytes()
        assert len(before) == len(after)
        assert sum(ours != theirs for ours, theirs in zip(before, after, strict=True)) <= 1 + 4 + 4
        shown("set", tmp_path / "b.tvm", "ps2kbd", "scancode_set", "2", "-o", tmp_path / "b.tvm")
        assert (tmp_path / "b.tvm").read_bytes() == before

    @pytest.mark.parametrize(
        ("device", "field", "value", "line"),
        [
            ("ps2kbd", "parent_obj/queue.data[4]", "1c f0", "parent_obj/queue.data  buffer[256]  1 range, 2 bytes"),
            ("i8254", "channels[0]/count", "0x10", "channels[0]/count  int32  65536 → 16"),
            ("cpu#0", "env.regs[2]", "7", "env.regs  uint64[16]  1 range, 1 element"),
            ("ps2kbd", "translate", "-1", "translate  int32  0 → -1"),
            ("configuration", "name", "pc", 'name  string  "pc-i440fx-7.2" → "pc"'),
            ("ram", "pc.ram[0x7c00]", "eb fe", "pc.ram  sparse[2097152]  1 range, 2 bytes"),
            ("0000:00:00.0/I440FX", "parent_obj/config[0][1]", "ff", 'parent_obj/"config[0]"  pci config[256]  1 range, 1 byte'),
        ],
    )
    def test_every_kind(self, tmp_path: Path, device: str, field: str, value: str, line: str) -> None:
        shown("set", STREAM, device, field, "-o", tmp_path / "b.tvm", "--", value)
        assert line in run("diff", STREAM, tmp_path / "b.tvm").stdout.decode()

    def test_bytes_from_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "boot").write_bytes(b"boot")
        shown("set", STREAM, "ram", "pc.ram[0x10]", f"@{tmp_path / 'boot'}", "-o", tmp_path / "b.tvm")
        assert "0x10..0x13  00 x4 → 62 6f 6f 74" in run("diff", STREAM, tmp_path / "b.tvm").stdout.decode()

    @pytest.mark.parametrize(
        ("device", "field", "value", "words"),
        [
            ("ps2kb", "scancode_set", "3", "no device `ps2kb/scancode_set`; near it: ps2kbd#0"),
            ("ps2kbd", "scancode", "3", "no field `ps2kbd/scancode`; near it: ps2kbd#0/scancode_set"),
            ("dma", "regs", "3", "`dma/regs` names 2 fields: name one of dma#0/regs, dma#1/regs"),
            (
                "ps2kbd",
                "scancode_set",
                "99999999999",
                "expected `int32` (-2147483648 to 2147483647), got 99999999999 - at ps2kbd#0/scancode_set",
            ),
            ("ps2kbd", "scancode_set", "three", "expected `int32`, got 'three' - at ps2kbd#0/scancode_set"),
            ("ps2kbd", "scancode_set[0]", "3", "expected no index: it is a single value, got [0]"),
            ("ps2kbd", "parent_obj", "3", "expected a field of the struct, such as FIELD/name, got `struct`"),
            (
                "ps2kbd",
                "parent_obj/queue.data",
                "zz",
                "expected bytes in hex, or @FILE, got 'zz' - at ps2kbd#0/parent_obj/queue.data",
            ),
            ("ps2kbd", "parent_obj/queue.data", "00", "expected `buffer[256]`, got 1 bytes"),
            ("ps2kbd", "parent_obj/queue.data[255]", "0000", "expected bytes inside `buffer[256]`, got 2 at 255"),
            ("ps2kbd", "parent_obj/queue.data", "@nothere", "nothere: No such file or directory"),
            ("cpu", "env.regs[16]", "1", "expected an index of `uint64[16]`, got [16]"),
            ("cpu", "env.regs", "[1]", "expected `uint64[16]`, got 1 elements - at cpu#0/env.regs"),
            ("cpu", "env.regs", "one", "expected a JSON list, such as [1, 2, 3], got 'one'"),
            ("ram", "pc.ram[0x1fffff]", "0000", "expected bytes inside `sparse[2097152]`, got 2 at 2097151"),
        ],
    )
    def test_one_sentence_for_what_does_not_fit(self, tmp_path: Path, device: str, field: str, value: str, words: str) -> None:
        assert words in refused("set", STREAM, device, field, value, "-o", tmp_path / "b.tvm")
        assert not (tmp_path / "b.tvm").exists()

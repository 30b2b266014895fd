"""The fuzzer finds what is planted, and nothing in the readers; what Hypothesis makes of a table fits it."""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Annotated, Any

import pytest
from annotated_types import Le
from conftest import DATA, stream_bytes
from hypothesis import given
from hypothesis import strategies as st
from picture import ROOT
from test_command import run
from typing_example import Everything, More
from typing_extensions import override

import tagged_vmstate as tv
from tagged_vmstate import Length, Table
from tagged_vmstate.devices import Entry
from tagged_vmstate.errors import VMStateError
from tagged_vmstate.fuzz import Defect, Devices, Dumps, Json, Limits, Snapshots, Streams, Tables, Target, fuzz
from tagged_vmstate.fuzz.mutate import changed_snapshot
from tagged_vmstate.fuzz.mutate_json import changed_json
from tagged_vmstate.fuzz.strategies import snapshots, states, tables
from tagged_vmstate.fuzz.targets import kind_of
from tagged_vmstate.tablejson import tables_to_json

[BOARD] = re.findall(r"`board.py`:\n\n```python\n(.*?)```", (ROOT / "docs" / "fuzzing.md").read_text(), re.DOTALL)
"""The device of the page, whose bug it says is found."""
EXPORTED = json.dumps(tables_to_json(tv.Machine([Everything(required=1), (More(required=2), 3)]).entries)).encode()
_DUMP = json.loads(lzma.decompress((DATA / "pc-qemu7.2.vmstate.json.xz").read_bytes()))
DUMPED = json.dumps({name: _DUMP[name] for name in ("vmschkmachine", "hpet", "i8042", "isa-serial", "mc146818rtc")}).encode()
"""Some devices of a real dump: with all of them, hardly an input a second would run."""


READERS: list[Target] = [Snapshots(), Json(), Streams(), Tables(), Dumps()]


@pytest.mark.parametrize("target", READERS, ids=lambda target: str(target.name))
def test_the_readers_keep_their_promise(target: Target) -> None:
    outcome = fuzz(target, Limits(runs=1500), seed=7)
    assert list(outcome.findings) == []
    assert outcome.runs == 1500
    assert 20 < len(outcome.behaviours) < 150, "mutations reach many places, and names make no new ones"


@pytest.mark.long
@pytest.mark.parametrize(
    "target",
    [Streams([stream_bytes("isapc-qemu7.2")]), Tables([EXPORTED]), Dumps([DUMPED])],
    ids=["isapc", "exported tables", "a real dump"],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_so_they_do_with_inputs_of_real_machines(target: Target, seed: int) -> None:
    outcome = fuzz(target, Limits(seconds=5), seed=seed)
    assert list(outcome.findings) == []
    assert outcome.runs > 50


@pytest.mark.long
def test_a_planted_bug_is_found_made_small_and_shown_without_the_harness(tmp_path: Path) -> None:
    (tmp_path / "board.py").write_text(BOARD)
    done = subprocess.run(
        [sys.executable, "-m", "tagged_vmstate", "fuzz", "board:MACHINE", "--runs", "5000", "--corpus", "corpus"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "finding: IndexError" in done.stderr
    [finding] = (tmp_path / "findings").glob("*.tvm")
    [record] = next(iter(tv.Snapshot.read(finding.read_bytes()))).records()
    assert record.name == "head", "all else was taken away"
    line = finding.with_suffix(".txt").read_text().splitlines()[1]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    shown = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "IndexError" in shown.stderr
    assert len(list((tmp_path / "corpus").iterdir())) > 5


@pytest.mark.long
def test_atheris_finds_it_too_and_it_is_saved_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "board.py").write_text(BOARD)
    line = [sys.executable, "-m", "tagged_vmstate", "fuzz", "board:MACHINE", "--engine", "atheris", "--corpus", "corpus"]
    done = subprocess.run([*line, "--runs", "8000"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "board:MACHINE: 8000 runs" in done.stdout
    assert "finding: IndexError" in done.stderr
    [finding] = (tmp_path / "findings").glob("*.tvm")
    [record] = next(iter(tv.Snapshot.read(finding.read_bytes()))).records()
    assert record.name == "head", "all else was taken away"
    assert finding.with_suffix(".txt").read_text().splitlines()[1].startswith('python -c "import board')
    corpus = list((tmp_path / "corpus").iterdir())
    assert len(corpus) > 5
    other = [*line[:4], "json", "--engine", "atheris", "--runs", "300", "--findings", "none"]
    clean = subprocess.run(other, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert clean.returncode == 0, clean.stderr
    assert "json: 300 runs" in clean.stdout
    assert not (tmp_path / "none").exists()


JSON_TEXT = b'{"a": [1, "text", true, null], "b": {"c": {"d": 0.5}}, "n": 7}'


def test_json_is_changed_by_its_structure() -> None:
    random = Random(1)
    made = [changed_json(JSON_TEXT, random) for _ in range(3000)]
    found = set()
    for text in made:
        try:
            found.add(type(json.loads(text)).__name__)
        except (ValueError, RecursionError):
            found.add("no JSON")
    assert found >= {"dict", "list", "str", "int", "bool", "NoneType", "no JSON"}, "anything can take the place of anything"
    for words in (b"\\ud800", b'"a": [1, "text", true, null], "a": [1', b'"c": {"d"', b"NaN", b"18446744073709551616", b"-1"):
        assert any(words in text for text in made), words
    assert changed_json(JSON_TEXT, Random(4)) == changed_json(JSON_TEXT, Random(4)), "the same seed makes the same"
    assert max(map(len, made)) < 30_000, "no value grows from one change to the next"


@pytest.mark.long
@pytest.mark.parametrize("target", ["tables", "dump"])
def test_a_planted_bug_of_a_reader_is_shown_by_its_line(target: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import tagged_vmstate.qemu.dumpstate as dump, tagged_vmstate.compat as tables\n"
        "def broken(*_): raise KeyError('planted')\n"
        "dump.compare = tables.compare = broken\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    line = [sys.executable, "-m", "tagged_vmstate", "fuzz", target, "--runs", "1"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "finding: KeyError" in done.stderr
    [text] = (tmp_path / "findings").glob("*.txt")
    shown = subprocess.run(
        text.read_text().splitlines()[1], shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "KeyError: 'planted'" in shown.stderr
    environment.pop("PYTHONPATH")
    clean = subprocess.run(text.read_text().splitlines()[1], shell=True, cwd=tmp_path, env=environment, check=False)
    assert clean.returncode == 0, "only while the bug is there"


def test_one_error_is_one_behaviour_whatever_it_quotes() -> None:
    kinds = {
        kind_of(tv.FormatError(f"`section` or `part` of {number} bytes", found, offset=number))
        for number, found in enumerate(("`a`", "`a`b`", "{'a': 1}", "{'a: 1", "'it's'", '"x', "dev`#3", "17"))
    }
    assert kinds == {"FormatError _ of _ bytes / _"}


def test_the_same_seed_runs_the_same_inputs() -> None:
    first, second = (fuzz(Snapshots(), Limits(runs=500), seed=3) for _ in range(2))
    assert first.behaviours == second.behaviours
    assert first.corpus == second.corpus
    assert fuzz(Snapshots(), Limits(runs=500), seed=4).corpus != first.corpus


class _Broken(Target):
    """Takes bytes in ways of its own."""

    name = "broken"
    suffix = ".bin"

    def __init__(self, found: Exception | None) -> None:
        self._found = found

    def seeds(self) -> list[bytes]:
        return [b"good"]

    def run(self, data: bytes) -> str:
        if data != b"good":
            if self._found is None:
                while True:
                    pass
            raise self._found
        return "good"

    @override
    def reproducer(self, path: str) -> str:
        return ""


@pytest.mark.parametrize("found", [KeyError("x"), RecursionError(), MemoryError(), Defect("otherwise"), None])
def test_whatever_is_no_error_of_ours_is_a_finding(found: Exception | None) -> None:
    outcome = fuzz(_Broken(found), Limits(seconds=20, findings=1))
    assert len(outcome.findings) == 1
    assert outcome.first is not None


def test_a_hook_that_refuses_is_no_finding() -> None:
    def refuse(_state: Any) -> None:
        raise ValueError("not so")

    table = Table("t", [tv.Field("a", tv.uint8, default=0)], post_load=refuse)
    assert fuzz(Devices([Entry(table, 0, None)], "t"), Limits(runs=300)).findings == {}


SHARED = """
import tagged_vmstate as tv

class Bus: pass

@tv.vmstate("a")
class A:
    v: tv.uint8 = 0
    bus: object = tv.transient(default=None)
    def post_load(self): self.bus.v = self.v

@tv.vmstate("b")
class B:
    w: tv.uint8 = 0
    bus: object = tv.transient(default=None)
    def post_load(self):
        assert self.bus.v is not None, "A is loaded first"
        self.bus.v = None

def make():
    bus = Bus()
    bus.v = None
    return tv.Machine([A(bus=bus), B(bus=bus)])

LIST = list(entry.state for entry in make().entries)

LOADS = []

@tv.vmstate("c")
class C:
    x: tv.uint8 = 0
    def post_load(self):
        LOADS.append(self)
        if len(LOADS) > 40: raise KeyError("once too often")

CLASS = C
HELD = [A(bus=open(__file__))]
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared.py").write_text(SHARED)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("machine", ["make", "LIST"])
def test_what_devices_share_is_shared_in_each_run(machine: str) -> None:
    done = run("fuzz", f"shared:{machine}", "--runs", "300")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"0 findings" in done.stdout


@pytest.mark.usefixtures("shared")
def test_a_finding_that_its_reproducer_does_not_show_is_none_and_is_reported() -> None:
    done = run("fuzz", "shared:CLASS", "--runs", "3000")
    assert done.returncode == 0
    said = done.stderr.decode()
    assert "not shown by its reproducer, so perhaps left over from an earlier run: KeyError _ in shared.py:post_load\n" in said
    assert "finding:" not in said
    [text] = Path("findings").glob("*.txt")
    assert text.read_text().splitlines()[2].startswith("Run on its own, this line does not show it")


@pytest.mark.usefixtures("shared")
def test_a_machine_that_cannot_be_copied_needs_a_function() -> None:
    done = run("fuzz", "shared:HELD", "--runs", "10")
    assert done.returncode == 2
    assert b"shared:HELD cannot be copied (TypeError: " in done.stderr
    assert b"name a function that makes the machine; it is called for each run" in done.stderr


@pytest.mark.parametrize("target", [Snapshots(), Json(), Streams()], ids=lambda target: str(target.name))
def test_a_reproducer_does_what_a_run_does(target: Target, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    [data] = target.seeds()
    for each, is_good in ((data, True), (data[:-9], False)):
        path = tmp_path / f"input{target.suffix}"
        path.write_bytes(each)
        line = target.reproducer(str(path))
        done = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is is_good, done.stderr


def test_several_processes_share_the_folders(tmp_path: Path) -> None:
    options = ("--runs", "600", "--jobs", "2", "--corpus", tmp_path / "corpus", "--findings", tmp_path / "findings")
    done = run("fuzz", "snapshot", *options)
    assert done.returncode == 0, done.stderr
    assert b"snapshot: 600 runs" in done.stdout
    assert list((tmp_path / "corpus").iterdir())
    assert not (tmp_path / "findings").exists()


def test_what_a_person_may_get_wrong(tmp_path: Path) -> None:
    (tmp_path / "board.py").write_text(
        "import tagged_vmstate as tv\n@tv.vmstate\nclass Dev:\n    n: tv.uint8 = 0\nMACHINE = [Dev]\n"
    )
    for arguments, words in (
        (("nowhere",), "expected module:MACHINE, or one of snapshot, json, stream, tables, dump, got `nowhere`"),
        (("nowhere:",), "expected module:MACHINE, or one of snapshot, json, stream, tables, dump, got `nowhere:`"),
        (("board",), "tables, dump, got `board`; near it: board:Dev, board:MACHINE"),
        (("board.py",), "tables, dump, got `board.py`; near it: board:Dev, board:MACHINE"),
        (
            ("snapshot", "--runs", "9" * 5000),
            "'--runs': '99999999999999999999999999999999999999999999999999999999... is too long for",
        ),
        (("tests.nowhere:X",), "cannot import"),
        (("snapshot", "--corpus", __file__), "is a file"),
        (("snapshot", "--engine", "atheris", "--jobs", "2"), "runs in one process"),
    ):
        done = run("fuzz", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert words in done.stderr.decode()
        assert "Traceback" not in done.stderr.decode()


@given(st.data())
def test_states_and_snapshots_of_any_table_load(data: st.DataObject) -> None:
    table = data.draw(tables())
    state = data.draw(states(table))
    snapshot = data.draw(snapshots([tv.Device(state, 3, table)]))
    machine = tv.Machine([tv.Device(table.make({field.attribute: field.make_default() for field in table.fields}), 3, table)])
    machine.load(snapshot)
    again = io.BytesIO()
    machine.save(again)
    assert again.getvalue() == snapshot
    with contextlib.suppress(VMStateError):
        machine.load(changed_snapshot(snapshot, Random(data.draw(st.integers(0, 99)))))


@tv.vmstate("bounded")
class Bounded:
    count: Annotated[tv.uint32, Le(4)] = 0
    data: Annotated[bytes, Length(4)] = bytes(4)


@given(snapshots([Bounded()]))
def test_states_are_within_their_bounds(snapshot: bytes) -> None:
    assert tv.loads(snapshot, Bounded).count <= 4
    tv.Machine([Bounded()]).save(io.BytesIO())

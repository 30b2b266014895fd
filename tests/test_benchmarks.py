"""The benchmarks measure what they say, and every contestant that is installed gives back what it was given."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import tagged_vmstate
from benchmarks import workload
from benchmarks.cases import CASES
from benchmarks.classes import dataclass_of
from benchmarks.contestants import CONTESTANTS, OURS, PICKLE, Codec, Contestant
from benchmarks.errors import BenchmarkError
from benchmarks.lineup import absent, verified
from benchmarks.measure import Figure
from benchmarks.report import BEGIN, END
from benchmarks.shapes import Shape, make
from benchmarks.workload import Workload

ROOT = Path(__file__).parent.parent
INSTALLED = [each for each in CONTESTANTS.values() if each.missing() is None]
STATES = {"machine": workload.machine(), "device": workload.device()}
ROUND_TRIPS = [
    pytest.param(made, each, id=f"{kind} {each.name}")
    for each in INSTALLED
    for kind, made in {**STATES, **{holder: workload.block(holder, 64) for holder in each.holders}}.items()
]


def test_the_machine_is_the_one_that_the_page_tells_of() -> None:
    machine = workload.machine()
    leaves = [leaf for device in machine.shape.fields if device.struct for leaf in device.struct.leaves()]
    kinds = Counter(leaf.kind for leaf in leaves)
    assert len(machine.shape.fields) == 32
    assert len(leaves) == machine.shape.count() == 1289
    assert {kind: round(100 * kinds[kind] / 1289) for kind in ("uint32", "uint8")} == {"uint32": 46, "uint8": 17}
    assert {round(100 * kinds[kind] / 1289) for kind in ("uint64", "int32", "uint16", "int64", "bool")} == {5}
    assert (kinds["struct"], kinds["buffer"]) == (143, 11)
    assert len(machine.shape.shapes()) == 1 + 32 + 53
    assert all(4 <= len(leaf.name) <= 21 for leaf in leaves)
    assert all(64 <= (leaf.length or 0) <= 4096 for leaf in leaves if leaf.kind == "buffer")


def test_the_workloads_are_the_same_every_time() -> None:
    assert workload.machine() == workload.machine()
    assert workload.device() == workload.device()
    assert workload.device().shape.count() == 50
    shape, missing = workload.foreign(workload.device().shape)
    names, own = {field.name for field in shape.fields}, {field.name for field in workload.device().shape.fields}
    assert (len(own - names), len(names - own)) == (2, 1)
    assert own - names == missing


@pytest.mark.parametrize(("made", "contestant"), ROUND_TRIPS)
def test_a_contestant_gives_back_what_it_was_given(made: Workload, contestant: Contestant) -> None:
    [entrant] = verified([contestant], made)
    assert entrant.data


def test_a_contestant_that_gives_back_something_else_is_told_of() -> None:
    def forgetful(shape: Shape) -> Codec:
        return replace(CONTESTANTS[PICKLE].codec(shape), decode=lambda _data: make(dataclass_of(shape), shape, other))

    made = workload.block("list", 4)
    other = {"data": [0, 0, 0, 0]}
    with pytest.raises(BenchmarkError, match=r"^forgetful gives back another Block than it was given$"):
        list(verified([Contestant("forgetful", forgetful)], made))


def test_what_is_not_installed_is_named() -> None:
    missing = Contestant("none such", lambda shape: shape, {"no_such_module": "no-such-package"})
    assert absent([missing, CONTESTANTS[OURS]]) == ("Not measured: none such, because no-such-package is not installed.",)
    assert [*verified([missing], workload.device())] == []


def test_an_unknown_case_is_told_in_one_sentence() -> None:
    done = benchmarks("--only", "snapshot,nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"benchmarks: argument --only: no case `nonsense`; there are {', '.join(CASES)}; see python -m benchmarks --help\n"
    )


def test_a_page_without_a_place_for_results_is_told_in_one_sentence(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n")
    done = benchmarks("--only", "foreign", "--quick", "--write", str(page))
    assert done.returncode == 2
    assert f"benchmarks: {page} has no place for results" in done.stderr
    assert page.read_text() == "# A page\n"


def test_a_case_is_measured_and_told_in_every_form(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "bench.svg"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    done = benchmarks("--only", "foreign", "--quick", "--json", "-", "--plot", str(picture), "--write", str(page))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    [table] = found["tables"]
    figure = table["rows"][0]["figures"]["foreign layout"]
    assert (table["rows"][0]["who"], table["unit"]) == (OURS, "µs")
    assert 0 < figure["minimum"] <= figure["median"]
    assert figure["minimum"] == pytest.approx(min(figure["samples"]) * 1e6)
    assert found["host"]["versions"]["tagged-vmstate"] == tagged_vmstate.__version__
    assert picture.read_text().startswith("<svg ")
    assert OURS in picture.read_text()
    assert re.fullmatch(rf"before\n{BEGIN}\n.*\| {OURS} .*\n{END}\nafter\n", page.read_text(), re.DOTALL)
    assert "old" not in page.read_text()


def test_a_ratio_is_taken_within_a_round() -> None:
    assert Figure.ratio((2.0, 30.0, 4.0), (1.0, 10.0, 2.0)) == Figure(minimum=2.0, median=2.0)


def test_the_page_has_a_table_of_each_usual_case() -> None:
    page = (ROOT / "docs/performance.md").read_text()
    _, found, rest = page.partition(BEGIN)
    assert found
    figures = rest.partition(END)[0]
    assert re.search(r"^\d{4}-\d\d-\d\d, CPython", figures, re.MULTILINE)
    assert figures.count("\n### ") >= sum(case.is_usual for case in CASES.values())


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

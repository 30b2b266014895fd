"""Imports run one way: each room may import only what lies below it."""

from __future__ import annotations

import ast
from pathlib import Path

import tagged_vmstate

PACKAGE = Path(tagged_vmstate.__file__).parent

# From the ground up; a room may import any room of a line above its own.
FLOORS = [
    {"text", "foreign"},
    {"version", "paths", "sums", "straight"},
    {"errors"},
    {"wire", "files", "template", "qemu.qmp"},
    {"wiretype", "compression", "qemu.migration"},
    {"blocks"},
    {"types"},
    {"records"},
    {"frames"},
    {"sections", "salvage"},
    {"snapshot", "skeleton", "qemu.ram"},
    {"overview"},
    {"qemu.padding"},
    {"memory", "defaults", "diff", "edit", "changes", "qemu.stream", "qemu.libvirt"},
    {"jsonform", "qemu.vmdesc", "qemu.savevm", "qemu.turns"},
    {"qemu.pointers", "qemu.encode", "qemu.differences"},
    {"qemu.decode", "qemu.dumpstate", "qemu.keyed"},
    {"qemu.bridge"},
    {"qemu.export", "qemu.describe"},
    {"qemu.ramblocks", "qemu.subsections", "qemu.reset", "qemu.capture", "qemu.against"},
    {"qemu.like"},
    {"sources", "forms"},
    {"fieldtype", "rules"},
    {"annotations"},
    {"table"},
    {"declare", "codec", "assign", "devices"},
    {"tablejson", "legacy", "shape", "hooks"},
    {"layout", "saver"},
    {"prepared"},
    {"plan"},
    {"untagged"},
    {"interpreted"},
    {"incoming"},
    {"machine", "compat"},
    {"fuzz.mutate"},
    {"fuzz.mutate_json"},
    {"fuzz.targets"},
    {"fuzz.engine", "fuzz.strategies"},
    {"fuzz.coverage"},
    {"cli.streams"},
    {"cli.messages", "cli.numbers"},
    {"cli.render", "cli.main", "cli.textdiff"},
    {"cli.files"},
    {"cli.modules", "cli.paths", "cli.ci", "cli.complete"},
    {"cli.looks"},
    {"cli.inspect", "cli.convert", "cli.shell", "cli.tables", "cli.diff", "cli.set", "cli.qemu", "cli.fuzz"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# What needs no table must never see one: "self-describing" is a fact of this graph. The rooms of tables go here.
TABLES = {
    "tablejson",
    "annotations",
    "fieldtype",
    "rules",
    "table",
    "declare",
    "codec",
    "shape",
    "hooks",
    "layout",
    "saver",
    "prepared",
    "plan",
    "assign",
    "devices",
    "legacy",
    "untagged",
    "interpreted",
    "incoming",
    "machine",
}
SEES_NO_TABLE = {
    "paths",
    "records",
    "skeleton",
    "straight",
    "text",
    "template",
    "salvage",
    "sections",
    "snapshot",
    "jsonform",
    "memory",
    "defaults",
    "changes",
    "diff",
    "edit",
    "sources",
    "forms",
    "foreign",
    "overview",
    *(room for room in FLOOR if room.startswith("qemu.")),
}


def _rooms() -> dict[str, set[str]]:
    """Each module and the modules of the package that it imports, wherever the import stands."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        room = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if path.name in {"__init__.py", "__main__.py"}:
            continue
        found[room] = {name for node in ast.walk(ast.parse(path.read_text())) for name in _imported(node)}
    return found


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        names = {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "relative imports hide arrows"
        names = {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    else:
        return set()
    own = {name.removeprefix("tagged_vmstate.") for name in names if name.startswith("tagged_vmstate.")}
    return {name for name in own if name in FLOOR}


def test_every_room_has_its_floor() -> None:
    assert set(_rooms()) == set(FLOOR)


def test_imports_run_one_way() -> None:
    arrows = [(room, other) for room, others in _rooms().items() for other in others if FLOOR[other] >= FLOOR[room]]
    assert arrows == []


def test_self_describing_is_a_fact_of_the_graph() -> None:
    rooms = _rooms()
    assert [(room, other) for room in SEES_NO_TABLE for other in rooms[room] if other in TABLES] == []


def test_the_everyday_names_are_there_and_no_others() -> None:
    for name in tagged_vmstate.__all__:
        assert getattr(tagged_vmstate, name) is not None
    assert set(dir(tagged_vmstate)) == set(tagged_vmstate.__all__)
    homes = {name for names in tagged_vmstate._ROOMS.values() for name in names}  # noqa: SLF001  # kept in step here
    assert homes | {"__version__"} == set(tagged_vmstate.__all__)

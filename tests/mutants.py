"""Mutants of what reads bytes: row 30 of docs/reliability.md.

    python tests/mutants.py [--every N] [ROOM ...]

One thing in the source is changed (a comparison, a number, a condition, a `raise` taken out), and tests must fail. Each mutant
runs in a fork of this process, which has loaded all but the package itself: so a thousand take minutes. Of the known tools,
mutmut leaves out what has a decorator, which here is every method of a wire type, and cosmic-ray starts a process for each.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any, Final

from arguments import Arguments, one_of

ROOT: Final = Path(__file__).parent.parent
ROOMS: Final = ("wire", "wiretype", "blocks", "types", "records", "frames", "snapshot")
SUITE: Final = (
    "test_types.py",
    "test_golden.py",
    "test_snapshot.py",
    "test_json_form.py",
    "test_machine.py",
    "test_tables.py",
    "test_loader.py",
    "test_untagged.py",
    "test_qemu_streams.py",
)
"""From the quickest to the slowest."""
SLOW: Final = "real_machines or generated or thousand_fields or every_snapshot or another_layout or again_byte_for_byte or every_flipped or three_devices"
"""Tests that would take a mutant a second and more; others must find it."""
LOADED: Final = (
    "pytest",
    "hypothesis",
    "hypothesis.strategies",
    "msgpack",
    "msgspec",
    "numpy",
    "jsonschema",
    "annotated_types",
    "click",
    "rich",
)
SECONDS: Final = 12
MEMORY: Final = 4 << 30

COMPARED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip

_BIG_ENDIAN: Final = "is reached on big-endian hosts only"
_SPEED: Final = "how much is read or written at once is no promise"
_FILLED: Final = "stands for what is filled in later"
_ANY: Final = "any such number will do"
ALIKE: Final = {
    "blocks.BlockType.one_by_one: 1 -> 2": _BIG_ENDIAN,
    "blocks.swapped: 1 -> 2": _BIG_ENDIAN,
    "frames: 320 -> 321": _SPEED,
    "frames.Order.end: 0 -> 1": _FILLED,
    "snapshot: 4 -> 3": _SPEED,
    "snapshot: 4 -> 5": _SPEED,
    "snapshot: 20 -> 19": _SPEED,
    "snapshot: 20 -> 21": _SPEED,
    "snapshot.Snapshot._check_end: 1 -> 2": "one more byte is looked at, to no end",
    "snapshot.Snapshot._head: 1 -> 2": _SPEED,
    "snapshot.Snapshot._head: 12 -> 11": _SPEED,
    "snapshot.Snapshot._head: 12 -> 13": _SPEED,
    "snapshot.Snapshot._head: 8 -> 7": _SPEED,
    "snapshot.Snapshot._head: 8 -> 9": _SPEED,
    "snapshot.SnapshotWriter.__init__: 0 -> 1": _ANY,
    "snapshot.SnapshotWriter._check_names: 1 -> 2": _ANY,
    "snapshot.SnapshotWriter.write: 0 -> 1": _FILLED,
    "types.SparseType.pack: 1 -> 2": "before the first run, any negative place is as good as -1",
    "types.SparseType.unpack: 1 -> 2": "before the first run, any negative place is as good as -1",
    "blocks.taken: if isinstance(value, bytes) -> if not isinstance(value, bytes)": "bytes are as good as a view of them",
    "wire: 12 -> 11": _SPEED,
    "wire.gathered: not is_small -> is_small": _SPEED,
}
"""Mutants that no test can tell from the original, or only by what is no promise: why."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed module.

    Attributes:
        room: Which.
        what: The function, the line, and what became of it.
        code: The module.
    """

    room: str
    what: str
    code: CodeType


def mutants(room: str) -> Iterator[Mutant]:
    """A module as it is, then all its mutants."""
    path = ROOT / "tagged_vmstate" / f"{room}.py"
    tree = ast.parse(path.read_text())
    yield Mutant(room, "as it is", compile(tree, str(path), "exec"))
    for where, put, node in [*_nodes(tree, ())]:
        for other in _others(node):
            put(ast.copy_location(other, node))
            code = compile(ast.fix_missing_locations(tree), str(path), "exec")
            yield Mutant(room, f"{'.'.join((room, *where))}: {_told(node)} -> {_told(other)}", code)
        put(node)


def _told(node: ast.AST) -> str:
    text = f"if {ast.unparse(node.test)}" if isinstance(node, ast.If | ast.While) else ast.unparse(node)
    return " ".join(text.split())


def _nodes(node: ast.AST, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Callable[[ast.AST], None], Any]]:
    """All nodes that run: in which function, what puts another in their place, and they themselves."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        where = (*where, node.name)
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "bases", "keywords"} and not isinstance(node, ast.Call):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _is_said(child):
                continue
            yield where, partial(_put, node, name, index if isinstance(value, list) else None), child
            yield from _nodes(child, where)


def _put(holder: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(holder, name, node)
    else:
        getattr(holder, name)[index] = node


def _is_said(node: ast.AST) -> bool:
    """Whether it is for people and type checkers: an alias of a type, a name for `repr`."""
    is_alias = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias"
    return is_alias or (isinstance(node, ast.FunctionDef) and node.name == "__repr__")


def _others(node: Any) -> Iterator[ast.AST]:
    """What may stand in place of a node."""
    match node:
        case ast.Compare():
            for index, each in enumerate(node.ops):
                ops = [*node.ops[:index], COMPARED[type(each)](), *node.ops[index + 1 :]]
                yield ast.Compare(node.left, ops, node.comparators)
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int(number)):
            yield ast.Constant(number + 1)
            if number > 1:
                yield ast.Constant(number - 1)
        case ast.BoolOp():
            yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.BinOp() if type(node.op) in COMPUTED:
            yield ast.BinOp(node.left, COMPUTED[type(node.op)](), node.right)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.If() | ast.While() | ast.IfExp() if not _is_negated(node.test):
            values = {name: value for name, value in ast.iter_fields(node) if name != "test"}
            yield type(node)(test=ast.UnaryOp(ast.Not(), node.test), **values)
        case ast.Raise():
            yield ast.Pass()


def _is_negated(test: ast.expr) -> bool:
    """Whether a mutant of the condition itself is its negation."""
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In | ast.NotIn) and len(test.ops) == 1
    return isinstance(test, ast.UnaryOp)


def survives(mutant: Mutant) -> bool:
    """Run the tests on it, in a process of its own."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(1, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(10 * SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        sys.meta_path.insert(0, _Finder(mutant))
        pytest: Any = importlib.import_module("pytest")
        line = [
            "-k",
            f"not ({SLOW})",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
        ]  # loaded before it
        os._exit(any(pytest.main([*line, str(ROOT / "tests" / file)]) for file in SUITE))
    return os.waitpid(child, 0)[1] == 0


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads a mutant in place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, name: str, _path: object, _target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != f"tagged_vmstate.{self._mutant.room}":
            return None
        return importlib.util.spec_from_loader(name, self)

    def exec_module(self, module: Any) -> None:
        exec(self._mutant.code, module.__dict__)


def run(rooms: Sequence[str], every: int) -> str:
    """Run all mutants of some modules, or every nth; assert that the bar holds, and say how many there were."""
    (original, *_), *_ = everything = [[*mutants(room)] for room in rooms]
    assert survives(original), "the tests fail without a mutant"
    found = [mutant for _, *others in everything for mutant in others][::every]
    survivors = []
    for number, mutant in enumerate(found, 1):
        if survives(mutant):
            survivors.append(mutant.what)
            print(f"{number} of {len(found)} survives: {mutant.what}", file=sys.stderr, flush=True)
    unexplained = [each for each in survivors if each not in ALIKE]
    assert not unexplained, unexplained
    assert len(survivors) <= 0.02 * len(found) or every > 1, f"{len(survivors)} of {len(found)}"
    return f"{len(found)} mutants, {len(survivors)} survive ({100 * len(survivors) / len(found):.1f} %), each explained"


def _main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("--every", metavar="N", type=int, default=1, help="only every nth")
    arguments.add_argument("rooms", metavar="ROOM", nargs="*", type=one_of(ROOMS, "room"), help="all unless given")
    said = arguments.parse_args()
    if said.every < 1:
        arguments.error(f"--every: expected 1 or more, got {said.every}")
    for name in LOADED:
        importlib.import_module(name)
    print(run(said.rooms or ROOMS, said.every))


if __name__ == "__main__":
    _main()

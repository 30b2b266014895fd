"""Errors travel between processes, and whatever is read, only our own come."""

from __future__ import annotations

import concurrent.futures
import copy
import importlib
import multiprocessing
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tagged_vmstate as tv
from tagged_vmstate import Finding, FormatError, LimitError, LoadError, StateError, TableError, VMStateError
from tagged_vmstate.qemu.capture import CaptureError
from tagged_vmstate.wire import TruncatedError


@tv.vmstate("dev")
class Dev:
    a: tv.uint8 = 0


class UserError(VMStateError):
    """A user's own, with a constructor of its own."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__("luck", reason, path=("a", 3))
        self.code = code


FINDINGS = [
    Finding("wrong-type", "dev#0", ("a", 1), "`uint8`", "`uint16`", 17),
    Finding("no-field", "dev#0", (), "it", "no", None),
]
SAMPLES: list[VMStateError] = [
    VMStateError("a", "b", path=("x", 0, "y")),
    TableError("a default", "none", path=("field",)),
    StateError("`uint8`", "300"),
    *(
        kind("`uint8`", "`str`", offset=9, path=("a",), source="JSON", line=3)
        for kind in (FormatError, LimitError, TruncatedError)
    ),
    LoadError(FINDINGS[:1]),
    LoadError(FINDINGS),
    CaptureError("QEMU has gone"),
    UserError(7, reason="none"),
]
for _sample in SAMPLES:
    _sample.section = "dev#0"
    _sample.add_note("a note")

WAYS: dict[str, Callable[[Any], Any]] = {
    **{
        f"protocol {number}": lambda value, number=number: pickle.loads(pickle.dumps(value, number))  # type: ignore[misc]
        for number in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def _subclasses(kind: type[VMStateError]) -> Iterator[type[VMStateError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _subclasses(each)


def test_a_sample_of_every_error_of_the_package_is_tried() -> None:
    for module in pkgutil.walk_packages(tv.__path__, "tagged_vmstate."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = {kind for kind in _subclasses(VMStateError) if kind.__module__.startswith("tagged_vmstate.")}
    assert found <= set(map(type, SAMPLES))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_errors_survive_pickle_and_copy(error: VMStateError, way: Callable[[Any], Any]) -> None:
    again = way(error)
    assert type(again) is type(error)
    assert again is not error
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_findings_survive_pickle_and_copy(way: Callable[[Any], Any]) -> None:
    assert way(FINDINGS) == FINDINGS


def _load(data: bytes) -> Dev:
    return tv.loads(data, Dev)


REFUSED = {FormatError: b"no snapshot", LoadError: tv.dumps({"a": 1}, table=tv.Table("dev", [tv.Field("a", tv.uint16)]))}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_process_pool_gets_the_error(kind: type[VMStateError]) -> None:
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as executor:
        assert type(executor.submit(_load, REFUSED[kind]).exception(60)) is kind
    with multiprocessing.get_context("fork").Pool(1) as pool, pytest.raises(kind):
        pool.map_async(_load, [REFUSED[kind]]).get(60)

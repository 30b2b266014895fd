"""Errors travel between processes, and whatever is read, only our own come."""

from __future__ import annotations

import concurrent.futures
import copy
import importlib
import io
import mmap
import multiprocessing
import os
import pickle
import pkgutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

import tagged_vmstate as tv
from tagged_vmstate import Finding, FormatError, LimitError, LoadError, StateError, TableError, VMStateError
from tagged_vmstate.jsonform import from_json, to_json
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.qemu.export import OriginError
from tagged_vmstate.qemu.qmp import CaptureError, RefusedError
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
    OriginError("a snapshot that `import` made", "one from elsewhere"),
    *(
        kind("`uint8`", "`str`", offset=9, path=("a",), source="JSON", line=3)
        for kind in (FormatError, LimitError, TruncatedError)
    ),
    LoadError(FINDINGS[:1]),
    LoadError(FINDINGS),
    CaptureError("QEMU has gone"),
    RefusedError("QEMU refuses"),
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


# --- sources


DATA = tv.dumps(Dev(a=7))


class _OnlyRead:
    """A file that has nothing but `read`, which gives its bytes as another type."""

    def __init__(self, data: bytes, kind: Callable[[bytes], object] = bytes) -> None:
        self._file = io.BytesIO(data)
        self._kind = kind

    def read(self, size: int = -1) -> object:
        return self._kind(self._file.read(size))


def _pipe(data: bytes) -> BinaryIO:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(data)
    return os.fdopen(reading, "rb")


def _mapped(data: bytes) -> mmap.mmap:
    found = mmap.mmap(-1, len(data))
    found[:] = data
    return found


def _file(data: bytes, buffering: int = -1) -> BinaryIO:
    found = tempfile.TemporaryFile(buffering=buffering)  # noqa: SIM115  # the test that asked closes it
    found.write(data)
    found.seek(0)
    return cast("BinaryIO", found)


SOURCES: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "every second byte": lambda data: memoryview(bytes(byte for each in data for byte in (each, 0)))[::2],
    "array": lambda data: array("B", data),
    "mmap": _mapped,
    "BytesIO": io.BytesIO,
    "file": _file,
    "raw file": lambda data: _file(data, 0),
    "pipe": _pipe,
    "only read": _OnlyRead,
    "read gives bytearray": lambda data: _OnlyRead(data, bytearray),
}


def _json_form() -> bytes:
    file = io.BytesIO()
    to_json(tv.Snapshot.read(DATA), file)
    return file.getvalue()


def _stream() -> bytes:
    file = io.BytesIO()
    tv.Machine([Dev(a=7)]).save_untagged(file)
    return file.getvalue()


def _machine_load(source: Any) -> int:
    dev = Dev()
    tv.Machine([dev]).load(source)
    return dev.a


WAYS_IN: dict[str, tuple[Callable[[Any], object], bytes]] = {
    "load": (lambda source: tv.load(source, Dev).a, DATA),
    "load into": (lambda source: tv.load(source, into=Dev()).a, DATA),
    "load a JSON form": (lambda source: tv.load(source, Dev).a, _json_form()),
    "load a stream": (lambda source: tv.load(source, Dev).a, _stream()),
    "Machine.load": (_machine_load, DATA),
    "Machine.check": (lambda source: 7 - len(tv.Machine([Dev()]).check(source).problems), DATA),
    "Snapshot.read": (lambda source: _first(tv.Snapshot.read(source)), DATA),
    "from_json": (lambda source: _first(from_json(source)), _json_form()),
    "import_stream": (lambda source: 7 * len([*import_stream(source)]), _stream()),
}


def _first(sections: Iterable[tv.Section]) -> object:
    [value] = [section.records()[0].value for section in sections]
    return value


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN)
def test_every_way_in_takes_every_source(way: tuple[Callable[[Any], object], bytes], source: Callable[[bytes], Any]) -> None:
    read, data = way
    given = source(data)
    assert read(given) == 7
    if hasattr(given, "close"):
        given.close()


@pytest.mark.parametrize("source", [bytes, bytearray, memoryview])
def test_loads_takes_bytes_and_nothing_else(source: Callable[[bytes], Any]) -> None:
    assert tv.loads(source(DATA), Dev) == Dev(a=7)
    with pytest.raises(TypeError, match="loads takes bytes, and load a path or a file; got `str`"):
        tv.loads("vm.tvm", Dev)  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("wrong", [5, None, object(), [5], {"a": 1}, [b"x"]], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "name", ["load", "load into", "Machine.load", "Machine.check", "Snapshot.read", "from_json", "import_stream"]
)
def test_what_is_no_source_is_named(name: str, wrong: object) -> None:
    with pytest.raises(TypeError, match=r"^expected .*bytes.* a file open for reading in binary mode.*, got "):
        WAYS_IN[name][0](wrong)


@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN)
def test_a_file_open_in_text_mode_is_named(way: tuple[Callable[[Any], object], bytes], tmp_path: Path) -> None:
    read, data = way
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open(encoding="latin-1") as text:
        for file in (io.StringIO(data.decode("latin-1")), text, _OnlyRead(data, str)):
            with pytest.raises(
                TypeError, match="expected a file open for reading in binary mode, got one whose `read` returns `str`"
            ):
                read(file)


@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN)
def test_a_file_that_has_nothing_yet_is_an_error_of_the_system(way: tuple[Callable[[Any], object], bytes]) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb", buffering=0) as file, os.fdopen(writing, "wb"), pytest.raises(BlockingIOError):
        way[0](file)


@pytest.mark.parametrize("name", ["load", "load into", "Machine.load", "Machine.check", "Snapshot.read"])
def test_a_path_that_cannot_be_read_is_an_error_of_the_system(name: str, tmp_path: Path) -> None:
    for path in (tmp_path, str(tmp_path / "nowhere")):
        with pytest.raises(OSError, match=str(tmp_path)):
            WAYS_IN[name][0](path)

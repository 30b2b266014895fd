"""Saving to a path: the new file whole, or the old one as it was, and nothing left over."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from random import Random
from types import FrameType
from typing import Annotated, Any

import pytest

import tagged_vmstate as tv
from tagged_vmstate import files
from tagged_vmstate.files import Input, replacing
from tagged_vmstate.memory import Images
from tagged_vmstate.snapshot import write


def _save(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "vm.tvm"
    _save(path, b"one")
    _save(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["vm.tvm"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "vm.tvm"
    _save(path, b"old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["vm.tvm"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "vm.tvm"
    _save(path, b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_mode_and_link_are_kept(tmp_path: Path) -> None:
    target = tmp_path / "real.tvm"
    _save(target, b"old")
    target.chmod(0o640)
    link = tmp_path / "link.tvm"
    link.symlink_to(target)
    _save(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.parametrize(("umask", "mode"), [(0o000, 0o600), (0o027, 0o600), (0o200, 0o400)])
def test_only_its_owner_can_read_a_new_file(umask: int, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(umask)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")  # it is that of other threads too
            _save(tmp_path / "vm.tvm", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "vm.tvm").stat().st_mode) == mode


def test_memory_images_and_json_are_as_secret(tmp_path: Path) -> None:
    ram = tv.Section("ram", 0, [tv.Record("pc.ram", "sparse", 4096, ((0, b"secret"),))])
    with replacing(tmp_path / "vm.tvm") as file, tv.SnapshotWriter(file) as writer:
        writer.write(ram)
    with Images(tmp_path, {}) as images:
        images.to_json(ram.label, ram.records()[0])
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 2
    assert modes == {0o600}


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "x" * 236 + ".tvm", "€" * 85])
def test_names_may_be_as_long_as_the_file_system_takes(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    _killed_while_writing(path)
    assert len(os.listdir(tmp_path)) == 1
    _save(path, b"data")
    assert os.listdir(tmp_path) == [name]
    assert path.read_bytes() == b"data"


@pytest.mark.parametrize(("number", "is_fine"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_sync_folders_is_no_error(
    number: int, *, is_fine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with contextlib.nullcontext() if is_fine else pytest.raises(OSError, match=os.strerror(number)):
        _save(tmp_path / "vm.tvm", b"data")
    assert (tmp_path / "vm.tvm").read_bytes() == b"data"


def test_file_and_folder_are_synced_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, Path.replace

    def record_sync(handle: int) -> None:
        calls.append("sync folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "sync file")
        sync(handle)

    def record_replace(source: Path, target: Path) -> Path:
        calls.append("replace")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_replace)
    _save(tmp_path / "vm.tvm", b"data")
    assert calls == ["sync file", "replace", "sync folder"]


def test_nothing_is_replaced_after_a_failed_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vm.tvm"
    _save(path, b"old")

    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error", handle)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        _save(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["vm.tvm"]


def _killed_while_writing(path: Path) -> None:
    """A save whose process is killed in the middle."""
    child = os.fork()
    if not child:
        with replacing(path) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_what_a_killed_save_left_goes_with_the_next_one(tmp_path: Path) -> None:
    path, other = tmp_path / "vm", tmp_path / "vm.old"
    for target in (path, path, other):
        _killed_while_writing(target)
    assert len(os.listdir(tmp_path)) == 2, "the second save took what the first left"
    _save(path, b"whole")
    [left] = {*os.listdir(tmp_path)} - {"vm"}
    assert left.startswith(".vm.old."), "what another target left is not this one's to take"
    assert path.read_bytes() == b"whole"


def test_two_saves_at_once_leave_each_others_drafts(tmp_path: Path) -> None:
    path = tmp_path / "vm.tvm"
    with replacing(path) as first:
        first.write(b"first")
        with replacing(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first", "the last one stays"
    assert os.listdir(tmp_path) == ["vm.tvm"]


def test_a_draft_taken_for_left_over_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, lock = tmp_path / "vm.tvm", fcntl.flock
    locked: list[Any] = []

    def too_late(file: Any, how: int) -> None:
        if not locked:  # another save comes between the draft and its lock
            locked.append(file)
            _save(path, b"other")
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", too_late)
    _save(path, b"mine")
    assert path.read_bytes() == b"mine"
    assert os.listdir(tmp_path) == ["vm.tvm"]


def test_what_only_looks_like_a_draft_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "vm.tvm"
    names = [".vm.tvm.abc.tvm-draft", ".vm.tvm.abcdefgh.draft", "x.vm.tvm.abcdefgh.tvm-draft"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".vm.tvm.abcdefgh.tvm-draft").mkdir()
    (tmp_path / ".vm.tvm.ijklmnop.tvm-draft").symlink_to(tmp_path / names[0])
    _save(path, b"data")
    assert len(os.listdir(tmp_path)) == 6


def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_file: Any, _how: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    _killed_while_writing(tmp_path / "vm.tvm")
    _save(tmp_path / "vm.tvm", b"data")
    assert (tmp_path / "vm.tvm").read_bytes() == b"data"
    assert len(os.listdir(tmp_path)) == 2, "whose it is cannot be told, so it stays"


class _Short(io.FileIO):
    """Takes a third of what it is given, at some of its writes."""

    places = range(0)
    count = 0

    def write(self, data: Any) -> int:
        _Short.count += 1
        return super().write(bytes(data)[: 1 + len(data) // 3 if self.count in self.places else None])


@pytest.mark.parametrize("more", [1, 1_000], ids=["once", "for ever"])
def test_short_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    path, data = tmp_path / "vm.tvm", Random(1).randbytes(100_000)
    monkeypatch.setattr(os, "fdopen", lambda handle, _mode: io.BufferedWriter(_Short(handle, "wb"), 8192))
    for place in range(1, 12):
        _Short.places, _Short.count = range(place, place + more), 0
        with replacing(path) as file:
            for start in range(0, len(data), 7_000):
                file.write(data[start : start + 7_000])
        assert path.read_bytes() == data
        assert place < _Short.count


def test_an_interrupt_before_a_draft_is_in_use_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_file: Any, _how: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fcntl, "flock", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _save(tmp_path / "vm.tvm", b"data")
    assert os.listdir(tmp_path) == []


def test_input_that_cannot_seek_passes_what_is_skipped() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as reader, os.fdopen(theirs, "wb") as writer:
        writer.write(bytes(range(200)))
        writer.close()
        source = Input(reader)
        assert (source.size, source.read(2)) == (None, b"\0\1")
        source.seek(150)
        assert (source.position, source.read(2)) == (150, b"\x96\x97")
        source.seek(1 << 20)
        assert (source.position, source.read(1)) == (200, b"")
        with pytest.raises(ValueError, match="this place has been passed"):
            source.seek(0)


def test_what_is_no_file_is_written_to_directly(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _save(pipe, b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    with pytest.raises(IsADirectoryError):
        _save(tmp_path, b"")


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"])
def test_a_descriptor_is_written_where_it_stands(folder: str, tmp_path: Path) -> None:
    path, link = tmp_path / "log", tmp_path / "link"
    with path.open("wb", buffering=0) as file:
        link.symlink_to(f"{folder}/{file.fileno()}")
        file.write(b"a")
        number = path.stat().st_ino
        _save(Path(folder, str(file.fileno())), b"one")
        _save(link, b"two")
        file.write(b"b")
    assert (path.read_bytes(), path.stat().st_ino) == (b"aonetwob", number)
    assert sorted(os.listdir(tmp_path)) == ["link", "log"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        _save(link, b"")


def test_a_socket_is_written_to() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _save(Path(f"/dev/fd/{theirs.fileno()}"), b"through")
        assert ours.recv(100) == b"through"


def test_machines_and_snapshots_are_saved_to_descriptors_too(tmp_path: Path) -> None:
    machine = tv.Machine([Slim()])
    machine.save(tmp_path / "one")
    with (tmp_path / "two").open("wb") as file:
        machine.save(f"/dev/fd/{file.fileno()}")
        write(tv.Snapshot.read((tmp_path / "one").read_bytes()), f"/dev/fd/{file.fileno()}")
    assert (tmp_path / "two").read_bytes() == 2 * (tmp_path / "one").read_bytes()


def test_links_are_followed_to_their_end(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "here").symlink_to("a", target_is_directory=True)
    (tmp_path / "a" / "one").symlink_to("../b/two")
    (tmp_path / "b" / "two").symlink_to("three")
    for data in (b"new", b"replaced"):
        _save(tmp_path / "here" / "one", data)
        assert (tmp_path / "b" / "three").read_bytes() == data
    assert sorted(os.listdir(tmp_path / "b")) == ["three", "two"]
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="symbolic links"):
        _save(tmp_path / "round", b"")


def test_a_pipe_of_another_process_is_written_to(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    with subprocess.Popen(["sleep", "60"], stdin=ours) as other, os.fdopen(ours, "rb") as reader:
        os.close(theirs)
        (tmp_path / "link").symlink_to(f"/proc/{other.pid}/fd/0")
        _save(tmp_path / "link", b"through")
        other.kill()
        assert reader.read() == b"through"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what is open when an interrupt comes is closed with its frame
def test_an_interrupt_anywhere_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "vm.tvm"
    left = place = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != files.__file__:
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        left -= event == "opcode"
        if not left:
            raise KeyboardInterrupt
        return trace

    held = []
    while left <= 0:
        place += 1
        left = place
        path.write_bytes(b"old")
        before = sys.gettrace()
        sys.settrace(trace)
        with contextlib.suppress(KeyboardInterrupt):
            _save(path, b"new")
        sys.settrace(before)
        assert os.listdir(tmp_path) == ["vm.tvm"], place
        held.append(path.read_bytes())
    assert {*held} == {b"old", b"new"}
    assert len(held) > 100


class Narrow(io.RawIOBase):
    """A file without a buffer that takes a few bytes at a time, and at last none."""

    def __init__(self, room: int) -> None:
        self.taken = bytearray()
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        part = bytes(memoryview(data)[: min(7, self.room - len(self.taken))])
        self.taken += part
        return len(part) or None


@tv.vmstate("narrow")
class Slim:
    data: Annotated[bytes, tv.Length(100)] = bytes(100)


@pytest.mark.parametrize("loads", [0, 200])
def test_a_file_without_a_buffer_gets_all_of_a_snapshot_or_says_that_it_is_full(loads: int) -> None:
    machine = tv.Machine([Slim()])
    whole = io.BytesIO()
    for _ in range(loads + 1):
        whole = io.BytesIO()
        machine.save(whole)
    machine.save(narrow := Narrow(1 << 20))  # type: ignore[arg-type]  # a file that is open for writing
    assert narrow.taken == whole.getvalue()
    with pytest.raises(BlockingIOError):
        machine.save(Narrow(50))  # type: ignore[arg-type]  # a file that is open for writing


@pytest.mark.parametrize("size", [0, 1, 1 << 16, 3 << 20])
def test_the_zeros_at_the_end_are_found(size: int) -> None:
    for content in (b"", b"a", bytes(9) + b"a" * 70_000):
        source = Input(io.BytesIO(content + bytes(size)))
        source.read(1)
        assert (source.content_end, source.position) == (len(content), min(1, len(content) + size))

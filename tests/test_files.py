"""Saving to a path: the new file whole, or the old one as it was, and nothing left over."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tagged_vmstate.files import replacing


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


def test_a_new_file_gets_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        _save(tmp_path / "vm.tvm", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "vm.tvm").stat().st_mode) == 0o640


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

"""Memory as image files beside the JSON form."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import STREAMS
from test_command import refused, run, shown

from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import SnapshotWriter


@pytest.fixture
def tvm(tmp_path: Path) -> Path:
    """A memory of 32 bytes, partly written again in its second part."""
    path = tmp_path / "a.tvm"
    with path.open("wb") as file, SnapshotWriter(file) as writer:
        runs = ((0, b"aaaa"), (8, b"bbbb"))
        writer.write(Section("ram", 0, [Record("pc/ram", "sparse", 32, runs)], kind="part"))
        writer.write(Section("ram", 0, [Record("pc/ram", "sparse", 32, ((10, b"cccc"), (31, b"d")))]))
    return path


@pytest.mark.parametrize("name", STREAMS)
def test_real_streams_come_back_byte_for_byte(name: str, stream_path: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    plain, text, again = tmp_path / "a.tvm", tmp_path / "a.json", tmp_path / "b.tvm"
    assert run("import", stream_path(name), "-o", plain).returncode == 0
    shown("to-json", plain, "--memory", folder, "-o", text)
    shown("from-json", text, "--memory", folder, "-o", again)
    assert again.read_bytes() == plain.read_bytes()
    assert os.listdir(folder)


def test_an_image_is_the_final_state(tvm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    text = shown("to-json", tvm, "--memory", folder)
    assert os.listdir(folder) == ["ram#0 pc%2Fram"]
    image = folder / "ram#0 pc%2Fram"
    assert image.read_bytes() == b"aaaa" + bytes(4) + b"bbcccc" + bytes(17) + b"d"
    assert '{"0x0": 4, "0x8": "62626262"}' in text
    back = tmp_path / "b.tvm"
    for order in ('"0x0": 4, "0x8": "62626262"', '"0x8": "62626262", "0x0": 4'):
        again = text.replace('"0x0": 4, "0x8": "62626262"', order)
        shown("from-json", "-", "--memory", folder, "-o", back, given=again.encode())
        assert back.read_bytes() == tvm.read_bytes()


def test_each_memory_has_an_image_of_its_own(tmp_path: Path) -> None:
    plain, folder, back = tmp_path / "a.tvm", tmp_path / "memory", tmp_path / "b.tvm"
    memories = [
        *(("a", "b#0 c"), ("a#0 b", "c"), ("a", "b c"), ("a#0", "b"), ("a", "#0 b")),  # a label may look like a field
        *(("RAM", "pc"), ("ram", "pc"), ("ram", "PC")),  # the same where case is ignored
        *(("x", "/"), ("x", "%2F"), ("x", "%252F"), ("x", "="), ("..", "."), ("/", "..")),
        *((" ", " "), (" ", "  "), ("\n", "\0"), ("é", "e\u0301")),
        *(("d" * 255, "f" * 255), ("d" * 255, "f" * 254 + "g"), ("€" * 85, "€" * 85), ("€" * 85, "€" * 84)),
        *(("dev", "x"), (".dev", "x.abcdefgh.tvm-draft")),  # the second looks like a draft of the first
    ]
    with plain.open("wb") as file, SnapshotWriter(file) as writer:
        for device in dict.fromkeys(device for device, _ in memories):
            names = [name for other, name in memories if other == device]
            records = [Record(name, "sparse", 4096, ((0, f"{device} {name}".encode()),)) for name in names]
            writer.write(Section(device, 0, records))
    for _ in range(2):  # over images that are there, too
        text = shown("to-json", plain, "--memory", folder)
        names = os.listdir(folder)
        assert len({name.lower() for name in names}) == len(memories)
        assert all(name.isascii() and len(name) <= 140 and not name.startswith(".") for name in names)
        shown("from-json", "-", "--memory", folder, "-o", back, given=text.encode())
        assert back.read_bytes() == plain.read_bytes()


def test_what_is_wrong_is_said_in_a_sentence(tvm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    text = shown("to-json", tvm, "--memory", folder)
    image = folder / "ram#0 pc%2Fram"
    assert 'name its folder with from-json --memory DIR - at ram#0/"pc/ram" (line 4' in refused(
        "from-json", "-", given=text.encode()
    )
    elsewhere = text.replace("ram#0 pc%2Fram", "../a.tvm").encode()
    assert "the name of a file in the folder" in refused("from-json", "-", "--memory", folder, given=elsewhere)
    image.write_bytes(bytes(16))
    assert '16 bytes in all - at ram#0/"pc/ram"' in refused("from-json", "-", "--memory", folder, given=text.encode())
    image.unlink()
    assert "No such file" in refused("from-json", "-", "--memory", folder, given=text.encode())


def _link(image: Path) -> None:
    image.symlink_to("../secret")


def _dangling_link(image: Path) -> None:
    image.symlink_to("../nothing")


def _fifo(image: Path) -> None:
    os.mkfifo(image)


def _folder(image: Path) -> None:
    image.mkdir()


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (_link, "a symbolic link, which is not followed"),
        (_dangling_link, "a symbolic link, which is not followed"),
        (_fifo, "no regular file"),
        (_folder, "no regular file"),
    ],
)
def test_nothing_outside_the_folder_is_read_or_written(
    planted: Callable[[Path], None], words: str, tvm: Path, tmp_path: Path
) -> None:
    folder, out, secret = tmp_path / "memory", tmp_path / "out", tmp_path / "secret"
    text = shown("to-json", tvm, "--memory", folder)
    image = folder / "ram#0 pc%2Fram"
    image.rename(secret)
    before = secret.read_bytes()
    planted(image)
    sentence = refused("from-json", "-", "--memory", folder, "-o", out, given=text.encode())
    assert "expected the file 'ram#0 pc%2Fram' in the folder '" in sentence
    assert f"JSON has {words} - at ram#0" in sentence
    for target in (out, "-"):
        assert refused("to-json", tvm, "--memory", folder, "-o", target).endswith(f"{image}: cannot write: {words}")
    assert secret.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.tvm", "memory", "secret"]
    assert os.listdir(folder) == [image.name]

"""What Tab completes, in the real shells."""

from __future__ import annotations

import json
import lzma
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DATA
from picture import ROOT
from shells import Shell

from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import SnapshotWriter, write

ODD = [
    "a b",
    "c'd",
    'e"f',
    "g*h",
    "$HOME",
    "[1]",
    "#i",
    "j;k&l|m",
    "0000:00:02.0/vga",
    "n\\o",
    "p\tq",
    "ü",
    "(r)",
    "-s",
    "@t",
    "~u",
    "{v,w}",
    "!x",
    "y`z",
]
QUOTED = {each: json.dumps(each) for each in ('e"f', "g*h", "[1]", "p\tq", "-s", "@t")}
"""Those that name themselves only in double quotes."""
BOARD = """
import logging
from os import path
import tagged_vmstate as tv
from tagged_vmstate import Machine
from older import OLD, helper as made
open("imported", "w").close()
VERSION = 3
NAMES = {"a": 1}
_HIDDEN = tv.Machine([])
MACHINE: tv.Machine = tv.Machine([])
BOTH = [MACHINE]
def machine(size=1, *, fast=True): ...
def scaled(size): ...
def named(*, name): ...
async def later(): ...
@tv.vmstate
class Uart: ...
class Plain: ...
"""
MACHINES = {"OLD", "made", "MACHINE", "BOTH", "machine", "Uart"}
FILES = {"board.py", "boards", "damaged.tvm", "my file.tvm", "odd.tvm", "reset.json", "sub dir", "vm.mig.xz", "vm.tvm"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("completion")
    stream = DATA / "pc-qemu7.2.mig.xz"
    (found / "vm.mig.xz").write_bytes(stream.read_bytes())
    with lzma.open(stream) as file, (found / "vm.tvm").open("wb") as target:
        write(import_stream(file.read()), target)
    data = (found / "vm.tvm").read_bytes()
    (found / "my file.tvm").write_bytes(data)
    (found / "damaged.tvm").write_bytes(data[:100])
    (found / "reset.json").write_text("{}")
    (found / "board.py").write_text(BOARD)
    for name in ("sub dir", "boards"):
        (found / name).mkdir()
    (found / "boards" / "__init__.py").write_text("ALL = []\n")
    (found / "boards" / "pc.py").write_text("PC = Machine([])\n")
    with (found / "odd.tvm").open("wb") as target, SnapshotWriter(target) as writer:
        for name in ODD:
            writer.write(Section(name, 0, [Record(f"of {name}", "int8", None, 1)]))
    assert set(os.listdir(found)) == FILES
    return found


@pytest.fixture(scope="module", params=["bash", *(pytest.param(name, marks=pytest.mark.long) for name in ("zsh", "fish"))])
def shell(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with Shell(request.param, folder, tmp_path_factory.mktemp("home")) as found:
        yield found


def completed(*words: str, folder: Path) -> list[str]:
    """What the command gives a shell for the last of some words; nothing else comes out of it."""
    command = [sys.executable, "-m", "tagged_vmstate", *words]
    environment = {**os.environ, "_TAGGED_VMSTATE_COMPLETE": "fish_complete"}
    done = subprocess.run(
        command, capture_output=True, check=True, text=True, cwd=folder, env=environment, stdin=subprocess.DEVNULL
    )
    assert done.stderr == ""
    return [line.split("\t")[1] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("show ", FILES),
        ("show vm.tvm ps2", {"ps2kbd", "ps2mouse"}),
        ("show vm.mig.xz ps2", {"ps2kbd", "ps2mouse"}),
        ("show vm.tvm dm", {"dma", "dma#0", "dma#1"}),
        ("show vm.tvm ps2kbd ", {"parent_obj", "scan_enabled", "translate", "scancode_set"}),
        ("show vm.tvm hpet timer", {"timer", "timer[0]", "timer[1]", "timer[2]"}),
        (r"show vm.tvm hpet timer\[1\]/c", {"timer[1]/config", "timer[1]/cmp"}),
        ("check vm.tvm --against ", {"board:", "boards:", "boards.", *FILES} - {"board.py"}),
        ("compat reset.json bo", {"board:", "boards:", "boards.", "boards"}),
        ("tables boards.", {"boards.pc:"}),
        ("to-json vm.tvm -o ", FILES),
        ("to-json vm.tvm --memory ", {"sub dir", "boards"}),
        ("fuzz ", {"snapshot", "json", "stream", "tables", "dump", "board:", "boards:", "boards."}),
        ("show --format ", {"text", "json"}),
        ("show damaged.tvm ", FILES),
        ("completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_tab_offers(shell: Shell, typed: str, offered: set[str]) -> None:
    assert shell.offered(f"tagged-vmstate {typed}") == {each.rstrip("/") for each in offered}


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("show my", "show|my file.tvm| "),
        ("show 'my f", "show|my file.tvm"),
        ("show ~/vm.t", "show|~/vm.tvm| "),
        ("show ~/vm.tvm ps2k", "show|~/vm.tvm|ps2kbd| "),
        ("show my\\ file.tvm ps2k", "show|my file.tvm|ps2kbd| "),
        ("show vm.tvm 0000:00:02", "show|vm.tvm|0000:00:02.0/vga| "),
        ("show vm.tvm '0000:00:02", "show|vm.tvm|0000:00:02.0/vga| "),
        ('show vm.tvm "0000:00:02', "show|vm.tvm|0000:00:02.0/vga| "),
        ("show vm.tvm ps2kbd par", "show|vm.tvm|ps2kbd|parent_obj"),
        ("show vm.tvm ps2kbd parent_obj/queue.d", "show|vm.tvm|ps2kbd|parent_obj/queue.data| "),
        ("diff vm.tvm my\\ file.tvm --ignore hp", "diff|vm.tvm|my file.tvm|--ignore|hpet"),
        ("diff vm.tvm my\\ file.tvm --ignore hpet/is", "diff|vm.tvm|my file.tvm|--ignore|hpet/isr| "),
        ("export vm.tvm --drop hpet/is", "export|vm.tvm|--drop|hpet/isr| "),
        ("check vm.tvm --against board:MA", "check|vm.tvm|--against|board:MACHINE| "),
        ("check vm.tvm --against 'board:MA", "check|vm.tvm|--against|board:MACHINE| "),
        ("check vm.tvm --against=board:MA", "check|vm.tvm|--against=board:MACHINE| "),
        ("check vm.tvm --against re", "check|vm.tvm|--against|reset.json| "),
        ("check vm.tvm --against board.", "check|vm.tvm|--against|board.py| "),
        ("show vm.tvm --tables boards.", "show|vm.tvm|--tables|boards.pc:"),
        ("fuzz stream --corpus su", "fuzz|stream|--corpus|sub dir/"),
        ("to-json vm.tvm --memory=su", "to-json|vm.tvm|--memory=sub dir/"),
        ("export vm.tvm --like=re", "export|vm.tvm|--like=reset.json| "),
        ("set vm.tvm ps2kbd scancode_set @re", "set|vm.tvm|ps2kbd|scancode_set|@reset.json| "),
        ("show --format=j", "show|--format=json| "),
    ],
)
def test_tab_makes_words_that_the_shell_passes_on(shell: Shell, folder: Path, typed: str, words: str) -> None:
    line = shell.line(f"tagged-vmstate {typed}")
    expected = words.replace("~", str(folder)).split("|")
    assert shell.words(line) == expected[: -1 if expected[-1] == " " else None]
    assert line.endswith(" ") is (expected[-1] == " ") or "'my f" in typed  # zsh keeps a file's quotes open


@pytest.mark.long
def test_names_with_every_odd_character_arrive_as_they_are(shell: Shell) -> None:
    for name in ODD:
        start = f'"{name[0]}' if name in {"[1]", "-s", "@t"} else name[0]
        start = re.sub(r"\W", r"\\\g<0>", start)
        line = shell.line(f"tagged-vmstate show odd.tvm {start}")
        assert shell.words(line)[-1] == QUOTED.get(name, name)
        assert [each["device"] for each in json.loads(shell.run(f"{line}--format json"))["sections"]] == [name]


def test_redirections_are_the_shell_s_own(shell: Shell) -> None:
    assert shell.line("tagged-vmstate show vm.tvm > re") == "tagged-vmstate show vm.tvm > reset.json "


def test_no_code_of_a_module_runs_on_a_tab(folder: Path) -> None:
    assert set(completed("check", "vm.tvm", "--against", "board:", folder=folder)) == {f"board:{name}" for name in MACHINES}
    assert completed("check", "vm.tvm", "--against", "boards:", folder=folder) == ["boards:ALL"]
    assert completed("check", "vm.tvm", "--against", "boards.pc:", folder=folder) == ["boards.pc:PC"]
    assert not (folder / "imported").exists()


def test_memory_blocks(folder: Path) -> None:
    assert completed("export", "vm.tvm", "--resize-block", "pc.", folder=folder) == ["pc.ram", "pc.rom", "pc.bios"]
    assert completed("export", "vm.tvm", "--resize-block", "0000", folder=folder) == ["0000:00:02.0/vga.vram"]


def test_what_cannot_be_read_completes_nothing_and_says_nothing(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "cut.xz").write_bytes((folder / "vm.mig.xz").read_bytes()[:1000])
    (tmp_path / "text").write_text("text")
    (tmp_path / "wrong.py").write_text("MACHINE = (\n")
    (tmp_path / "odd.py").write_bytes(b"x = '\\d'\nM = [x]\n\0")
    (tmp_path / "deep.py").write_text(f"M = {'(' * 10_000}")
    for file in ("missing", "pipe", "cut.xz", "text", "-", ".", "vm.tvm/x"):
        assert completed("show", file, "ps2kbd", "", folder=tmp_path) == []
    for module in ("wrong", "odd", "deep", "", "..", "../a"):
        assert completed("tables", f"{module}:", folder=tmp_path) == []


def test_a_file_that_takes_long_completes_what_was_read_in_time(folder: Path) -> None:
    code = "from tagged_vmstate.cli import complete; complete.SECONDS = 1e-6; print(complete._Names(['vm.mig.xz'], '').found())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=folder)
    assert (done.stdout, done.stderr) == (b"[]\n", b"")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "block", "start"),
    [
        ("bash", 0, ". ~/.local/share/bash-completion/completions/tagged-vmstate"),
        ("bash", 1, ". ~/.bashrc"),
        ("zsh", 2, "fpath=(~/.zfunc $fpath)\ncompinit -u -D"),
        ("fish", 3, "set fish_complete_path ~/.config/fish/completions"),
    ],
)
def test_it_is_installed_as_the_page_says(name: str, block: int, start: str, folder: Path, tmp_path: Path) -> None:
    section = (ROOT / "docs/tools.md").read_text().partition("## Complete with Tab")[2]
    lines = re.findall(r"\n\n((?:    .*\n)+)", section)[block]
    user = tmp_path / "user"
    user.mkdir()
    (user / "vm.tvm").write_bytes((folder / "vm.tvm").read_bytes())
    with Shell(name, user, tmp_path, f"{lines}\n{start}") as shell:
        assert shell.line("tagged-vmstate show vm.tvm ps2k") == "tagged-vmstate show vm.tvm ps2kbd "

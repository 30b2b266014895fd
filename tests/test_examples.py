"""The examples at the end of each command's help, as they stand, in a folder that has the files that they name."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from conftest import DATA, stream_bytes
from test_command import shown
from transcripts import FILE, PAGE

from tagged_vmstate.cli.main import cli

OTHERWISE = (
    (r" \| jq .*", ""),
    (r"^jq \S+ .*? vm\.json", "cat vm.json"),
    (r"^ssh host ", ""),
    (r"--time 600", "--time 1"),
    (r"--runs 100000", "--runs 100"),
)
"""What is done otherwise: not everyone has jq and another host, and nobody that much time."""
SNAPSHOTS = ("vm.tvm", "before.tvm", "after.tvm", "a.tvm", "b.tvm", "captured.tvm", "reset.tvm")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    for name, source in (("vm.mig", "pc-qemu7.2"), ("reset.mig", "pc-qemu7.2-reset"), ("old-reset.mig", "pc-qemu7.2-reset")):
        (folder / name).write_bytes(stream_bytes(source))
    for name, text in FILE.findall(PAGE.read_text()):
        (folder / name).write_text(text)
    (folder / "boot.bin").write_bytes(b"\xeb\xfe")
    shutil.copy(DATA / "pc-qemu7.2.mig.xz", folder / "vm.mig.xz")
    dump = lzma.decompress((DATA / "pc-qemu7.2.vmstate.json.xz").read_bytes())
    for name in ("qemu7.2.json", "old-dump.json"):
        (folder / name).write_bytes(dump)
    (folder / "qemu10.0.json").write_bytes(dump.replace(b'"num_timers"', b'"num_timers_save"'))
    for name in SNAPSHOTS:
        shown("import", folder / "vm.mig", "-o", folder / name)
    shown("import", DATA / "pc-qemu10.0.mig.xz", "-o", folder / "new.tvm")
    shown("to-json", folder / "vm.tvm", "-o", folder / "vm.json")
    code = "from board import MACHINE as m; m.save('board.tvm'); m.save_untagged(open('old.vm', 'wb'), stream=2)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
    for module, release in (("board", "1.2"), ("newer_board", "1.3")):
        (folder / f"release-{release}.json").write_text(shown("tables", f"{module}:MACHINE", cwd=folder))
    for room in (".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"):
        (folder / room).mkdir(parents=True)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    "command", ["", *(each for each in cli.list_commands(click.Context(cli)) if each != "capture")]
)  # it needs a guest
def test_what_the_help_shows_works(command: str, files: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(files, tmp_path / "files")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
    examples = shown(*command.split(), "--help").partition("Examples:\n")[2].partition("\n\n")[0]
    lines = [line.strip() for line in examples.splitlines()]
    for line in lines:
        example = line
        for old, new in OTHERWISE:
            example = re.sub(old, new, example)
        done = subprocess.run(example, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in {0, 1}, (line, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or command in {"diff", "check", "compat", "tables", "export"}, (line, done.stderr)

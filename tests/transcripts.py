"""The transcripts of docs/tools.md: every command is run, and what it prints stands below it.

`python tests/transcripts.py` writes them anew.
"""

from __future__ import annotations

import lzma
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from arguments import Arguments
from conftest import DATA, stream_bytes

PAGE: Final = Path(__file__).parent.parent / "docs" / "tools.md"
STREAMS: Final = {"vm": "pc-qemu7.2", "reset": "pc-qemu7.2-reset", "newer": "pc-qemu10.0", "scsi": "scsi-qemu7.2"}
DUMPS: Final = {"qemu7.2": "pc-qemu7.2", "qemu10.0": "pc7.2-qemu10.0"}
_BLOCK: Final = re.compile(r"```console\n(.*?)```", re.DOTALL)
FILE: Final = re.compile(r"`(\S+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)


def renewed(page: str) -> str:
    """The page with the output of every command as it is now."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stream, source in STREAMS.items():
            (folder / f"{stream}.mig").write_bytes(stream_bytes(source))
        for dump, source in DUMPS.items():
            (folder / f"{dump}.json").write_bytes(lzma.decompress((DATA / f"{source}.vmstate.json.xz").read_bytes()))
        for file, text in FILE.findall(page):
            (folder / file).write_text(text)
        return _BLOCK.sub(lambda block: f"```console\n{_run(block[1], folder)}```", page)


def _run(block: str, folder: Path) -> str:
    lines = []
    for line in block.splitlines():
        if line.startswith("$ "):
            lines += [line, *_output(line[2:], folder)]
    return "".join(f"{line}\n" for line in lines)


def _output(command: str, folder: Path) -> list[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout.splitlines()


if __name__ == "__main__":
    Arguments(__doc__).parse_args()
    PAGE.write_text(renewed(PAGE.read_text()))

"""The scripts that write the pages, run by hand: what is wrong with their arguments is one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tests/reliability.py 99", "no row `99`; there are 1, 2, "),
        ("tests/reliability.py --relase 8", "unrecognized arguments: --relase"),
        ("tests/mutants.py wires", "no room `wires`; there are wire, "),
        ("tests/mutants.py --every 0", "--every: expected 1 or more, got 0"),
        ("tests/evolution.py write", "unrecognized arguments: write"),
        ("tests/transcripts.py docs/tools.md", "unrecognized arguments: docs/tools.md"),
        ("tests/picture.py --write", "unrecognized arguments: --write"),
        ("tests/real_loads.py --old qemu-system-x86_64", "expected --old and --new, or --write"),
        ("tests/real_loads.py --old cat", "--old: expected qemu-system-x86_64 or -aarch64, got `cat`"),
        ("-m benchmarks --nosuch", "unrecognized arguments: --nosuch"),
    ],
)
def test_wrong_arguments(line: str, words: str) -> None:
    done = subprocess.run([sys.executable, *line.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert words in done.stderr

"""Type checkers over the example, against the package as it is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.long
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_type_checkers_understand_the_classes(checker: str) -> None:
    """What they reveal is asserted in the example; what they must refuse carries an ignore that both insist on."""
    options = {"mypy": ["--strict"], "pyright": ["--pythonpath", sys.executable]}[checker]
    command = [sys.executable, "-m", checker, *options, "tests/typing_example.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout

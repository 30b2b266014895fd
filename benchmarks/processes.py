"""Processes of one's own: how they are started, and what they took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from benchmarks.errors import BenchmarkError

ROOT: Final = Path(__file__).parent.parent
MIB: Final = 1 << 20


def job(name: str, *arguments: object) -> list[str]:
    """The command line of a job; see `jobs`."""
    return [sys.executable, "-m", "benchmarks.jobs", name, *map(str, arguments)]


def run(line: list[str], extra: Mapping[str, str] | None = None) -> bytes:
    """What a process prints, with more in its environment. Raises BenchmarkError where it fails.

    Python keeps what it compiled, as it does for a user from the second run on, whatever the environment here says.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | dict(extra or {})
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"`{' '.join(line)}` ended with status {done.returncode}: {done.stderr.decode().strip()}")
    return done.stdout


def told(name: str, *arguments: object) -> Any:
    """What a job found."""
    return json.loads(run(job(name, *arguments)))


def seconds(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    start = perf_counter()
    work()
    return perf_counter() - start

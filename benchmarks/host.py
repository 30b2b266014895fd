"""What computer the figures are from, and which versions of everything."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants import CONTESTANTS
from tagged_vmstate.template import IS_COMPILED


@dataclass(frozen=True, slots=True)
class Host:
    """Where and when.

    Attributes:
        date: The day.
        python: Its implementation and version.
        system: The kernel and kind of machine.
        processor: What the processor calls itself.
        cores: How many there are.
        load: How many processes wanted them in the minute before.
        is_compiled: Whether this library's templates are.
        versions: Package -> version, of all that took part; None where it is not installed.
    """

    date: str
    python: str
    system: str
    processor: str
    cores: int
    load: float
    is_compiled: bool
    versions: Mapping[str, str | None]

    @classmethod
    def here(cls) -> Host:
        """This one, now."""
        return cls(
            date=str(dt.datetime.now(dt.UTC).date()),
            python=f"{platform.python_implementation()} {platform.python_version()}",
            system=f"{platform.system()} {platform.machine()}",
            processor=_processor(),
            cores=os.cpu_count() or 1,
            load=round(os.getloadavg()[0], 1),
            is_compiled=IS_COMPILED,
            versions={package: _version(package) for package in _packages()},
        )

    def describe(self) -> str:
        """All of it in a paragraph."""
        there = ", ".join(f"{package} {version}" for package, version in self.versions.items() if version)
        absent = [package for package, version in self.versions.items() if not version]
        missing = f" Not installed: {', '.join(absent)}." if absent else ""
        where = f"{self.python} on {self.system}, {self.cores} cores ({self.processor}), load {self.load} before it began"
        compiled = "Templates are compiled." if self.is_compiled else "Nothing is compiled."
        return f"{self.date}, {where}. {there}.{missing} {compiled}"


def _packages() -> Iterable[str]:
    needed = {package for each in CONTESTANTS.values() for package in each.needs.values()}
    return ["tagged-vmstate", *sorted(needed | {"click", "isal", "numpy", "rich"})]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return "unknown"
    return found[1] if found else "unknown"

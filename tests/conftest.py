"""What all tests share: the real streams, and how Hypothesis runs."""

from __future__ import annotations

import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

DATA: Final = Path(__file__).parent / "data"
STREAMS: Final = ("armvirt-qemu7.2", "isapc-qemu7.2", "pc-qemu10.0", "pc-qemu7.2", "pc-qemu7.2-reset")
"""Streams of unmodified QEMUs; data/README.md tells how each was made."""

for profile, examples in {"here": 20, "ci": 100}.items():
    settings.register_profile(profile, deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "here")


def stream_bytes(name: str) -> bytes:
    """A stream, decompressed. One that is missing fails, it is never skipped."""
    return lzma.decompress((DATA / f"{name}.mig.xz").read_bytes())


@pytest.fixture(scope="session")
def stream_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of a stream, decompressed, in a folder of the session."""
    folder = tmp_path_factory.mktemp("streams")

    def path(name: str) -> Path:
        found: Path = folder / f"{name}.mig"
        if not found.exists():
            found.write_bytes(stream_bytes(name))
        return found

    return path

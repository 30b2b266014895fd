"""What all tests share: the real streams, and how Hypothesis runs."""

from __future__ import annotations

import contextlib
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

from tagged_vmstate import layout, plan, prepared, saver, template
from tagged_vmstate.codec import Loader
from tagged_vmstate.errors import FormatError
from tagged_vmstate.records import decode_all
from tagged_vmstate.template import MisfitError
from tagged_vmstate.wire import Cursor

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


@pytest.fixture(scope="module", params=["readable", "straight", "installed"])
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a module field by field, and by templates from the first save and load on: those in Python, and those installed."""
    is_readable = request.param == "readable"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "USES", 1 << 60 if is_readable else 0)
        if not is_readable:
            patch.setattr(prepared.Prepared, "load", _learning(prepared.Prepared.load))
        with _templates(request.param):
            yield request.param


@pytest.fixture(scope="module", params=["straight", "installed"])
def templates(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a module by the templates in Python, and by those installed."""
    with _templates(request.param):
        yield request.param


@contextlib.contextmanager
def _templates(which: str) -> Iterator[None]:
    """Tables and machines of which nothing is known yet, and what makes their templates."""
    with pytest.MonkeyPatch.context() as patch:
        if which == "straight":
            patch.setattr(saver, "Packer", template.StraightPacker)
            patch.setattr(layout, "Unpacker", template.StraightUnpacker)
        _forget()
        yield
    _forget()


def _forget() -> None:
    caches: list[Any] = [prepared.prepared, plan.plan, plan.plan_of]
    for each in caches:
        each.cache_clear()


def _learning(load: Callable[..., prepared.Loaded | None]) -> Callable[..., prepared.Loaded | None]:
    """What loads fields by their template, and learns that first where `codec` takes them."""

    def loaded(self: prepared.Prepared, data: bytes, *, whole: bool) -> prepared.Loaded | None:
        found = load(self, data, whole=whole)
        if found is None:
            try:
                loader = Loader("", "keep" if whole else "error")
                if loader.load(self.table, decode_all(data)) is not None and not loader.findings:
                    self.learn(Cursor(data), None)
            except (FormatError, MisfitError):
                return None
            found = load(self, data, whole=whole)
        return found

    return loaded

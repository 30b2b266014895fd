"""Lets atheris make the inputs: libFuzzer, which keeps those that reach new code, with the mutations of the target.

What is a finding, and how it is made small and saved, is the engine's.
"""

from __future__ import annotations

import gc
import importlib
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from random import Random
from types import FunctionType
from typing import Any, Final, NoReturn

from tagged_vmstate.fuzz.engine import Engine, Limits, Outcome
from tagged_vmstate.fuzz.targets import Target

LEAST_BYTES: Final = 4096
"""Inputs may grow so far, or to twice the longest seed; left alone they grow until hardly one runs."""


def fuzz_by_coverage(
    target: Target,
    limits: Limits,
    ended: Callable[[Outcome], NoReturn],
    *,
    seed: int = 0,
    corpus: Path | None = None,
    findings: Path | None = None,
    rooms: Collection[str] = (),
) -> NoReturn:
    """Fuzz a target until a limit; as libFuzzer never returns, what is to be done then is handed over.

    Args:
        target: What to run.
        limits: When to stop.
        ended: Called at the end; ends this process.
        seed: The same seed runs the same inputs.
        corpus: A folder of inputs to begin with; what reaches new code is added. Made where it is not there.
        findings: A folder for findings, as for `fuzz`.
        rooms: Names of packages whose coverage guides, beside this one.

    Raises:
        ModuleNotFoundError: There is no atheris.
        OSError: A folder cannot be read or written.
    """
    atheris: Any = importlib.import_module("atheris")  # an extra
    for function in _functions({"tagged_vmstate", *rooms}):
        atheris.instrument_func(function)
    engine = Engine(target, limits, seed=seed, findings=findings)
    folder = tempfile.TemporaryDirectory()

    def run(data: bytes) -> None:
        engine.attempt(bytes(data))
        if engine.is_over():
            folder.cleanup()
            ended(engine.outcome)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        found = target.mutate(data, Random(seed))  # noqa: S311  # nothing secret
        return found if len(found) <= most else data

    seeds, kept = Path(folder.name) / "seeds", corpus or Path(folder.name) / "corpus"
    for each in (seeds, kept):
        each.mkdir(parents=True, exist_ok=True)
    most = LEAST_BYTES
    for number, data in enumerate(target.seeds()):
        (seeds / str(number)).write_bytes(data)
        most = max(most, 2 * len(data))
    # The engine has a clock of its own, and ^C is Python's.
    options = [f"-seed={seed + 1}", f"-max_len={most}", "-handle_alrm=0", "-timeout=0", "-handle_int=0"]
    atheris.Setup(["fuzz", *options, str(kept), str(seeds)], run, custom_mutator=mutate)
    atheris.Fuzz()
    raise AssertionError("libFuzzer ends the process itself")


def _functions(rooms: Collection[str]) -> list[FunctionType]:
    """All functions of some packages that are loaded, but for the harness itself."""
    own = ("tagged_vmstate.fuzz", "tagged_vmstate.cli")
    return [
        each
        for each in gc.get_objects()
        if isinstance(each, FunctionType)
        and (each.__module__ or "").partition(".")[0] in rooms
        and not each.__module__.startswith(own)
    ]

"""Runs a target on mutated inputs; keeps those that did something new, and makes findings small.

What is new is told by the behaviour that a target reports: which errors and problems were reached.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final

from tagged_vmstate.fuzz.targets import Defect, Target, kind_of

SLOW_SECONDS: Final = 1.0
"""An input of a fuzzer is small: one that takes longer is a finding."""
SMALLER_RUNS: Final = 2000
TOLD_EVERY: Final = 0.2
SHOWN_SECONDS: Final = 30.0
"""A reproducer that takes longer hangs."""
CANNOT_RUN: Final = (126, 127)
"""What a shell returns for a command that it cannot run."""
UNSHOWN: Final = "Run on its own, this line does not show it: the runs may share something that an earlier one had changed."


class _HangError(BaseException):
    """The time of one input is over; not an Exception, which a target might catch."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop.

    Attributes:
        seconds: After so many; None for never.
        runs: After so many runs; None for never.
        findings: After so many findings.
    """

    seconds: float | None = None
    runs: int | None = None
    findings: int = 10


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        runs: How many inputs were run.
        behaviours: Everything that a target did, and how often.
        corpus: The inputs that did something new.
        findings: What kind of defect -> the smallest input that shows it.
        unshown: The same, where the target's reproducer, run on its own, did not show it.
        seconds: How long it took.
        first: Seconds until the first finding.
    """

    runs: int = 0
    behaviours: dict[str, int] = field(default_factory=dict)
    corpus: list[bytes] = field(default_factory=list)
    findings: dict[str, bytes] = field(default_factory=dict)
    unshown: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    first: float | None = None


def fuzz(
    target: Target,
    limits: Limits,
    *,
    seed: int = 0,
    corpus: Path | None = None,
    findings: Path | None = None,
    told: Callable[[Outcome], None] = lambda _outcome: None,
) -> Outcome:
    """Fuzz a target.

    Args:
        target: What to run.
        limits: When to stop.
        seed: The same seed runs the same inputs.
        corpus: A folder of inputs to begin with; what does something new is added. Made where it is not there.
        findings: A folder for findings: the input, and beside it how to reproduce it.
        told: Called now and then.

    Raises:
        OSError: A folder cannot be read or written.
    """
    return Engine(target, limits, seed=seed, corpus=corpus, findings=findings).run(told)


class Engine:
    """Runs inputs, and keeps what came of them. See `fuzz` for the arguments.

    Attributes:
        outcome: What came of it so far.
    """

    def __init__(
        self, target: Target, limits: Limits, *, seed: int = 0, corpus: Path | None = None, findings: Path | None = None
    ) -> None:
        self.outcome = Outcome()
        self._target = target
        self._limits = limits
        self._random = Random(seed)  # noqa: S311  # nothing secret
        self._corpus = corpus
        self._folder = findings
        self._start = time.monotonic()

    def run(self, told: Callable[[Outcome], None]) -> Outcome:
        """Make inputs until a limit."""
        outcome, random = self.outcome, self._random
        for data in (*self._target.seeds(), *self._stored()):
            self.attempt(data)
        last = 0.0
        while outcome.corpus and not self.is_over():
            data = self._target.mutate(random.choice(outcome.corpus), random)
            if random.random() < 0.2:
                data = self._target.mutate(data, random)
            self.attempt(data)
            if outcome.seconds - last > TOLD_EVERY:
                last = outcome.seconds
                told(outcome)
        told(outcome)
        return outcome

    def _stored(self) -> Iterator[bytes]:
        if self._corpus is None:
            return
        self._corpus.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._corpus.iterdir()):
            if path.is_file():
                yield path.read_bytes()

    def is_over(self) -> bool:
        """Whether a limit is reached."""
        outcome, limits = self.outcome, self._limits
        if len(outcome.findings) + len(outcome.unshown) >= limits.findings or (
            limits.runs is not None and outcome.runs >= limits.runs
        ):
            return True
        return limits.seconds is not None and outcome.seconds >= limits.seconds

    def attempt(self, data: bytes) -> None:
        """Run one input; a finding is made small and saved, what did something new is kept."""
        self._attempt(data)
        self.outcome.runs += 1
        self.outcome.seconds = time.monotonic() - self._start

    def _attempt(self, data: bytes) -> None:
        outcome = self.outcome
        behaviour, error = self._behaviour(data)
        if error is not None:
            if behaviour not in {**outcome.findings, **outcome.unshown}:
                first = time.monotonic() - self._start
                data = self._smallest(data, behaviour)
                is_shown = self._is_shown(data, error)
                if is_shown:
                    outcome.first = outcome.first or first
                (outcome.findings if is_shown else outcome.unshown)[behaviour] = data
                self._save_finding(behaviour, data, "" if is_shown else f"{UNSHOWN}\n")
            return
        count = outcome.behaviours.get(behaviour, 0)
        outcome.behaviours[behaviour] = count + 1
        if not count:
            outcome.corpus.append(data)
            if self._corpus is not None:
                (self._corpus / f"{_digest(data)}{self._target.suffix}").write_bytes(data)

    def _behaviour(self, data: bytes) -> tuple[str, BaseException | None]:
        """What happens, and the defect where it is one."""
        try:
            with _limited(SLOW_SECONDS):
                return self._target.run(data), None
        except _HangError as error:
            return f"takes more than {SLOW_SECONDS:g} s", error
        except Exception as error:  # noqa: BLE001  # whatever a target raises is what we are looking for
            frames = traceback.extract_tb(error.__traceback__)
            place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
            return f"{kind_of(error)} in {place}", error

    def _smallest(self, data: bytes, behaviour: str) -> bytes:
        """The smallest input that does the same."""
        runs = 0
        shrinks = True
        while shrinks:
            shrinks = False
            for candidate in self._target.smaller(data):
                runs += 1
                if runs > SMALLER_RUNS:
                    return data
                if len(candidate) < len(data) and self._behaviour(candidate)[0] == behaviour:
                    data, shrinks = candidate, True
                    break
        return data

    def _is_shown(self, data: bytes, error: BaseException) -> bool:
        """Whether the reproducer shows a finding, in a shell of its own."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"finding{self._target.suffix}"
            path.write_bytes(data)
            line = self._target.reproducer(str(path))
            return not line or _shows(line, error)

    def _save_finding(self, behaviour: str, data: bytes, note: str) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{_digest(behaviour.encode())}{self._target.suffix}"
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(f"{behaviour}\n{self._target.reproducer(str(path))}\n{note}")


def _shows(line: str, error: BaseException) -> bool:
    """Whether a line for a shell fails with an error, or takes as long."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    start = time.monotonic()
    shell = subprocess.Popen(  # noqa: S602  # the line is for a shell
        line,
        shell=True,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        said = shell.communicate(timeout=SHOWN_SECONDS)[1].decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.communicate()
        return isinstance(error, _HangError)
    if isinstance(error, _HangError):
        return time.monotonic() - start >= SLOW_SECONDS
    if isinstance(error, Defect):
        return shell.returncode not in {0, *CANNOT_RUN}
    return shell.returncode != 0 and type(error).__name__ in said


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """A block that is ended after some time; only the main thread can be."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

"""Time, fairly on a machine that does other things too: all contestants of a case in many short rounds, shuffled.

What disturbs one round disturbs all that are in it; so ratios are taken within a round, and the middle one counts.
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import repeat
from random import Random
from time import perf_counter
from typing import Any, Final, TypeAlias, TypeVar

Key = TypeVar("Key", bound=Hashable)
Samples: TypeAlias = tuple[float, ...]
"""What was measured in each round."""
WARM_CALLS: Final = 100
WARM_SECONDS: Final = 1.0
_TICK: Final = 1e-9
"""What the clock can tell apart, in seconds."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work a case may be.

    Attributes:
        rounds: Rounds of calls of micro- and milliseconds.
        slot: Seconds that each of them lasts in a round.
        runs: Rounds of whole processes and of big files.
        scale: Part of the full size of big files.
    """

    rounds: int
    slot: float
    runs: int
    scale: float


FULL: Final = Effort(rounds=60, slot=0.005, runs=11, scale=1.0)
QUICK: Final = Effort(rounds=5, slot=0.001, runs=2, scale=1 / 16)


@dataclass(frozen=True, slots=True)
class Figure:
    """What many rounds come to."""

    minimum: float
    median: float

    @classmethod
    def of(cls, samples: Samples) -> Figure:
        """The figure of samples."""
        return cls(min(samples), statistics.median(samples))

    @classmethod
    def ratio(cls, samples: Samples, others: Samples) -> Figure:
        """How many times `others` that is: of the minima, and in the middle one of the rounds."""
        within = [each / other for each, other in zip(samples, others, strict=True)]
        return cls(min(samples) / min(others), statistics.median(within))


@dataclass(frozen=True, slots=True)
class Task:
    """One function called with one argument, to be timed."""

    function: Callable[[Any], object]
    argument: Any

    def seconds(self, count: int) -> float:
        """Seconds a call, of so many."""
        function, argument = self.function, self.argument
        start = perf_counter()
        for _ in repeat(None, count):
            function(argument)
        return (perf_counter() - start) / count


def interleaved(tasks: Mapping[Key, Task], effort: Effort) -> dict[Key, Samples]:
    """Seconds a call of each task in each round.

    Every task is warm before: what a library prepares late is prepared. Each round takes all tasks in an order of its own. A
    task is called once untimed, then for `Effort.slot` seconds.
    The garbage collector runs between rounds and is off in them.
    """
    for task in tasks.values():
        _warm(task)
    counts = {key: _count(task, effort.slot) for key, task in tasks.items()}

    def measure(key: Key) -> float:
        tasks[key].seconds(1)
        return tasks[key].seconds(counts[key])

    gc.collect()
    gc.freeze()
    try:
        return in_rounds(measure, list(tasks), effort.rounds)
    finally:
        gc.unfreeze()


def in_rounds(measure: Callable[[Key], float], keys: list[Key], rounds: int) -> dict[Key, Samples]:
    """What `measure` finds for each key in each round, in an order of its own."""
    found: dict[Key, list[float]] = {key: [] for key in keys}
    random = Random(rounds)
    for number in range(rounds):
        _tell(number, rounds)
        gc.collect()
        gc.disable()
        try:
            for key in random.sample(keys, len(keys)):
                found[key].append(measure(key))
        finally:
            gc.enable()
    return {key: tuple(samples) for key, samples in found.items()}


def _warm(task: Task) -> None:
    start = perf_counter()
    for _ in range(WARM_CALLS):
        task.seconds(1)
        if perf_counter() - start > WARM_SECONDS:
            return


def _count(task: Task, slot: float) -> int:
    task.seconds(1)
    return max(1, math.floor(slot / max(task.seconds(1), _TICK)))


def _tell(number: int, rounds: int) -> None:
    """Where a person waits, say how far it is."""
    if sys.stderr.isatty():
        print(f"\r  round {number + 1} of {rounds} ", end="" if number + 1 < rounds else "\r\033[K", file=sys.stderr, flush=True)

"""The contestants of a case, verified: who can take part, and a sentence for each who cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.contestants import Codec, Contestant
from benchmarks.errors import BenchmarkError
from benchmarks.workload import Workload


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contestant that came through the round trip of a workload, and the bytes that it made."""

    contestant: Contestant
    codec: Codec
    data: bytes


def verified(contestants: Iterable[Contestant], workload: Workload) -> Iterator[Entrant]:
    """Those that are installed, each once its round trip gave the workload again. Raises BenchmarkError where it did not."""
    for each in contestants:
        if each.missing() is None:
            codec = each.codec(workload.shape)
            yield Entrant(each, codec, _verified(each, codec, workload))


def absent(contestants: Iterable[Contestant]) -> tuple[str, ...]:
    """A sentence for each contestant that is not installed."""
    return tuple(
        f"Not measured: {each.name}, because {need} is not installed." for each in contestants if (need := each.missing())
    )


def _verified(contestant: Contestant, codec: Codec, workload: Workload) -> bytes:
    data = codec.encode(codec.make(workload.values))
    if codec.plain(codec.decode(data)) != codec.plain(workload.values):
        raise BenchmarkError(f"{contestant.name} gives back another {workload.shape.name} than it was given")
    return data

"""Ways to get one big buffer into a file and back."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import tagged_vmstate as tv
from benchmarks.classes import dataclass_of, tagged
from benchmarks.contestants import CONTESTANTS, MSGSPEC, OURS, PICKLE, PROTOBUF, YARDSTICK, Contestant
from benchmarks.shapes import Shape, Values, make, plain

PLAIN: Final = "write and read, nothing else"
"""The floor: the bytes of the buffer alone."""


@dataclass(frozen=True, slots=True)
class Way:
    """One shape to a file and back.

    Attributes:
        make: Plain values to a state.
        save: A state to a path, as good as on the disk.
        load: A path to a state.
        plain: A state to plain values.
        is_new: Whether a load makes a new buffer.
    """

    make: Callable[[Values], Any]
    save: Callable[[Any, Path], object]
    load: Callable[[Path], Any]
    plain: Callable[[Any], Values]
    is_new: bool = True


def _ours(shape: Shape) -> Way:
    classes = tagged(shape)
    kind = classes[shape.name]
    return Way(partial(make, classes, shape), tv.dump, lambda path: tv.load(path, kind), partial(plain, shape))


def _ours_in_place(shape: Shape) -> Way:
    """Loaded into a state that is there, as a device's memory is; so its buffer is no new one."""
    kind = tagged(replace(shape, fields=tuple(replace(each, holder="bytearray") for each in shape.fields)))[shape.name]
    [field] = shape.fields
    target = kind(data=bytearray(b"\1") * (field.length or 0))
    return Way(
        lambda values: kind(data=bytearray(values["data"])),
        tv.dump,
        lambda path: tv.load(path, into=target),
        lambda state: {"data": state.data},
        is_new=False,
    )


def _plain(_shape: Shape) -> Way:
    return Way(
        lambda values: values["data"],
        lambda state, path: _written(path, lambda file: file.write(state)),
        Path.read_bytes,
        lambda state: {"data": state},
    )


def _pickle(shape: Shape) -> Way:
    """By its own functions for files, which copy no big buffer."""

    def load(path: Path) -> Any:
        with path.open("rb") as file:
            return pickle.load(file)

    return Way(
        partial(make, dataclass_of(shape, slots=False), shape),
        lambda state, path: _written(path, lambda file: pickle.dump(state, file, protocol=5)),
        load,
        partial(plain, shape),
    )


def _through_bytes(contestant: Contestant, shape: Shape) -> Way:
    codec = contestant.codec(shape)
    return Way(
        codec.make,
        lambda state, path: _written(path, lambda file: file.write(codec.encode(state))),
        lambda path: codec.decode(path.read_bytes()),
        codec.plain,
    )


def _written(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


WAYS: Final[dict[str, Callable[[Shape], Way]]] = {
    OURS: _ours,
    f"{OURS}, into its bytearray": _ours_in_place,
    PLAIN: _plain,
    PICKLE: _pickle,
    **{name: partial(_through_bytes, CONTESTANTS[name]) for name in (MSGSPEC, YARDSTICK, PROTOBUF)},
}

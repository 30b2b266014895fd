"""New values into the states that are there, all or none.

A struct that is there is filled, so that whoever holds it sees the new values; arrays and everything else are
replaced. What a state was before is remembered first: `Undo` puts it all back. It remembers what the attributes hold,
all of them, for hooks set more than fields; what a hook changes within such an object, it does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from tagged_vmstate.fieldtype import FieldType
from tagged_vmstate.table import Table

_UNSET = object()


class New(Protocol):
    """A new state, to be had as it is or put into one that is there."""

    @property
    def state(self) -> Any:
        """The state itself."""
        ...

    def fill(self, target: Any, undo: Undo) -> None:
        """Put it into a state that is there."""
        ...


class Undo:
    """What states were before they were changed.

    Attributes:
        troubles: What went wrong while they were put back, in sentences.
    """

    def __init__(self) -> None:
        self.troubles: list[str] = []
        self._back: list[Callable[[], None]] = []
        self._seen: set[int] = set()

    def remember(self, table: Table, state: Any) -> bool:
        """Remember a state as it is; whether this is the first time."""
        if id(state) in self._seen:
            return False
        self._seen.add(id(state))
        self._back.append(_dict_back(state) if table.state is dict else _object_back(table, state))
        return True

    def take(self, states: Sequence[Any], back: Callable[[], None]) -> bool:
        """Remember how to put several states back; whether this is the first time for each. If not, nothing is remembered."""
        ids = set(map(id, states))
        if len(ids) != len(states) or not self._seen.isdisjoint(ids):
            return False
        ids |= self._seen
        self._seen = ids
        self._back.append(back)
        return True

    def add(self, back: Callable[[], None]) -> None:
        """Remember how to put something else back. It may be called twice."""
        self._back.append(back)

    def undo(self) -> None:
        """Put everything back. One that was interrupted goes on where it was when it is called again."""
        while self._back:
            self._back[-1]()
            self._back.pop()

    def replay(self) -> None:
        """Put everything back, and remember it still."""
        for back in reversed(self._back):
            back()


def _dict_back(state: dict[Any, Any]) -> Callable[[], None]:
    before = dict(state)

    def back() -> None:
        state.clear()
        state.update(before)

    return back


def _object_back(table: Table, state: Any) -> Callable[[], None]:
    before = {name: getattr(state, name, _UNSET) for name in table.attributes}
    others = dict(vars(state)) if hasattr(state, "__dict__") else None

    def back() -> None:
        for name, value in before.items():
            if getattr(state, name, _UNSET) is value:
                continue  # as it was, or never could be set
            if value is _UNSET:
                delattr(state, name)
            else:
                setattr(state, name, value)
        if others is not None:
            vars(state).clear()
            vars(state).update(others)

    return back


def all_or_none(work: Callable[[Undo], None]) -> None:
    """Do what changes states and remembers them first; whatever it raises, they are as they were."""
    undo = Undo()
    try:
        work(undo)
    except BaseException as error:
        try:
            undo.undo()
        finally:
            undo.undo()  # an interrupt may have ended the first
            for trouble in undo.troubles:
                error.add_note(trouble)
        raise


@dataclass(frozen=True, slots=True)
class Made:
    """A new state."""

    table: Table
    state: Any

    def fill(self, target: Any, undo: Undo) -> None:
        """Put it into a state that is there."""
        assign(self.table, target, self.state, undo)


def assign(table: Table, target: Any, source: Any, undo: Undo) -> None:
    """Fill a state with the values of another, which is given up."""
    undo.remember(table, target)
    for field in table.fields:
        value = table.get(source, field)
        if field.table:
            value = filled(field.type, table.present(target, field.attribute), value, undo)
        table.set(target, field.attribute, value)
    if table.kept(source) or table.kept(target):
        table.set_kept(target, table.kept(source))


def filled(kind: FieldType, old: Any, new: Any, undo: Undo) -> Any:
    """The structs that were there, filled; new ones where none were."""
    if not kind.is_array:
        return _one_filled(cast("Table", kind.table), old, new, undo)
    olds = list(old) if isinstance(old, list | tuple) else []
    olds += [None] * (len(new) - len(olds))
    return kind.holder(_one_filled(cast("Table", kind.table), *pair, undo) for pair in zip(olds, new, strict=False))


def _one_filled(table: Table, old: Any, new: Any, undo: Undo) -> Any:
    # One object in two places must become two: it cannot hold two values.
    if new is None or old is None or not table.is_state(old) or not undo.remember(table, old):
        return new
    assign(table, old, new, undo)
    return old

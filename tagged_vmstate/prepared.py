"""The fast path of tables: templates, made once a table is used often enough to pay for them.

`codec` is what saving and loading mean. What is here gives the same results sooner or gives nothing, and then `codec`
is asked. To make the templates of a table takes as long as some thirty saves by `codec` (benchmarks, case `prepare`): a tool
that loads one file once never does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final, cast

from tagged_vmstate import codec
from tagged_vmstate.assign import Undo, assign
from tagged_vmstate.layout import Layout, Learner, ReaderOfAll
from tagged_vmstate.saver import Saver, saver
from tagged_vmstate.shape import Shape
from tagged_vmstate.table import Table
from tagged_vmstate.template import MisfitError, Row
from tagged_vmstate.wire import Cursor, Piece

USES: Final = 32
"""A table is prepared when it has been saved, or loaded, so often."""
LAYOUTS: Final = 4
"""Writers whose layouts a table remembers: its own, and those of the releases that snapshots still come from."""
TABLES: Final = 1 << 12
"""Tables that are remembered."""


class Patience:
    """Waits until something has been used often enough to pay for learning it, and each time twice as long."""

    def __init__(self) -> None:
        self._left = self._next = USES

    def is_over(self) -> bool:
        """Count one more use."""
        self._left -= 1
        if self._left > 0:
            return False
        self._next *= 2
        self._left = self._next
        return True


class Loaded:
    """A new state of a table, made once it is asked for.

    Attributes:
        state: The state.
    """

    __slots__ = ("_row", "_shape", "_state")

    def __init__(self, shape: Shape, row: Row) -> None:
        self._shape = shape
        self._row = row
        self._state: Any = None
        if shape.has_checks:
            self._state = shape.make(row)
            if shape.is_plain:
                self._row = shape.look(self._state)[1]

    @property
    def state(self) -> Any:
        """The state itself."""
        if self._state is None:
            self._state = self._shape.make(self._row)
        return self._state

    def fill(self, target: Any, undo: Undo) -> None:
        """Put it into a state that is there, as `assign` does."""
        if not self._shape.fill(target, self._row, undo):
            assign(self._shape.table, target, self.state, undo)


class Prepared:
    """What is known of a table by now.

    Attributes:
        table: The table.
        saver: What saves its plain states; None before it pays to have it.
        layouts: What its bytes look like, those of the latest writer first.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.saver: Saver | None = None
        self._saves, self._loads = Patience(), Patience()
        self.layouts: Sequence[Layout] = ()

    @cached_property
    def shape(self) -> Shape | None:
        """The table flattened; None where it cannot be."""
        try:
            return Shape(self.table)
        except MisfitError:
            return None

    def save(self, state: Any) -> Sequence[Piece]:
        """The fields of a state as bytes in pieces. Raises StateError."""
        if self.saver is None and self._saves.is_over() and self.shape:
            self.saver = saver(self.shape)
        if self.saver is not None:
            try:
                return self.saver(state)
            except Exception:  # noqa: BLE001, S110  # whatever is odd about a state is for `codec` to say
                pass
        return codec.save(self.table, state)

    def load(self, data: Piece, *, whole: bool) -> Loaded | None:
        """A new state of some fields; None where no layout fits."""
        row = self.row(data, whole=whole)
        try:
            return None if row is None else Loaded(cast("Shape", self.shape), row)
        except Exception:  # noqa: BLE001  # what a check refuses, too
            return None

    def reader(self, data: Piece) -> ReaderOfAll | None:
        """What reads the row of such fields; None where no layout does."""
        for layout in self.layouts:
            with contextlib.suppress(Exception):  # another may fit
                layout.read_all(data)
                return layout.read_all
        return None

    def row(self, data: Piece, *, whole: bool) -> Row | None:
        """The row of some fields; None where no layout fits."""
        for layout in self.layouts:
            if layout.is_whole or not whole:
                try:
                    return layout.read_all(data)
                except Exception:  # noqa: BLE001, S112  # another may fit; what none fits is for `codec` to say
                    continue
        return None

    def read(self, cursor: Cursor, count: int) -> Row:
        """The row of so many fields; the cursor is moved behind them. Raises MisfitError where no layout fits."""
        for layout in self.layouts:
            if layout.count == count and layout.is_full:
                try:
                    row, cursor.pos = layout.read(cursor.data, cursor.pos)
                except Exception:  # noqa: BLE001, S112  # another may fit
                    continue
                return cast("Row", row)
        raise MisfitError

    def missed(self, data: bytes) -> None:
        """Learn the layout of fields that `codec` has loaded, where such have come often enough."""
        if self._loads.is_over():
            with contextlib.suppress(Exception):  # odd bytes were loaded all the same; nothing may come of them here
                self.learn(Cursor(data), None)

    def learn(self, cursor: Cursor, count: int | None) -> None:
        """Learn the layout of so many fields, or of all up to the end. Raises MisfitError where it cannot be."""
        if self.shape is None or self.shape.sees_more:
            raise MisfitError
        layout = Learner(self.shape, Elements, cursor).learnt(count)
        self.layouts = (layout, *self.layouts[: LAYOUTS - 1])


class Elements:
    """Structs of a table that stand in arrays, or may be absent.

    Args:
        table: The table.
    """

    def __init__(self, table: Table) -> None:
        self._prepared = prepared(table)

    def read(self, cursor: Cursor) -> Any:
        """The state of the struct at a place. Raises MisfitError."""
        return self._state(self._prepared.read(cursor, cursor.read_array("a struct")))

    def learn(self, cursor: Cursor) -> Any:
        """The same, learning its layout where it is new."""
        count, start = cursor.read_array("a struct"), cursor.pos
        try:
            return self._state(self._prepared.read(cursor, count))
        except MisfitError:
            self._prepared.learn(cursor, count)
            cursor.pos = start
            return self._state(self._prepared.read(cursor, count))

    def _state(self, row: Row) -> Any:
        return cast("Shape", self._prepared.shape).make(row)


@lru_cache(TABLES)
def prepared(table: Table) -> Prepared:
    """What is known of a table by now."""
    return Prepared(table)


def save(table: Table, state: Any, without: Container[str] = ()) -> Sequence[Piece]:
    """The fields of a state as bytes in pieces: see `codec.save`."""
    return codec.save(table, state, without) if without else prepared(table).save(state)

"""The hooks of a load: `post_load` pushes values outward, so a load that fails must make what it pushed return.

A change of states whose hooks push goes through these steps; whatever fails in one, the steps before it are taken back:

    1. remember the states that have a `pre_save`, and call it, so that they hold what lies outside of them
    2. remember all states, and fill them
    3. call `post_load` of one device after another

Taken back: the states as step 2 found them, then `post_load` of the devices that step 3 reached, with these old values,
then the states as step 1 found them.

A check calls `post_load` as well, but only on copies from which nothing outside can be reached.
"""

from __future__ import annotations

import copy
import enum
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from tagged_vmstate.assign import Undo
from tagged_vmstate.codec import call, raised, structs
from tagged_vmstate.devices import Entry
from tagged_vmstate.errors import Finding, StateError
from tagged_vmstate.paths import PathPart, format_path
from tagged_vmstate.rules import HOOK, HOOK_NOT_RUN
from tagged_vmstate.table import Table

POST_LOAD: Final = "post_load"
_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, bytearray, range)
_HOLDERS: Final = (list, tuple, set, frozenset, deque)


def pushing(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The devices whose hooks push values outward."""
    return [entry for entry in entries if POST_LOAD in entry.table.hooks]


def change(entries: Sequence[Entry], undo: Undo, fill: Callable[[Undo], None]) -> None:
    """Change the states of devices, then call their `post_load`.

    Args:
        entries: The devices that push.
        undo: Takes everything back, where this or something after it fails.
        fill: Changes the states, and lets the `Undo` that it is given remember them first.

    Raises:
        StateError: A hook raised.
    """
    if not entries:
        fill(undo)
        return
    pulling = (entry for entry in entries if "pre_save" in entry.table.hooks)
    unpulled = {entry.label: trouble for entry in pulling if (trouble := _pull(entry, undo))}
    reached: list[Entry] = []
    filled = Undo()
    undo.add(filled.replay)  # after hooks that changed what had been restored
    undo.add(lambda: _push_back(reached, unpulled, undo.troubles))
    undo.add(filled.replay)
    fill(filled)
    for entry in entries:
        reached.append(entry)
        finish(entry)


def finish(entry: Entry) -> None:
    """Call `post_load` of all structs in a state, then its own. Raises StateError from what one raises."""
    if POST_LOAD not in entry.table.hooks:
        return
    try:
        for table, state, path in reversed([*structs(entry.table, entry.state)]):
            _post_load(table, state, path)
    except StateError as error:
        error.section = entry.label
        raise


def _post_load(table: Table, state: Any, path: tuple[PathPart, ...]) -> None:
    call(table.post_load, state, f"`post_load` of `{table.owner}` to return", path)


def _pull(entry: Entry, undo: Undo) -> str | None:
    """Remember a state, and let it fetch what lies outside of it; why it could not, if so."""
    try:
        found = [*structs(entry.table, entry.state)]
        for table, state, _ in found:
            _remember(entry, table, state, undo)
        for table, state, path in found:
            call(table.pre_save, state, f"`pre_save` of `{table.owner}` to return", path)
    except StateError as error:
        # Its old values are not known, and a save would be refused; a load may be what repairs it.
        return f"what {entry.label} had pushed outward is not restored: {error}"
    return None


def _remember(entry: Entry, table: Table, state: Any, undo: Undo) -> None:
    try:
        undo.remember(table, state)
    except Exception as error:  # reading an attribute may run the code of the class
        raise refused(entry, error) from error


def _push_back(reached: list[Entry], unpulled: dict[str, str], troubles: list[str]) -> None:
    """Push the values outward that the states hold again, each device's once however often this is called."""
    interrupt: BaseException | None = None
    while reached:
        entry = reached.pop(0)
        if entry.label in unpulled:
            troubles.append(unpulled[entry.label])
            continue
        for table, state, path in reversed([*structs(entry.table, entry.state)]):
            try:
                _post_load(table, state, path)
            except StateError as error:
                error.section = entry.label
                troubles.append(f"while everything was restored: {error}")
            except BaseException as error:  # noqa: BLE001  # an interrupt: the others are restored before it goes on
                interrupt = error
    if interrupt is not None:
        raise interrupt


def rehearsed(entries: Sequence[Entry], states: Sequence[Any]) -> list[Finding]:
    """What `post_load` says of new states that nobody else holds, or why it was not asked.

    Args:
        entries: The devices.
        states: A new state for each, which may be changed.
    """
    found: list[Finding] = []
    copies: dict[int, Any] = {}  # what two states share, their copies share
    for entry in (Entry(each.table, each.instance, state) for each, state in zip(entries, states, strict=True)):
        if POST_LOAD not in entry.table.hooks:
            continue
        inside = [*structs(entry.table, entry.state)]
        obstacle = next((words for words in map(_outside, inside) if words), None)
        if obstacle:
            owners = dict.fromkeys(f"`{table.owner}`" for table, _, _ in inside if table.post_load)
            found += (
                Finding(HOOK_NOT_RUN.id, entry.label, (), "", f"`post_load` of {owner} was not run: {obstacle}", None)
                for owner in owners
            )
            continue
        for table, state, _ in inside:
            table.replace_others(state, copy.deepcopy(table.others(state), copies))
        try:
            finish(entry)
        except StateError as error:
            found.append(refusal(error))
    return found


def _outside(place: tuple[Table, Any, tuple[PathPart, ...]]) -> str | None:
    """What of a state could lead outside of it; None where all is plain data."""
    table, state, path = place
    for name, value in table.others(state).items():
        if not _is_data(value):
            return f"`{format_path(None, (*path, name))}` holds a `{type(value).__name__}`, which a copy would share"
    return None


def _is_data(value: Any) -> bool:
    if isinstance(value, _HOLDERS) and type(value) in _HOLDERS:
        return all(map(_is_data, value))
    if type(value) is dict:
        return all(map(_is_data, value)) and all(map(_is_data, value.values()))
    return type(value) in _PLAIN or isinstance(value, enum.Enum)


def refusal(error: StateError) -> Finding:
    """The problem that a state, or a hook of it, raised."""
    return Finding(HOOK.id, error.section or "", error.path, error.expected, error.found, None)


def refused(entry: Entry, error: Exception) -> StateError:
    """What a device raises that does not take its values."""
    found = StateError(f"`{entry.table.owner}` to take its values", raised(error))
    if isinstance(error, StateError):
        found = error
    found.section = entry.label
    return found

"""How a QEMU has to be set so that its migration can be read here, and what is asked of it until it takes it.

Migration capabilities that are set may change the stream (multifd, mapped-ram), wait for an answer (return-path,
postcopy-ram) or stop on the way (pause-before-switchover): for as long as a capture lasts they are off.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from tagged_vmstate.qemu.qmp import CaptureError, Connection, RefusedError, shown

POLL_SECONDS: Final = 0.05
_HARMLESS: Final = frozenset(
    {"auto-converge", "dirty-bitmaps", "dirty-limit", "events", "late-block-activate", "validate-uuid", "zero-blocks"}
)
"""Migration capabilities (QEMU's qapi/migration.json) that leave a stream that is read here, and need no answer."""
_USUAL: Final = {"tls-creds": "", "mode": "normal"}
"""Migration parameters that change the stream, and the value that does not."""


def check_parameters(qmp: Connection) -> None:
    """Raises CaptureError where a parameter is set that makes a stream that is not read here."""
    parameters = qmp.ask("query-migrate-parameters")
    for name, usual in _USUAL.items():
        value = parameters.text(name, usual)
        if value != usual:
            needed = f"`{usual}`" if usual else "empty"
            raise CaptureError(f"QEMU's migration parameter `{name}` is `{shown(value)}`: for a capture it must be {needed}")


@contextlib.contextmanager
def readable(qmp: Connection) -> Iterator[list[str]]:
    """For as long as it lasts, QEMU writes a stream that is read here; yields notes on what is switched off for that.

    A capability that is not known here is switched off too: it may change the stream. Raises CaptureError.
    """
    states = qmp.ask_list("query-migrate-capabilities")
    names = [each.text("capability") for each in states if each.flag("state") and each.text("capability") not in _HARMLESS]
    if not names:
        yield []
        return
    word = "capability" if len(names) == 1 else "capabilities"
    what = f"QEMU's migration {word} {', '.join(f'`{shown(name)}`' for name in names)}"
    try:
        _switch(qmp, names, qmp.seconds, on=False)
        yield [f"off during the capture: {what}"]
        insist(qmp, lambda seconds: _switch(qmp, names, seconds, on=True))
    except BaseException as error:
        doubt = f"{what} may be off now: `migrate_set_capability` in QEMU's monitor"
        after(error, lambda: insist(qmp, lambda seconds: _switch(qmp, names, seconds, on=True)), doubt)
        raise


def _switch(qmp: Connection, names: list[str], seconds: float, *, on: bool) -> None:
    states = [{"capability": name, "state": on} for name in names]
    qmp.ask("migrate-set-capabilities", seconds=seconds, capabilities=states)


def insist(qmp: Connection, attempt: Callable[[float], None]) -> None:
    """Try until QEMU takes it, or time is up: it refuses while it ends a migration. Raises CaptureError.

    Args:
        qmp: The connection.
        attempt: What is tried; it gets the seconds that are left.
    """
    end = time.monotonic() + qmp.seconds
    while True:
        try:
            attempt(end - time.monotonic())
        except RefusedError:
            if time.monotonic() + POLL_SECONDS > end:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return


def after(error: BaseException, action: Callable[[], None], doubt: str) -> None:
    """Put something right after an error, which gets a note where that fails; so does an interrupt meanwhile."""
    try:
        action()
    except CaptureError:
        error.add_note(doubt)
    except BaseException as interrupt:
        interrupt.add_note(doubt)
        raise

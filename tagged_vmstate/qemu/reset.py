"""Whether the machine that a stream was taken of has run, by what the stream says of it.

A QEMU started with -S has the run state `prelaunch`, which QEMU 2.4 and later write (migration/global_state.c), and a clock at
zero, which all of them write (the section `timer`). Both stand at a fixed place, so a stream that describes nothing says it too.
"""

from __future__ import annotations

from typing import Final

from tagged_vmstate.qemu.encode import encode_device
from tagged_vmstate.qemu.export import Origin

AT_RESET: Final = "prelaunch"
_STATE: Final = slice(4, 36)
_CLOCK: Final = slice(16, 24)
_SECOND: Final = 1_000_000_000


def has_run(origin: Origin) -> str | None:
    """What says that a machine has run, or that it may have; None where it is at its reset.

    Raises:
        StateError: The stream cannot be made again from what was imported.
    """
    wanted = {"globalstate", "timer"}
    found = {
        section.device: encode_device(struct, section.records())
        for section, _, struct in origin.items()
        if section.device in wanted
    }
    state = found.get("globalstate", b"")[_STATE].split(b"\0")[0].decode(errors="replace")
    clock = int.from_bytes(found.get("timer", b"")[_CLOCK], "big", signed=True)
    if state and state != AT_RESET:
        return f"its run state is `{state}`"
    if clock:
        return f"its clock is at {clock / _SECOND:.2f} s"
    return None if found else "nothing in it says that it has not"

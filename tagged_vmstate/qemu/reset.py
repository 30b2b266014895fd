"""Whether the machine that a stream was taken of has run, by what the stream says of it.

A QEMU started with -S has the run state `prelaunch`, which QEMU 2.4 and later write (migration/global_state.c), and a clock at
zero, which all of them write (the section `timer`). It takes both: a guest that was reset has that run state, too, and one that
`-S -loadvm` read; and old machine types leave the run state out. Each stands at a fixed place, whether it is described or not.
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
    clock = found.get("timer", b"")[_CLOCK]
    if state and state != AT_RESET:
        return f"its run state is `{state}`"
    if any(clock):
        return f"its clock is at {int.from_bytes(clock, 'big', signed=True) / _SECOND:.2f} s"
    return None if state or clock else "nothing in it says that it has not"

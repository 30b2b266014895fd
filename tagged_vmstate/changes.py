"""What differs between two builds, and what each difference does to a load.

A comparison is made for a reader and a writer: "upgrade" is the new build that reads what the old one wrote,
"downgrade" the old build that reads what the new one writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tagged_vmstate.paths import Path, format_path

Effect: TypeAlias = Literal["refused", "while", "fine"]
"""The load ends; it works on a condition; it works."""
REFUSED: Final = "refused"
WHILE: Final = "while"
FINE: Final = "fine"


@dataclass(frozen=True, slots=True)
class ChangeRule:
    """One kind of difference.

    Attributes:
        id: Stable, for programs.
        purpose: What it stands for.
        remedy: What to do about it.
    """

    id: str
    purpose: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        rule: What kind it is.
        device: The device.
        path: Field names, from the device's top.
        writer: What the writing build has.
        reader: What the reading build has.
        effect: What it does to a load.
        condition: For `while`: under which condition the load works.
        section: Of QEMU's dumps and streams: the section's name in the stream.
        phrases: QEMU's own messages for the failure, or their beginning; more than one where that depends on the release.
    """

    rule: ChangeRule
    device: str
    path: Path
    writer: str
    reader: str
    effect: Effect
    condition: str = ""
    section: str = ""
    phrases: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return format_path(self.device, self.path)

    @property
    def outcome(self) -> str:
        """What it does to a load, in words."""
        return f"loads while {self.condition}" if self.effect == WHILE else self.effect

    def __str__(self) -> str:
        return f"{self.place}: {self.outcome} ({self.rule.id}: written {self.writer}, read {self.reader})"

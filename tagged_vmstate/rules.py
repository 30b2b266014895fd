"""What a loader can notice, each a row: its id, whether it refuses the load, and what a person can do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tagged_vmstate.errors import GATHERED, Finding


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the loader.

    Attributes:
        id: Stable, for programs.
        refuses: Whether a load ends with it.
        purpose: What it stands for.
        remedy: What to do next.
    """

    id: str
    refuses: bool
    purpose: str
    remedy: str


RULES: Final[dict[str, Rule]] = {}
"""All rules by id."""


def _refuses(rule: str, purpose: str, remedy: str) -> Rule:
    return RULES.setdefault(rule, Rule(rule, refuses=True, purpose=purpose, remedy=remedy))


def _tells(rule: str, purpose: str, remedy: str = "nothing has to be done") -> Rule:
    return RULES.setdefault(rule, Rule(rule, refuses=False, purpose=purpose, remedy=remedy))


UNKNOWN_FIELD: Final = _refuses(
    "unknown-field",
    "a field in use that the table does not know",
    "declare the field or an alias for it, leave the feature unused when saving, or load with unknown ignored or kept",
)
UNKNOWN_DEVICE: Final = _refuses(
    "unknown-device",
    "a device in use that nobody registered",
    "register the device or an alias for it, leave it unused when saving, or load with unknown ignored or kept",
)
MISSING_FIELD: Final = _refuses(
    "missing-field", "a required field that the snapshot lacks", "declare a default, or an alias if it was renamed"
)
WRONG_TYPE: Final = _refuses(
    "wrong-type", "another type than the table's", "declare the narrower type in widens_from, or save under a new name"
)
WRONG_LENGTH: Final = _refuses(
    "wrong-length", "another length than the table's", "declare a MaxLength if it varies, or save under a new name"
)
OUT_OF_RANGE: Final = _refuses(
    "out-of-range",
    "a value that its constraints do not allow",
    "mend the snapshot, or widen the constraint if the value is right",
)
ABSENT_STRUCT: Final = _refuses("absent-struct", "a null where a struct must be", "declare it as `Struct | None`")
TWICE: Final = _refuses(
    "twice", "one field or device twice, or by its name and an alias", "remove one of the two from the snapshot"
)
CHECK: Final = _refuses("check", "fields that do not fit each other", "mend the snapshot, or the check if the values are right")
NOT_MADE: Final = _refuses(
    "not-made",
    "a new object of a class whose constructor takes more than the fields",
    "put an object there before loading, or give its table make=",
)
HOOK: Final = _refuses("hook", "a hook that raised after all was loaded; everything is as it was", "mend the hook")

IGNORED_FIELD: Final = _tells("ignored-field", "an unknown field at its default, ignored")
IGNORED_DEVICE: Final = _tells("ignored-device", "an unknown device with all at its defaults, ignored")
DROPPED: Final = _tells("dropped", "unknown and in use, dropped as asked", "declare it to have it")
KEPT: Final = _tells("kept", "unknown, carried to the next save as asked")
FILLED: Final = _tells("filled", "a field that the snapshot lacks, filled with its default")
FILLED_DEVICE: Final = _tells("filled-device", "a device that the snapshot lacks, filled with its defaults")
BY_ALIAS: Final = _tells("by-alias", "taken by an alias")
WIDENED: Final = _tells("widened", "taken from a narrower type")
HOOK_NOT_RUN: Final = _tells(
    "hook-not-run", "a `post_load` that could reach outside of the state, which a check does not run", "load to see"
)


class Findings(list[Finding]):
    """What loaders notice: the first 1,000 findings that refuse the load, and as many that do not.

    Attributes:
        more_problems: How many more there were that refuse the load.
        more: How many more there were that do not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.more_problems = 0
        self.more = 0
        self._room = {True: GATHERED, False: GATHERED}

    def take(self, others: Findings) -> None:
        """Gather what others did."""
        for finding in others:
            self.note(finding)
        self.more_problems += others.more_problems
        self.more += others.more

    def note(self, finding: Finding) -> None:
        """Gather one more, or count it."""
        refuses = RULES[finding.rule].refuses
        if self._room[refuses]:
            self._room[refuses] -= 1
            self.append(finding)
        elif refuses:
            self.more_problems += 1
        else:
            self.more += 1


def problems(findings: Iterable[Finding]) -> list[Finding]:
    """Those that refuse the load."""
    return [finding for finding in findings if RULES[finding.rule].refuses]

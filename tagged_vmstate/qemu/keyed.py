"""Arrays of keys and arrays of values that belong together: the keys of one QEMU with the values of another.

QEMU refuses a key that it does not know. One that it knows and does not get it may set to anything: `cpreg_values` of
target/arm holds no reset values under TCG. So it gets all of its own keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from tagged_vmstate.blocks import IntType
from tagged_vmstate.records import Record, Records, wire_type

_AARCH64: Final = 0x6030_0000_0013
_AARCH32: Final = 0x4020_0000
_WRITABLE: Final = frozenset({2, 4})
"""opc1 of the selector of caches and of what a hypervisor sets: they lie among the constants."""


def _identifies(key: int) -> bool:
    """Whether an ARM system register says what the processor is: a constant, where CRn is 0.

    Keys are KVM's (linux/arch/arm64/include/uapi/asm/kvm.h): op0, op1, CRn, CRm and op2 in the lower 16 bits, or for
    AArch32 the coprocessor, CRn, CRm, opc1 and opc2.
    """
    if key >> 16 == _AARCH64:
        op0, op1, crn = key >> 14 & 3, key >> 11 & 7, key >> 7 & 15
        return op0 == 3 and crn == 0 and op1 not in _WRITABLE  # the registers of MRS
    coprocessor, crn, op1 = key >> 16 & 15, key >> 11 & 31, key >> 3 & 15
    return key >> 32 == _AARCH32 and coprocessor == 15 and crn == 0 and op1 not in _WRITABLE  # cp15


@dataclass(frozen=True, slots=True)
class Pairs:
    """Fields of one struct that hold pairs.

    Attributes:
        keys: The name of the keys.
        values: The name of the values.
        count: The name of the field that counts them.
        is_constant: Whether the value of a key is the machine's own: QEMU refuses another.
    """

    keys: str
    values: str
    count: str
    is_constant: Callable[[int], bool]


PAIRS: Final = (
    # target/arm/machine.c, cpu_post_load: keys that are not known, and values that do not read back as written, are refused
    Pairs("cpreg_vmstate_indexes", "cpreg_vmstate_values", "cpreg_vmstate_array_len", _identifies),
)


@dataclass(frozen=True, slots=True)
class Matched:
    """The pairs of a snapshot, for the keys of a reference.

    Attributes:
        records: The fields of the snapshot with those pairs.
        lost: Place, key and value of what the reference lacks.
        constant: Place, key and value of constants that differ, and the value of the reference, which they have now.
        filled: Keys that only the reference has, with its values.
    """

    records: Records
    lost: tuple[tuple[int, int, int], ...]
    constant: tuple[tuple[int, int, int, int], ...]
    filled: tuple[int, ...]


def matched(like: Records, ours: Records, pairs: Pairs) -> Matched | None:
    """Match by key; None where one of the two does not hold such pairs."""
    wanted, given = _pairs(like, pairs), _pairs(ours, pairs)
    if wanted is None or given is None:
        return None
    places = list(enumerate(given.items()))
    lost = tuple((place, key, value) for place, (key, value) in places if key not in wanted)
    constant = tuple(
        (place, key, value, wanted[key])
        for place, (key, value) in places
        if wanted.get(key, value) != value and pairs.is_constant(key)
    )
    values = (
        wanted | {key: value for key, value in given.items() if key in wanted} | {key: value for _, key, _, value in constant}
    )
    others: dict[str, dict[str, object]] = {
        pairs.keys: {"value": list(values), "length": len(values)},
        pairs.values: {"value": list(values.values()), "length": len(values)},
        pairs.count: {"value": len(values)},
    }
    records = tuple(record.replace(**others[record.name]) if record.name in others else record for record in ours)
    return Matched(records, lost, constant, tuple(key for key in wanted if key not in given))


def _pairs(records: Records, pairs: Pairs) -> dict[int, int] | None:
    """The pairs in a struct; None where it has none, or they are not as their count says."""
    found = {record.name: record for record in records}
    parts = [found.get(name) for name in (pairs.keys, pairs.values, pairs.count)]
    rows = [numbers(part) for part in parts if part and isinstance(wire_type(part.type), IntType)]
    if len(rows) != len(parts):
        return None
    keys, values, counts = rows
    is_paired = len(set(keys)) == len(keys) == len(values) and [*counts] == [len(keys)]
    return dict(zip(keys, values, strict=True)) if is_paired else None


def numbers(record: Record) -> Sequence[Any]:
    """The elements of an array of numbers; a single one is one element, as QEMU describes an array of one."""
    return (record.value,) if record.length is None else cast("Sequence[Any]", record.value)

"""CRC-32 as in zlib, by the fastest that is installed: isal's takes a tenth of the time (the extra `fast`)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from typing import Final

try:
    from isal.isal_zlib import crc32 as _crc32  # pyright: ignore[reportMissingImports]  # an extra
except ModuleNotFoundError:
    from zlib import crc32 as _crc32

crc32: Final[Callable[..., int]] = _crc32
"""The sum of some bytes, or going on from an earlier one."""
crc32_of_few: Final[Callable[..., int]] = zlib.crc32
"""The same of a few bytes, as in a head: 60 ns, where isal takes 200 once it has summed many (a Xeon with AVX-512)."""
FEW: Final = 256
"""From so many bytes on isal's is the faster one."""


def shifted(crc: int, size: int) -> int:
    """A checksum once `size` more bytes follow; together with theirs, by exclusive or, it is the checksum of all."""
    level = 0
    while size:
        if size & 0xFF:
            crc = _product(crc, _powers(level)[size & 0xFF])
        size >>= 8
        level += 1
    return crc


# A checksum is a polynomial modulo that of CRC-32, the coefficient of x**0 in the highest bit; a byte more multiplies it by x**8.


def _times_x(crc: int, times: int = 1) -> int:
    for _ in range(times):
        crc = crc >> 1 ^ 0xEDB88320 if crc & 1 else crc >> 1
    return crc


def _multiples(crc: int) -> list[int]:
    """Its products with all polynomials of four coefficients."""
    found = [0] * 16
    for degree in range(4):
        bit = 8 >> degree
        for number in range(16):
            found[number] ^= _times_x(crc, degree) if number & bit else 0
    return found


_CARRIES: Final = [_times_x(number, 4) for number in range(16)]


def _product(crc: int, multiples: list[int]) -> int:
    """The product with a polynomial whose multiples are known."""
    found = 0
    for place in range(0, 32, 4):
        found = found >> 4 ^ _CARRIES[found & 15] ^ multiples[crc >> place & 15]
    return found


@cache
def _powers(level: int) -> list[list[int]]:
    """The multiples of x**8 to the powers of 0 to 255 times 256**level."""
    one = _powers(level - 1) if level else None
    base = _multiples(_product(one[255][8], one[1])) if one else _multiples(_times_x(1 << 31, 8))
    found = [_multiples(1 << 31)]
    while len(found) < 256:
        found.append(_multiples(_product(found[-1][8], base)))
    return found

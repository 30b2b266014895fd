"""CRC-32 as in zlib, by the fastest that is installed: isal's takes a tenth of the time (the extra `fast`)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
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

"""Compressed input is read from any place, as what is in it would be."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagged_vmstate import compression
from tagged_vmstate.compression import HEAD, compressed, compression_of, decompressed


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
@given(st.data())
def test_what_is_compressed_is_read_from_any_place(compress: Callable[[bytes], bytes], data: st.DataObject) -> None:
    plain = bytes(range(256)) * 4
    packed = compress(plain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "BLOCK", data.draw(st.integers(1, 700)))
        file, expected = decompressed(io.BytesIO(packed), packed[:HEAD]), io.BytesIO(plain)
        for _ in range(6):
            place, whence = data.draw(st.sampled_from([(0, 2), (-100, 2), (-900, 2), (0, 0), (500, 0), (1000, 0), (7, 1)]))
            assert file.seek(place, whence) == expected.seek(place, whence)
            size = data.draw(st.sampled_from([0, 1, 50, 600, -1]))
            assert file.read(size) == expected.read(size)
            assert file.tell() == expected.tell()


@pytest.mark.parametrize("library", [gzip, lzma, bz2])
def test_what_is_written_is_compressed_the_same_way(library: Any) -> None:
    name = compression_of(library.compress(b"")[:HEAD])
    pieces: list[bytes | memoryview] = [bytes(range(256)) * 40, memoryview(b"a" * 5000), b""]
    target = io.BytesIO()
    with compressed(target, name) as file:
        file.write(pieces[0])
        file.writelines(pieces[1:])
    assert library.decompress(target.getvalue()) == b"".join(pieces)


def test_nothing_that_fails_looks_complete() -> None:
    target = io.BytesIO()
    with contextlib.suppress(KeyError), compressed(target, "gzip") as file:
        file.write(bytes(9))
        raise KeyError
    with pytest.raises(EOFError):
        gzip.decompress(target.getvalue())


def test_what_was_not_compressed_is_not() -> None:
    target = io.BytesIO()
    with compressed(target, compression_of(b"QEVM\0\0\0\3")) as file:
        assert file is target

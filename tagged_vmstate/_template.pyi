from typing import Self

from tagged_vmstate.template import Flags, Hole, Pack, Place, Unpack

class Packer:
    pack: Pack
    def __new__(cls, data: bytes, holes: tuple[Hole, ...], structs: tuple[Flags, ...], /) -> Self: ...

class Unpacker:
    unpack: Unpack
    def __new__(cls, data: bytes, places: tuple[Place, ...], flags: tuple[int, ...], /) -> Self: ...

"""The specification and the page of the JSON form, held to the library and to tools that know neither."""

from __future__ import annotations

import io
import json
import lzma
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor
import msgpack
import pytest
from cddl_verifier import Validator
from picture import ROOT
from run import content
from schemas import validator

from tagged_vmstate.blocks import FloatType, IntType
from tagged_vmstate.frames import KINDS, MAGIC
from tagged_vmstate.jsonform import from_json, to_json
from tagged_vmstate.records import decode_all, encode_plain, wire_type
from tagged_vmstate.records import from_json as record_from_json
from tagged_vmstate.records import to_json as record_to_json
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter, write
from tagged_vmstate.types import LEAF_TYPES
from tagged_vmstate.wire import Opaque, pack_str

FORMAT = (ROOT / "docs/format.md").read_text()
JSON_FORM = (ROOT / "docs/json-form.md").read_text()
SCHEMA = validator("snapshot")
FIELD = SCHEMA.evolve(schema={"$ref": "snapshot.schema.json#/$defs/field"})
TYPES = {*LEAF_TYPES, "struct"}
VECTORS = Path(__file__).parent / "vectors"
INDEX: dict[str, Any] = json.loads((VECTORS / "index.json").read_text())


def vector(name: str, suffix: str = "tvm") -> bytes:
    """A file of a test vector."""
    return content(VECTORS / f"{name}.{suffix}")


GOOD = [
    pytest.param(name, marks=pytest.mark.long) if name == "good/many-fields" else name  # a grammar takes its time with thousands
    for name in INDEX
    if name.startswith("good/")
]


def rows(page: str, first: str, columns: int = 2) -> list[list[str]]:
    """The cells of a table whose first heading is `first`."""
    [table] = re.findall(rf"^\| {re.escape(first)} \|.*\n\| ---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ", columns - 1)] for line in table.splitlines()]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def as_bytes(cell: str) -> bytes:
    return bytes.fromhex("".join(code(cell)))


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


class TestSpecification:
    def test_it_is_about_no_library(self) -> None:
        assert not re.findall(r"[Pp]ython|\bpip\b|\.py\b|tagged_vmstate|\b(?:None|True|False)\b|MaxLength", FORMAT)

    @pytest.mark.parametrize("page", [FORMAT, JSON_FORM])
    def test_each_rule_has_a_number_of_its_own(self, page: str) -> None:
        found = re.findall(r"\*\*([A-Z])(\d+)\.\*\*", page)
        assert len(found) >= 20
        for letter in {letter for letter, _ in found}:
            numbers = [int(number) for each, number in found if each == letter]
            assert numbers == [*range(1, len(numbers) + 1)], letter
        numbered = {f"{letter}{number}" for letter, number in re.findall(r"\*\*([A-Z])(\d+)\.\*\*", FORMAT + JSON_FORM)}
        assert set(re.findall(r"\b(?<!0x)([ABCEFHJLNRSTVWX]\d{1,2})\b", page)) <= numbered

    def test_each_section_that_it_names_is_there(self) -> None:
        headings = set(re.findall(r"^##+ ([\d.]+\d|\d+)", FORMAT, re.MULTILINE))
        assert {str(number) for number in range(1, 22)} <= headings
        assert set(re.findall(r"[Ss]ection\s+(\d+(?:\.\d+)?)", FORMAT)) - {"8"} <= headings

    def test_the_tables_of_bytes_are_what_is_written(self) -> None:
        magic, version, *_ = rows(FORMAT, "bytes of a header")
        assert as_bytes(magic[0]) == MAGIC
        assert as_bytes(version[0]) == b"\x01"
        array, kinds, *_ = rows(FORMAT, "bytes of the head of a frame")
        assert {as_bytes(array[0]) + bytes.fromhex(kind) for kind in code(kinds[0])} == {
            b"\x96" + pack_str(kind) for kind in KINDS
        }
        assert as_bytes(rows(FORMAT, "bytes of the end")[0][0]) == b"\x93" + pack_str("end")
        assert (
            as_bytes(rows(FORMAT, "bytes of a field")[0][0])
            == encode_plain(record_from_json({"name": "a", "type": "x", "value": 0}))[:1]
        )
        assert zlib.crc32(b"123456789") == 0xCBF43926
        assert "`123456789` is 0xcbf43926" in FORMAT

    def test_the_table_of_types_has_each_with_its_first_bytes(self) -> None:
        table = rows(FORMAT, "type", 3)
        assert {name for names, *_ in table for name in code(names)} == TYPES
        for names, single, _ in table:
            kinds = [wire_type(name) for name in code(names)]
            firsts = [kind.first.hex() for kind in kinds if isinstance(kind, IntType | FloatType) and kind.name != "timer"]
            assert not firsts or code(single) == firsts

    def test_the_golden_bytes_are_what_is_written_and_read(self) -> None:
        whole = bytes.fromhex("".join(re.findall(r"^    ([0-9a-f]{16,})$", FORMAT, re.MULTILINE)))
        [section] = Snapshot.read(whole)
        assert [(record.name, record.describe()) for record in section.records()] == [("a", "uint32"), ("p", "struct")]
        file = io.BytesIO()
        with SnapshotWriter(file, {"producer": "x"}) as writer:
            writer.write(section)
        assert file.getvalue() == whole
        printed = re.findall(r"^    (\[\"(?:tagged-vmstate|section|a|p|end)\", .*\])$", FORMAT, re.MULTILINE)
        assert [str(each).replace("'", '"').replace("None", "nil") for each in msgpack.Unpacker(io.BytesIO(whole))] == printed

    def test_the_golden_field_of_each_type_is_what_is_written_and_read(self) -> None:
        table = rows(FORMAT, "bytes", 2)
        fields = [({"name": "a", **json.loads(code(cell)[0])}, as_bytes(raw)) for raw, cell in table]
        assert {kind.rstrip("0123456789") for kind in TYPES} <= {field["type"].rstrip("0123456789") for field, _ in fields}
        for field, raw in fields:
            FIELD.validate(field)
            [record] = decode_all(raw)
            assert record_to_json(record) == field
            assert encode_plain(record_from_json(field)) == raw
            assert msgpack.unpackb(raw)[0] == "a"


@pytest.fixture(scope="module")
def deep() -> Iterator[None]:
    """Room for 64 levels of structs, of which other tools' functions take more than a thousand."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    yield
    sys.setrecursionlimit(before)


@pytest.fixture(scope="module")
def grammar(deep: None) -> Validator:  # noqa: ARG001
    return Validator(*blocks(FORMAT, "cddl"))


class TestGrammar:
    @pytest.mark.parametrize("name", GOOD)
    def test_it_takes_every_good_vector(self, grammar: Validator, name: str) -> None:
        assert grammar.validate(cbor.snapshot(vector(name))).errors == ()

    @pytest.mark.parametrize("name", [name for name, entry in INDEX.items() if entry.get("grammar")])
    def test_it_refuses_every_bad_vector_that_breaks_it(self, grammar: Validator, name: str) -> None:
        assert not grammar.validate(cbor.snapshot(vector(name)))

    @pytest.mark.parametrize("name", ["bad/attribute-key-twice", "bad/name-not-utf8", "good/attribute-timestamp"])
    def test_what_cbor_lacks_is_a_tag(self, name: str) -> None:
        assert b"\xd9\xff\xff" in cbor.snapshot(vector(name))


@pytest.mark.long
class TestMagic:
    """`file` names snapshots by the lines of the page: their version, and their producer where it comes first."""

    @pytest.fixture
    def named(self, tmp_path: Path) -> Callable[..., str]:
        (tmp_path / "magic").write_text(*blocks(FORMAT, "magic"))

        def name(data: bytes, *options: str) -> str:
            (tmp_path / "data").write_bytes(data)
            line = ["file", "-b", *options, "-m", str(tmp_path / "magic"), str(tmp_path / "data")]
            done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
            return done.stdout.strip()

        return name

    @pytest.mark.parametrize("producer", ["x", "tagged-vmstate 0.1.0", "n" * 31, "n" * 32, "n" * 255])
    def test_a_snapshot(self, named: Callable[..., str], producer: str) -> None:
        file = io.BytesIO()
        with SnapshotWriter(file, {"producer": producer, "machine": "pc"}):
            pass
        assert named(file.getvalue()) == f"tagged-vmstate snapshot, version 1, by {producer}"
        assert named(file.getvalue(), "--mime-type") == "application/vnd.tagged-vmstate"
        assert named(file.getvalue(), "--extension") == "tvm"

    @pytest.mark.parametrize(
        ("rest", "words"),
        [
            (b"\x01\x80", "version 1"),
            (b"\x01\x81\xa7machine\xa2pc", "version 1"),
            (b"\x02\x80", "version 2"),
            (b"\xcc\xc8\x80", "version 200"),
            (b"\xcd\x01\x00\x80", "version 256"),
            (b"\xce\x00\x01\x00\x00\x80", "version 65536"),
            (b"\xcf" + b"\xff" * 8 + b"\x80", f"version {2**64 - 1}"),
        ],
    )
    def test_other_heads(self, named: Callable[..., str], rest: bytes, words: str) -> None:
        assert named(MAGIC + rest + bytes(32)) == f"tagged-vmstate snapshot, {words}"

    def test_what_is_none(self, named: Callable[..., str]) -> None:
        for data in (lzma.compress(MAGIC + b"\x01\x80"), MAGIC[:-1] + b"\x01", b"\x95" + MAGIC[1:], b"0" + MAGIC):
            assert "vmstate" not in named(data)


class TestJsonForm:
    @pytest.mark.parametrize("text", blocks(FORMAT, "json") + blocks(JSON_FORM, "json"))
    def test_an_example_is_canonical_and_goes_both_ways(self, text: str) -> None:
        SCHEMA.validate(json.loads(text))
        assert turned(text) == text

    def test_there_is_an_example_of_each_type(self) -> None:
        found = [json.loads(code(cell)[-1])["type"] for _, cell in rows(JSON_FORM, "type")]
        assert {kind for kind in found if kind != "cpsr" and " " not in kind} == TYPES

    @pytest.mark.parametrize("field", [code(cell)[-1] for _, cell in rows(JSON_FORM, "type")])
    def test_a_field_of_each_type_is_canonical_and_goes_both_ways(self, field: str) -> None:
        field = f'{{"name": "a", {field[1:]}'
        text = f"""{{"format": "tagged-vmstate", "version": 1, "attributes": {{}},
"sections": [
{{"device": "dev", "instance": 0, "attributes": {{}}, "fields": [
 {field}]}}
]}}
"""
        SCHEMA.validate(json.loads(text))
        assert turned(text) == text

    @pytest.mark.parametrize(("raw", "text"), [(as_bytes(raw), code(cell)[0]) for raw, cell in rows(JSON_FORM, "bytes")])
    def test_a_value_of_the_any_form_goes_both_ways(self, raw: bytes, text: str) -> None:
        value = Opaque(raw).to_json()
        assert json.dumps(value, ensure_ascii=False) == text
        assert Opaque.from_json(json.loads(text)).raw == raw
        SCHEMA.evolve(schema={"$ref": "snapshot.schema.json#/$defs/any"}).validate(value)

    @pytest.mark.usefixtures("deep")
    @pytest.mark.parametrize("name", GOOD)
    def test_the_json_of_every_good_vector_fits_the_schema(self, name: str) -> None:
        SCHEMA.validate(json.loads(vector(name, "json")))

    def test_memory_in_a_file_fits_the_schema(self) -> None:
        [field] = re.findall(r'^    (\{"name": .*"memory": .*\})$', JSON_FORM, re.MULTILINE)
        FIELD.validate(json.loads(field))

    @pytest.mark.parametrize("kind", sorted(TYPES))
    def test_the_schema_has_a_branch_for_each_type(self, kind: str) -> None:
        """What it does not know may be any value."""
        for length in ({}, {"length": 1}):
            assert FIELD.is_valid({"name": "a", "type": f"{kind}_", **length, "value": {"$hex": "00"}})
            assert not FIELD.is_valid({"name": "a", "type": kind, **length, "value": {"$hex": "00"}})


def turned(text: str) -> str:
    """A JSON form after a turn through a snapshot."""
    data, again = io.BytesIO(), io.BytesIO()
    write(from_json(text.encode()), data)
    to_json(Snapshot.read(data.getvalue()), again)
    return again.getvalue().decode()

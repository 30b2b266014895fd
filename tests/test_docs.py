"""What the documents show is what happens."""

from __future__ import annotations

import doctest
import html
import io
import json
import re

import msgpack
import pytest
from evolution import PAGE as EVOLUTION
from evolution import renewed as evolved
from picture import PICTURE, ROOT, drawn
from transcripts import PAGE, renewed

from tagged_vmstate.records import decode_all, encode_plain, from_json, to_json
from tagged_vmstate.snapshot import Snapshot


@pytest.mark.parametrize("page", ["README.md", "docs/evolution.md", "docs/hooks.md", "docs/legacy.md"])
def test_what_a_page_shows_runs(page: str) -> None:
    found = doctest.testfile(str(ROOT / page), module_relative=False)
    assert found.attempted > 3
    assert found.failed == 0


def test_the_picture_shows_what_the_command_prints() -> None:
    def words(picture: str) -> str:
        return html.unescape(" ".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture)))

    assert "scancode_set" in words(drawn())
    assert words(PICTURE.read_text()) == words(drawn()), "draw it anew: python tests/picture.py"
    assert "http" not in PICTURE.read_text().replace("http://www.w3.org/2000/svg", ""), "nothing is loaded from elsewhere"


def test_the_table_of_changes_is_what_loads_do() -> None:
    page = EVOLUTION.read_text()
    assert "| add a field with a default | always | while it is at its default |" in page
    assert evolved(page) == page, "write it anew: python tests/evolution.py --write"


def test_the_golden_bytes_of_the_format_are_what_is_written_and_read() -> None:
    page = (ROOT / "docs/format.md").read_text()
    rows = re.findall(r"^\| `(95 a1 61 [^`]*)` \| `(.*)` \|$", page, re.MULTILINE)
    assert {json.loads(said)["type"] for _, said in rows} >= {"bool", "int8", "uint64", "float32", "timer", "sparse", "cpsr"}
    for raw, said in rows:
        data = bytes.fromhex(raw)
        [record] = decode_all(data)
        assert to_json(record) == {"name": "a", **json.loads(said)}
        assert encode_plain(from_json({"name": "a", **json.loads(said)})) == data
        assert msgpack.unpackb(data)[0] == "a"
    whole = bytes.fromhex("".join(re.findall(r"^    ([0-9a-f]{16,})$", page, re.MULTILINE)))
    [section] = Snapshot.read(whole)
    assert [(record.name, record.describe()) for record in section.records()] == [("a", "uint32"), ("p", "struct")]
    printed = re.findall(r"^    (\[\"(?:tagged-vmstate|section|a|p|end)\".*\])$", page, re.MULTILINE)
    assert [str(each).replace("'", '"').replace("None", "nil") for each in msgpack.Unpacker(io.BytesIO(whole))] == printed


def test_the_transcripts_of_the_command_are_what_it_prints() -> None:
    page = PAGE.read_text()
    assert page.count("\n$ tagged-vmstate ") > 20
    assert "Traceback" not in page
    assert renewed(page) == page, "write them anew: python tests/transcripts.py"

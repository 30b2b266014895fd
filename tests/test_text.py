"""Text and numbers as people's tools write them: taken by every command that reads them, or refused in a sentence."""

from __future__ import annotations

import codecs
import gzip
import lzma
import re
from pathlib import Path

import pytest
from conftest import DATA
from test_command import refused, run, shown

import tagged_vmstate as tv
from tagged_vmstate.text import integer
from tagged_vmstate.wire import Opaque
from tagged_vmstate.wiretype import brief

HUGE = "9" * 5000
HUGE_HEX = "0x" + "f" * 5000


def by_powershell(text: str) -> bytes:
    """What its `>` makes of lines."""
    return codecs.BOM_UTF16_LE + text.replace("\n", "\r\n").encode("utf-16-le")


@pytest.fixture
def tvm(tmp_path: Path) -> Path:
    records = [
        *(tv.Record("n", "uint8", None, 7), tv.Record("list", "uint8", 2, (1, 2)), tv.Record("f", "float32", None, 1.0)),
        *(tv.Record("ram", "sparse", 64, ((0, b"x"),)), tv.Record("odd", "odd", None, Opaque.of({"x": 1}))),
        tv.Record("bytes", "odd", None, Opaque.of(b"abc")),
    ]
    path = tmp_path / "a.tvm"
    with path.open("wb") as file, tv.SnapshotWriter(file) as writer:
        writer.write(tv.Section("dev", 0, records))
    return path


class TestUtf16:
    def test_of_snapshots(self, tvm: Path, tmp_path: Path) -> None:
        text = shown("to-json", tvm)
        path, packed = tmp_path / "a.json", tmp_path / "a.json.gz"
        path.write_bytes(by_powershell(text))
        packed.write_bytes(gzip.compress(path.read_bytes()))
        for source in (path, packed):
            assert run("from-json", source).stdout == tvm.read_bytes()
            assert shown("show", source) == shown("show", tvm)
            assert shown("to-json", source) == text
            assert shown("diff", source, tvm) == ""
            assert re.search(r"dev#0 .* ok$", shown("info", source), re.MULTILINE)
        shown("set", path, "dev", "n", "8", "-o", tmp_path / "b")
        assert "7 → 8" in run("diff", path, tmp_path / "b").stdout.decode()

    def test_of_tables(self, tvm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("board.py").write_text("import tagged_vmstate as tv\n@tv.vmstate('dev')\nclass Dev:\n    n: tv.uint8 = 0\n")
        Path("release.json").write_bytes(by_powershell(shown("tables", "board:Dev")))
        assert "0 refused" in shown("compat", "board:Dev", "release.json")
        assert "can be loaded" in shown("check", tvm, "--against", "release.json", "--unknown", "ignore")

    def test_of_dumps_and_aliases(self, tmp_path: Path) -> None:
        dump = lzma.decompress((DATA / "pc-qemu7.2.vmstate.json.xz").read_bytes()).decode()
        old, new, aliases = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "aliases"
        old.write_bytes(by_powershell(dump))
        new.write_bytes(by_powershell(dump.replace('"field": "isr"', '"field": "status"')))
        aliases.write_bytes(by_powershell("# what changed\n\nhpet/isr=status\n"))
        changed = run("compat", old, new, "--direction", "upgrade").stdout
        assert b"qemu-field-renamed" in changed
        assert b"hpet" not in run("compat", old, new, "--direction", "upgrade", "--aliases", aliases).stdout

    def test_of_aliases_of_export(self, tmp_path: Path) -> None:
        aliases = tmp_path / "aliases"
        aliases.write_bytes(by_powershell("# what changed\n\nhpet/num_timers=num_timers_save\n"))
        newer, reset = DATA / "pc-qemu10.0.mig.xz", DATA / "pc-qemu7.2-reset.mig.xz"
        drops = ("--drop", "globalstate/*")
        for alias in ("hpet/num_timers=num_timers_save", f"@{aliases}"):
            done = run("export", newer, "--like", reset, "--alias", alias, *drops, "-o", tmp_path / "out.mig")
            assert (done.returncode, b"renamed: hpet#0" in done.stderr) == (0, True), done.stderr

    def test_what_is_no_text(self, tmp_path: Path) -> None:
        aliases = tmp_path / "aliases"
        aliases.write_bytes(b"\xff")
        dump = DATA / "pc-qemu7.2.vmstate.json.xz"
        assert "aliases: expected text in UTF-8 or UTF-16, found the byte 0xff" in refused(
            "compat", dump, dump, "--aliases", aliases
        )
        assert "nowhere: No such file" in refused("compat", dump, dump, "--aliases", tmp_path / "nowhere")


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("10", 10),
            ("-3", -3),
            ("+3", 3),
            ("0x1F", 31),
            ("-0x1f", -31),
            ("007", 7),
            ("0" * 5000 + "1", 1),
            ("0x" + "0" * 5000, 0),
        ],
    )
    def test_one(self, text: str, number: int) -> None:
        assert integer(text) == number

    @pytest.mark.parametrize("text", ["", "-", "0x", "1_0", " 1", "1.0", "0b1", "٣", "²", "0x-1", HUGE, HUGE_HEX])
    def test_none(self, text: str) -> None:
        with pytest.raises(ValueError, match="integer"):
            integer(text)

    def test_a_long_one_is_short_in_messages(self) -> None:
        assert brief(1 << 20_000) == "0x1" + "0" * 54 + "..."

    @pytest.mark.parametrize(
        ("field", "value", "words"),
        [
            ("n", HUGE, "expected `uint8`, got '99"),
            ("n", HUGE_HEX, "expected `uint8`, got '0xff"),
            ("n", "0x" + "f" * 999, "expected `uint8` (0 to 255), got 82"),
            ("list", f"[1, {HUGE}]", "... with an integer of more than 4300 digits"),
            ("list", "[1, 2", "expected a JSON list, such as [1, 2, 3], got '[1, 2' with nothing more (truncated)"),
            ("list", "[" * 100_000, "... with values nested too deep"),
            ("list[0]", HUGE, "expected `uint8`, got '99"),
            ("f", HUGE, "expected `float32` (in its range), got '99"),
            ("f", "1e999", "expected `float32` (in its range), got '1e999'"),
            ("ram", f"0x{HUGE}x", "expected bytes in hex, or @FILE, got '0x99"),
            ("odd", f'{{"y": {HUGE}}}', "... with an integer of more than 4300 digits"),
            ("odd", "9" * 50, "expected `odd` (Integer value out of range), got 99"),
            ("odd", '{"$hex": 5}', "expected `odd` (hex digits should be a string)"),
            ("odd", '{"$x": 5}', "expected `odd` (a key that begins with $"),
        ],
    )
    def test_in_values(self, field: str, value: str, words: str, tvm: Path) -> None:
        sentence = refused("set", tvm, "dev", field, value, "-o", tvm.with_suffix(".out"))
        assert words in sentence
        assert len(sentence) < 250

    def test_values_that_fit(self, tvm: Path) -> None:
        for field, value, words in (
            *(
                ("list[001]", "09", "1, 9"),
                ("n", "0" * 5000 + "9", "  9\n"),
                ("f", "inf", "inf"),
                ("odd", '{"y": 2}', '{"y": 2}'),
            ),
            ("bytes", "01 02", "01 02"),
        ):
            shown("set", tvm, "dev", field, value, "-o", tvm)
            assert words in shown("show", tvm, "dev", field)

    @pytest.mark.parametrize("port", ["0", "99999", "65536", HUGE, "٤٤٤٤"])
    def test_in_the_address_of_a_guest(self, port: str, tmp_path: Path) -> None:
        sentence = refused("capture", f"localhost:{port}", "-o", tmp_path / "out.tvm")
        assert f"localhost: expected a port of 1 to 65535, not '{port[:50]}" in sentence
        assert len(sentence) < 250

    @pytest.mark.parametrize(
        "text",
        [
            f'{{"format": "tagged-vmstate", "version": {HUGE}',
            f'{{"format": "tagged-vmstate", "version": 1, "attributes": {{"a": {HUGE}}}, "sections": []}}',
        ],
    )
    def test_in_json(self, text: str, tmp_path: Path) -> None:
        words = "JSON has an integer of more than 4300 digits - at line 1"
        for command in (["from-json", "-"], ["info", "-"], ["check", "-", "--against", "tables.json"]):
            (tmp_path / "tables.json").write_text('{"format": "tagged-vmstate tables", "version": 1, "devices": []}')
            assert words in refused(*command, given=text.encode(), cwd=tmp_path)
        (tmp_path / "tables.json").write_text(text)
        assert words in refused("compat", "tables.json", "tables.json", cwd=tmp_path)

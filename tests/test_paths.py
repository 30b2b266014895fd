"""Paths: printed as they are typed, in every command, whatever the names are."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_command import refused, run, shown

from tagged_vmstate.paths import Aliases, Pattern, format_path, parse_alias
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import SnapshotWriter

NAMES = st.text(st.characters(codec="utf-8"), max_size=12) | st.text(' /[]#*?"\\=-@0123a\n', max_size=6)
PATHS = st.builds(lambda name, rest: (name, *rest), NAMES, st.lists(NAMES | st.integers(0, 1 << 64), max_size=4)) | st.just(())


@given(NAMES, st.integers(0, (1 << 32) - 1), PATHS)
def test_what_is_printed_names_that_place(device: str, instance: int, path: tuple[str | int, ...]) -> None:
    section = f"{device}#{instance}"
    pattern = Pattern(format_path(section, path))
    assert pattern.text.isprintable()
    assert pattern.fits(section, path)
    assert pattern.may_lie_in(section)
    assert not pattern.fits(f"{device}#{instance + 1}", path)
    assert not pattern.fits(f"{device}x#{instance}", path)
    if path and isinstance(path[-1], str):
        assert not pattern.fits(section, path[:-1])
        assert not pattern.fits(section, (*path[:-1], path[-1] + "x"))
        assert pattern.covers(section, (*path, "below"))
        assert pattern.covers(section, (*path, 3, "below"))
        assert Pattern(format_path(section, path[:-1])).covers(section, path)


@given(st.text(max_size=30), NAMES, PATHS)
def test_any_text_is_a_pattern_or_a_value_error(text: str, device: str, path: tuple[str | int, ...]) -> None:
    try:
        pattern = Pattern(text)
    except ValueError:
        return
    place = f"{device}#0", path
    assert pattern.covers(*place) or not pattern.fits(*place)
    assert pattern.may_lie_in(place[0]) or not pattern.fits(*place)


@pytest.mark.parametrize(
    ("text", "section", "path"),
    [
        ("ps2*", "ps2kbd#0", ()),
        ("dma", "dma#1", ()),
        ("dma#1", "dma#1", ()),
        ("dma#*/x", "dma#1", ("x",)),
        ("dma/x", "dma#1", ("x",)),
        ("*/x", "dma#1", ("x",)),
        ("a/s[1]/b", "a#0", ("s", 1, "b")),
        ("a/s[0x10]/b", "a#0", ("s", 16, "b")),
        ("a/s[*]/b", "a#0", ("s", 7, "b")),
        ("a/s/b", "a#0", ("s", 7, "b")),
        ("a/s?/b", "a#0", ("s1", "b")),
        ("**/b", "a#0", ("s", 7, "b")),
        ("a/**/b", "a#0", ("b",)),
        ("a/**/b", "a#0", ("s", "t", 7, "b")),
        ("a/**", "a#0", ("s", "t")),
        ("**", "a#0", ("s", "t")),
        ("0000:00:02.0/vga/x", "0000:00:02.0/vga#0", ("x",)),
        ("ram//rom@etc/tables", "ram#0", ("/rom@etc/tables",)),
        ("i8254/channels[0].count", "i8254#0", ("channels[0].count",)),
        ("a/n*", "a#0", ("n/[m",)),
        ("a#1", "a#1#0", ()),
        ('"a#1"', "a#1#0", ()),
        ('a/"x\\u000ay"', "a#0", ("x\ny",)),
        ('a/""', "a#0", ("",)),
        ("[1]", "[1]#0", ()),
    ],
)
def test_patterns(text: str, section: str, path: tuple[str | int, ...]) -> None:
    pattern = Pattern(text)
    assert pattern.fits(section, path)
    assert pattern.may_lie_in(section)
    assert not pattern.fits("other#0", ("other",)) or text == "**"


@pytest.mark.parametrize(
    ("text", "section", "path"),
    [
        ("dma", "dma2#0", ()),
        ("dma", "dma#0", ("x",)),
        ("dma#1", "dma#11", ()),
        ("*", "a#0", ("x",)),
        ("a/s[1]", "a#0", ("s", 11)),
        ('a/"b/c"', "a#0", ("b", "c")),
        ('"a/b"/c', "a#0", ("b", "c")),
        ('a/"b*"', "a#0", ("bc",)),
        ('a/"b"[0]', "a#0", ("b[0]",)),
        ('"a"#1', "a#1#0", ()),
        ("a/b.c", "a#0", ("bxc",)),
    ],
)
def test_patterns_that_name_something_else(text: str, section: str, path: tuple[str | int, ...]) -> None:
    assert not Pattern(text).fits(section, path)


@pytest.mark.parametrize("text", ["", '"', 'a/"b', 'a/"\\x"'])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match="expected a "):
        Pattern(text)


def test_aliases() -> None:
    aliases = Aliases(map(parse_alias, ("hpet/a=b", '"x=y"/"=" = " = "')))
    assert aliases.get("hpet#0", ("a",)) == "b"
    assert aliases.get("hpet#0", ("b",)) is None
    assert [pattern.text for pattern in aliases.unused] == ['"x=y"/"="']
    assert aliases.get("x=y#3", ("=",)) == " = "
    assert aliases.unused == []
    for text in ("", "a", "=a", "a=", 'a="b', 'a="b"c'):
        with pytest.raises(ValueError, match="expected"):
            parse_alias(text)


ODD = ["a/b", "n[0]", "two words", "line\nbreak", "x" * 255, '"quoted"', "#1", "*", "é\u202e", "-o", "@f", "a=b"]


@pytest.mark.parametrize("name", [*ODD[:3], *(pytest.param(name, marks=pytest.mark.long) for name in ODD[3:])])
def test_an_odd_name_in_every_command(name: str, tmp_path: Path) -> None:
    def snapshot(value: int) -> Path:
        path = tmp_path / f"{value}.tvm"
        with path.open("wb") as file, SnapshotWriter(file) as writer:
            inner = (Record(name, "uint8", None, value), Record("other", "uint8", None, 1))
            writer.write(Section(name, 3, [Record(name, "struct", 2, [inner, None])]))
        return path

    old, new = snapshot(1), snapshot(2)
    place = format_path(f"{name}#3", (name, 0, name))
    words = format_path(None, (name, 0, name))
    tree = run("diff", old, new).stdout.decode()
    assert format_path(f"{name}#3", ()) in tree
    assert words in tree
    [difference] = json.loads(run("diff", old, new, "--format", "json").stdout)["differences"]
    assert difference["path"] == [name, 0, name]
    assert shown("diff", old, new, "--ignore", place) == ""
    [section] = json.loads(shown("show", new, place, "--format", "json"))["sections"]
    assert [each["name"] for each in section["fields"][0]["value"][0]] == [name]
    assert format_path(None, (name,)) in shown("show", new, format_path(f"{name}#3", ()), words)
    shown("set", old, place, "2", "-o", tmp_path / "set.tvm")
    assert shown("diff", tmp_path / "set.tvm", new) == ""
    assert f"- at {place}\n" in run("set", old, place, "256", "-o", tmp_path / "set.tvm").stderr.decode()
    assert f"near it: {place}" in refused("show", old, f"{place[:-1]}?{place[-1]}" if place.endswith('"') else f"{place}?")


def test_of_several_fields_that_fit_one_is_printed_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tvm"
    with path.open("wb") as file, SnapshotWriter(file) as writer:
        for device, instance in (("d", 1), ("d#1", 0)):
            writer.write(Section(device, instance, [Record("a", "uint8", None, 1)]))
    shown("set", path, "d#1/a", "2", "-o", path)
    assert "uint8  2" in shown("show", path, '"d"#1/a')
    assert "uint8  1" in shown("show", path, '"d#1"#0/a')


def test_what_names_nothing_is_an_error_everywhere(tmp_path: Path) -> None:
    file = io.BytesIO()
    with SnapshotWriter(file) as writer:
        writer.write(Section("all", 0, [Record("subs", "struct", 1, [(Record("count", "uint8", None, 1),)])]))
    path = tmp_path / "a.tvm"
    path.write_bytes(file.getvalue())
    near = "no field `all/subs[1]/count`; near it: all#0/subs[0]/count"
    assert near in refused("show", path, "all", "subs[1]/count")
    assert near in refused("set", path, "all/subs[1]/count", "4", "-o", path)
    assert near in refused("diff", path, path, "--ignore", "all/subs[1]/count")
    assert "no device `al`; near it: all#0" in refused("diff", path, path, "--ignore", "al")
    assert run("diff", path, path, "--ignore", "all", "--ignore", "all/subs").returncode == 0

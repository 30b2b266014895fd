"""The command as people run it: real processes, files and pipes; one sentence for everything that is wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgpack
import pytest
from conftest import DATA, STREAMS
from forked import Server
from qemu_streams import EOF, MAGIC, blocks, page, ram
from terminal import on_a_terminal
from test_snapshot import hostile

from tagged_vmstate.cli.main import cli
from tagged_vmstate.frames import Kind
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Opaque

SERVERS: list[Server] = []
"""The one, once it is needed."""


def run(*arguments: object, given: bytes | None = None, **more: object) -> subprocess.CompletedProcess[bytes]:
    """The command; with an environment of its own or the like in an interpreter of its own."""
    if not more.keys() - {"cwd"}:
        if not SERVERS:
            SERVERS.append(Server())
        done = SERVERS[0].run([*map(str, arguments)], given, **more)
        if done:
            return done
    command = [sys.executable, "-m", "tagged_vmstate", *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, check=False, timeout=60, **more)  # type: ignore[call-overload,no-any-return]  # passed on


def shown(*arguments: object, given: bytes | None = None, **more: object) -> str:
    done = run(*arguments, given=given, **more)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def refused(*arguments: object, given: bytes | None = None, status: int = 2, **more: object) -> str:
    """The one sentence that a refused command says."""
    done = run(*arguments, given=given, **more)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == status
    assert len(lines) == 1
    assert lines[0].startswith("tagged-vmstate: ")
    return lines[0]


@pytest.fixture(scope="module")
def tvm(tmp_path_factory: pytest.TempPathFactory, stream_path: Callable[[str], Path]) -> Path:
    path: Path = tmp_path_factory.mktemp("tvm") / "pc.tvm"
    shown("import", stream_path("pc-qemu7.2"), "-o", path)
    return path


@pytest.fixture(scope="module")
def reset(tmp_path_factory: pytest.TempPathFactory, stream_path: Callable[[str], Path]) -> Path:
    path: Path = tmp_path_factory.mktemp("reset") / "reset.tvm"
    shown("import", stream_path("pc-qemu7.2-reset"), "-o", path)
    return path


def test_help_is_there_for_all_and_ends_with_examples() -> None:
    names = re.findall(r"^  ([a-z-]+)  ", shown("--help").partition("Commands:")[2], re.MULTILINE)
    assert names == [
        *("info", "show", "to-json", "from-json", "import", "export", "capture"),
        *("diff", "set", "check", "compat", "tables", "fuzz", "completion"),
    ]
    for name in names:
        text = shown(name, "--help")
        assert "Examples:\n    tagged-vmstate " in text
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert str(command.short_help) in shown("--help"), "the list says the same as the command"


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_goes_all_the_way_and_back(name: str, tmp_path: Path) -> None:
    stream = DATA / f"{name}.mig.xz"
    first, text, second = tmp_path / "a.tvm", tmp_path / "a.json", tmp_path / "b.tvm"
    done = run("import", stream, "-o", first)
    assert done.returncode == 0
    shown("to-json", first, "-o", text)
    shown("from-json", text, "-o", second)
    assert first.read_bytes() == second.read_bytes()
    trees = [run("show", path).stdout for path in (stream, first, text)]
    assert trees[0] == trees[1] == trees[2]
    tree = trees[0].decode()
    assert re.search(r"^.. (mach-virt\.ram|pc\.ram) +sparse\[\d+\]", tree, re.MULTILINE)
    if not name.startswith("arm"):
        for line in (r"scan_enabled +int32 +1", r"translate +int32 +0", r"scancode_set +int32 +2"):
            assert re.search(line, tree)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.tvm", "b.tvm"]


def test_what_looks_for_damage_reads_pipes_too(tvm: Path, tmp_path: Path) -> None:
    packed = tmp_path / "pc.tvm.gz"
    packed.write_bytes(gzip.compress(tvm.read_bytes()))
    for command in (("info",), ("show", "--salvage")):
        expected = shown(*command, tvm)
        assert shown(*command, "-", given=tvm.read_bytes()) == expected
        assert shown(*command, "-", given=packed.read_bytes()) == expected
        assert shown(*command, packed) == expected


def test_pipes_on_both_sides(stream_path: Callable[[str], Path], tvm: Path) -> None:
    stream = stream_path("pc-qemu7.2").read_bytes()
    for given in (stream, gzip.compress(stream)):
        done = run("import", "-", given=given)
        assert done.stdout == tvm.read_bytes()
    text = run("to-json", "-", given=tvm.read_bytes()).stdout
    assert run("from-json", "-", "-o", "-", given=text).stdout == tvm.read_bytes()


def test_what_show_prints_can_be_chosen(tvm: Path) -> None:
    assert re.findall(r"^(\S+)#(\d)", shown("show", tvm, "dma*"), re.MULTILINE) == [("dma", "0"), ("dma", "1")]
    assert "dma#1\n" in shown("show", tvm, "dma#1")
    assert shown("show", tvm, "ps2kbd", "parent_obj/queue.count").split() == [
        "ps2kbd#0",
        "└─",
        "parent_obj",
        "struct",
        "└─",
        "queue.count",
        "int32",
        "0",
    ]
    assert "86 80 37 12" in shown("show", tvm, "0000:00:00.0/I440FX", "parent_obj/config[0]")
    assert "no device `ps2kb`; near it: ps2kbd#0" in refused("show", tvm, "ps2kb")
    assert "no field `ps2kbd/scancode`; near it: ps2kbd#0/scancode_set" in refused("show", tvm, "ps2kbd", "scancode")
    found = json.loads(shown("show", tvm, "ps2kbd", "translate", "--format", "json"))
    assert found["sections"][0]["fields"] == [{"name": "translate", "type": "int32", "value": 0}]


def small(*records: Record) -> bytes:
    file = io.BytesIO()
    with SnapshotWriter(file) as writer:
        writer.write(Section("a", 0, records))
        writer.write(Section("b", 0, [Record("x", "uint8", None, 1)]))
    return file.getvalue()


def test_only_what_differs_from_the_defaults() -> None:
    inner = (Record("same", "uint8", None, 0, is_default=True), Record("other", "uint8", None, 5))
    data = small(Record("s", "struct", None, inner), Record("t", "uint8", None, 0, is_default=True))
    text = shown("show", "-", "a", "--non-default", given=data)
    assert text.split() == ["a#0", "└─", "s", "struct", "└─", "other", "uint8", "5"]
    assert "default" in shown("show", "-", "a", given=data)


def test_a_snapshot_does_not_drive_the_terminal() -> None:
    text = shown("show", "-", given=small(Record("\x1b[31mred\n", "string", None, "\x1b]0;title\x07")))
    assert "\x1b" not in text
    assert '"\\u001b[31mred\\n"' in text


def in_parts(*parts: Runs, length: int = 64) -> bytes:
    """A memory that came in several parts."""
    file = io.BytesIO()
    with SnapshotWriter(file) as writer:
        for number, runs in enumerate(parts, 1):
            kind: Kind = "section" if number == len(parts) else "part"
            writer.write(Section("ram", 0, [Record("pc.ram", "sparse", length, runs)], kind=kind))
    return file.getvalue()


class TestMemory:
    """Every command shows what memory is in the end, whatever it was before."""

    FIRST = ((0, b"\1\2\3\4"), (32, b"\7"))
    RESENT = in_parts(FIRST, ((2, b"\xee\xee"),))
    MERGED = in_parts(((0, b"\1\2\xee\xee"), (32, b"\7"), (40, bytes(3))))
    ZEROED = in_parts(FIRST, ((0, bytes(4)), (32, b"\0")))
    DUMP = (
        "   00000000  01 02 ee ee 00 00 00 00 00 00 00 00 00 00 00 00  ................\n"
        "   00000010  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................\n"
        "   00000020  07 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................\n"
        "   00000030  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................\n"
    )

    def test_what_it_is_in_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tvm"
        for data, parts in ((self.RESENT, "  2 parts"), (self.MERGED, "")):
            path.write_bytes(data)
            head = f"ram#0{parts}\n└─ pc.ram  sparse[64]  5 bytes in 2 runs"
            assert shown("show", path) == f"{head}, at 0x0: 01 02 ee ee\n\n"
            assert shown("show", path, "ram", "pc.ram") == f"{head}\n{self.DUMP}\n"
            [found] = json.loads(shown("show", path, "--format", "json"))["sections"]
            assert found["fields"] == [
                {"name": "pc.ram", "type": "sparse", "length": 64, "value": {"0x0": "0102eeee", "0x20": "07"}}
            ]
            assert json.loads(shown("to-json", path, "--values")) == {"ram": {"pc.ram": {"length": 64, "stored": 5}}}
            assert re.search(r"^ram#0 +[12] +1 ", shown("info", path), re.MULTILINE), "one field, in how many parts it came"

    def test_what_is_zero_in_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tvm"
        path.write_bytes(self.ZEROED)
        for options in ([], ["--full"]):
            assert shown("show", path, *options) == "ram#0  2 parts\n└─ pc.ram  sparse[64]  all zero\n\n"
        [found] = json.loads(shown("show", path, "--format", "json"))["sections"]
        assert (found["parts"], found["fields"][0]["value"]) == (2, {})
        assert json.loads(shown("to-json", path, "--values")) == {"ram": {"pc.ram": {"length": 64, "stored": 0}}}

    @pytest.mark.parametrize("way", ["pipe", "compressed", "JSON"])
    def test_from_what_is_read_once(self, way: str) -> None:
        given = self.RESENT if way != "JSON" else run("to-json", "-", given=self.RESENT).stdout
        given = given if way != "compressed" else gzip.compress(given)
        assert self.DUMP in shown("show", "-", "--full", given=given)

    def test_pages_that_a_stream_sends_again(self, tmp_path: Path) -> None:
        pages = page(0, b"\xaa" * 4096, "mem") + page(4096, b"\xbb" * 4096)
        again = page(0, b"\0", "mem") + page(4096, b"\xcc" * 4096)
        (tmp_path / "a.mig").write_bytes(MAGIC + ram(blocks(mem=16384), pages, again) + EOF)
        assert "mem  sparse[16384]  4.0 KiB in 1 run, at 0x1000: cc cc" in shown("show", tmp_path / "a.mig")
        assert shown("show", tmp_path / "a.mig", "ram", "mem").splitlines()[2:] == [
            "   00000000  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................",
            "   *",
            "   00001000  cc cc cc cc cc cc cc cc cc cc cc cc cc cc cc cc  ................",
            "   *",
            "   00002000  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................",
            "   *",
            "",
        ]

    def test_at_its_default_it_is_no_news(self) -> None:
        runs = ((0, b"\1"),)
        data = small(
            Record("a.ram", "sparse", 9, runs, is_default=True),
            Record("b.ram", "sparse", 9, runs),
            Record("c.ram", "sparse", 9, ()),
        )
        assert re.search(r"a\.ram .* 01  default\n", shown("show", "-", given=data))
        assert "a.ram" not in shown("show", "-", "--non-default", given=data)
        found = json.loads(shown("show", "-", "a", "--non-default", "--format", "json", given=data))
        assert [field["name"] for field in found["sections"][0]["fields"]] == ["b.ram", "c.ram"]

    @pytest.mark.parametrize(
        ("parts", "is_default"),
        [
            ([(False, ()), (True, ((0, b"\1"),))], True),
            ([(True, ((0, b"\1"),)), (False, ())], True),
            ([(True, ((0, b"\1"),)), (False, ((4, b"\2"),))], False),
            ([(False, ((0, b"\1"),)), (True, ((4, b"\2"),))], False),
            ([(True, ()), (False, ())], False),
            ([(True, ()), (True, ())], True),
        ],
    )
    def test_a_part_that_writes_nothing_does_not_make_it_news(self, parts: list[tuple[bool, Runs]], *, is_default: bool) -> None:
        file = io.BytesIO()
        with SnapshotWriter(file) as writer:
            for number, (flag, runs) in enumerate(parts):
                kind: Kind = "section" if number == len(parts) - 1 else "part"
                writer.write(Section("ram", 0, [Record("m", "sparse", 9, runs, is_default=flag)], kind=kind))
        text = shown("show", "-", "--non-default", given=file.getvalue())
        assert text == "" if is_default else "sparse[9]" in text


class TestDamaged:
    @pytest.fixture
    def hurt(self, tmp_path: Path) -> Path:
        data = bytearray(small(Record("n", "uint32", None, 7)))
        [first, _] = Snapshot.read(bytes(data))
        data[first.end - 1] ^= 1
        path = tmp_path / "hurt.tvm"
        path.write_bytes(data)
        return path

    def test_info_names_it(self, hurt: Path) -> None:
        done = run("info", hurt)
        assert done.returncode == 1
        assert re.search(r"a#0 .* damaged\n", done.stdout.decode())
        assert re.search(r"b#0 .* ok\n", done.stdout.decode())
        assert json.loads(run("info", hurt, "--format", "json").stdout)["sections"][0]["damage"]

    def test_show_refuses_it_or_shows_the_rest(self, hurt: Path) -> None:
        assert "(damaged) - at a#0" in refused("show", hurt)
        done = run("show", hurt, "--salvage")
        assert done.returncode == 1
        assert "b#0\n" in done.stdout.decode()
        assert "left out: expected the checksum" in done.stderr.decode()

    def test_what_is_lost_is_listed_a_thousand_times_at_most(self, tmp_path: Path) -> None:
        (tmp_path / "lost.tvm").write_bytes(hostile("between intact ones", 1 << 17))
        for command, stream in (("info", "stdout"), ("show", "stderr")):
            done = run(command, tmp_path / "lost.tvm", *(["--salvage"] if command == "show" else []))
            lines = getattr(done, stream).decode().splitlines()
            assert done.returncode == 1
            assert len([line for line in lines if "damaged: expected" in line]) == 1_000
            assert re.search(r"damaged: [0-9]+ more$", lines[-1])


def test_info_shows_each_attribute_as_people_write_it() -> None:
    given: dict[str, object] = {
        "producer": "me\x1b",
        "half": Opaque(b"\xca\x3f\0\0\0"),
        "made": msgpack.Timestamp(1_700_000_000, 500_000_000),
        "far": msgpack.Timestamp(1 << 40),
        "twice": Opaque(b"\x82\xa1a\1\xa1a\2"),
        "bytes": b"\1\2",
        "ext": msgpack.ExtType(7, b"\3"),
        "list": [None, True, 1, 0.5, "é", b"\4", {"a": [], "b": {}}],
        "numbers": {1: 2, b"\5": 3},
        "": float("nan"),
    }
    file = io.BytesIO()
    with SnapshotWriter(file, given):
        pass
    assert shown("info", "-", given=file.getvalue()).splitlines()[1:11] == [
        "producer  me\\x1b",
        "half  0.5",
        "made  2023-11-14T22:13:20.500000+00:00",
        "far  1099511627776 s since 1970",
        "twice  82 a1 61 01 a1 61 02",
        "bytes  01 02",
        "ext  ext 7: 03",
        'list  [null, true, 1, 0.5, "é", 04, {"a": [], "b": {}}]',
        "numbers  {1: 2, 05: 3}",
        "  NaN",
    ]


def test_a_device_without_a_name_in_a_stream_is_shown_but_not_written(stream_path: Callable[[str], Path], tmp_path: Path) -> None:
    data = stream_path("pc-qemu7.2").read_bytes()
    nameless = tmp_path / "nameless.mig"
    nameless.write_bytes(data.replace(b"\x05timer", b"\0", 1))
    assert re.search(r'^""#0 +1 +1 +44 bytes +ok$', run("info", nameless).stdout.decode(), re.MULTILINE)
    for command in (("import", nameless, "-o", tmp_path / "a.tvm"), ("to-json", nameless)):
        assert f"{nameless}: expected a device of 1 to 255 bytes of UTF-8, got '' - at \"\"#0" in refused(*command)


class TestTwoInputs:
    """Whichever of the two is at fault is named, wherever in it the fault lies and whenever it is met."""

    @pytest.mark.parametrize("fault", ["fields", "order", "cut", "compressed"])
    def test_the_damaged_one_is_named(self, fault: str, tvm: Path, reset: Path, tmp_path: Path) -> None:
        data = tvm.read_bytes()
        sections = list(Snapshot.read(data))
        where = sections[len(sections) // 2]
        flipped = data[: where.end - 1] + bytes((data[where.end - 1] ^ 1,)) + data[where.end :]
        damaged = tmp_path / "damaged.tvm"
        damaged.write_bytes(
            {
                "fields": flipped,
                "order": data[: where.offset] + data[where.end :],
                "cut": data[: where.end - 1],
                "compressed": gzip.compress(flipped),
            }[fault]
        )
        for command in (
            ("export", damaged, "--like", reset),
            ("export", tvm, "--like", damaged),
            ("diff", damaged, reset),
            ("diff", reset, damaged),
        ):
            assert refused(*command).startswith(f"tagged-vmstate: {damaged}: expected "), command
            given = ["-" if each == damaged else each for each in command]
            assert refused(*given, given=damaged.read_bytes()).startswith("tagged-vmstate: standard input: expected "), command

    def test_what_is_not_from_qemu_is_named(self, tvm: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.tvm"
        other.write_bytes(small(Record("x", "uint8", None, 1)))
        for command in (("export", other, "--like", tvm), ("export", tvm, "--like", other)):
            assert (
                refused(*command)
                == f"tagged-vmstate: {other}: expected a snapshot that `import` made of a QEMU stream, got one from elsewhere"
            )

    def test_damage_in_a_stream_of_the_reset_machine(self, tvm: Path, stream_path: Callable[[str], Path], tmp_path: Path) -> None:
        stream, cut = stream_path("pc-qemu7.2"), tmp_path / "cut.mig"
        cut.write_bytes(stream.read_bytes()[:30_000])
        for command in (
            ("import", stream, "--defaults", cut),
            ("import", cut, "--defaults", stream),
            ("diff", tvm, cut),
            ("diff", cut, tvm),
            ("export", tvm, "--like", cut),
            ("export", cut, "--like", tvm),
        ):
            assert f"{cut}: expected " in refused(*command), command


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))


class TestWrong:
    def test_what_is_no_input_at_all(self, tmp_path: Path) -> None:
        empty, jpeg = tmp_path / "empty", tmp_path / "a.jpeg"
        empty.write_bytes(b"")
        jpeg.write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
        kinds = "expected a snapshot, its JSON form or a QEMU migration stream, file has "
        for command in ("info", "show", "to-json"):
            assert kinds + "nothing at all (an empty file)" in refused(command, empty)
            assert kinds + "the bytes ff d8 ff e0 00 10 4a 46" in refused(command, jpeg)
            assert f"{tmp_path}: Is a directory" in refused(command, tmp_path)
            assert "nothere: No such file or directory" in refused(command, tmp_path / "nothere")
        assert "Not a directory" in refused("show", empty / "below")

    @pytest.mark.parametrize("command", [("info",), ("show", "--salvage"), ("to-json",)])
    def test_what_is_compressed_is_looked_at_before_it_is_copied(self, command: tuple[str, ...], tmp_path: Path) -> None:
        zeros = gzip.compress(bytes(64 << 20), 1)
        (tmp_path / "zeros.gz").write_bytes(zeros)
        words = b"expected a snapshot, its JSON form or a QEMU migration stream, file has zeros"
        for given, path in ((None, tmp_path / "zeros.gz"), (zeros, "-")):
            done = run(*command, path, given=given, preexec_fn=_limit_files)
            assert (done.returncode, words in done.stderr) == (2, True), done.stderr

    def test_streams(self, stream_path: Callable[[str], Path], tmp_path: Path) -> None:
        stream = stream_path("pc-qemu7.2").read_bytes()
        assert "savevm version 3, stream has version 4 - at byte 4" in refused("show", "-", given=b"QEVM\0\0\0\x04" + stream[8:])
        cut = refused("import", "-", "-o", tmp_path / "out.tvm", given=stream[:30_000])
        assert re.search(r"truncated\) - at \S+#0 \(byte \d+\)", cut)
        assert "whole gzip data" in refused("show", "-", given=gzip.compress(stream)[:-500])
        assert os.listdir(tmp_path) == []

    def test_json(self, tmp_path: Path) -> None:
        text = shown("to-json", "-", given=small(Record("n", "uint8", None, 7)))
        out = tmp_path / "out.tvm"
        out.write_bytes(b"old")
        for value, words in (("300", "`uint8` (0 to 255), JSON has 300 - at a#0/n (line 4"), ('"7"', "`uint8`, JSON has '7'")):
            sentence = refused("from-json", "-", "-o", out, given=text.replace('"value": 7', f'"value": {value}').encode())
            assert words in sentence
        assert out.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["out.tvm"]

    def test_a_full_disk(self, tvm: Path, tmp_path: Path) -> None:
        with Path("/dev/full").open("wb") as full:
            command = [sys.executable, "-m", "tagged_vmstate", "to-json", str(tvm)]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
        assert (done.returncode, done.stderr) == (2, b"tagged-vmstate: standard output: No space left on device\n")
        assert "/dev/full: cannot write: No space left on device" in refused("to-json", tvm, "-o", "/dev/full")
        # Coverage keeps its own file, which the limit would damaged.
        plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        cut = run("to-json", tvm, "-o", tmp_path / "out.json", preexec_fn=_limit_files, env=plain)
        assert (cut.returncode, cut.stderr.count(b"\n")) == (2, 1)
        assert b"cannot write: File too large" in cut.stderr
        assert os.listdir(tmp_path) == []

    def test_a_closed_pipe_is_quiet(self, tvm: Path) -> None:
        command = f"({sys.executable} -m tagged_vmstate to-json {tvm}; echo $? >&2) | head -n 1"
        done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
        assert (done.stdout.count(b"\n"), done.stderr) == (1, b"141\n")

    def test_usage(self, tvm: Path) -> None:
        for arguments in (["nosuch"], ["show"], ["info", tvm, "--format", "xml"]):
            done = run(*arguments)
            assert done.returncode == 2
            assert b"Traceback" not in done.stderr


def test_colours_only_on_a_terminal(tvm: Path) -> None:
    assert "\x1b[" in on_a_terminal("show", tvm, "ps2kbd")[1]
    plain = on_a_terminal("show", tvm, "ps2kbd", NO_COLOR="1")[1]
    assert re.sub(r"\x1b\[[012]m", "", plain).replace("\r", "").split() == shown("show", tvm, "ps2kbd").split()
    assert "\x1b" not in shown("show", tvm, "ps2kbd")


def test_a_snapshot_is_not_poured_onto_a_terminal(stream_path: Callable[[str], Path]) -> None:
    status, text = on_a_terminal("import", stream_path("pc-qemu7.2"))
    assert status == 2
    assert "name a file with -o" in " ".join(text.split())


def test_without_its_extra_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; from tagged_vmstate.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode != 0
    assert done.stderr == b"tagged-vmstate: the command needs the packages click and rich: pip install click rich\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert f"_TAGGED_VMSTATE_COMPLETE={shell}_complete" in shown("completion", shell)


def test_help_and_the_names_of_commands_need_no_command() -> None:
    """So they answer at once: what a command imports waits until it is called."""
    for argument, more in (("--help", {}), ("", {"_TAGGED_VMSTATE_COMPLETE": "zsh_complete"})):
        line = [sys.executable, "-X", "importtime", "-c", "from tagged_vmstate.__main__ import main; main()", argument]
        done = subprocess.run(line, capture_output=True, check=True, text=True, env={**os.environ, **more})
        rooms = {each.split("|")[-1].strip() for each in done.stderr.splitlines() if "|" in each}
        rooms = {room for room in rooms if room.startswith("tagged_vmstate.") or room == "rich"}
        assert rooms == {
            f"tagged_vmstate.{room}" for room in ("__main__", "cli", "cli.main", "cli.messages", "cli.streams", "version")
        }
        assert all(name in done.stdout for name in ("show", "to-json", "completion"))

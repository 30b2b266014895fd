"""How commands end and where they write: exit statuses, closed and odd streams, descriptors, terminals, interrupts."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

import pytest
from conftest import DATA
from terminal import on_a_terminal
from test_command import refused, run, shown, small

from tagged_vmstate.cli.main import _COMMANDS
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import SnapshotWriter

ODD: Final = "é→\x85\x7f\u202e\u2028\u00a0\U000e0001😀"
"""Letters, and what must not reach a terminal: C1 controls, DEL, a bidi control, a separator, a space, a tag."""
BOARD: Final = f"""
import tagged_vmstate as tv

@tv.vmstate("a")
class A:
    n: tv.uint8 = 7
    def post_load(self):
        if self.n != 7:
            raise KeyError("a finding")

@tv.vmstate("a")
class Wider:
    n: tv.uint32 = 7
    {"ö" * 3}: tv.uint8 = 0

@tv.vmstate({ODD!r})
class Odd:
    n: tv.uint8

MACHINE = tv.Machine([A()])
WIDER = tv.Machine([Wider()])
ODD = tv.Machine([Odd(n=0)])
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a file of each kind."""
    monkeypatch.chdir(tmp_path)
    Path("board.py").write_text(BOARD)
    with Path("good.tvm").open("wb") as file, SnapshotWriter(file) as writer:
        writer.write(Section("a", 0, [Record("n", "uint8", None, 7)]))
    data = small(Record("n", "uint8", None, 8))
    Path("other.tvm").write_bytes(data)
    Path("damaged.tvm").write_bytes(data.replace(b"uint8", b"uint9", 1))
    Path("odd.tvm").write_bytes(odd_snapshot())
    Path("good.json").write_text('{"format": "tagged-vmstate", "version": 1, "attributes": {}, "sections": []}')
    Path("damaged.json").write_text('{"format": "tagged-vmstate", "version": 1, "sect')
    return tmp_path


def odd_snapshot() -> bytes:
    file = io.BytesIO()
    with SnapshotWriter(file, {ODD: ODD}) as writer:
        writer.write(Section(ODD, 0, [Record(ODD, "string", None, ODD), Record("n", "uint8", None, 1)]))
    return file.getvalue()


STREAM: Final = str(DATA / "pc-qemu7.2.mig.xz")
RESET: Final = str(DATA / "pc-qemu7.2-reset.mig.xz")
NEWER: Final = str(DATA / "pc-qemu10.0.mig.xz")
ENDS: Final[dict[str, list[tuple[int, str]]]] = {
    "info": [(0, "good.tvm"), (1, "damaged.tvm"), (2, "board.py")],
    "show": [(0, "good.tvm"), (1, "damaged.tvm --salvage"), (2, "damaged.tvm"), (2, "good.tvm nosuch")],
    "to-json": [(0, "good.tvm"), (2, "damaged.tvm")],
    "from-json": [(0, "good.json"), (2, "damaged.json")],
    "import": [(0, STREAM), (2, "damaged.json -o out")],
    "export": [(0, STREAM), (1, f"{NEWER} --like {RESET}"), (2, "damaged.tvm")],
    "capture": [(2, "nosuch.sock -o out")],
    "diff": [(0, "good.tvm good.tvm"), (1, "good.tvm other.tvm"), (2, "good.tvm damaged.tvm")],
    "set": [(0, "good.tvm a n 9 -o -"), (2, "good.tvm a n 999 -o out"), (2, "damaged.tvm a n 9 -o out")],
    "check": [
        (0, "good.tvm --against board:MACHINE"),
        (1, "other.tvm --against board:MACHINE"),
        (2, "damaged.tvm --against board:MACHINE"),
    ],
    "compat": [
        (0, "board:MACHINE board:MACHINE"),
        (1, "board:MACHINE board:WIDER"),
        (2, "damaged.json board:MACHINE"),
    ],
    "tables": [(0, "board:MACHINE"), (2, "board:NOSUCH")],
    "fuzz": [(0, "dump --runs 5"), (1, "board:MACHINE --runs 300"), (2, "damaged.json")],
    "completion": [(0, "bash")],
}
"""Command -> statuses, each with the arguments that end so."""


@pytest.mark.long
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", ENDS)
def test_every_command_ends_with_the_status_that_is_documented(command: str) -> None:
    rest = {"diff": "good.tvm", "set": "a n 9 -o out", "capture": "-o out", "check": "--against board:MACHINE", "compat": "x"}
    cases = [*ENDS[command], (2, f"nosuch {rest.get(command, '')}"), (2, "--nosuch"), (0, "--help")]
    printing = []
    for status, words in cases:
        done = run(command, *words.split())
        assert done.returncode == status, (words, done.stderr)
        if status == 2:
            assert re.fullmatch(rb"tagged-vmstate: [^\n]+\n", done.stderr), (words, done.stderr)
        assert b"Traceback" not in done.stderr
        printing += [words] * bool(done.stdout and not done.stderr)
    assert not Path("out").exists()
    for words in (printing[0], "--help"):
        assert to_a_closed_pipe(command, *words.split()) == (141, b""), words


def test_the_list_of_ends_has_all_commands() -> None:
    assert [*ENDS] == [*_COMMANDS]
    for arguments in (["--help"], ["--version"]):
        assert to_a_closed_pipe(*arguments) == (141, b"")
    assert (run("nosuch").returncode, run().returncode) == (2, 2)


def to_a_closed_pipe(*arguments: str) -> tuple[int, bytes]:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "tagged_vmstate", *arguments]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    return done.returncode, done.stderr


@pytest.mark.usefixtures("here")
def test_a_hook_that_ends_the_program_is_no_yes() -> None:
    Path("script.py").write_text(BOARD.replace("if self.n != 7:", "raise SystemExit(0)\n        if 0:"))
    assert "sys.exit(0)" in refused("check", "good.tvm", "--against", "script:MACHINE")


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line for bash, in which `$T` is the command."""
    settings = {**os.environ, "T": f"{sys.executable} -m tagged_vmstate", **environment}
    return subprocess.run(["bash", "-c", line], capture_output=True, check=False, env=settings, timeout=60)


@pytest.mark.usefixtures("here")
class TestClosed:
    @pytest.mark.parametrize(
        "command",
        [
            *(
                "info good.tvm",
                "show good.tvm --format json",
                "to-json good.tvm",
                "from-json good.json",
                "diff other.tvm good.tvm",
            ),
            *(
                "check good.tvm --against board:MACHINE",
                "compat board:MACHINE board:WIDER --format github",
                "tables board:MACHINE",
            ),
            *("set good.tvm a n 9 -o /dev/stdout", "fuzz dump --runs 1", "completion bash", "--version", "show --help"),
        ],
    )
    def test_output(self, command: str) -> None:
        done = shell(f"$T {command} >&-")
        assert done.returncode == 2
        assert re.fullmatch(rb"tagged-vmstate: (standard output|/dev/stdout): [^\n]*(closed|Bad file descriptor)\n", done.stderr)

    def test_input(self) -> None:
        for command in (
            "info -",
            "import - -o out",
            "diff good.tvm -",
            "compat - board:MACHINE",
            "check - --against board:MACHINE",
        ):
            done = shell(f"$T {command} <&-")
            assert (done.returncode, done.stderr) == (2, b"tagged-vmstate: standard input: it is closed\n")
        assert not Path("out").exists()

    def test_errors(self) -> None:
        for command, status in (
            ("show nosuch", 2),
            ("show --nosuch", 2),
            ("show good.tvm", 0),
            ("show damaged.tvm --salvage", 2),
        ):
            done = shell(f"$T {command} 2>&-")
            assert (done.returncode, done.stderr) == (status, b"")

    def test_a_file_never_gets_their_descriptors(self) -> None:
        stream = DATA / "pc2.2-qemu7.2.mig.xz"
        told = run("import", stream, "-o", "whole.tvm")
        assert told.stderr.startswith(b"tagged-vmstate: note: "), "what must not land in the file"
        assert shell(f"$T import {stream} -o out.tvm 2>&-").returncode == 2
        assert shell(f"$T import {stream} -o all.tvm <&- >&- 2>&-").returncode == 2
        assert Path("whole.tvm").read_bytes() == Path("out.tvm").read_bytes() == Path("all.tvm").read_bytes()

    def test_what_prints_nothing_needs_no_output(self) -> None:
        assert shell("$T diff good.tvm good.tvm >&-").returncode == 0
        assert shell("$T set good.tvm a n 9 -o out.tvm <&- >&-").returncode == 0
        assert "9" in shown("show", "out.tvm", "a", "n")


C_LOCALE: Final = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("encoding", "environment"),
    [
        ("ascii", C_LOCALE),
        *(pytest.param(name, {"PYTHONIOENCODING": name}, marks=pytest.mark.long) for name in ("latin-1", "cp1252")),
    ],
)
def test_what_an_encoding_lacks_is_written_in_ascii(encoding: str, environment: dict[str, str]) -> None:
    """Guides and arrows as such, all else escaped: nothing crashes."""
    plain = {"├": "|", "└": "`", "─": "-", "│": "|", "→": "->", "…": "..."}

    def degraded(text: str) -> str:
        for char in {*text} - {*text.encode(encoding, "ignore").decode(encoding)}:
            text = text.replace(char, plain.get(char) or char.encode("unicode_escape").decode())
        return text

    wide = small(Record("list", "uint8", 20, tuple(range(20))), Record("x", "uint8", None, 1))
    Path("wide.tvm").write_bytes(wide)
    for command in ("show odd.tvm", "show wide.tvm", "diff good.tvm other.tvm", "info odd.tvm", "show wide.tvm --format json"):
        here, there = run(*command.split()), shell(f"$T {command}", **environment)
        assert (there.returncode, there.stderr) == (here.returncode, b"")
        text = here.stdout.decode()
        is_json = "json" in command
        assert there.stdout == here.stdout if is_json else there.stdout.decode(encoding) == degraded(text)
        assert is_json or not text.isascii()
    for command in ("show nosuch-é", "show odd.tvm nosuch-é", "to-json --ö"):
        done = shell(f"$T {command}", **environment)
        assert done.returncode == 2
        assert done.stderr.startswith(b"tagged-vmstate: ")
        assert done.stderr.count(b"\n") == 1
    assert shell("$T --help", **environment).stdout.decode(encoding) == shown("--help")


@pytest.mark.usefixtures("here")
def test_json_is_utf8_whatever_the_locale() -> None:
    for command in ("to-json odd.tvm", "to-json odd.tvm --values", "info odd.tvm --format json", "tables board:ODD"):
        here = shown(*command.split())
        assert "é→" in here
        assert shell(f"$T {command}", **C_LOCALE).stdout.decode() == here


@pytest.mark.usefixtures("here")
class TestDescriptors:
    @pytest.mark.long
    def test_a_file_of_the_shell_is_written_where_it_stands(self) -> None:
        for command in (
            "set good.tvm a n 9",
            "from-json good.json",
            f"import {STREAM}",
            "to-json good.tvm",
            "tables board:MACHINE",
        ):
            run(*command.split(), "-o", "expected")
            expected = Path("expected").read_bytes()
            for place in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
                done = shell(f"(echo a; $T {command} -o {place}; echo b) > log")
                assert (done.returncode, done.stderr) == (0, b"")
                assert Path("log").read_bytes() == b"a\n" + expected + b"b\n"
            done = shell(f"echo a > log; $T {command} -o /dev/fd/7 7>> log")
            assert Path("log").read_bytes() == b"a\n" + expected
            assert shell(f"$T {command} -o /dev/stdout | cat").stdout == expected
            assert shell(f"$T {command} -o >(cat; echo b); wait $!").stdout == expected + b"b\n"
            shell(f"mkfifo pipe; cat pipe > log & $T {command} -o pipe; wait; rm pipe")
            assert Path("log").read_bytes() == expected
        assert not [name for name in os.listdir() if name.endswith("draft")]

    def test_a_reader_that_is_gone(self) -> None:
        done = shell("set -o pipefail; $T to-json good.tvm -o /dev/stdout | true; $T import nosuch -o >(true)")
        assert done.returncode == 2
        for place in ("/dev/stdout", "-"):
            assert to_a_closed_pipe("set", "good.tvm", "a", "n", "9", "-o", place) == (141, b"")

    @pytest.mark.long
    def test_inputs_too(self) -> None:
        expected = shown("show", "good.tvm")
        for command in ("show /dev/stdin < good.tvm", "show <(cat good.tvm)", "show /dev/fd/7 7< good.tvm", "show - < good.tvm"):
            assert shell(f"$T {command}").stdout.decode() == expected
        for command in (
            *(
                "info",
                "show --salvage",
                "to-json",
                "to-json --values",
                "set FILE a n 9 -o -",
                "check FILE --against board:MACHINE",
            ),
            *("diff good.tvm", "diff FILE good.tvm", "compat board:MACHINE FILE"),
        ):
            name = "tables.json" if command.startswith("compat") else "good.tvm"
            run("tables", "board:MACHINE", "-o", "tables.json")
            line = command if "FILE" in command else f"{command} FILE"
            here = shell(f"$T {line.replace('FILE', name)}")
            assert (here.returncode, here.stderr) == (0, b"")
            for place in (f"<(cat {name})", f"/dev/stdin < {name}"):
                there = shell(f"$T {line.replace('FILE', place)}")
                assert (there.returncode, there.stdout, there.stderr) == (0, here.stdout, b""), line
        assert (
            shell(f"cat {STREAM} | $T export /dev/stdin --like <(cat {STREAM}) | $T import /dev/stdin | $T info -").returncode
            == 0
        )

    def test_a_terminal_is_refused_by_any_name(self) -> None:
        for place in ("-", "/dev/stdout", "/dev/fd/1"):
            status, text = on_a_terminal("set", "good.tvm", "a", "n", "9", "-o", place)
            assert (status, "name a file with -o" in text) == (2, True)
        status, text = on_a_terminal("to-json", "odd.tvm", "-o", "/dev/stdout")
        assert (status, can_be_shown(text)) == (0, True)


def can_be_shown(text: str) -> bool:
    return all(line.isprintable() for line in text.replace("\r\n", "\n").split("\n"))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("environment", [{}, {"PYTHONIOENCODING": "ascii"}], ids=["utf-8", "ascii"])
def test_json_on_a_terminal_does_not_drive_it(environment: dict[str, str]) -> None:
    for command in (
        *("to-json odd.tvm", "to-json --values odd.tvm", "show --format json odd.tvm", "info --format json odd.tvm"),
        *("diff --format json good.tvm odd.tvm", "check --format json odd.tvm --against board:MACHINE"),
        *("compat --format json board:MACHINE board:ODD", "tables board:ODD"),
    ):
        plain = run(*command.split())
        status, text = on_a_terminal(*command.split(), **environment)
        assert status == plain.returncode
        assert can_be_shown(text)
        assert json.loads(text) == json.loads(plain.stdout)
        assert ODD in plain.stdout.decode() or "\\u007f" in plain.stdout.decode() or "\x7f" in plain.stdout.decode()
        expected = r"é→\u0085\u007f\u202e\u2028\u00a0\udb40\udc01😀"
        assert text.isascii() if environment else expected in text, text


@pytest.mark.long
@pytest.mark.usefixtures("here")
def test_text_does_not_drive_a_terminal_either() -> None:
    for command in (
        *("show odd.tvm", "info odd.tvm", "diff good.tvm odd.tvm", "check odd.tvm --against board:MACHINE"),
        *("compat board:MACHINE board:ODD", "compat board:MACHINE board:ODD --format github"),
        *(
            "compat board:MACHINE board:ODD --format junit",
            f"show {ODD}",
            f"show odd.tvm {ODD}x",
            f"set odd.tvm {ODD} x 1 -o {ODD}/{ODD}",
        ),
        *(f"show --{ODD}", f"fuzz {ODD}:x", f"tables {ODD}:x", f"compat {ODD} x", f"capture {ODD} -o {ODD}/x"),
    ):
        assert can_be_shown(re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(*command.split(" "))[1])), command
    for command in ("show odd.tvm", "diff good.tvm odd.tvm"):
        assert can_be_shown(run(*command.split()).stdout.decode())
    ET.fromstring(run("compat", "board:MACHINE", "board:ODD", "--format", "junit", env={**os.environ, **C_LOCALE}).stdout)


def test_progress_takes_a_name_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "[red]\x1b[5m"
    path.touch()
    os.truncate(path, 33 << 20)
    status, text = on_a_terminal("info", path)
    assert (status, "[red]\\x1b" in text, "\x1b[5m" in text) == (2, True, False)


INTERRUPTED: Final = """
import os, signal, sys
import tagged_vmstate
from tagged_vmstate.__main__ import main
from tagged_vmstate.cli import main as room
for command in ("convert", "inspect"):
    __import__(f"tagged_vmstate.cli.{command}")

step, arguments = int(sys.argv[1]), sys.argv[2:]
folder = os.path.dirname(tagged_vmstate.__file__)
place = 2  # from the first `try` on
while True:
    child = os.fork()
    if not child:
        break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(2, f"= {status} {[each for each in os.listdir() if 'draft' in each]}\\n".encode())
    if status != 130:
        sys.exit()
    place += step

def trace(frame, event, argument):
    global place
    if not frame.f_code.co_filename.startswith(folder):
        return None
    if event == "line":
        place -= 1
        if not place:
            signal.raise_signal(signal.SIGINT)
    return trace

sys.argv[1:] = arguments
sys.settrace(trace)
main()
"""


@pytest.mark.long
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", ["from-json good.json -o out.tvm", "info nosuch", "show --help"])
def test_an_interrupt_at_any_line_is_one_line(command: str) -> None:
    step = "11" if "-o" in command else "3"
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, step, *command.split()], capture_output=True, check=False)
    said = done.stderr.decode().split("tagged-vmstate: interrupted\n= 130 []\n")
    assert len(said) > 10
    assert [each for each in said[:-1] if each] == []
    assert re.fullmatch(r"(tagged-vmstate: nosuch: [^\n]*\n)?= [02] \[\]\n", said[-1])

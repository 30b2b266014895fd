"""What in a stream could not be interpreted is said by every command that reads it, once, and only there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from qemu_streams import EOF, MAGIC, blocks, description, device, field, full, page, ram
from test_command import run

MEMORY = ram(blocks(mem=4096) + page(0, b"\1", "mem"), b"", number=9)
DEVICES = full(1, "odd", b"abc") + full(2, "dev", b"\5")
UNKNOWN = MAGIC + MEMORY + DEVICES + EOF + description(device("dev", field("x", "uint8", 1)))
NOTE = "tagged-vmstate: note: {}odd#0: 3 bytes are not described; kept as bytes\n"


@pytest.mark.parametrize(
    "command",
    [
        *("info FILE", "show FILE", "show FILE dev/x", "show --salvage FILE", "to-json FILE", "to-json FILE --memory DIR -o OUT"),
        *("import FILE -o OUT", "export FILE -o OUT", "set FILE dev x 7 -o OUT"),
    ],
)
@pytest.mark.parametrize("is_piped", [True, False])
def test_one_input(tmp_path: Path, command: str, *, is_piped: bool) -> None:
    (tmp_path / "a.mig").write_bytes(UNKNOWN)
    names = {"FILE": "-" if is_piped else str(tmp_path / "a.mig"), "OUT": str(tmp_path / "out"), "DIR": str(tmp_path / "dir")}
    done = run(*(names.get(word, word) for word in command.split()), given=UNKNOWN if is_piped else b"")
    assert (done.returncode, done.stderr.decode()) == (0, NOTE.format(""))


def test_of_two_inputs_each_is_named(tmp_path: Path) -> None:
    a, b, out = tmp_path / "a.mig", tmp_path / "b.mig", tmp_path / "out"
    for each in (a, b):
        each.write_bytes(UNKNOWN)
    both = NOTE.format(f"{a}: ") + NOTE.format(f"{b}: ")
    for arguments in (("diff", a, b), ("import", a, "--defaults", b, "-o", out), ("export", a, "--like", b, "-o", out)):
        assert sorted(run(*arguments).stderr.decode().splitlines()) == sorted(both.splitlines())


def test_reports_are_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a.mig").write_bytes(UNKNOWN)
    for arguments in (("info", "--format", "json"), ("show", "--format", "json"), ("to-json", "--values")):
        assert json.loads(run(*arguments, tmp_path / "a.mig").stdout)


def test_a_snapshot_shows_bytes_and_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.mig").write_bytes(UNKNOWN)
    run("import", tmp_path / "a.mig", "-o", tmp_path / "a.tvm")
    assert run("show", tmp_path / "a.tvm").stderr == b""


def test_many_are_counted_but_by_import(tmp_path: Path) -> None:
    (tmp_path / "a.mig").write_bytes(MAGIC + b"".join(full(each, "odd", b"a", instance=each) for each in range(20)) + EOF)
    assert run("show", tmp_path / "a.mig").stderr.decode().splitlines()[-1] == "tagged-vmstate: note: 12 more, which import names"
    assert len(run("import", tmp_path / "a.mig", "-o", tmp_path / "a.tvm").stderr.splitlines()) == 20

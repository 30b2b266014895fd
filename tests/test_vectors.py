"""The vectors hold for the library and for docs/reader.mjs, and both read alike whatever is made of them."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import subprocess
import sys
from pathlib import Path

import differential
import pytest
from conftest import DATA, stream_bytes
from picture import ROOT
from run import content, names

from tagged_vmstate import jsonform
from tagged_vmstate.errors import FormatError
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.snapshot import Snapshot, write

VECTORS = ROOT / "tests/vectors"
READER = ROOT / "docs/reader.mjs"


def _json(data: bytes) -> bytes:
    out = io.BytesIO()
    jsonform.to_json(Snapshot.read(data), out)
    return out.getvalue()


def _verify(data: bytes) -> None:
    for section in Snapshot.read(data):
        section.verify()


def test_what_was_released_is_never_edited() -> None:
    sums = dict(line.split("  ")[::-1] for line in (VECTORS / "SHA256SUMS").read_text().splitlines())
    files = {f"{folder}/{path.name}": path for folder in ("good", "bad", "later") for path in (VECTORS / folder).iterdir()}
    assert sums == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert sum(path.stat().st_size for path in files.values()) < 500_000


def test_the_index_has_a_sentence_for_each() -> None:
    index = json.loads((VECTORS / "index.json").read_text())
    assert index.keys() == {f"{folder}/{name}" for folder in ("good", "bad", "later") for name in names(folder)}
    for name, entry in index.items():
        assert entry.keys() <= {"what", "grammar", "offset", "list"}
        assert re.fullmatch(r"[A-Z0-9-].*\.", entry["what"]) or entry["what"].startswith(
            ("nil", "true", "bool", "bin", "sparse", "timer")
        )
        assert entry.keys() == {"what"} or name.startswith("bad/")
    assert len({entry["what"] for entry in index.values()}) == len(index)


@pytest.mark.parametrize("name", names("good"))
def test_a_good_one_is_its_json_and_back(name: str) -> None:
    data = content(VECTORS / f"good/{name}.tvm")
    text = content(VECTORS / f"good/{name}.json")
    assert _json(data) == text
    out = io.BytesIO()
    write(jsonform.from_json(text), out)
    assert out.getvalue() == data


@pytest.mark.parametrize("name", names("bad"))
def test_a_bad_one_is_refused_with_its_place(name: str) -> None:
    data = content(VECTORS / f"bad/{name}.tvm")
    with pytest.raises(FormatError) as caught:
        _json(data)
    assert caught.value.offset is not None
    entry = json.loads((VECTORS / "index.json").read_text())[f"bad/{name}"]
    assert entry.get("offset") in {None, caught.value.offset}
    if "list" in entry:
        with pytest.raises(FormatError):
            _verify(data)


@pytest.mark.parametrize("name", names("later"))
def test_a_later_one_is_listed_and_not_decoded(name: str) -> None:
    data = content(VECTORS / f"later/{name}.tvm")
    header, *frames, end = map(json.loads, content(VECTORS / f"later/{name}.list").decode().splitlines())
    snapshot = Snapshot.read(data)
    found = [[each.kind, each.device, each.instance, each.raw_attributes.to_json(), each.size, each.crc] for each in snapshot]
    assert found == frames
    assert [snapshot.version, snapshot.raw_attributes.to_json(), snapshot.header_crc] == header[1:]
    assert snapshot.end_crc == end[-1]
    with pytest.raises(FormatError, match="later"):
        snapshot.check_version()
    for section in snapshot:
        with pytest.raises(FormatError, match="later"):
            section.records()
    out = io.BytesIO()
    for copy in (write, jsonform.to_json):
        with pytest.raises(FormatError, match="later"):
            copy(snapshot, out)
    assert out.getvalue() == b""


def _run(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*map(str, arguments)], capture_output=True, check=False)


def test_the_runner_shows_what_a_reader_gets_wrong(tmp_path: Path) -> None:
    reader = tmp_path / "reader.py"
    reader.write_text("import sys\nprint('{}')\nsys.exit('attribute' in sys.argv[1])\n")
    done = _run(sys.executable, VECTORS / "run.py", "--values", "--silent", "--", sys.executable, "-S", reader)
    assert done.returncode == 1
    *failures, summary = done.stdout.decode().splitlines()
    counts = {folder: len(names(folder)) for folder in ("good", "bad", "later")}
    assert summary == ", ".join(f"{folder} 0 of {count}" for folder, count in counts.items())
    assert len(failures) == sum(counts.values())
    assert "bad/flags-2: accepted - The flags are 2: reserved." in failures
    assert "bad/attribute-key-nil: refused, but prints to standard output - The key of an attribute is nil." in failures
    assert any(line.startswith("good/bool: prints b'{}\\n' where b'{\"format\"") for line in failures)


def test_the_runner_runs_a_lister_alone_and_a_reader_without_json() -> None:
    good, bad, later = (len(names(folder)) for folder in ("good", "bad", "later"))
    listed = (VECTORS / "index.json").read_text().count('"list": true')
    lister = _run(sys.executable, VECTORS / "run.py", "--list", "true").stdout.decode().splitlines()
    assert lister[-1] == f"good {good} of {good}, bad 0 of {listed}, later 0 of {later}"
    assert lister[0].startswith("bad/attribute-key-bin: lister: accepted - ")
    reader = _run(sys.executable, VECTORS / "run.py", "--read", "--", "true").stdout.decode().splitlines()
    assert reader[-1] == f"good {good} of {good}, bad 0 of {bad}, later 0 of {later}"
    assert _run(sys.executable, VECTORS / "run.py").returncode == 2


@pytest.mark.long
def test_the_other_reader_reads_all() -> None:
    done = _run(sys.executable, VECTORS / "run.py", "--silent", "--list", f"node {READER} --list", "--", "node", READER)
    assert (done.returncode, done.stderr) == (0, b""), done.stdout.decode()


@pytest.mark.long
@pytest.mark.parametrize("stream", sorted(path.name[: -len(".mig.xz")] for path in DATA.glob("*.mig.xz")))
def test_the_other_reader_prints_the_same_of_real_streams(stream: str, tmp_path: Path) -> None:
    out = io.BytesIO()
    write(import_stream(stream_bytes(stream)), out)
    path = tmp_path / "x.tvm"
    path.write_bytes(out.getvalue())
    done = _run("node", READER, path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == _json(out.getvalue())
    listed = _run("node", READER, "--list", path).stdout.splitlines()
    assert len(listed) == 2 + len(list(Snapshot.read(out.getvalue())))


@pytest.mark.long
def test_the_other_reader_prints_the_same_of_a_released_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "x.tvm"
    path.write_bytes(lzma.decompress((DATA / "format-v1.tvm.xz").read_bytes()))
    assert _run("node", READER, path).stdout == _json(path.read_bytes())


@pytest.mark.long
def test_what_the_other_reader_says_of_a_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tvm"
    path.write_bytes(content(VECTORS / "bad/flags-2.tvm"))
    done = _run("node", READER, path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"{path}: expected flags of 0 or 1, got 2 - at byte 79\n"
    assert _run("node", READER, tmp_path / "none.tvm").returncode == 1
    assert _run("node", READER).returncode == 2


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_both_readers_read_alike_what_is_made_of_the_vectors(seed: int) -> None:
    outcome = differential.run(25_000, seed)
    assert [(data.hex(), *each) for data, *each in outcome.differ] == []
    assert min(outcome.taken, outcome.refused) > 3_000

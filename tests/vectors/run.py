"""Runs a reader of snapshots over the vectors: see README.md. It needs Python alone.

python run.py [--values | --read] [--silent] [--list 'COMMAND'] [-- COMMAND ...]
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
SECONDS: Final = 60
Done = subprocess.CompletedProcess[bytes]
Check = Callable[[Done], "str | None"]


def content(path: Path) -> bytes:
    """A file that may be kept compressed."""
    packed = path.with_name(f"{path.name}.xz")
    return lzma.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()


def names(folder: str) -> list[str]:
    """The vectors of a folder."""
    return sorted({path.name.split(".")[0] for path in (HERE / folder).iterdir()})


def vectors(folder: str, scratch: Path) -> Iterator[tuple[str, Path]]:
    """The vectors of a folder, each with a file that a reader can open."""
    for name in names(folder):
        path = scratch / folder / f"{name}.tvm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content(HERE / folder / path.name))
        yield name, path


def untaken(done: Done) -> str | None:
    """What is wrong where a file should be read."""
    if done.returncode:
        return f"refused: {done.stderr.decode(errors='replace').strip() or f'exit status {done.returncode}'}"
    return None


def unprinted(done: Done, expected: bytes, *, by_value: bool) -> str | None:
    """What is wrong where a file should be read and printed."""
    if wrong := untaken(done):
        return wrong
    if done.stdout == expected or (by_value and _same_values(done.stdout, expected)):
        return None
    return f"prints {brief(done.stdout, expected)}"


def unrefused(done: Done, *, is_silent: bool) -> str | None:
    """What is wrong where a file should be refused."""
    if done.returncode <= 0:
        return "accepted" if done.returncode == 0 else f"killed by signal {-done.returncode}"
    return "refused, but prints to standard output" if is_silent and done.stdout else None


def brief(found: bytes, expected: bytes) -> str:
    """Where two texts differ first."""
    pairs = enumerate(zip(found, expected, strict=False))
    at = next((at for at, (one, other) in pairs if one != other), min(len(found), len(expected)))
    start = max(at - 20, 0)
    return f"{found[start : at + 20]!r} where {expected[start : at + 20]!r} is expected (byte {at})"


def _same_values(found: bytes, expected: bytes) -> bool:
    try:
        # Names of members come in any order, but none comes twice; 1 is not 1.0, and NaN is no JSON.
        texts = [json.dumps(json.loads(text, object_pairs_hook=_once), sort_keys=True) for text in (found, expected)]
    except ValueError:
        return False
    return texts[0] == texts[1]


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def run(
    command: Sequence[str],
    lister: Sequence[str] = (),
    *,
    by_value: bool = False,
    is_silent: bool = False,
    reads_only: bool = False,
) -> bool:
    """Run a reader, a lister, or both; whether all vectors hold."""
    refused = partial(unrefused, is_silent=is_silent)
    index = json.loads((HERE / "index.json").read_text(encoding="utf-8"))

    def checks(folder: str, name: str) -> tuple[Check | None, Check | None]:
        """What the lister and the reader have to do with a file, if anything."""
        if folder == "bad":
            return (refused if "list" in index[f"bad/{name}"] else None), refused
        if folder == "later":
            return partial(unprinted, expected=content(HERE / f"later/{name}.list"), by_value=False), refused
        expected = content(HERE / f"good/{name}.json")
        return untaken, untaken if reads_only else partial(unprinted, expected=expected, by_value=by_value)

    def outcome(folder: str, name: str, path: Path) -> list[str | None]:
        """What is wrong by each check of a file."""
        tools = (("lister: ", lister), ("", command))
        pairs = zip(tools, checks(folder, name), strict=True)
        return [_done(line, path, check, who) for (who, line), check in pairs if line and check]

    counts = []
    is_right = True
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        for folder in ("good", "bad", "later"):
            known = list(vectors(folder, Path(scratch)))
            right = tried = 0
            for (name, _), found in zip(known, pool.map(partial(outcome, folder), *zip(*known, strict=True)), strict=True):
                for wrong in filter(None, found):
                    print(f"{folder}/{name}: {wrong} - {index[f'{folder}/{name}']['what']}")
                right += bool(found) and not any(found)
                tried += bool(found)
            is_right = is_right and right == tried
            counts.append(f"{folder} {right} of {tried}")
    print(", ".join(counts))
    return is_right


def _done(line: Sequence[str], path: Path, check: Check, who: str) -> str | None:
    try:
        done = subprocess.run([*line, str(path)], stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"{who}takes more than {SECONDS} seconds"
    wrong = check(done)
    return wrong and f"{who}{wrong}"


def _main() -> int:
    parser = argparse.ArgumentParser(description="Run a reader of snapshots over the vectors.")
    parser.add_argument("--list", metavar="COMMAND", default="", help="the lister, which prints the heads of a file")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--values", action="store_true", help="compare JSON by its values, not byte for byte")
    how.add_argument("--read", action="store_true", help="do not look at what the reader prints")
    parser.add_argument("--silent", action="store_true", help="what refuses a file may print nothing to standard output")
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="the reader; the path of a file is appended")
    given = parser.parse_args()
    if not given.command and not given.list:
        parser.error("a reader, or a lister by --list, is needed")
    lister = shlex.split(given.list)
    try:
        is_right = run(given.command, lister, by_value=given.values, is_silent=given.silent, reads_only=given.read)
    except OSError as error:
        parser.error(str(error))
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(_main())

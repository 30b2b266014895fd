"""Runs a reader of snapshots over the vectors: see README.md. It needs Python alone.

python run.py [--values] [--silent] [--list 'COMMAND'] -- COMMAND ...
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


def unprinted(done: Done, expected: bytes, *, by_value: bool) -> str | None:
    """What is wrong where a file should be read and printed."""
    if done.returncode:
        return f"refused: {done.stderr.decode(errors='replace').strip() or f'exit status {done.returncode}'}"
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


def run(command: Sequence[str], lister: Sequence[str] = (), *, by_value: bool = False, is_silent: bool = False) -> bool:
    """Run a reader, and a lister if there is one; whether all vectors hold."""
    refused = partial(unrefused, is_silent=is_silent)
    index = json.loads((HERE / "index.json").read_text(encoding="utf-8"))

    def checked(line: Sequence[str], path: Path, check: Callable[[Done], str | None]) -> str | None:
        try:
            return check(
                subprocess.run([*line, str(path)], stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
            )
        except subprocess.TimeoutExpired:
            return f"takes more than {SECONDS} seconds"

    def good(name: str, path: Path) -> str | None:
        expected = content(HERE / f"good/{name}.json")
        return checked(command, path, lambda done: unprinted(done, expected, by_value=by_value))

    def bad(name: str, path: Path) -> str | None:
        wrong = checked(lister, path, refused) if lister and "list" in index[f"bad/{name}"] else None
        return f"lister: {wrong}" if wrong else checked(command, path, refused)

    def later(name: str, path: Path) -> str | None:
        listed = content(HERE / f"later/{name}.list")
        wrong = checked(lister, path, lambda done: unprinted(done, listed, by_value=False)) if lister else None
        return f"lister: {wrong}" if wrong else checked(command, path, refused)

    counts = []
    is_right = True
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        for check in (good, bad, later):
            folder = check.__name__
            known = list(vectors(folder, Path(scratch)))
            found = list(pool.map(check, *zip(*known, strict=True)))
            for (name, _), wrong in zip(known, found, strict=True):
                if wrong:
                    print(f"{folder}/{name}: {wrong} - {index[f'{folder}/{name}']['what']}")
            right = sum(wrong is None for wrong in found)
            is_right = is_right and right == len(found)
            counts.append(f"{folder} {right} of {len(found)}")
    print(", ".join(counts))
    return is_right


def _main() -> int:
    parser = argparse.ArgumentParser(description="Run a reader of snapshots over the vectors.")
    parser.add_argument("--list", metavar="COMMAND", default="", help="prints the heads of a file: for those of later versions")
    parser.add_argument("--values", action="store_true", help="compare JSON by its values, not byte for byte")
    parser.add_argument("--silent", action="store_true", help="a reader that refuses a file may print nothing to standard output")
    parser.add_argument("command", metavar="COMMAND", nargs="+", help="the reader; the path of a file is appended")
    given = parser.parse_args()
    try:
        return 0 if run(given.command, shlex.split(given.list), by_value=given.values, is_silent=given.silent) else 1
    except OSError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(_main())

"""The command: which cases, how thoroughly, and where the results go."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Final, NoReturn

from typing_extensions import override

from benchmarks.cases import CASES, Case
from benchmarks.errors import BenchmarkError
from benchmarks.host import Host
from benchmarks.measure import FULL, QUICK
from benchmarks.plot import drawn
from benchmarks.report import markdown, to_json, write_page
from benchmarks.results import Table

TROUBLE: Final = 2
STANDARD: Final = "-"
_ABOUT: Final = "This library beside its peers: every result verified, then timed in many short rounds."
_EXAMPLES: Final = f"""\
cases:
{chr(10).join(f"  {case.name:14}{case.about}{'' if case.is_usual else ' (where asked for)'}" for case in CASES.values())}

examples:
  python -m benchmarks                                  all of it, some five minutes
  python -m benchmarks --quick                          all of it, roughly, in less than a minute
  python -m benchmarks --only snapshot,device --json -  two cases, as JSON
  python -m benchmarks --plot bench.svg                 a picture too
  python -m benchmarks --write docs/performance.md      the tables into the page, between its marks

Peers come with the extra: pip install '.[bench]'. What is not installed is named. A cell is minimum / median; × is how many
times the figure of the table's reference that is, within the same round.
"""


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one sentence."""

    @override
    def error(self, message: str) -> NoReturn:
        self.exit(TROUBLE, f"benchmarks: {message}; see python -m benchmarks --help\n")


def main(arguments: Sequence[str]) -> int:
    """Run the command. Returns its exit status: 0 done, 2 usage, or a run that ended early."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except (BenchmarkError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return TROUBLE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m benchmarks", description=_ABOUT, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="CASE[,CASE]", type=_cases, help="these cases and no others")
    parser.add_argument("--quick", action="store_true", help="few rounds and smaller files: to see that all of it works")
    parser.add_argument("--json", metavar="FILE", help="the results as JSON; - is standard output, instead of the tables")
    parser.add_argument("--plot", metavar="FILE.svg", type=Path, help="the results as a picture")
    parser.add_argument("--write", metavar="PAGE.md", type=Path, help="the results into a page, between its marks")
    return parser


def _cases(text: str) -> list[Case]:
    unknown = [name for name in text.split(",") if name not in CASES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no case `{unknown[0]}`; there are {', '.join(CASES)}")
    return [CASES[name] for name in dict.fromkeys(text.split(","))]


def _run(options: argparse.Namespace) -> None:
    host = Host.here()
    shows = options.json != STANDARD
    tables: list[Table] = []
    if shows:
        print(host.describe() + "\n")
    for case in options.only or [case for case in CASES.values() if case.is_usual]:
        start = perf_counter()
        found = case.run(QUICK if options.quick else FULL)
        tables += found
        if shows:
            print("\n".join(map(markdown, found)), flush=True)
        print(f"{case.name}: {perf_counter() - start:.0f} s", file=sys.stderr)
    _keep(options, tables, host)


def _keep(options: argparse.Namespace, tables: list[Table], host: Host) -> None:
    """Put the results where they were asked for."""
    if options.json:
        text = to_json(tables, host)
        print(text, end="") if options.json == STANDARD else Path(options.json).write_text(text)
    if options.plot:
        options.plot.write_text(drawn(tables, host))
    if options.write:
        write_page(options.write, "\n".join((host.describe() + "\n", *map(markdown, tables))))

"""`fuzz`: inputs without end, for the readers of the format or for somebody's devices."""

from __future__ import annotations

import keyword
import multiprocessing
import operator
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from tagged_vmstate.cli import complete
from tagged_vmstate.cli.files import Trouble
from tagged_vmstate.cli.messages import clean, say
from tagged_vmstate.cli.modules import devices, not_named, tables
from tagged_vmstate.cli.numbers import Integer, Seconds
from tagged_vmstate.errors import VMStateError
from tagged_vmstate.fuzz import Devices, Dumps, Json, Limits, Outcome, Snapshots, Streams, Tables, Target, fuzz
from tagged_vmstate.fuzz.coverage import fuzz_by_coverage
from tagged_vmstate.machine import Machine
from tagged_vmstate.table import Table

_READERS: Final[dict[str, Callable[[], Target]]] = {
    "snapshot": Snapshots,
    "json": Json,
    "stream": Streams,
    "tables": Tables,
    "dump": Dumps,
}


def _readers(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [*(name for name in _READERS if name.startswith(incomplete)), *complete.modules(incomplete)]


@click.command(short_help="Fuzz the readers, or devices.")
@click.argument("target", metavar="TARGET", shell_complete=_readers)
@click.option("--time", "seconds", type=Seconds(min=0), default=60.0, show_default=True, help="Seconds to run.")
@click.option("--runs", type=Integer(min=1), help="Inputs to run, at the most.")
@click.option("--seed", type=Integer(), default=0, show_default=True, help="The same seed runs the same inputs.")
@click.option("--jobs", type=Integer(min=1, max=256), default=1, show_default=True, help="Processes, each with its seed.")
@click.option("--corpus", type=click.Path(path_type=Path, file_okay=False), help="A folder of inputs; new behaviour is added.")
@click.option(
    "--findings",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("findings"),
    show_default=True,
    help="Where findings go.",
)
@click.option("--engine", type=click.Choice(["own", "atheris"]), default="own", show_default=True, help="What makes the inputs.")
def fuzz_command(target: str, engine: str, **options: Any) -> int:
    """Run mutated inputs: TARGET is module:MACHINE, for your own devices, or one of the readers.

    The readers are those of a snapshot, of its JSON form (json), of a QEMU stream, of exported tables, and of what QEMU's
    -dump-vmstate writes (dump).

    For devices, anything but a clean load or LoadError is a finding; a hook refuses a state by ValueError. Each finding is
    made small, and saved with a line that shows it without this harness. Exit status 1 where there was one that this line,
    when it was run, did show.

    Each run has a machine of its own: where MACHINE is a function, it is called for each run.

    \b
    Examples:
      tagged-vmstate fuzz board:MACHINE --time 600 --jobs 2 --corpus corpus
      tagged-vmstate fuzz stream --runs 100000 --seed 7
      tagged-vmstate fuzz tables --time 600
    """
    plan = Plan(target=target, **options)
    made = _target(target)
    try:
        if engine == "atheris":
            _by_atheris(made, plan)
        found = plan.run(made, _Live(made.name)) if plan.jobs == 1 else plan.run_in_processes()
    except OSError as error:
        raise Trouble(f"{error.filename}: {error.strerror}") from None
    except VMStateError as error:
        raise Trouble(f"{target}: cannot be saved to begin with: {error}") from None
    return _summary(made, found, plan.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the options say."""

    target: str
    seconds: float
    runs: int | None
    seed: int
    jobs: int
    corpus: Path | None
    findings: Path

    def run(self, target: Target, told: Callable[[Outcome], None]) -> Outcome:
        """Fuzz in this process."""
        limits = Limits(self.seconds, self.runs)
        return fuzz(target, limits, seed=self.seed, corpus=self.corpus, findings=self.findings, told=told)

    def run_in_processes(self) -> Outcome:
        """Fuzz in several, which share the folders; one outcome of all."""
        start = time.monotonic()
        runs = None if self.runs is None else -(-self.runs // self.jobs)
        shares = [replace(self, runs=runs, seed=self.seed + number) for number in range(self.jobs)]
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # they inherit it: ^C ends this process, and so them
        with multiprocessing.get_context("spawn").Pool(self.jobs) as pool:
            signal.signal(signal.SIGINT, before)
            outcomes = pool.map(_job, shares)
        whole = Outcome(seconds=time.monotonic() - start)
        for outcome in outcomes:
            whole.runs += outcome.runs
            whole.findings |= outcome.findings
            whole.unshown |= outcome.unshown
            for behaviour, count in outcome.behaviours.items():
                whole.behaviours[behaviour] = whole.behaviours.get(behaviour, 0) + count
        return whole


def _job(plan: Plan) -> Outcome:
    return plan.run(_target(plan.target), lambda _outcome: None)


def _by_atheris(target: Target, plan: Plan) -> NoReturn:
    """Let atheris make the inputs, by coverage; it never returns."""
    if plan.jobs > 1:
        raise click.UsageError("--engine atheris runs in one process: start it once for each of the --jobs")

    def ended(outcome: Outcome) -> NoReturn:
        status = _summary(target, outcome, plan.findings)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # libFuzzer takes any other end for a crash

    limits, room = Limits(plan.seconds, plan.runs), plan.target.partition(":")[0].partition(".")[0]
    try:
        fuzz_by_coverage(target, limits, ended, seed=plan.seed, corpus=plan.corpus, findings=plan.findings, rooms=[room])
    except ModuleNotFoundError:
        raise Trouble("--engine atheris needs the package atheris: pip install atheris") from None


def _target(name: str) -> Target:
    """The reader, or the devices, that are named."""
    if name in _READERS:
        return _READERS[name]()
    module, _, path = name.partition(":")
    if not path:
        raise not_named(name, f"one of {', '.join(_READERS)}")
    tables(name)  # what is wrong with them is said at once
    return Devices(devices(name), name, _loading(module, path))


def _loading(module: str, path: str) -> str:
    """Python that loads PATH into what is named and saves it again, without the harness."""
    named: Any = operator.attrgetter(path)(sys.modules[module])
    is_name = all(part.isidentifier() and not keyword.iskeyword(part) for part in module.split("."))
    imports = f"import {module}" if is_name else "from importlib import import_module"
    text = f"{module}.{path}" if is_name else f"import_module({module!r}).{path}"
    if callable(named) and not isinstance(named, type):
        named, text = named(), f"{text}()"
    if isinstance(named, type | Table):
        named, text = [named], f"[{text}]"
    if isinstance(named, list | tuple) and all(isinstance(each, type | Table) for each in named):
        state, table = "tv.load(PATH, each, unknown='ignore')", "each if isinstance(each, tv.Table) else None"
        return f"{imports}; import tagged_vmstate as tv; [tv.dumps({state}, table={table}) for each in {text}]"
    if not isinstance(named, Machine):
        devices = text if isinstance(named, list | tuple) else f"[{text}]"
        text = f"tv.Machine([each() if isinstance(each, type) else each for each in {devices}])"
    return f"{imports}; import io, tagged_vmstate as tv; machine = {text}; machine.load(PATH); machine.save(io.BytesIO())"


class _Live:
    """A line on standard error that says how far it is, where a person watches."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, outcome: Outcome) -> None:
        if sys.stderr.isatty():
            print(f"\r{_figures(self._name, outcome)}\x1b[K", end="", file=sys.stderr, flush=True)


def _figures(name: str, outcome: Outcome) -> str:
    speed = outcome.runs / outcome.seconds if outcome.seconds else 0
    return (
        f"{clean(name)}: {outcome.runs} runs, {speed:.0f} a second, {len(outcome.behaviours)} behaviours, "
        f"{len(outcome.findings)} finding{'' if len(outcome.findings) == 1 else 's'}"
    )


def _summary(target: Target, outcome: Outcome, folder: Path) -> int:
    """Print what came of it; return the exit status."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    print(_figures(target.name, outcome) + f", {outcome.seconds:.1f} s")
    for behaviour in outcome.findings:
        say(f"finding: {behaviour}")
    for behaviour in outcome.unshown:
        say(f"not shown by its reproducer, so perhaps left over from an earlier run: {behaviour}")
    if outcome.unshown:
        say("a machine that a function makes anew for each run leaves nothing over: name the function")
    if outcome.findings or outcome.unshown:
        say(f"saved in {folder}, each with a line that shows it")
    return 1 if outcome.findings else 0

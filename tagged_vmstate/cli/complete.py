"""What Tab completes: names in a snapshot, and tables in modules. Where these complete nothing, the shell completes files.

Nothing here runs a user's code, reads from a pipe or reports what is wrong: what cannot be read in time completes nothing.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import click

from tagged_vmstate.cli.files import opened_quietly
from tagged_vmstate.paths import Pattern, format_name
from tagged_vmstate.qemu.stream import RAM
from tagged_vmstate.records import Record, Records

SECONDS: Final = 2
"""Of computing, for one input: as long as a person waits for a Tab."""
ELEMENTS: Final = 1 << 10
"""Elements of an array that are offered."""
SOURCE_BYTES: Final = 4 << 20
"""Of a module that is looked at."""
_UNLIKE_ITSELF: Final = re.compile(r'[*?"]|\A[-@\[]|\A\Z')
"""What a name holds that must be quoted to name only itself."""
_NO_MACHINE: Final = (ast.Constant, ast.JoinedStr, ast.Dict, ast.DictComp, ast.Set, ast.SetComp, ast.Compare)


def place(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """PATH in FILE, as one word or as DEVICE and FIELD, and after it a VALUE."""
    given = [*(context.params.get("words") or ()), context.params.get("value")]
    words = [word for word in given if word is not None]
    if words and incomplete.startswith("@"):
        return at_file(context, parameter, incomplete)
    file = context.params.get("file")
    if not words:
        return _Names([file], incomplete).found()
    return _Names([file], incomplete, words[0]).found_with_inner() if len(words) == 1 else []


def path(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The devices and fields of all input."""
    return _Names(_inputs(context), incomplete).found_with_inner()


def block(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The memory blocks of all input."""
    return _Names(_inputs(context), incomplete, RAM).found()


def _inputs(context: click.Context) -> list[str | None]:
    """What is typed as input; click parses no arguments where an option lacks its value."""
    return [*(context.params.get(name) for name in ("file", "old", "new")), *context.args]


def at_file(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The files of @FILE."""
    return [f"@{name}" for name in files(incomplete[1:])] if incomplete.startswith("@") else []


def tables(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Modules of this folder, then what they hold; the files here, where a module fits as well."""
    found = modules(incomplete)
    if not found or ":" in incomplete:
        return found
    return [*found, *(name for name in files(incomplete) if not name.endswith(".py"))]


def modules(incomplete: str) -> list[str]:
    """The modules that begin so, or after the colon what one of them holds that may be a machine."""
    module, colon, name = incomplete.partition(":")
    above, dot, _ = module.rpartition(".")
    if colon:
        place = Path(*module.split("."))
        source = next(filter(Path.is_file, (place.with_suffix(".py"), place / "__init__.py")), None)
        found = _machines(source) if source else ()
        return [f"{module}:{each}" for each in dict.fromkeys(found) if each.startswith(name)]
    names = []
    for each in _entries(Path(*above.split(".")) if dot else Path()):
        if each.name.endswith(".py") and each.name[:-3].isidentifier() and not each.name.startswith("__"):
            names.append(f"{each.name[:-3]}:")
        elif Path(each, "__init__.py").is_file():
            names += [f"{each.name}:", f"{each.name}."]
    return [name for name in (f"{above}{dot}{each}" for each in names) if name.startswith(incomplete)]


def files(incomplete: str, *, folders_only: bool = False) -> list[str]:
    """The files that begin so, folders with a slash: for words that the shell does not take for a file."""
    folder, slash, name = incomplete.rpartition("/")
    found = []
    for each in _entries(Path(f"{folder}{slash}")):
        is_hidden = each.name.startswith(".") and not name.startswith(".")
        if each.name.startswith(name) and not is_hidden and (each.is_dir() or not folders_only):
            found.append(f"{folder}{slash}{each.name}{'/' if each.is_dir() else ''}")
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda each: each.name)
    except (OSError, ValueError):
        return []


def _machines(source: Path) -> Iterator[str]:
    """Names of a module that may be a machine, or make one, by its text."""
    with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"), source.open("rb") as file:
        for statement in ast.parse(file.read(SOURCE_BYTES)).body:
            yield from (name for name in _defined(statement) if not name.startswith("_"))


def _defined(statement: ast.stmt) -> Iterable[str]:
    if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value and not isinstance(statement.value, _NO_MACHINE):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.FunctionDef):
        takes = statement.args
        required = len(takes.posonlyargs) + len(takes.args) - len(takes.defaults) + takes.kw_defaults.count(None)
        return [] if required else [statement.name]
    if isinstance(statement, ast.ClassDef):
        return [statement.name] if any("vmstate" in ast.unparse(each) for each in statement.decorator_list) else []
    if isinstance(statement, ast.ImportFrom):
        room = "" if statement.level else str(statement.module).partition(".")[0]
        is_foreign = room in sys.stdlib_module_names or room == "tagged_vmstate"
        return [] if is_foreign else [alias.asname or alias.name for alias in statement.names if alias.name != "*"]
    return []


class _Names:
    """The names in snapshots that begin with what is typed.

    Args:
        files: The snapshots, as they are typed.
        typed: The word so far.
        device: The device that all names are of; None for the devices themselves.
    """

    def __init__(self, files: Iterable[str | None], typed: str, device: str | None = None) -> None:
        self._files = [file for file in files if file]
        self._typed = typed
        self._device = device
        self._inner: dict[str, str] = {}
        """What is found -> the character that goes on to what lies in it; empty where nothing does."""

    def found(self) -> list[str]:
        """The names of one level."""
        instances: dict[str, dict[str, None]] = {}
        for file in self._files:
            place = _expanded(file)
            if not place.is_file():
                continue  # a pipe gives its bytes once, and not to us
            with contextlib.suppress(Exception), _time_limit(), opened_quietly(str(place)) as sections:
                for section in sections:
                    if self._device is None:
                        name = _spelled(section.device, self._typed)
                        numbered = f"{name}#{section.instance}"
                        instances.setdefault(name, {})[numbered] = None
                        for text in (name, numbered):
                            if text.startswith(self._typed) or section.device.startswith(self._typed):
                                self._inner[text] = "/"
                            elif self._typed.startswith(f"{text}/"):
                                self._add_fields(section.records(), f"{text}/")
                    elif Pattern(self._device).fits(section.label, ()):
                        self._add_fields(section.records(), "")
        for name, labels in instances.items():
            if len(labels) == 1 and not self._typed.startswith(f"{name}#"):
                self._inner.pop(next(iter(labels)), None)
        return list(self._inner)

    def found_with_inner(self) -> list[str]:
        """The same, and where only one is left what lies in it: that keeps a shell from ending the word there."""
        found = self.found()
        if len(found) == 1 and self._inner[found[0]]:
            found += _Names(self._files, found[0] + self._inner[found[0]], self._device).found()
        return found

    def _add_fields(self, records: Iterable[Record], before: str) -> None:
        for record in records:
            text = before + _spelled(record.name, self._typed[len(before) :])
            elements = cast("Sequence[Any]", record.value) if record.type == "struct" else None
            if text.startswith(self._typed) or f"{before}{record.name}".startswith(self._typed):
                self._inner[text] = "" if not elements else "/" if record.length is None else "["
            elif record.length is None:
                self._add_inner(cast("Records | None", elements), text)
            elif self._typed.startswith(f"{text}[") and record.type != "sparse":
                for index in range(min(record.length, ELEMENTS)):
                    element = f"{text}[{index}]"
                    if element.startswith(self._typed):
                        self._inner[element] = "/" if elements and elements[index] else ""
                    elif elements:
                        self._add_inner(elements[index], element)

    def _add_inner(self, records: Records | None, text: str) -> None:
        if records and self._typed.startswith(f"{text}/"):
            self._add_fields(records, f"{text}/")


def _spelled(name: str, typed: str) -> str:
    """A name as it is typed: in quotes where it has to be, or where quotes were begun."""
    if name.isprintable() and not _UNLIKE_ITSELF.search(name) and not typed.startswith('"'):
        return name
    return format_name(name)


def _expanded(file: str) -> Path:
    """A file as the shell will name it."""
    return Path(file if Path(file).exists() else os.path.expandvars(os.path.expanduser(file)))  # noqa: PTH111  # any text will do


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)

"""The group of all commands: what they are, how they end.

A command's module is imported when the command is called, so that `--help` and completion answer at once.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from contextlib import suppress
from typing import Final, NoReturn, cast

import click
from click.shell_completion import CompletionItem, shell_complete
from typing_extensions import override

from tagged_vmstate.cli import streams
from tagged_vmstate.cli.messages import say
from tagged_vmstate.version import __version__

NAME: Final = "tagged-vmstate"
COMPLETE: Final = "_TAGGED_VMSTATE_COMPLETE"
"""The variable by which a shell asks what completes a line."""
TROUBLE: Final = 2
CLOSED_PIPE: Final = 128 + 13
"""What a shell reports for a program that a closed pipe ended."""
INTERRUPTED: Final = 128 + 2

_COMMANDS: Final = {
    "info": ("inspect", "Header, sections, sizes and checksums; damage."),
    "show": ("inspect", "The values, as a tree."),
    "to-json": ("convert", "Write the JSON form."),
    "from-json": ("convert", "Make a snapshot from its JSON form."),
    "import": ("convert", "Make a snapshot from a QEMU migration stream."),
    "export": ("qemu", "Make a QEMU migration stream from a snapshot."),
    "capture": ("qemu", "Take a snapshot of a QEMU that runs."),
    "diff": ("diff", "What differs between two snapshots."),
    "set": ("set", "Change a value."),
    "check": ("tables", "Can these tables load this snapshot?"),
    "compat": ("tables", "What an upgrade and a downgrade would meet."),
    "tables": ("tables", "Export tables as JSON."),
    "fuzz": ("fuzz", "Fuzz the readers, or devices."),
    "completion": ("shell", "Print the completion of this command for a shell."),
}
"""Command -> its module and its one line of help."""


class Ended(SystemExit):
    """A signal ends the command, which cleans up on its way out."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(self.status)


class _Group(click.Group):
    """A group that knows its commands without importing them."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"tagged_vmstate.cli.{_COMMANDS[cmd_name][0]}")
        return cast("click.Command", getattr(module, f"{cmd_name.replace('-', '_')}_command"))

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, and the options."""
        found = [CompletionItem(name, help=text) for name, (_, text) in _COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=NAME)
def cli() -> None:
    """See, convert and check snapshots of emulated machines.

    Every FILE is a snapshot, its JSON form, or a QEMU migration stream, told apart by their first bytes;
    gzip, xz and bzip2 around it are undone. "-" is standard input or output.

    \b
    Examples:
      tagged-vmstate show vm.mig ps2kbd
      tagged-vmstate import vm.mig -o vm.tvm
      tagged-vmstate to-json vm.tvm | jq '.sections[].device'

    Exit status: 0 done, yes, the same; 1 no, different, refused, or damaged where that was the question;
    2 usage, unreadable input, or output that cannot be written; 130 interrupted; 141 the reader of the output is gone.
    """


def run() -> NoReturn:
    """Run the command and leave the process with its status; nobody sees a traceback."""
    try:
        streams.prepare()
        warnings.showwarning = _note
        status, sentence = _outcome()
    except KeyboardInterrupt:
        status, sentence = INTERRUPTED, "interrupted"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done
    with suppress(OSError):  # where nobody can hear it, the status says it
        if sentence:
            say(sentence)
    streams.release()
    sys.exit(status)


def _note(message: Warning | str, *_: object, **__: object) -> None:
    """A warning of a person's own module, or of ours about it."""
    say(f"note: {message}")


def _outcome() -> tuple[int, str]:
    """Run the command; its exit status, and what there is to say of it."""
    try:
        status = _status()
        sys.stdout.flush()
    except click.UsageError as error:
        return error.exit_code, _usage(error)
    except click.ClickException as error:
        return error.exit_code, error.format_message()
    except BrokenPipeError:
        return CLOSED_PIPE, ""
    except OSError as error:
        reason = error.strerror or str(error)
        return TROUBLE, f"{error.filename}: {reason}" if error.filename else reason
    except SystemExit as end:
        sentence = f"what was imported or called ended the program: sys.exit({end.code!r})"
        return (end.status, "") if isinstance(end, Ended) else (TROUBLE, sentence)
    return status, ""


def _status() -> int:
    asked = os.environ.get(COMPLETE)
    if asked:
        importlib.import_module("tagged_vmstate.cli.shell")  # where the shells are registered
        return shell_complete(cli, {}, NAME, COMPLETE, asked)
    try:
        with cli.make_context(NAME, sys.argv[1:]) as context:
            found = cli.invoke(context)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as end:
        return end.exit_code
    return found if isinstance(found, int) else 0


def _usage(error: click.UsageError) -> str:
    """A sentence for what click writes in lines, and where to look."""
    sentence = " ".join(error.format_message().split())
    return f"{sentence} See {error.ctx.command_path} --help" if error.ctx else sentence

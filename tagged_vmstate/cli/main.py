"""The group of all commands: what they are, how they end.

A command's module is imported when the command is called, so that `--help` and completion answer at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final, cast

import click
from click.shell_completion import CompletionItem
from typing_extensions import override

from tagged_vmstate.cli.messages import say
from tagged_vmstate.version import __version__

NAME: Final = "tagged-vmstate"
COMPLETE: Final = "_TAGGED_VMSTATE_COMPLETE"
"""The variable by which a shell asks for completion."""
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


class _ClosedPipe(Exception):  # noqa: N818  # not an error: whoever read our output has seen enough
    """Standard output goes nowhere any more."""


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
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ClosedPipe from None  # click would end with 1, which says that a snapshot is damaged

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

    Exit status: 0 done, 1 no or damaged, 2 usage or unreadable input.
    """


def run() -> None:
    """Run the command and leave the process with its status; nobody sees a traceback."""
    if COMPLETE in os.environ:
        importlib.import_module("tagged_vmstate.cli.shell")
    try:
        status = cli.main(prog_name=NAME, complete_var=COMPLETE, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show() if isinstance(error, click.UsageError) else say(error.format_message())
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        sys.exit(INTERRUPTED)
    except (_ClosedPipe, BrokenPipeError):
        _drop_output()
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        _drop_output()
        say(f"{error.filename or 'output'}: {error.strerror}")
        sys.exit(TROUBLE)
    sys.exit(status if isinstance(status, int) else 0)


def _drop_output() -> None:
    """Let what cannot be written go: Python would try once more at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

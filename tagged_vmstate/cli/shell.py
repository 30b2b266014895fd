"""`completion`: what a shell needs to complete this command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from tagged_vmstate.cli.main import COMPLETE, NAME, cli


@click.command(short_help="Print the completion of this command for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion of this command for a shell.

    \b
    Examples:
      tagged-vmstate completion bash > ~/.local/share/bash-completion/completions/tagged-vmstate
      tagged-vmstate completion zsh > ~/.zfunc/_tagged-vmstate
      tagged-vmstate completion fish > ~/.config/fish/completions/tagged-vmstate.fish
    """
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"click completes nothing for {shell}.")
    click.echo(made(cli, {}, NAME, COMPLETE).source())

"""`completion`: what a shell needs to complete this command.

The script of a shell hands over the words as the shell has them and gets lines back: a kind, a value and a help text with
tabs between. `plain` is a value, `dir` asks for folders; without any line the shell completes files, as it would without us.
click's own scripts take that away, and cannot complete words with colons or blanks.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, get_completion_class
from typing_extensions import override

from tagged_vmstate.cli.main import COMPLETE, NAME, cli

GOES_ON: Final = (":", "/", ".")
"""A value that ends so is not the whole word: no blank follows it. fish has this rule, the other scripts have it too."""

_BASH: Final = r"""
%(complete_func)s() {
    local kind value
    COMPREPLY=()
    while IFS=$'\t' read -r kind value; do
        if [[ $kind == dir ]]; then
            compopt -o dirnames
        elif [[ $kind == plain ]]; then
            COMPREPLY+=("$value")
            [[ $value == *[:/.] ]] && compopt -o nospace
        fi
    done < <(%(complete_var)s=bash_complete "${1/#\~\//$HOME/}" "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" \
        2> /dev/null < /dev/null)
}

complete -o nosort -o bashdefault -o default -F %(complete_func)s %(prog_name)s
"""

_ZSH: Final = r"""
#compdef %(prog_name)s

%(complete_func)s() {
    local command=${~${(Q)words[1]}} word=${(Q)PREFIX} kind value help folders
    local -a plain open described
    [[ $compstate[quoting] == single ]] && word=$PREFIX
    while IFS=$'\t' read -r kind value help; do
        if [[ $kind == dir ]]; then
            folders=1
        elif [[ $kind != plain ]]; then
            continue
        elif [[ -n $help ]]; then
            described+=("${value//:/\\:}:$help")
        elif [[ $value == *[:/.] ]]; then
            open+=("$value")
        else
            plain+=("$value")
        fi
    done < <(%(complete_var)s=zsh_complete "$command" "${(@Q)words[2,CURRENT-1]}" "$word" 2> /dev/null < /dev/null)

    if [[ -n $folders ]]; then
        _files -/
    elif (( $#plain + $#open + $#described )); then
        (( $#described )) && _describe -V %(prog_name)s described -U
        (( $#plain )) && compadd -U -V names -a plain
        (( $#open )) && compadd -U -V names -S '' -a open
    else
        _files
    fi
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH: Final = r"""
function %(complete_func)s
    set -l words (commandline -opc)
    set -l command (string replace -r '^~/' "$HOME/" -- $words[1])
    set -e words[1]
    set -l token (commandline -ct)
    set -l word (string unescape -- "$token"; or string unescape -- "$token'"; or string unescape -- "$token\"")
    set -g %(complete_func)s_found (%(complete_var)s=fish_complete $command $words "$word" 2> /dev/null < /dev/null)
    if string match -q "dir*" -- $%(complete_func)s_found
        set -g %(complete_func)s_found (__fish_complete_directories "$token")
    else
        set -g %(complete_func)s_found (string replace -r '^\w+\t' '' -- $%(complete_func)s_found)
    end
    test -n "$%(complete_func)s_found"
end

complete --command %(prog_name)s --condition %(complete_func)s --no-files --keep-order --arguments '$%(complete_func)s_found'
"""


class _Words(ShellComplete):
    """A shell that hands over the words, quotes removed: those before, and the one so far."""

    @override
    def get_completion_args(self) -> tuple[list[str], str]:
        return sys.argv[1:-1], sys.argv[-1]

    @override
    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Whole words, where click has only what stands after ``--option=``; no files, which the shell knows better."""
        option, equals, value = incomplete.partition("=")
        is_joined = bool(equals) and incomplete.startswith("--") and "--" not in args
        found = super().get_completions([*args, option] if is_joined else args, value if is_joined else incomplete)
        if not is_joined:
            return [item for item in found if item.type != "file"]
        from tagged_vmstate.cli.complete import files  # noqa: PLC0415  # only where it is asked for

        values = [item.value for item in found if item.type == "plain"]
        values = values or files(value, folders_only=any(item.type == "dir" for item in found))
        return [CompletionItem(f"{option}={each}") for each in values]

    @override
    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"{item.type}\t{item.value}\t{item.help or ''}".rstrip("\t")

    @override
    def complete(self) -> str:
        try:
            args, incomplete = self.get_completion_args()
            found = [item for item in self.get_completions(args, incomplete) if str(item.value).isprintable()]
            return "\n".join(filter(None, map(self.format_completion, found)))
        except Exception:  # noqa: BLE001  # a Tab reports no errors: the shell completes files
            return ""


class _Zsh(_Words):
    name = "zsh"
    source_template = _ZSH.lstrip()


class _Fish(_Words):
    name = "fish"
    source_template = _FISH.lstrip()


class _Bash(_Words):
    """bash hands over the line, and replaces only what stands after the last of its word breaks or an open quote."""

    name = "bash"
    source_template = _BASH.lstrip()

    @override
    def get_completion_args(self) -> tuple[list[str], str]:
        self._line = _Line(sys.argv[1], sys.argv[2])
        return self._line.words[1:], self._line.word

    @override
    def format_completion(self, item: CompletionItem[Any]) -> str:
        rest = self._line.rest(item.value)
        return "" if rest is None else f"{item.type}\t{rest}"


class _Line:
    """A line of bash up to the cursor.

    Attributes:
        words: Those before the one at the cursor, quotes and redirections removed.
        word: That one so far, quotes removed.
    """

    _TOKEN: Final = re.compile(
        r"""(?P<blank>\s+)|\d*&?[<>]+[&|]?|\\(?P<escaped>.?)|'(?P<single>[^']*)(?P<end>'?)|"(?P<double>(?:[^"\\]|\\.)*)\\?(?P<close>"?)|.""",
        re.DOTALL,
    )
    _SPECIAL: Final = re.compile(r"[^\w@%+=:,./#~^-]|\A[#~]")
    _SPECIAL_IN_QUOTES: Final = re.compile(r'[$`"\\]')

    def __init__(self, line: str, breaks: str) -> None:
        self.words: list[str] = []
        self.word = ""
        self._quote = ""
        self._kept = 0
        """Characters of the word that bash leaves as they are."""
        is_word = is_target = False
        for match in self._TOKEN.finditer(line):
            token = match[0]
            if match["blank"] or token[-1] in "<>" or token[-2:-1] in ("<", ">"):
                if is_word and not is_target:
                    self.words.append(self.word)
                is_target = not match["blank"] or (is_target and not is_word)
                self.word, self._kept, is_word = "", 0, False
                continue
            is_word = True
            if match["single"] is not None or match["double"] is not None:
                if not (match["end"] or match["close"]):
                    self._quote, self._kept = token[0], len(self.word)
                self.word += match["single"] or re.sub(r'\\([$`"\\])', r"\1", match["double"] or "")
            else:
                self.word += token if match["escaped"] is None else match["escaped"]
                if token in breaks:
                    self._kept = len(self.word) - token.count("@")  # bash looks for hosts after it, and takes it in
        if is_target:
            raise ValueError("a redirection, which is the shell's own")

    def rest(self, value: str) -> str | None:
        """What bash puts in place of the word's end to make it a value; None where it cannot."""
        if not value.startswith(self.word[: self._kept]):
            return None
        rest = value[self._kept :]
        if self._quote == "'":
            return rest.replace("'", "'\\''")
        return (self._SPECIAL_IN_QUOTES if self._quote else self._SPECIAL).sub(r"\\\g<0>", rest)


for _shell in (_Bash, _Zsh, _Fish):
    add_completion_class(_shell)


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

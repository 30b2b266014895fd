"""Real shells on a terminal: a line is typed, keys are pressed, and the shell says what its line is then."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

PROMPT: Final = "ready>"
TAB: Final = "\t"
ALL: Final = "\x18a"
"""Puts everything that completes into the line."""
_DUMP: Final = "\x07"
_CLEAR: Final = "\x15"
_RC: Final = {
    "bash": r"""
        PS1="ready"">"
        bind 'set bell-style none' 'set enable-bracketed-paste off' '"\C-xa": insert-completions'
        dump() { printf '%s\0' "$READLINE_LINE" > "$FIFO"; }
        bind -x '"\C-g": dump'
    """,
    "zsh": r"""
        PS1="ready"">"
        autoload -Uz compinit && compinit -u -D
        dump() { printf '%s\0' "$BUFFER" > "$FIFO" }
        zle -N dump
        bindkey -e
        bindkey '^g' dump
        zle -C all complete-word _generic
        bindkey '^xa' all
        zstyle ':completion:all:*' completer _all_matches _complete
        zstyle ':completion:*' insert true
    """,
    "fish": r"""
        function fish_prompt; echo -n "ready"">"; end
        bind \cg 'begin; commandline; printf "\0"; end > $FIFO'
        bind \cu 'commandline ""'
    """,
}

_SETUP: Final = {
    "bash": "source <(tagged-vmstate completion bash)",
    "zsh": "source <(tagged-vmstate completion zsh)",
    "fish": "tagged-vmstate completion fish | source",
}


class Shell:
    """A shell at its prompt, with this command's completion and no other settings.

    Args:
        name: Which.
        folder: Where it is, and what it takes for its home.
        home: An empty folder, for what it needs; $ZDOTDIR there.
        setup: What sets the completion up; unless given, its script is sourced as it is printed.
    """

    def __init__(self, name: str, folder: Path, home: Path, setup: str = "") -> None:
        self._name, self._folder = name, folder
        command = home / "bin" / "tagged-vmstate"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m tagged_vmstate "$@"\n')
        command.chmod(0o755)
        self._fifo = home / "fifo"
        os.mkfifo(self._fifo)
        rc = home / ".zshrc"
        rc.write_text(f"{_RC[name]}\n{setup or _SETUP[name]}\n")
        arguments = {"bash": f"--noprofile --rcfile {rc} -i", "zsh": "-d -i", "fish": f"--no-config -i -C 'source {rc}'"}[name]
        settings = {"PATH": f"{command.parent}:{os.environ['PATH']}", "HOME": str(folder), "ZDOTDIR": str(home)}
        settings |= {"FIFO": str(self._fifo), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
        self._environment: Mapping[str, str] = {**os.environ, **settings}
        self._terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 1000, 0, 0))
        line = ["setsid", "--ctty", name, *shlex.split(arguments)]
        self._process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=self._environment)
        os.close(theirs)
        self.screen = ""
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._is_ready.wait(60), self.screen

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        os.close(self._terminal)

    def line(self, typed: str, keys: str = TAB) -> str:
        """What the line is after something was typed and keys were pressed."""
        os.write(self._terminal, f"{_CLEAR}{typed}{keys}{_DUMP}".encode())
        return self._fifo.read_bytes().decode().removesuffix("\0").removesuffix("\n")

    def offered(self, typed: str) -> set[str]:
        """All words that may stand at the end of what was typed; folders without their slash."""
        if self._name == "fish":
            found = self.run(f"{_SETUP['fish']}; complete -C {shlex.quote(typed)}").decode().splitlines()
            return {each.partition("\t")[0].rstrip("/") for each in found}
        return {each.rstrip("/") for each in self.words(self.line(typed, ALL))[typed.count(" ") - 1 :]}

    def words(self, line: str) -> list[str]:
        """The arguments that a command gets from a line."""
        return self.run(line.replace("tagged-vmstate", r"printf '%s\0'", 1)).decode().split("\0")[:-1]

    def run(self, line: str) -> bytes:
        """What a line prints, run by this shell."""
        more = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[self._name]
        command = [self._name, *more, "-c", line]
        return subprocess.run(command, capture_output=True, check=True, cwd=self._folder, env=self._environment).stdout

    def _read(self) -> None:
        try:
            while piece := os.read(self._terminal, 1 << 16):
                self.screen += piece.decode(errors="replace")
                if PROMPT in self.screen:
                    self._is_ready.set()
        except OSError:
            pass  # Linux says so when the shell is gone
        with contextlib.suppress(OSError):
            os.close(os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK))  # nobody waits for its line any more

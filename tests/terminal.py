"""The command on a terminal: what a person sees."""

from __future__ import annotations

import os
import pty
import subprocess
import sys


def on_a_terminal(*arguments: object, **environment: str) -> tuple[int, str]:
    """Exit status, and what the command prints where both outputs are a terminal with colours."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tagged_vmstate", *map(str, arguments)]
    settings = {**os.environ, "TERM": "xterm-256color", **environment}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=settings) as child:
        os.close(theirs)
        found = b""
        try:
            while piece := os.read(ours, 4096):
                found += piece
        except OSError:
            pass  # Linux says so when the other side is gone
    os.close(ours)
    return child.returncode, found.decode()

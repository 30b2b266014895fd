"""What the commands say on standard error, and how anything from a file is made fit to be shown.

Control characters are escaped: a snapshot must not drive a terminal.
"""

from __future__ import annotations

import sys

from tagged_vmstate.cli.streams import escape


def say(sentence: str) -> None:
    """One sentence for the person, on standard error."""
    print(f"tagged-vmstate: {clean(sentence)}", file=sys.stderr)


def clean(text: str) -> str:
    """Text whose every character can be shown."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else escape(char) for char in text)

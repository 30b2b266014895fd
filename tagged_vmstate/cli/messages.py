"""What the commands say on standard error, and how anything from a file is made fit to be shown.

Control characters are escaped: a snapshot must not drive a terminal.
"""

from __future__ import annotations

import sys


def say(sentence: str) -> None:
    """One sentence for the person, on standard error."""
    print(f"tagged-vmstate: {clean(sentence)}", file=sys.stderr)


def clean(text: str) -> str:
    """Text whose every character can be shown."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)

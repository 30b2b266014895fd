"""How the scripts here take their arguments: what is wrong with them is one sentence, and exit status 2."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from typing import NoReturn


class Arguments(argparse.ArgumentParser):
    """The arguments of a script, whose docstring is its help."""

    def __init__(self, about: str | None) -> None:
        super().__init__(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def one_of(names: Collection[str], what: str) -> Callable[[str], str]:
    """What an argument is checked by that is one of some names."""

    def checked(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"no {what} `{text[:40]}`; there are {', '.join(names)}")
        return text

    return checked

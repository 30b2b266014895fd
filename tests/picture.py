"""The picture at the top of the README: what the command prints on a terminal. `python tests/picture.py` draws it anew."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from arguments import Arguments
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from terminal import on_a_terminal

ROOT: Final = Path(__file__).parent.parent
PICTURE: Final = ROOT / "docs" / "show.svg"
COMMANDS: Final = ("show tests/data/pc-qemu7.2.mig.xz ps2kbd", "show tests/data/pc-qemu7.2.mig.xz ram")

_LAYOUT: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""
"""Rich's own layout names a web font; this one draws with the reader's."""


def drawn() -> str:
    """The picture, as SVG."""
    console = Console(record=True, width=124, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    for line in COMMANDS:
        console.print(Text.assemble(("$ ", "bright_black"), (f"tagged-vmstate {line}", "bold")))
        command, stream, *rest = line.split()
        status, text = on_a_terminal(command, ROOT / stream, *rest)
        assert status == 0, text
        console.print(Text.from_ansi(text.replace("\r\n", "\n").rstrip("\n") + "\n"))
    return console.export_svg(title="tagged-vmstate", theme=MONOKAI, code_format=_LAYOUT, unique_id="show")


if __name__ == "__main__":
    Arguments(__doc__).parse_args()
    PICTURE.write_text(drawn())

"""What the documents show is what happens."""

from __future__ import annotations

import doctest
import html
import re

from picture import PICTURE, ROOT, drawn


def test_the_readme_runs() -> None:
    found = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert found.attempted > 3
    assert found.failed == 0


def test_the_picture_shows_what_the_command_prints() -> None:
    def words(picture: str) -> str:
        return html.unescape(" ".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture)))

    assert "scancode_set" in words(drawn())
    assert words(PICTURE.read_text()) == words(drawn()), "draw it anew: python tests/picture.py"
    assert "http" not in PICTURE.read_text().replace("http://www.w3.org/2000/svg", ""), "nothing is loaded from elsewhere"

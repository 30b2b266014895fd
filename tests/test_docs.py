"""What the documents show is what happens."""

from __future__ import annotations

import doctest
import html
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from evolution import PAGE as EVOLUTION
from evolution import renewed as evolved
from picture import PICTURE, ROOT, drawn
from test_command import run
from transcripts import FILE, PAGE, renewed

import tagged_vmstate

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SESSIONS = ["README.md", "docs/evolution.md", "docs/hooks.md", "docs/legacy.md"]


def test_every_block_of_code_is_run() -> None:
    """By the tests below and in test_format_page; what is for a shell alone by `.ci/run`."""
    runs = {
        "pycon": SESSIONS,
        "cddl": ["docs/format.md"],
        "console": ["docs/tools.md"],
        "json": ["docs/json-form.md"],
        "magic": ["docs/format.md"],
        "python": ["docs/fuzzing.md", "docs/tools.md"],
        "sh": ["README.md", "docs/performance.md"],
    }
    pages = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
    blocks = {(kind, page) for page, text in pages.items() for kind in re.findall(r"^```(.+)$", text, re.MULTILINE)}
    assert blocks == {(kind, page) for kind, found in runs.items() for page in found}
    for page in runs["python"]:
        assert len(FILE.findall(pages[page])) == pages[page].count("```python"), "a block without the name of its file"


@pytest.mark.parametrize("page", SESSIONS)
def test_what_a_page_shows_runs(page: str) -> None:
    found = doctest.testfile(str(ROOT / page), module_relative=False)
    assert found.attempted > 3
    assert found.failed == 0


def test_the_picture_shows_what_the_command_prints() -> None:
    def words(picture: str) -> str:
        return html.unescape(" ".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture)))

    assert "scancode_set" in words(drawn())
    assert words(PICTURE.read_text()) == words(drawn()), "draw it anew: python tests/picture.py"
    assert "http" not in PICTURE.read_text().replace("http://www.w3.org/2000/svg", ""), "nothing is loaded from elsewhere"


def test_the_table_of_changes_is_what_loads_do() -> None:
    page = EVOLUTION.read_text()
    assert "| add a field with a default | always | while it is at its default |" in page
    assert evolved(page) == page, "write it anew: python tests/evolution.py --write"


def test_every_link_leads_to_a_page_and_a_heading_in_it() -> None:
    def anchors(page: str) -> set[str]:
        headings = re.findall(r"^#+ (.*)", page, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            name, _, anchor = target.partition("#")
            found = page.parent / name if name else page
            assert found.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(found.read_text()), f"{page.name}: {target}"


@pytest.mark.long
def test_the_page_of_fuzzing_finds_its_bug_and_fixes_it(tmp_path: Path) -> None:
    page = (ROOT / "docs/fuzzing.md").read_text()
    for name, text in FILE.findall(page):
        (tmp_path / name).write_text(text)
    done = run("fuzz", "board:MACHINE", "--runs", "2000", cwd=tmp_path)
    [finding] = re.findall(r"^    (tagged-vmstate: finding: .*)$", page, re.MULTILINE)
    assert (done.returncode, finding in done.stderr.decode()) == (1, True), done.stderr
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_board.py"]
    assert b"IndexError: index out of range" in subprocess.run(line, cwd=tmp_path, capture_output=True, check=False).stdout
    [fix] = re.findall(r"^The fix here is the table's: `(head: .*)` is refused", page, re.MULTILINE)
    board = (tmp_path / "board.py").read_text()
    assert "head: tv.uint32 = 0" in board
    (tmp_path / "board.py").write_text("from annotated_types import Lt\n" + board.replace("head: tv.uint32 = 0", fix))
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_pip_is_told_to_install_is_there() -> None:
    """The package is on no index: its extras are installed from a checkout, what it needs by the names of others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    names = {re.split(r"[^\w.-]", each)[0] for each in needed} - {project["name"]}
    here = {"."} | {f".[{extra}]" for extra in extras}
    sources = [*PAGES, *Path(tagged_vmstate.__file__).parent.rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    lines = re.findall(
        r"\bpip install((?: +(?:-\w+|'[^'\n]+'|\.(?=`)|\w[\w.-]*\b))+)", "".join(path.read_text() for path in sources)
    )
    wanted = {each for line in lines for each in shlex.split(line) if not each.startswith("-")}
    assert {".", ".[cli]", ".[fast]", "click", "atheris"} <= wanted <= here | names


@pytest.mark.long
def test_the_transcripts_of_the_command_are_what_it_prints() -> None:
    page = PAGE.read_text()
    assert page.count("\n$ tagged-vmstate ") > 20
    assert "Traceback" not in page
    assert renewed(page) == page, "write them anew: python tests/transcripts.py"

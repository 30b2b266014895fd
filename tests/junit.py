"""What Jenkins takes as JUnit XML: of its xUnit plugin's junit-10.xsd, the rules that bear on a report of ours."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Final, NamedTuple


class Rule(NamedTuple):
    """What one element may have."""

    required: frozenset[str]
    optional: frozenset[str]
    below: frozenset[str]


def _rule(required: str, optional: str, below: str) -> Rule:
    return Rule(frozenset(required.split()), frozenset(optional.split()), frozenset(below.split()))


RULES: Final = {
    "testsuites": _rule("", "name time tests failures errors", "testsuite"),
    "testsuite": _rule(
        "name tests failures errors", "time skipped timestamp hostname id package", "testcase properties system-out system-err"
    ),
    "testcase": _rule("name", "time classname group", "skipped failure system-out system-err"),
    "failure": _rule("", "type message", ""),
    "skipped": _rule("", "type message", ""),
    "system-out": _rule("", "", ""),
}


def parse(data: bytes) -> list[ET.Element]:
    """The suites of a report that fits the schema; the counts of each are right, and none is empty."""
    root = ET.fromstring(data)
    assert root.tag == "testsuites"
    for element in root.iter():
        rule = RULES[element.tag]
        assert rule.required <= set(element.attrib) <= rule.required | rule.optional
        assert {each.tag for each in element} <= rule.below
    for suite in root:
        counts = {"tests": "testcase", "failures": "testcase/failure", "skipped": "testcase/skipped", "errors": "testcase/error"}
        assert {key: suite.get(key) for key in counts} == {key: str(len(suite.findall(tag))) for key, tag in counts.items()}
        assert len(suite), "Jenkins: none of the test reports contained any result"
    return list(root)


def outcomes(suite: ET.Element) -> dict[str, str]:
    """Test -> what came of it."""
    cases = {case.get("name", ""): [each.tag for each in case if each.tag != "system-out"] for case in suite}
    assert len(cases) == len(suite)
    return {name: tags[0] if tags else "passed" for name, tags in cases.items()}

"""JUnit's XML, as continuous-integration servers read it: FAIL is a failure, INVALID and MISSING are errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, however they are written."""


@dataclass(frozen=True)
class Test:
    """One test case."""

    name: str
    status: str
    """PASS, FAIL, or what an error is to be called."""
    message: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """Tests with one name over them."""

    name: str
    tests: tuple[Test, ...]


def document(name: str, suites: Sequence[Suite]) -> bytes:
    """The file's content."""
    root = ElementTree.Element("testsuites", _counts(_text(name), [test for suite in suites for test in suite.tests]))
    for suite in suites:
        element = ElementTree.SubElement(root, "testsuite", _counts(_text(suite.name), suite.tests))
        for test in suite.tests:
            names = {"classname": _text(f"{name}.{suite.name}"), "name": _text(test.name), "time": "0"}
            case = ElementTree.SubElement(element, "testcase", names)
            if test.status == "PASS":
                ElementTree.SubElement(case, "system-out").text = _text(test.message)
            else:
                kind = {"message": _text(test.message), "type": test.status}
                bad = ElementTree.SubElement(case, "failure" if test.status == "FAIL" else "error", kind)
                bad.text = _text("\n".join(test.details))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _counts(name: str, tests: Sequence[Test]) -> dict[str, str]:
    failures = sum(test.status == "FAIL" for test in tests)
    errors = sum(test.status not in ("PASS", "FAIL") for test in tests)
    counts = {"tests": len(tests), "failures": failures, "errors": errors, "skipped": 0, "time": 0}
    return {"name": name, **{key: str(value) for key, value in counts.items()}}


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)

"""For machines: JSON, a list of findings with exactly their seven fields, and JUnit's XML, which CI systems show."""
import json
import math
from xml.etree import ElementTree

from ..finding import counts


def to_json(report):
    """The findings as a JSON list, expected deviations that pass last. Numbers that are not finite are null."""
    found = [*report.findings, *report.unexpected]
    return json.dumps([_finite(f.as_dict()) for f in found], indent=1, allow_nan=False, default=str) + "\n"


def _finite(value):
    if isinstance(value, dict):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value):
    """Text without the characters that XML cannot hold."""
    return "".join(c for c in str(value) if c in "\t\n" or 0x20 <= ord(c) < 0xD800 or 0xE000 <= ord(c) < 0xFFFE)


def junit(report):
    """One test case per finding: fail is a failure, not-implemented and deviation are skipped with their reason.

    An expected deviation that passes is a failure too, so that the file is red where the exit status is 1.
    """
    found = [*report.findings, *report.unexpected]
    n = counts(found)
    suite = ElementTree.Element("testsuite", name=_text(f"refdiff audit {report.title}"), errors="0",
                                tests=str(len(found)), failures=str(n["fail"]),
                                skipped=str(n["not-implemented"] + n["deviation"]))
    for f in found:
        case = ElementTree.SubElement(suite, "testcase", classname=_text(f.subject), name=_text(f.check))
        told = _text(json.dumps(_finite(f.evidence), default=str))
        if f.status == "fail":
            failure = ElementTree.SubElement(case, "failure", message=_text(f.cause or "differs"), type="difference")
            failure.text = f"digits: {f.digits}\n{told}\n{_text(f.reproduce)}"
        elif f.status in ("not-implemented", "deviation"):
            ElementTree.SubElement(case, "skipped", message=_text(f"{f.status}: {f.cause}"))
        elif f.status == "convention":
            ElementTree.SubElement(case, "system-out").text = _text(f"convention: {f.cause}")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"

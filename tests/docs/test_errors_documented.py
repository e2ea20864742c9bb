import ast
import re
from pathlib import Path

from dicomweb import errors
from dicomweb.store_response import FailureReason, WarningReason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
PACKAGES = ("dicomweb", "services", "stores", "functions", "orchestrations")


def codes_in_the_code() -> set[str]:
    """Error classes, and every string given as `code=` to a call."""
    found = {
        kind.__name__
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.DicomwebError)
    } - {"DicomwebError"}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    found |= {
                        keyword.value.value
                        for keyword in node.keywords
                        if keyword.arg == "code"
                        and isinstance(keyword.value, ast.Constant)
                        and isinstance(keyword.value.value, str)
                    }
    return found


def test_every_error_code_is_documented_and_no_other():
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == codes_in_the_code()


def test_every_status_of_an_error_class_is_the_documented_one():
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.DicomwebError):
            row = re.search(rf"^\| `{kind.__name__}` \| (\d+) ", PAGE, re.MULTILINE)
            assert row is None or int(row[1]) == kind.status


def test_every_failure_and_warning_reason_is_documented():
    documented = re.findall(r"^\| (\d+) \| ([0-9A-F]{4}) \|", PAGE, re.MULTILINE)
    known = [*FailureReason, *WarningReason]
    assert documented == [(str(int(one)), f"{int(one):04X}") for one in known]

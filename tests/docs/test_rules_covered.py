import ast
from collections import defaultdict
from pathlib import Path

from blackbox.rules import RULES

FOLDER = Path(__file__).parents[1] / "blackbox"


def covering_tests() -> dict[str, list[str]]:
    """Names of the test functions that carry each rule's number."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(FOLDER.glob("test_api_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for decorator in node.decorator_list:
                if (
                    isinstance(decorator, ast.Call)
                    and isinstance(decorator.func, ast.Name)
                    and decorator.func.id == "covers"
                ):
                    for number in decorator.args:
                        found[ast.literal_eval(number)].append(node.name)
    return found


def test_every_rule_has_a_black_box_test_and_every_number_is_a_rule():
    by_rule = covering_tests()
    assert [number for number in RULES if number not in by_rule] == []
    assert [number for number in by_rule if number not in RULES] == []


def test_only_tests_that_run_count():
    names = {name for names in covering_tests().values() for name in names}
    assert [name for name in names if not name.startswith("test_")] == []

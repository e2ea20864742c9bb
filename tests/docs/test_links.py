import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page):
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    relative = [target for target in targets if "://" not in target]
    assert [t for t in relative if not (page.parent / t).exists()] == []


def test_every_page_can_be_reached_from_the_index():
    index = ROOT / "docs" / "index.md"
    reached, waiting = set(), [index]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        targets = LINK.findall(page.read_text(encoding="utf-8"))
        waiting += [(page.parent / t).resolve() for t in targets if "://" not in t]
    assert [page for page in ROOT.glob("docs/**/*.md") if page not in reached] == []


def test_every_command_of_dev_help_is_a_command_and_the_other_way_round():
    script = (ROOT / "dev").read_text(encoding="utf-8")
    cases = script.split("case $command in")[1]
    commands = re.findall(r"^  ([a-z]+)[ )|]", cases, re.MULTILINE)
    text = subprocess.run(
        [ROOT / "dev", "help"], capture_output=True, text=True, check=True
    ).stdout
    assert sorted(re.findall(r"^  ([a-z]+)\b", text, re.MULTILINE)) == sorted(commands)

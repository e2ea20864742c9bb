"""docs/settings.md lists the settings as they are; UPDATE_DOCS=1 writes it anew."""

import os
import re
from pathlib import Path

from services.settings import documented

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
TABLE = re.compile(r"(?:^\| `DICOM_.*\n)+", re.MULTILINE)


def test_the_settings_page_has_each_setting_with_its_default_and_meaning():
    expected = "".join(
        f"| `{name}` | {f'`{default}`' if default else '–'} | {meaning} |\n"
        for name, default, meaning in documented()
    )
    page = PAGE.read_text(encoding="utf-8")
    if os.environ.get("UPDATE_DOCS"):
        page = TABLE.sub(lambda _: expected, page, count=1)
        PAGE.write_text(page, encoding="utf-8")
    assert TABLE.findall(page) == [expected]

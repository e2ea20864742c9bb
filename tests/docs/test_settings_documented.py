from pathlib import Path

from services.settings import documented

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_settings_page_has_each_setting_with_its_default_and_meaning():
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `DICOM_")
    ]
    expected = [
        [f"`{name}`", f"`{default}`" if default else "–", meaning]
        for name, default, meaning in documented()
    ]
    assert rows == expected

"""`python -m bicep` checks infra/; `python -m bicep record AZMCP` records its types."""

import json
import sys
from pathlib import Path

from bicep.catalog import RECORDED, WRITTEN, Catalog, fetch, pruned
from bicep.check import check
from bicep.syntax import parse

INFRA = Path(__file__).parents[2] / "infra"


def paths() -> list[Path]:
    return sorted(INFRA.rglob("*.bicep"))


def record(azmcp: Path) -> None:
    files = [parse(path) for path in paths()]
    references = [
        each.reference.split("@")[0]
        for file in files
        for each in file.named("resource").values()
    ]
    whole = fetch(azmcp, references)
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))["types"]
    catalog = Catalog({**whole, **written})
    check(paths(), catalog, {})
    kept = json.dumps(pruned(whole, catalog), indent=1, sort_keys=True)
    RECORDED.write_text(kept + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["record"]:
        record(Path(sys.argv[2]))
    mistakes = check(paths(), Catalog.load(), {})
    print("\n".join(mistakes) or "nothing wrong")
    sys.exit(bool(mistakes))

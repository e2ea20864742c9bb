"""What a month on Azure costs: calls and modelled RU of docs/azure-costs.md by prices.

    python benchmarks/cost_model.py          # the tables of docs/cost-model.md
    python benchmarks/cost_model.py --write  # puts them there

Every number that is not counted by a test or printed by somebody else is an assumption
and stands in `Site` or `Assumptions`, so that you can put yours in its place.
"""

import math
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).parents[1]
COSTS = ROOT / "docs" / "azure-costs.md"
PAGE = ROOT / "docs" / "cost-model.md"
MONTHS = 12
HOURS = 730
SECONDS = HOURS * 3600


@dataclass(frozen=True, slots=True)
class Price:
    """A price in US dollars, East US or as the source has it."""

    name: str
    dollars: float
    unit: str
    source: str


ESTIMATE = "Microsoft Learn, Estimate the cost of using Azure Blob Storage, 2024-07-26"
BILL = "Microsoft Learn, Understand your Azure Cosmos DB bill, 2022-03-31"
MODAL = "modal.com, Azure Functions pricing, 2025-05-22"
GUIDE = "microsoft/dicom-server, performance guidance, archived 2024-12"
LISTED = "list price from memory, no page at hand in November 2026"

PRICES = {
    "execution": Price("Functions flex: executions", 0.40, "million", MODAL),
    "compute": Price("Functions flex: time", 0.000026, "GB-second", MODAL),
    "ru": Price("Cosmos DB serverless", 0.25, "million RU", BILL),
    "index": Price("Cosmos DB storage", 0.25, "GB and month", BILL),
    "autoscale": Price("Cosmos DB autoscale", 0.012, "100 RU/s and hour", LISTED),
    "write": Price("Blob writes, hot", 0.055, "10,000", ESTIMATE),
    "read": Price("Blob reads, hot", 0.0044, "10,000", ESTIMATE),
    "hot": Price("Blob storage, hot, LRS", 0.0208, "GB and month", ESTIMATE),
    "cool": Price("Blob storage, cool, LRS", 0.0115, "GB and month", ESTIMATE),
    "cold": Price("Blob storage, cold, LRS", 0.0045, "GB and month", ESTIMATE),
    "logs": Price("Log Analytics, beyond 5 GB a month", 2.76, "GB", LISTED),
    "endpoint": Price("Private endpoint", 0.01, "hour", LISTED),
    "s1": Price("App Service S1", 73.0, "month", LISTED),
    "p1v2": Price("App Service P1v2", 146.0, "month", LISTED),
    "sql-s3": Price("Azure SQL S3", 150.0, "month", "cloudmonix.com, S3 with 250 GB"),
    "sql-s12": Price(
        "Azure SQL S12", 4500.0, "month", "30 times S3: the price is by DTU"
    ),
    "sql-p11": Price("Azure SQL P11", 7000.0, "month", LISTED),
    "small": Price("App Service S1 and SQL S1 to S3, smallest", 70.0, "month", GUIDE),
}
FREE_EXECUTIONS = 250_000
FREE_GB_SECONDS = 100_000
FREE_LOG_GB = 5.0


@dataclass(frozen=True, slots=True)
class Site:
    """A place and its year.

    Attributes:
        batch: Instances in one STOW request; modalities often send one at a time.
        views: How often all frames of a study are looked at in its first year.
        searches: For each study, worklists and priors included.
        always_on: Prices of the .NET server: the smallest that works, and what its
            own guidance recommends.
    """

    name: str
    instances: int
    per_study: int
    megabytes: float
    batch: int
    views: float
    searches: int
    always_on: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What nobody has counted yet.

    Attributes:
        strong: Factor of read RU at consistency Strong, the template's default.
        metadata_kilobytes: Of one instance in the index, with indexing.
        sharing: Requests that share an instance while it is billed. A viewer asks for
            several frames at a time; 1 is the worst case.
        memory_gb: Of an instance.
        store_seconds: For each instance in a STOW request.
        read_seconds: Least billed time of any request.
        log_kilobytes: Of traces and audit entries for each request.
        publish_seconds: Between two runs of PublishPending; see
            DICOM_PUBLISH_SCHEDULE.
        cleanup_seconds: Between two runs of the other timers.
    """

    strong: float = 2.0
    metadata_kilobytes: float = 4.0
    sharing: float = 8.0
    memory_gb: float = 2.0
    store_seconds: float = 0.05
    read_seconds: float = 1.0
    log_kilobytes: float = 2.0
    publish_seconds: int = 30
    cleanup_seconds: int = 180


_MEDIUM, _LARGE = ("s1", "sql-s3"), ("p1v2", "sql-p11")
SITES = (
    Site("clinic", 10_000, 10, 2.0, 1, 3, 10, (("small",), _MEDIUM)),
    Site("hospital", 1_000_000, 100, 0.5, 90, 3, 10, (_MEDIUM, ("s1", "sql-s12"))),
    Site("archive", 100_000_000, 250, 0.5, 90, 1, 5, (("s1", "sql-s12"), _LARGE)),
)


@dataclass(frozen=True, slots=True)
class Use:
    """A month's calls.

    Attributes:
        ru: Request units, weighted by consistency.
        seconds: For which instances are billed, before sharing.
    """

    executions: float = 0.0
    ru: float = 0.0
    writes: float = 0.0
    reads: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Use") -> "Use":
        return Use(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(Use))
        )

    def times(self, factor: float) -> "Use":
        """So many of them."""
        return Use(*(getattr(self, f.name) * factor for f in fields(Use)))


def counted() -> dict[str, tuple[float, float]]:
    """Transaction → modelled RU and requests to Blob Storage, as counted by tests."""
    rows = re.findall(
        r"^\| ([^|]+) \|[^|]+\| (\d+) \| (\d+|\S) \|$",
        COSTS.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return {
        name.strip(): (float(ru), float(blobs) if blobs.isdigit() else 0.0)
        for name, ru, blobs in rows
    }


class Model:
    """The month of a site in its twelfth month."""

    def __init__(self, assumptions: Assumptions) -> None:
        self.assumed = assumptions
        self.table = counted()

    def read(self, name: str) -> Use:
        """One transaction that only reads."""
        ru, blobs = self.table[name]
        seconds = self.assumed.read_seconds
        return Use(1, ru * self.assumed.strong, 0, blobs, seconds)

    def write(self, name: str, instances: int) -> Use:
        """One STOW request."""
        ru, blobs = self.table[name]
        seconds = max(1.0, instances * self.assumed.store_seconds)
        return Use(1, ru, blobs, 0, seconds)

    def store(self, site: Site) -> Use:
        """A study comes in."""
        if site.batch == 1:
            first = self.write("Store 1 instance of a new study", 1)
            more = self.write("Store 1 instance more of it", 1)
            return first + more.times(site.per_study - 1)
        whole = self.write("Store 90 instances of a new study", 90)
        return whole.times(site.per_study / 90)

    def study(self, site: Site) -> Use:
        """All that happens to one study in its first year."""
        # The metadata row is of 90 instances, and grows with them.
        metadata = self.read("Metadata of a study (90)")
        metadata = Use(1, metadata.ru * max(1, site.per_study / 90), 0, 0, 1)
        view = metadata + self.read("Retrieve a frame").times(site.per_study)
        search = self.read("Search for studies by PatientID")
        feed = self.read("Read 90 entries of the change feed")
        return (
            self.store(site)
            + view.times(site.views)
            + search.times(site.searches)
            + feed.times(site.per_study / 90)
        )

    def idle(self) -> Use:
        """Timers, day and night. Each wakes an instance for at least a second."""
        publish = SECONDS / self.assumed.publish_seconds
        others = 2 * SECONDS / self.assumed.cleanup_seconds
        # One query that finds nothing: about what a search costs.
        query = self.table["Search for a study by its UID"][0] * self.assumed.strong
        runs = publish + others
        # The timers of one moment run in one instance.
        seconds = max(publish, others / 2) * self.assumed.read_seconds
        return Use(runs, runs * query, 0, 0, seconds)

    def month(self, site: Site) -> dict[str, float]:
        """Dollars by item."""
        studies = site.instances / site.per_study / MONTHS
        used = self.study(site).times(studies)
        return {
            "Functions": self.compute(used, self.assumed.sharing),
            "index: requests": used.ru * PRICES["ru"].dollars / 1e6,
            "index: storage": self.index_gb(site) * PRICES["index"].dollars,
            "blobs: requests": self.blob_calls(used),
            "blobs: storage": self.blob_gb(site) * PRICES["hot"].dollars,
            "logs": self.logs(used),
            "timers": sum(self.timers().values()),
        }

    def worst_compute(self, site: Site) -> float:
        """Functions when no two requests ever share an instance."""
        studies = site.instances / site.per_study / MONTHS
        return self.compute(self.study(site).times(studies), 1.0)

    def compute(self, used: Use, sharing: float) -> float:
        """Executions and time, less what is free."""
        seconds = used.seconds / sharing * self.assumed.memory_gb
        paid = max(0.0, seconds - FREE_GB_SECONDS) * PRICES["compute"].dollars
        executions = max(0.0, used.executions - FREE_EXECUTIONS)
        return paid + executions * PRICES["execution"].dollars / 1e6

    def timers(self) -> dict[str, float]:
        """Dollars of a month in which nobody calls; nothing of it is free here."""
        used = self.idle()
        gb_seconds = used.seconds * self.assumed.memory_gb
        return {
            "Functions": gb_seconds * PRICES["compute"].dollars
            + used.executions * PRICES["execution"].dollars / 1e6,
            "index": used.ru * PRICES["ru"].dollars / 1e6,
        }

    def blob_calls(self, used: Use) -> float:
        write = used.writes * PRICES["write"].dollars
        return (write + used.reads * PRICES["read"].dollars) / 10_000

    def logs(self, used: Use) -> float:
        size = used.executions * self.assumed.log_kilobytes / 1e6
        return max(0.0, size - FREE_LOG_GB) * PRICES["logs"].dollars

    def blob_gb(self, site: Site) -> float:
        """What a year leaves."""
        return site.instances * site.megabytes / 1000

    def index_gb(self, site: Site) -> float:
        return site.instances * self.assumed.metadata_kilobytes / 1e6


# --- tables -------------------------------------------------------------------------


def money(dollars: float) -> str:
    """Dollars as a table shows them."""
    if dollars < 10:
        return f"${dollars:,.2f}"
    return f"${round(dollars, 1 - math.floor(math.log10(dollars)) + 1):,.0f}"


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def sites_table() -> list[str]:
    lines = [
        row(["", *(site.name for site in SITES)]),
        row(["---"] * (len(SITES) + 1)),
        row(["instances a year", *(f"{s.instances:,}" for s in SITES)]),
        row(["instances a study", *(f"{s.per_study}" for s in SITES)]),
        row(["MB an instance", *(f"{s.megabytes:g}" for s in SITES)]),
        row(["instances in a STOW request", *(f"{s.batch}" for s in SITES)]),
        row(["views of each study", *(f"{s.views:g}" for s in SITES)]),
        row(["searches for each study", *(f"{s.searches}" for s in SITES)]),
    ]
    model = Model(Assumptions())
    return [
        *lines,
        row(["data after a year, GB", *(f"{model.blob_gb(s):,.0f}" for s in SITES)]),
    ]


def month_table() -> list[str]:
    model = Model(Assumptions())
    months = [model.month(site) for site in SITES]
    lines = [
        row(["a month, after a year", *(site.name for site in SITES)]),
        row(["---"] * (len(SITES) + 1)),
    ]
    lines += [row([item, *(money(m[item]) for m in months)]) for item in months[0]]
    totals = [sum(month.values()) for month in months]
    lines.append(row(["**together**", *(f"**{money(t)}**" for t in totals)]))
    lines.append(
        row(["of it without storage", *(money(sum(m.values()) - m["blobs: storage"])
                                        for m in months)])
    )  # fmt: skip
    return lines


def comparison_table() -> list[str]:
    model = Model(Assumptions())
    lines = [
        row(["a month", *(site.name for site in SITES)]),
        row(["---"] * (len(SITES) + 1)),
    ]
    storage = [model.month(site)["blobs: storage"] for site in SITES]
    ours = [sum(model.month(site).values()) for site in SITES]
    lines.append(row(["DICOM Functions", *map(money, ours)]))
    for position, name in enumerate(("smallest that works", "as its guidance says")):
        cells = [
            sum(PRICES[each].dollars for each in site.always_on[position]) + blobs
            for site, blobs in zip(SITES, storage, strict=True)
        ]
        lines.append(row([f"App Service and SQL, {name}", *map(money, cells)]))
    return lines


def levers_table() -> list[str]:
    standard = Model(Assumptions())
    lines = [
        row(["what changes", *(site.name for site in SITES)]),
        row(["---"] * (len(SITES) + 1)),
    ]

    def differences(name: str, figures: list[float]) -> None:
        cells = [("+" if f >= 0 else "-") + money(abs(f)) for f in figures]
        lines.append(row([name, *cells]))

    differences(
        "no two requests share an instance (`httpConcurrency=1`)",
        [standard.worst_compute(s) - standard.month(s)["Functions"] for s in SITES],
    )
    session = Model(Assumptions(strong=1.0))
    differences(
        "`cosmosConsistency=Session`",
        [
            sum(session.month(s).values()) - sum(standard.month(s).values())
            for s in SITES
        ],
    )
    seldom = Model(Assumptions(publish_seconds=300))
    differences(
        "`DICOM_PUBLISH_SCHEDULE=0 */5 * * * *`",
        [
            sum(seldom.timers().values()) - sum(standard.timers().values())
            for _ in SITES
        ],
    )
    saved = PRICES["hot"].dollars - PRICES["cool"].dollars
    differences(
        "`coolAfterDays=90`, three quarters of the data unread by then",
        [-standard.blob_gb(s) * 0.75 * saved for s in SITES],
    )
    differences(
        "`network=private-data`, seven private endpoints",
        [7 * HOURS * PRICES["endpoint"].dollars for _ in SITES],
    )
    return lines


def idle_table() -> list[str]:
    lines = [row(["a month in which nobody calls", "", ""]), row(["---"] * 3)]
    for name, seconds in (("every 30 seconds (default)", 30), ("every 5 minutes", 300)):
        found = Model(Assumptions(publish_seconds=seconds)).timers()
        parts = ", ".join(f"{item} {money(cost)}" for item, cost in found.items())
        lines.append(row([f"healing {name}", money(sum(found.values())), parts]))
    least = PRICES["small"].dollars
    lines.append(row(["App Service and SQL, smallest", money(least), "day and night"]))
    return lines


def prices_table() -> list[str]:
    lines = [row(["price", "US dollars", "for", "source"]), row(["---"] * 4)]
    return lines + [
        row(
            [
                each.name,
                f"{each.dollars:.6f}".rstrip("0").rstrip("."),
                each.unit,
                each.source,
            ]
        )
        for each in PRICES.values()
    ]


TABLES = {
    "sites": sites_table,
    "month": month_table,
    "comparison": comparison_table,
    "levers": levers_table,
    "idle": idle_table,
    "prices": prices_table,
}


def filled(page: str) -> str:
    """The page with its tables as the model has them today."""
    for name, table in TABLES.items():
        pattern = re.compile(
            rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL
        )
        text = "".join(f"{line}\n" for line in table())
        assert pattern.search(page), name
        page = pattern.sub(lambda found, text=text: found[1] + text + found[2], page)  # type: ignore[misc]
    return page


def main(words: list[str]) -> int:
    """Prints the tables, or writes them into the page."""
    if "--write" in words:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    for name, table in TABLES.items():
        print(f"\n{name}\n", *table(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

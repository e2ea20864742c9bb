"""The containers of the index: their names and what is indexed in each.

The provisioning of Cosmos DB and the tables of SQLite are made from this one list. A
query on a path that is not listed here is a programming error that both adapters
refuse (in-partition queries may filter any path).
"""

from dataclasses import dataclass

from stores.ports import FieldPath, Order

DICOM = "dicom"
CATALOG = "catalog"
FEED = "feed"
SYSTEM = "system"
WORK = "work"
CLEANUP = "cleanup"

DATA_FORMAT = 1
"""Version of the shapes of all documents; a store of a newer one is refused."""

COUNTERS_KEY = "counters"
WATERMARK_ID = "watermark"
"""The counter in `system` that the first store makes; it tells used from new."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container.

    Attributes:
        indexed: Paths; a last name `*` means every field of that object. Values that
            are lists are indexed by element.
        composites: Orders that a cross-partition query may use, most specific first.
    """

    name: str
    indexed: tuple[FieldPath, ...]
    composites: tuple[tuple[Order, ...], ...] = ()


_NEWEST = (Order(("k",)), Order(("sk",), descending=True))

CONTAINERS = (
    ContainerSpec(
        DICOM,
        (
            *(("k",), ("sk",), ("w",), ("se",), ("pending",)),
            *(("f", "*"), ("x", "*"), ("words", "*")),
        ),
        (_NEWEST,),
    ),
    ContainerSpec(
        CATALOG,
        (
            *(("k",), ("sk",), ("mods",)),
            *(("f", "*"), ("x", "*"), ("words", "*")),
        ),
        (
            _NEWEST,
            (Order(("k",)), Order(("f", "PatientID")), _NEWEST[1]),
            (Order(("k",)), Order(("f", "AccessionNumber")), _NEWEST[1]),
        ),
    ),
    ContainerSpec(FEED, (("last",), ("ts",))),
    ContainerSpec(SYSTEM, (("k",), ("state",))),
    ContainerSpec(
        WORK,
        (("k",), ("sk",), ("f", "*"), ("words", "*"), ("lists", "*")),
        (_NEWEST,),
    ),
    ContainerSpec(CLEANUP, (("after",),), ((Order(("after",)), Order(("id",))),)),
)

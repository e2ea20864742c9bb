"""Request units: a MODEL for comparing our own designs, not what Azure will bill.

Bases: read of 1 KB = 1 RU, of 100 KB = 10; insert of 1 KB without index = 5, of 100 KB
= 50; replace = 2 inserts (docs: optimize-cost-reads-writes.md, key-value-store-cost.md).
0.2 RU for an index entry and 2.8 RU for a query are our assumptions.
"""

_ENTRY = 0.2
_QUERY = 2.8


def read(size_bytes: int) -> float:
    """A point read of a document of this size."""
    return max(1.0, 1.0 + (size_bytes / 1024 - 1) / 11)


def insert(size_bytes: int, entries: int) -> float:
    """A create with this many index entries; a delete costs the same."""
    return max(5.0, 5.0 + (size_bytes / 1024 - 1) * 0.4545) + _ENTRY * entries


def replace(size_bytes: int, entries: int) -> float:
    """A replace, upsert of an existing document, or patch."""
    return 2 * insert(size_bytes, entries)


def query(loaded: int, returned_bytes: int) -> float:
    """A page of a query that had to load this many documents."""
    return _QUERY + 0.1 * loaded + returned_bytes / 1024 / 4

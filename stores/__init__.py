"""Adapters to the index and to the blobs; the only code that knows a database or a disk."""

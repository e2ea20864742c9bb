"""Adapters to index and blobs; the only code that knows a database or a disk."""

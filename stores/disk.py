"""What the operating systems that the embedded stack runs on do differently."""

import os


def sync_data(descriptor: int) -> None:
    """Waits until a file's bytes are on the disk; macOS has no fdatasync in Python."""
    getattr(os, "fdatasync", os.fsync)(descriptor)

"""Which blob names are taken, and where they stand below a folder."""

MAX_NAME_BYTES = 1024
MAX_SEGMENT_BYTES = 255


def check_name(name: str) -> str:
    """The name, if every part of it can be a file or folder; else ValueError."""
    if "\0" in name or not name:
        raise ValueError("A blob name is not empty and has no NUL")
    encoded = name.encode()
    if len(encoded) > MAX_NAME_BYTES:
        raise ValueError(f"A blob name has at most {MAX_NAME_BYTES} bytes")
    for segment in encoded.split(b"/"):
        if segment in (b"", b".", b".."):
            raise ValueError("A part of a blob name is empty, . or ..")
        if len(segment) > MAX_SEGMENT_BYTES:
            raise ValueError(
                f"A part of a blob name has at most {MAX_SEGMENT_BYTES} bytes"
            )
    if encoded.startswith(b".tmp/"):
        raise ValueError("A blob name that starts with .tmp is the store's own")
    return name

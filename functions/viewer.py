"""Serves the OHIF viewer from a folder whose files name each other below /viewer/.

A path that is no file is one of the viewer's own pages and gets `index.html`.
"""

import asyncio
import mimetypes
import re
from pathlib import Path
from urllib.parse import urlsplit

from starlette.responses import Response

from dicomweb.errors import NotFound
from functions import pages
from functions.call import Call
from functions.representations import is_unmodified, not_modified, preferred_coding
from services.settings import Settings

_HASHED = re.compile(r"\.[0-9a-f]{16,}\.")


async def viewer_file(call: Call) -> Response:
    """A file of the viewer, compressed beforehand where the client takes it."""
    folder = call.runtime.settings.viewer.resolve()
    found = await asyncio.to_thread(_find, folder, call.path("path") or "")
    if found is None:
        return pages.no_viewer(folder)
    packed = found.with_name(f"{found.name}.gz")
    is_packed = preferred_coding(call, ("gzip",)) is not None and packed.is_file()
    source = packed if is_packed else found
    state = source.stat()
    etag = f"{state.st_mtime_ns:x}-{state.st_size:x}"
    has_hash = _HASHED.search(found.name) is not None
    headers = {
        "ETag": f'"{etag}"',
        "Vary": "Accept-Encoding",
        # Not for ever: the name tells OHIF's version, not that of our changes to it.
        "Cache-Control": "max-age=86400" if has_hash else "no-cache",
        "Content-Security-Policy": content_policy(call.runtime.settings),
    }
    if is_unmodified(call, etag):
        return not_modified(headers)
    if is_packed:
        headers["Content-Encoding"] = "gzip"
    media_type = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
    body = await asyncio.to_thread(source.read_bytes)
    return Response(body, 200, headers, media_type)


def content_policy(settings: Settings) -> str:
    """What a page of the viewer may load: its own files, our API, the sign-in.

    OHIF 3.12 compiles code at run time (ONNX, zod) and has an inline script.

    Source: Content Security Policy Level 3.
    """
    origins = [
        f"{parts.scheme}://{parts.netloc}"
        for url in (settings.public_url, settings.authority)
        if url and (parts := urlsplit(url))
    ]
    connect = " ".join(["'self'", "blob:", "data:", *dict.fromkeys(origins)])
    return (
        "default-src 'self';"
        " script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:;"
        " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
        " font-src 'self' data:; worker-src 'self' blob:;"
        f" connect-src {connect}; object-src 'none'; base-uri 'self';"
        " frame-ancestors 'self'"
    )


def _find(folder: Path, path: str) -> Path | None:
    """The file to send, None where there is no viewer.

    Raises:
        NotFound: A file is asked for that is not there, or is outside the folder.
    """
    index = folder / "index.html"
    if not index.is_file():
        return None
    if "\0" in path:
        raise NotFound("There is no such file.")
    candidate = (folder / path.strip("/")).resolve()
    if candidate.is_relative_to(folder) and candidate.is_file():
        return candidate
    if Path(path).suffix in mimetypes.types_map:
        raise NotFound("There is no such file.")
    return index

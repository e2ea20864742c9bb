import re
from pathlib import Path

import pytest

from dicomweb import frames, identifiers, multipart, part10, pixels, query, scan
from dicomweb import update as update_rules
from functions import audit, json_body, paging
from services import spool, tokens, update, workers
from services.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
MIB = 1024 * 1024
LINK = "the `Link` header leads on"


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("parts of a multipart body", f"{multipart.MAX_PARTS:,}"),
        ("header of a part", f"{multipart.MAX_HEADER_BYTES // 1024} KiB"),
        ("boundary", f"{multipart.MAX_BOUNDARY_CHARACTERS} characters"),
        ("UID", f"{identifiers.UID_CHARACTERS} characters"),
        ("token", f"{tokens.MAX_TOKEN_CHARACTERS:,} characters"),
        (
            "[headers for the audit log](audit.md)",
            f"{audit.MAX_HEADERS}, of {audit.MAX_HEADER_CHARACTERS:,} characters each",
        ),
        (
            "results of a search",
            f"{query.DEFAULT_LIMIT} unless asked, at most {query.MAX_LIMIT}; {LINK}",
        ),
        (
            "`offset` of a search",
            f"{query.MAX_OFFSET:,}; beyond it follow the `Link` header",
        ),
        ("nesting of sequences", f"{scan.MAX_DEPTH} levels"),
        ("elements", f"{scan.MAX_ELEMENTS:,}"),
        (
            "dataset of a deflated file, inflated",
            f"{part10.MAX_INFLATED_BYTES // MIB} MiB",
        ),
        (
            "values that stand in the DICOM JSON, all together",
            f"{scan.MAX_INLINE_BYTES // MIB} MiB; larger single values become bulk data",
        ),
        ("fragments of Pixel Data", f"{frames.MAX_FRAGMENTS:,}"),
        ("one decoded frame", f"{pixels.MAX_DECODED_BYTES // MIB} MiB"),
        (
            "memory for bodies that are being received",
            f"{spool.MEMORY_BYTES // MIB} MiB; the rest goes to files",
        ),
        (
            "threads that decode and render",
            f"{workers.MAX_THREADS}, or as many as there are cores",
        ),
        ("studies of a bulk update", f"{update_rules.MAX_STUDIES:,}"),
        ("instances of a study that is updated", f"{update.MAX_INSTANCES:,}"),
        ("body of a request in JSON", f"{json_body.MAX_BYTES // MIB} MiB"),
        (
            "body with comments or commas at the end of a list",
            f"{json_body.MAX_COMMENTED_BYTES // 1024} KiB",
        ),
        (
            "[extended query tags](query-tags.md)",
            f"{Settings().max_query_tags}; `DICOM_MAX_QUERY_TAGS`",
        ),
        (
            "[rows of a list of tags, errors or operations](operations.md)",
            f"{paging.DEFAULT_LIMIT} unless asked, at most {paging.MAX_LIMIT}",
        ),
        ("memory to decode and render in", f"{workers.MEMORY_BYTES // MIB} MiB"),
        ("wait for a free thread", f"{workers.WAIT_SECONDS:.0f} s, then 503"),
    ],
)
def test_the_documented_limit_is_the_one_in_force(row, text):
    found = re.findall(rf"^\| {re.escape(row)} \| (.*) \|$", PAGE, re.MULTILINE)
    assert found == [text]

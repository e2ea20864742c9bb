"""The signature of a request.

Docs: rest/api/cosmos-db/access-control-on-cosmosdb-resources (string to sign: verb,
resource type, resource link, date, each in its line); source: azure-cosmos 4.17.1,
auth.py. Resource ids are signed in lower case, names as they are; the date may be 15
minutes off.
"""

import base64
import hmac
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from hashlib import sha256
from urllib.parse import unquote

from emulators.cosmos.errors import CosmosError

MOST_SKEW_SECONDS = 900


def signed_resource(segments: list[str]) -> tuple[str, str]:
    """Resource type and link of a path: `["dbs", "x", "colls"]` is (colls, dbs/x)."""
    if not segments:
        return "", ""
    if len(segments) % 2:
        return segments[-1], "/".join(segments[:-1])
    link = "/".join(segments)
    if segments[0] == "offers":
        link = segments[1].lower()
    return segments[-2], link


def verify(
    key: bytes, method: str, segments: list[str], headers: Mapping[str, str]
) -> None:
    """401 unless the request carries the key's signature and a date of now."""
    date = headers.get("x-ms-date", "")
    try:
        sent_at = parsedate_to_datetime(date).timestamp()
    except ValueError as error:
        raise CosmosError(401, "The x-ms-date header is missing or wrong.") from error
    if abs(sent_at - time.time()) > MOST_SKEW_SECONDS:
        raise CosmosError(403, "The x-ms-date is more than 15 minutes off.")
    kind, link = signed_resource(segments)
    text = f"{method.lower()}\n{kind.lower()}\n{link}\n{date.lower()}\n\n"
    digest = hmac.new(key, text.encode(), sha256).digest()
    expected = f"type=master&ver=1.0&sig={base64.b64encode(digest).decode()}"
    given = unquote(headers.get("authorization", ""))
    if not hmac.compare_digest(expected.encode(), given.encode()):
        raise CosmosError(
            401,
            "The input authorization token can't serve the request. The string to sign"
            f" was: {text!r}",
        )

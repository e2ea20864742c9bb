"""The signature of a request, or the token of an identity.

Docs: rest/api/cosmos-db/access-control-on-cosmosdb-resources (string to sign: verb,
resource type, resource link, date, each in its line); source: azure-cosmos 4.17.1,
auth.py. Resource ids are signed in lower case, names as they are; the date may be 15
minutes off.

Docs: cosmos-db/how-to-connect-role-based-access-control: `type=aad&ver=1.0&sig={token}`
for the account's own URL; a role gives data operations and reading of metadata, never
databases, containers or offers; `disableLocalAuth` refuses every key.
"""

import base64
import hmac
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from hashlib import sha256
from urllib.parse import unquote

from emulators.cosmos.errors import CosmosError
from emulators.identity import ISSUER, claims_of

MOST_SKEW_SECONDS = 900
TOKEN = "type=aad&ver=1.0&sig="
AUDIENCES = ("https://127.0.0.1", "https://cosmos.azure.com")
"""Of this account, without its port, and of every account."""


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
    key: bytes | None, method: str, segments: list[str], headers: Mapping[str, str]
) -> None:
    """401 unless the request carries the key's signature and a date of now, or a token.

    Args:
        key: Of the account; None where keys are switched off.
        method: Of the request.
        segments: Of its path.
        headers: Names in lower case.
    """
    given = unquote(headers.get("authorization", ""))
    if given.startswith(TOKEN):
        _verify_token(given.removeprefix(TOKEN))
        _refuse_management(method, segments)
        return
    if key is None:
        raise CosmosError(401, "Local Authorization is disabled. Use an AAD token.")
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
    if not hmac.compare_digest(expected.encode(), given.encode()):
        raise CosmosError(
            401,
            "The input authorization token can't serve the request. The string to sign"
            f" was: {text!r}",
        )


def _verify_token(token: str) -> None:
    try:
        claims = claims_of(token)
        now, lifetime = time.time(), (float(claims["nbf"]), float(claims["exp"]))
        issuer, audience = str(claims["iss"]), str(claims["aud"])
    except (ValueError, KeyError) as error:
        raise CosmosError(401, "The AAD token is none.") from error
    if not lifetime[0] <= now < lifetime[1]:
        raise CosmosError(401, "The AAD token has expired or is not valid yet.")
    if issuer != ISSUER or audience.rstrip("/") not in AUDIENCES:
        raise CosmosError(401, f"The AAD token is for {audience}.")


def _refuse_management(method: str, segments: list[str]) -> None:
    is_data = segments[4:5] == ["docs"]
    if method != "GET" and not is_data:
        raise CosmosError(
            403,
            "Request blocked by Auth: the principal does not have required RBAC"
            f" permissions to {method} {'/'.join(segments)}; it is a management"
            " operation.",
        )

"""What a durableClient binding carries, and the links of an instance."""

import json
import sys
from collections.abc import Callable
from urllib.parse import quote

from azure.functions.meta import Datum

from localhost.extension import WEBHOOKS, ClientEndpoint
from localhost.indexing import Binding, Function

_PLACEHOLDER = "INSTANCEID"
"""The client library replaces this in every link by the instance's id."""

_LINKS = {
    "statusQueryGetUri": "",
    "sendEventPostUri": "/raiseEvent/{eventName}",
    "terminatePostUri": "/terminate?reason={text}",
    "rewindPostUri": "/rewind?reason={text}",
    "purgeHistoryDeleteUri": "",
    "restartPostUri": "/restart",
    "suspendPostUri": "/suspend?reason={text}",
    "resumePostUri": "/resume?reason={text}",
}


def management_links(instance_id: str, public_url: str, key: str) -> dict[str, str]:
    """The URLs under which HTTP callers manage an instance, and its id.

    Args:
        instance_id: The instance.
        public_url: Base of the host's URLs, without a slash at its end.
        key: System key that the URLs carry.
    """
    base = f"{public_url}{WEBHOOKS}/instances/{quote(instance_id, safe='')}"
    links = {"id": instance_id}
    for name, tail in _LINKS.items():
        joint = "&" if "?" in tail else "?"
        links[name] = f"{base}{tail}{joint}code={quote(key, safe='')}"
    return links


def binding_payload(endpoint: ClientEndpoint) -> str:
    """The JSON text that `DurableOrchestrationClient` is made from."""
    code = f"code={quote(endpoint.key, safe='')}"
    creation = f"{endpoint.public_url}{WEBHOOKS}/orchestrators/{{functionName}}"
    return json.dumps(
        {
            "taskHubName": endpoint.options.get("hubName", "TestHubName"),
            "creationUrls": {
                "createNewInstancePostUri": f"{creation}[/{{instanceId}}]?{code}",
                "createAndWaitOnNewInstancePostUri": (
                    f"{creation}[/{{instanceId}}]?timeout={{timeoutInSeconds}}"
                    f"&pollingInterval={{intervalInSeconds}}&{code}"
                ),
            },
            "managementUrls": management_links(
                _PLACEHOLDER, endpoint.public_url, endpoint.key
            ),
            "baseUrl": f"{endpoint.public_url}{WEBHOOKS}",
            "requiredQueryStringParameters": code,
            "rpcBaseUrl": endpoint.rpc_url,
        }
    )


def client_provider(endpoint: ClientEndpoint) -> Callable[[Function, Binding], Datum]:
    """Gives the value of every durableClient binding of a worker."""
    payload = binding_payload(endpoint)
    return lambda _function, _binding: Datum(payload, "string")


async def close_client_session() -> None:
    """Close the HTTP session that the client library keeps for the whole process.

    The library never does, and a session that is left open is reported at exit.
    """
    library = sys.modules.get("azure.durable_functions.models.utils.http_utils")
    if library is not None:
        await library._close_session()  # noqa: SLF001 there is no public way

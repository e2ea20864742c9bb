"""Settings of a server with security, and requests of callers with roles."""

import json
from pathlib import Path
from typing import Any

from blackbox.api import Api
from issuer import APPLICATION, Issuer

SECOND = "api://dicom"
CLAIMS = {"tid": "tenant", "oid": "caller"}
ROLES: list[dict[str, Any]] = [
    {"name": "reader", "dataActions": ["read"], "scopes": ["/"]},
    {"name": "writer", "dataActions": ["write"], "scopes": ["/"]},
    {"name": "admin", "dataActions": ["*"], "scopes": ["/"]},
    {
        "name": "keeper",
        "dataActions": ["*"],
        "notDataActions": ["delete"],
        "scopes": ["/"],
    },
    {
        "name": "radiologyReader",
        "dataActions": ["read"],
        "scopes": ["/partitions/radiology"],
    },
    {
        "name": "radiologyWriter",
        "dataActions": ["write"],
        "scopes": ["/partitions/RADIOLOGY"],
    },
]


def settings(authority: str, folder: Path, **more: str) -> dict[str, str]:
    """Variables of a server that trusts the authority; the roles file is written."""
    file = folder / "roles.json"
    file.write_text(json.dumps({"roles": ROLES}))
    return {
        "DICOM_SECURITY": "true",
        "DICOM_AUTHORITY": authority,
        "DICOM_AUDIENCES": f"{APPLICATION},{SECOND}",
        "DICOM_ROLES_FILE": str(file),
        **more,
    }


def authorization(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def caller(url: str, issuer: Issuer, *roles: str, **claims: Any) -> Api:
    """A client whose every request has a token with these roles."""
    api = Api(url)
    token = issuer.token(**{**CLAIMS, "roles": list(roles), **claims})
    api.headers.update(authorization(token))
    return api

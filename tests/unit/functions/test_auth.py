"""Who may do what, where: every route and every role, and tricks to get around it."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from data import instance, new_uid
from issuer import APPLICATION, URL, Issuer
from tricks import HEADERS, INTO_SECRET
from unit_functions import request

from dicomweb.errors import TooManyRequests
from functions import auth, roles
from functions.auth import Gate, Shares
from functions.call import Call, Permission
from functions.routes import http_functions
from services.settings import Settings
from services.tokens import Tokens
from stores.token_keys import HttpTokenKeys

ROLES = {
    "reader": (["read"], [], ["/"]),
    "writer": (["write"], [], ["/"]),
    "deleter": (["delete"], [], ["/"]),
    "tagger": (["manageExtendedQueryTags"], [], ["/"]),
    "exporter": (["export"], [], ["/"]),
    "admin": (["*"], [], ["/"]),
    "keeper": (["*"], ["delete"], ["/"]),
    "radiologyReader": (["read"], [], ["/partitions/Radiology"]),
    "radiologyAdmin": (["*"], [], ["/partitions/radiology"]),
    "twoPlaces": (["read"], [], ["/partitions/radiology", "/partitions/other"]),
}
ROLES_FILE = {
    "roles": [
        {"name": name, "dataActions": yes, "notDataActions": no, "scopes": scopes}
        for name, (yes, no, scopes) in ROLES.items()
    ]
}
# By the name in the audit log: what the table of the .NET server's routes asks for.
ACTION = {
    "store": "write",
    "query": "read",
    "retrieve": "read",
    "retrieve-metadata": "read",
    "retrieve-rendered": "read",
    "delete": "delete",
    "update-study": "write",
    "export": "export",
    "change-feed": "read",
    "add-extended-query-tag": "manageExtendedQueryTags",
    "get-all-extended-query-tag": "read",
    "get-extended-query-tag": "read",
    "update-extended-query-tag": "manageExtendedQueryTags",
    "remove-extended-query-tag": "manageExtendedQueryTags",
    "get-extended-query-tag-errors": "read",
    "operation": "read",
    "partition": "read",
    "add-workitem": "write",
    "query-workitem": "read",
    "retrieve-workitem": "read",
    "update-workitem": "write",
    "change-state-workitem": "write",
    "cancel-workitem": "write",
    # Routes that the .NET server has not.
    "get-all-operation": "read",
    "cancel-operation": "read",  # and what starting one takes, see below
    "scrub": "*",
    "statistics": "*",
}
ACTIONS = ["read", "write", "delete", "manageExtendedQueryTags", "export"]


def secured(issuer: Issuer, role_file: Any = ROLES_FILE) -> Any:
    """Makes the gate of a server that trusts the issuer."""

    def make(settings: Settings) -> Gate:
        transport = httpx.ASGITransport(issuer.application)
        tokens = Tokens(
            HttpTokenKeys(settings.authority, transport=transport), settings.audiences
        )
        return Gate(settings, roles.parse(json.dumps(role_file).encode()), tokens)

    return make


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def guarded(running_server, tmp_path, issuer):
    """Starts a server with security; settings by keyword."""

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[Any]:
        settings = {"data_partitions": True, **settings}
        async with running_server(
            tmp_path,
            make_gate=secured(issuer),
            security=True,
            authority=URL,
            audiences=(APPLICATION, "second"),
            **settings,
        ) as server:
            yield server

    return start


def bearer(issuer: Issuer, *names: str, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {issuer.token(roles=list(names), **claims)}"}


# --- operations ----------------------------------------------------------------------


class OneRuns:
    """A Durable client that knows one operation, and that it runs."""

    def __init__(self, orchestrator: str) -> None:
        self.name = orchestrator

    async def get_status(self, _: str, *, show_input: bool) -> Any:
        assert show_input
        checkpoint = {"created": "2026-01-01T00:00:00+00:00", "paths": []}
        status = {"percent": 1}
        return SimpleNamespace(
            name=self.name,
            runtime_status=SimpleNamespace(name="Running"),
            input_=checkpoint,
            output=None,
            custom_status=status,
            last_updated_time=datetime(2026, 1, 1, tzinfo=UTC),
        )


@pytest.mark.parametrize(
    ("orchestrator", "action"),
    [
        ("Reindex", "manageExtendedQueryTags"),
        ("BulkUpdate", "write"),
        ("Export", "export"),
        ("Scrub", "*"),
    ],
)
async def test_who_may_start_an_operation_may_cancel_such(
    guarded, issuer, monkeypatch, orchestrator, action
):
    monkeypatch.setattr(Call, "client", property(lambda _: OneRuns(orchestrator)))
    path = f"/v2/operations/{PARAMETERS['operation']}"
    roles = ["writer", "deleter", "tagger", "exporter", "admin"]
    async with guarded() as server:
        for role in roles:
            allowed = role == "admin" or ROLES[role][0] == [action]
            headers = bearer(issuer, "reader", role)
            answer = await server.delete(path, headers=headers)
            assert answer.status_code == (202 if allowed else 403), role


# --- every route and every role ------------------------------------------------------

PARAMETERS = {
    "version": "v2",
    "document": "api.yaml",
    "ignored": "",
    "tag": "00101010",
    "operation": "0123456789abcdef0123456789abcdef",
}
FUNCTIONS = [f for f in http_functions() if not f.route.anonymous]


def path_of(template: str, partition: str) -> str:
    segments = []
    for segment in template.split("/"):
        name = re.match(r"\{\*?([a-z]+)", segment)
        values = {**PARAMETERS, "partition": partition}
        segments.append(values.get(name[1], "1.2.3") if name else segment)
    return "/" + "/".join(segments)


def may(role: str | None, audit: str | None, scope: str) -> bool:
    """What the roles file above is meant to say, worked out the long way."""
    if audit is None:
        return True
    if role is None:
        return False
    yes, no, scopes = ROLES[role]
    granted = {a for a in ACTIONS if (a in yes or "*" in yes) and a not in no}
    needed = set(ACTIONS) if ACTION[audit] == "*" else {ACTION[audit]}
    return needed <= granted and (
        "/" in scopes or scope.lower() in map(str.lower, scopes)
    )


def test_every_route_of_the_audit_log_stands_in_the_table_above():
    audited = {function.route.audit for function in FUNCTIONS} - {None}
    assert audited - ACTION.keys() == set(), "say in ACTION what they ask for"


@pytest.mark.parametrize("role", [*ROLES, "unknown", None])
async def test_each_role_reaches_exactly_its_routes(guarded, issuer, role):
    wrong = []
    names = [role] if role else []
    async with guarded() as server:
        headers = {**bearer(issuer, *names), "Accept": "*/*"}
        for function in FUNCTIONS:
            is_in_one = "{partition}" in function.template
            for partition in ("RADIOLOGY", "other", "third") if is_in_one else ("",):
                scope = f"/partitions/{partition}"
                if not is_in_one:
                    # Unnamed is the default partition.
                    in_default = function.route.in_partitions
                    scope = "/partitions/microsoft.default" if in_default else "/none"
                known = role if role in ROLES else None
                allowed = may(known, function.route.audit, scope)
                for method in function.methods:
                    path = path_of(function.template, partition)
                    response = await server.request(method, path, headers=headers)
                    if (response.status_code == 403) is allowed or (
                        response.status_code == 401
                    ):
                        wrong.append((function.name, method, path, response))
    assert wrong == []


async def test_without_a_token_only_health_and_preflight_answer(guarded):
    async with guarded() as server:
        for function in http_functions():
            for method in function.methods:
                path = path_of(function.template, "radiology")
                response = await server.request(method, path)
                opened = function.name in {"CheckHealth", "Preflight"}
                assert (response.status_code == 401) is not opened, path
                assert response.is_success is opened


def test_every_audited_route_has_an_action_and_every_other_is_open():
    for function in http_functions():
        route = function.route
        assert (route.permission is Permission.NONE) is (route.audit is None)
        if route.audit:
            assert route.permission is roles.DATA_ACTIONS[ACTION[route.audit]]


# --- tokens --------------------------------------------------------------------------


async def test_the_challenge_says_where_to_get_a_token(guarded):
    async with guarded() as server:
        response = await server.get("/v2/changefeed")
        assert response.headers["www-authenticate"] == (
            f'Bearer authorization_uri="{URL}", resource_id="{APPLICATION}",'
            f' realm="{APPLICATION}"'
        )
        again = await server.get(
            "/v2/changefeed", headers={"Authorization": "Bearer x"}
        )
        assert again.headers["www-authenticate"].endswith(', error="invalid_token"')


async def test_the_description_says_where_tokens_come_from(guarded, issuer):
    async with guarded() as server:
        answer = await server.get("/v2/api.json", headers=bearer(issuer))
    document = answer.json()
    assert document["security"] == [{"token": []}]
    assert document["components"]["securitySchemes"]["token"] == {
        "type": "openIdConnect",
        "openIdConnectUrl": f"{URL}/.well-known/openid-configuration",
    }


async def test_the_description_of_an_open_server_asks_for_no_token(server):
    assert "security" not in (await server.get("/v2/api.json")).json()


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "bearer",
        "Token {}",
        "{}",
        "Bearer {} x",
    ],
)
async def test_only_a_bearer_token_is_taken(guarded, issuer, header):
    async with guarded() as server:
        headers = {"Authorization": header.format(issuer.token(roles=["admin"]))}
        assert (await server.get("/v2/changefeed", headers=headers)).status_code == 401


async def test_two_tokens_are_one_too_many(guarded, issuer):
    async with guarded() as server:
        header = bearer(issuer, "admin")["Authorization"]
        two = [("Authorization", header), ("Authorization", header)]
        assert (await server.get("/v2/changefeed", headers=two)).status_code == 401


async def test_the_scheme_is_taken_in_any_case_and_the_second_audience_too(
    guarded, issuer
):
    async with guarded() as server:
        token = issuer.token(roles=["reader"], aud="second")
        headers = {"Authorization": f"bEARER {token}"}
        assert (await server.get("/v2/changefeed", headers=headers)).status_code == 200


async def test_pages_of_allowed_origins_can_read_that_they_were_refused(guarded):
    async with guarded(cors_origins=("https://a",)) as server:
        response = await server.get("/v2/changefeed", headers={"Origin": "https://a"})
        assert response.status_code == 401
        assert response.headers["access-control-allow-origin"] == "https://a"


async def test_an_issuer_that_does_not_answer_is_503(guarded, issuer):
    issuer.broken = True
    async with guarded() as server:
        response = await server.get("/v2/changefeed", headers=bearer(issuer, "admin"))
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"roles": ["reader"]}, 200),
        ({"roles": "reader"}, 200),
        ({"roles": "other reader"}, 200),
        ({"roles": ["other", "reader", 7]}, 200),
        ({"roles": "readers"}, 403),
        ({"roles": ["READER"]}, 403),
        ({"roles": {"reader": True}}, 403),
        ({"roles": None, "role": "reader"}, 403),
        ({"roles": ["reader other"]}, 403),
    ],
)
async def test_roles_are_a_list_or_words(guarded, issuer, claims, status):
    async with guarded() as server:
        headers = {"Authorization": f"Bearer {issuer.token(**claims)}"}
        response = await server.get("/v2/changefeed", headers=headers)
        assert response.status_code == status


async def test_the_claim_of_the_roles_is_a_setting(guarded, issuer):
    async with guarded(roles_claim="role") as server:
        headers = {"Authorization": f"Bearer {issuer.token(roles=None, role='reader')}"}
        assert (await server.get("/v2/changefeed", headers=headers)).status_code == 200


# --- tricks --------------------------------------------------------------------------

CANARY = "CANARY-7F3A"


async def stored(server: Any, issuer: Issuer, partition: str, patient: str) -> str:
    study = new_uid()
    response = await server.post(
        f"/v2/partitions/{partition}/studies",
        content=instance(StudyInstanceUID=study, PatientID=patient),
        headers={
            **bearer(issuer, "writer"),
            "Content-Type": "application/dicom",
            "Accept": "application/dicom+json",
        },
    )
    assert response.status_code == 200
    return study


async def test_no_trick_reaches_another_partition(guarded, issuer):
    async with guarded() as server:
        secret = await stored(server, issuer, "Secret", CANARY)
        own = await stored(server, issuer, "radiology", "own")
        token = bearer(issuer, "radiologyReader")
        for extra in HEADERS:
            for path in INTO_SECRET:
                raw = path.format(study=secret).encode()
                target = httpx.URL("http://host:8080").copy_with(raw_path=raw)
                headers = {**token, "Accept": "*/*", **extra}
                response = await server.get(target, headers=headers)
                assert CANARY not in response.text, (raw, extra)
                assert response.status_code in {200, 204, 400, 403, 404}, raw
                if response.status_code == 200:
                    assert own in response.text
                    assert secret not in response.text
        there = await server.get(
            "/v2/partitions/secret/studies",
            headers={**bearer(issuer, "reader"), "Accept": "*/*"},
        )
        assert secret in there.text
        assert CANARY in there.text


@pytest.mark.parametrize("name", ["radiology", "RADIOLOGY", "%52adiology"])
async def test_the_own_partition_opens_in_every_spelling(guarded, issuer, name):
    async with guarded() as server:
        own = await stored(server, issuer, "radiology", "own")
        headers = {**bearer(issuer, "radiologyReader"), "Accept": "*/*"}
        response = await server.get(f"/v2/partitions/{name}/studies", headers=headers)
        assert own in response.text


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_method_cannot_be_overridden(guarded, issuer, method):
    async with guarded() as server:
        study = await stored(server, issuer, "radiology", "own")
        url = f"/v2/partitions/radiology/studies/{study}"
        for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
            headers = {**bearer(issuer, "reader"), name: "DELETE", "Accept": "*/*"}
            await server.request(method, f"{url}?_method=DELETE", headers=headers)
        headers = {**bearer(issuer, "reader"), "Accept": "*/*"}
        assert (await server.get(url, headers=headers)).status_code == 200


# --- without data partitions ---------------------------------------------------------


async def test_without_partitions_a_scope_may_name_the_default_one(
    running_server, tmp_path, issuer
):
    role = {"name": "local", "dataActions": ["read"], "notDataActions": []}
    role["scopes"] = ["/partitions/Microsoft.Default"]
    async with running_server(
        tmp_path,
        make_gate=secured(issuer, {"roles": [role]}),
        security=True,
        authority=URL,
        audiences=(APPLICATION,),
    ) as server:
        headers = {**bearer(issuer, "local"), "Accept": "*/*"}
        assert (await server.get("/v2/studies", headers=headers)).status_code == 204
        assert (await server.get("/v2/changefeed", headers=headers)).status_code == 403


# --- shares --------------------------------------------------------------------------


def test_a_share_is_used_up_and_grows_again():
    now = 0.0
    shares = Shares(60, clock=lambda: now)
    for _ in range(60):
        shares.take("a")
    with pytest.raises(TooManyRequests) as refused:
        shares.take("a")
    assert refused.value.retry_after_seconds == 1
    shares.take("b")
    now = 1.5
    shares.take("a")
    with pytest.raises(TooManyRequests):
        shares.take("a")


def test_a_small_share_says_how_long_to_wait():
    shares = Shares(2, clock=lambda: 0.0)
    shares.take("a")
    shares.take("a")
    with pytest.raises(TooManyRequests) as refused:
        shares.take("a")
    assert refused.value.retry_after_seconds == 30


def test_shares_of_many_callers_take_bounded_memory(monkeypatch):
    monkeypatch.setattr(auth, "MAX_CALLERS", 3)
    shares = Shares(1, clock=lambda: 0.0)
    for number in range(10):
        shares.take(str(number))
    assert len(shares._left) == 3


async def test_each_caller_has_a_share_of_its_own_and_health_has_none(guarded, issuer):
    async with guarded(rate_limit=2) as server:
        first, second = bearer(issuer, "reader"), bearer(issuer, "reader", oid="other")
        statuses = [
            (await server.get("/v2/changefeed", headers=headers)).status_code
            for headers in (first, first, first, second)
        ]
        assert statuses == [200, 200, 429, 200]
        limited = await server.get("/v2/changefeed", headers=first)
        assert int(limited.headers["retry-after"]) >= 1
        for _ in range(4):
            assert (await server.get("/health/check")).status_code == 200


async def test_refused_tokens_count_on_the_address(guarded):
    async with guarded(rate_limit=2) as server:
        statuses = [(await server.get("/v2/changefeed")).status_code for _ in range(3)]
        assert statuses == [401, 401, 429]


@pytest.mark.parametrize(
    ("trusted", "statuses"), [(True, [204, 204]), (False, [204, 429])]
)
async def test_behind_a_trusted_proxy_its_word_counts_without_security(
    running_server, tmp_path, trusted, statuses
):
    async with running_server(
        tmp_path, rate_limit=1, trust_forwarded=trusted
    ) as server:
        found = []
        for address in ("10.0.0.1", "10.0.0.2"):
            headers = {"X-Forwarded-For": f"6.6.6.6, {address}", "Accept": "*/*"}
            found.append((await server.get("/v2/studies", headers=headers)).status_code)
        assert found == statuses


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("6.6.6.6, 10.0.0.1:50000", "10.0.0.1"),
        ("[2001:db8::1]:50000", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        (":80", ":80"),
    ],
)
def test_the_address_of_a_caller_has_no_port(forwarded, address):
    gate = Gate(Settings(trust_forwarded=True))
    asked = request(headers={"x-forwarded-for": forwarded})
    assert gate.stranger(asked).address == address


# --- headers -------------------------------------------------------------------------


async def test_every_answer_tells_browsers_to_be_careful(server):
    response = await server.get("/v2/changefeed")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert "strict-transport-security" not in response.headers


async def test_browsers_that_came_by_https_are_told_to_stay(running_server, tmp_path):
    async with running_server(tmp_path, public_url="https://pacs.example") as server:
        response = await server.get("/health/check")
        assert response.headers["strict-transport-security"] == "max-age=31536000"

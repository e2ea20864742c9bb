"""Adds query tags to a server and waits for the operations that bring them in."""

import time
from dataclasses import dataclass
from typing import Any

import httpx
from blackbox.api import Api

END_SECONDS = 100.0
TAGS = "/v2/extendedquerytags"


def new_tag(path: str, level: str = "instance", **more: str) -> dict[str, str]:
    """An entry of a POST; `vr=`, `privateCreator=`."""
    return {"path": path, "level": level, **more}


@dataclass
class Tags:
    """The query tags of one server."""

    api: Api

    def post(self, *entries: Any, version: str = "v2") -> httpx.Response:
        return self.api.post(f"/{version}/extendedquerytags", json=list(entries))

    def add(self, *entries: Any, version: str = "v2") -> dict[str, Any]:
        """Adds the tags, which must succeed; the operation at its end."""
        answer = self.post(*entries, version=version)
        assert answer.status_code == 202, answer.text
        assert f"/{version}/operations/" in answer.json()["href"]
        assert answer.headers["location"] == answer.json()["href"]
        ended = self.end_of(answer.json()["id"])
        assert ended["status"] == "succeeded", ended
        return ended

    def end_of(self, operation_id: str) -> dict[str, Any]:
        """The operation, as soon as it has ended."""
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            answer = self.api.get(f"/v2/operations/{operation_id}")
            if answer.status_code == 200:
                ended: dict[str, Any] = answer.json()
                return ended
            assert answer.status_code == 202, answer.text
            time.sleep(0.02)
        raise AssertionError(f"still {answer.text}")

    def entry(self, path: str, version: str = "v2") -> dict[str, Any]:
        answer = self.api.get(f"/{version}/extendedquerytags/{path}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def paths(self) -> set[str]:
        """All there are."""
        return {tag["path"] for tag in self.api.get(f"{TAGS}?limit=200").json()}

    def errors(self, path: str, query: str = "") -> list[dict[str, Any]]:
        answer = self.api.get(f"{TAGS}/{path}/errors{query}")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    def set_queries(self, path: str, status: str) -> httpx.Response:
        return self.api.patch(f"{TAGS}/{path}", json={"queryStatus": status})

    def delete(self, path: str) -> int:
        return self.api.delete(f"{TAGS}/{path}").status_code

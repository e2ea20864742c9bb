"""A client of the API as tests want it: no headers of its own, stores in one call."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
from data import instance, multipart, new_uid

DICOM_JSON = "application/dicom+json"
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
ONE_AS_STORED = "application/dicom; transfer-syntax=*"
FILE_LIMIT = 200_000
TRANSCODE_LIMIT = 100_000
PUBLIC_URL = "https://pacs.example.org/dicom"
ORIGIN = "https://viewer.example.org"


class Api(httpx.Client):
    """One server; paths are taken below its root.

    Unlike httpx it sends no Accept and no Accept-Encoding unless told to.
    """

    def __init__(self, url: str) -> None:
        super().__init__(base_url=url, timeout=30)
        for name in ("accept", "accept-encoding", "user-agent"):
            del self.headers[name]

    def store(
        self, *files: bytes, path: str = "/v2/studies", accept: str = DICOM_JSON
    ) -> httpx.Response:
        body, content_type = multipart(files)
        return self.post_body(path, body, content_type, accept=accept)

    def post_body(
        self,
        path: str,
        body: bytes,
        content_type: str | None,
        *,
        accept: str = DICOM_JSON,
    ) -> httpx.Response:
        headers = {"Accept": accept}
        if content_type is not None:
            headers["Content-Type"] = content_type
        return self.post(path, content=body, headers=headers)

    def read(self, path: str, accept: str = DICOM_JSON, **more: str) -> httpx.Response:
        """GET; keyword arguments are headers with `_` for `-`."""
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        return self.get(path, headers={"Accept": accept, **headers})

    def search(self, path: str) -> list[dict[str, Any]]:
        """Results of a search that must not fail; none where it says 204."""
        answer = self.read(path)
        if answer.status_code == 204:
            assert answer.content == b""
            return []
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    def metadata(self, path: str) -> list[dict[str, Any]]:
        answer = self.read(f"{path}/metadata")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found


@dataclass(frozen=True)
class Place:
    """A version of the API, with or without a partition; paths are taken below it."""

    api: Api
    root: str

    @property
    def base(self) -> str:
        """What URLs in answers start with."""
        return f"{self.api.base_url}{self.root}"

    def store(self, *files: bytes, path: str = "/studies") -> httpx.Response:
        return self.api.store(*files, path=self.root + path)

    def read(self, path: str, accept: str = DICOM_JSON, **more: str) -> httpx.Response:
        return self.api.read(self.root + path, accept, **more)

    def get(self, path: str) -> httpx.Response:
        """Without any header."""
        return self.api.get(self.root + path)

    def metadata(self, path: str) -> list[dict[str, Any]]:
        return self.api.metadata(self.root + path)


@dataclass
class Made:
    """A DICOM file with fresh UIDs and the paths where it will be found.

    Keyword arguments of `made` are attributes, as in `data.instance`.
    """

    study: str
    series: str
    sop: str
    file: bytes = field(repr=False)

    @property
    def study_path(self) -> str:
        return f"/studies/{self.study}"

    @property
    def series_path(self) -> str:
        return f"{self.study_path}/series/{self.series}"

    @property
    def path(self) -> str:
        return f"{self.series_path}/instances/{self.sop}"


def made(of: Made | None = None, *, same_series: bool = False, **values: Any) -> Made:
    """A new file; with `of` in the same study, on request in the same series."""
    study = values.pop("StudyInstanceUID", of.study if of else new_uid())
    new_series = of.series if of and same_series else new_uid()
    series = values.pop("SeriesInstanceUID", new_series)
    sop = values.pop("SOPInstanceUID", new_uid())
    uids = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "SOPInstanceUID": sop,
    }
    return Made(study, series, sop, instance(**uids, **values))


def first(element: dict[str, Any] | None) -> Any:
    """The first value of an element of DICOM JSON; None where there is none."""
    values = (element or {}).get("Value")
    return values[0] if values else None


def stored_items(answer: httpx.Response) -> list[dict[str, Any]]:
    """Items of the Referenced SOP Sequence."""
    items: list[dict[str, Any]] = answer.json().get("00081199", {}).get("Value", [])
    return items


def failed_items(answer: httpx.Response) -> list[dict[str, Any]]:
    """Items of the Failed SOP Sequence."""
    items: list[dict[str, Any]] = answer.json().get("00081198", {}).get("Value", [])
    return items


def reason(answer: httpx.Response) -> int | None:
    """The failure reason of the only instance, None where it was stored."""
    items = failed_items(answer)
    return first(items[0]["00081197"]) if items else None


def comments(item: dict[str, Any]) -> list[str]:
    """The error comments of an item of a store's answer."""
    return [first(c["00000902"]) for c in item.get("00741048", {}).get("Value", [])]


def parts(answer: httpx.Response) -> list[tuple[str, bytes]]:
    """Content type and content of each part, read strictly as this server writes it."""
    content_type = answer.headers["content-type"]
    assert content_type.startswith("multipart/related;"), content_type
    boundary = content_type.split("boundary=")[1].split(";")[0].strip('"').encode()
    body = answer.content
    assert body.startswith(b"--" + boundary + b"\r\n")
    assert body.endswith(b"\r\n--" + boundary + b"--\r\n")
    found = []
    for piece in body.split(b"--" + boundary)[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        [line] = [x for x in head.split(b"\r\n") if x]
        name, _, value = line.decode().partition(": ")
        assert name == "Content-Type"
        assert content.endswith(b"\r\n")
        found.append((value, content[:-2]))
    return found


def json_of(text: str) -> Any:
    """Parsed, refusing what JSON does not know."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)

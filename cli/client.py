"""A DICOMweb server as the commands see it: requests over one connection, no more."""

import json
import os
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

BOUNDARY = "dicom-functions-cli-7f9c2ba4e88f827d"
DICOM_JSON = "application/dicom+json"


def pinned(cert: Path) -> ssl.SSLContext:
    """Trusts the certificates of the file and no others.

    Raises:
        OSError: It cannot be read, or has none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cert)
    return context


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, its body read whole."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None when there is none."""
        return json.loads(self.body) if self.body else None


class Server:
    """One server, by its base URL, such as http://127.0.0.1:8080/v2.

    A bearer token is taken from the environment variable DICOMWEB_TOKEN. Not for use by
    several threads at once.
    """

    def __init__(
        self, url: str, timeout_seconds: float = 60, cert: Path | None = None
    ) -> None:
        """A server that is not asked yet.

        Args:
            url: Its base URL.
            timeout_seconds: For each step of a request.
            cert: PEM file with the very certificate that it has, whatever names that
                is for; None for one that this machine trusts.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"not an http or https URL: {url}")
        self._connection = HTTPConnection(parts.netloc, timeout=timeout_seconds)
        if parts.scheme == "https":
            context = pinned(cert) if cert else None
            self._connection = HTTPSConnection(
                parts.netloc, timeout=timeout_seconds, context=context
            )
        self._path = parts.path.rstrip("/")
        self.url = url.rstrip("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to one request; after a failure the next one connects anew.

        Raises:
            OSError: The server cannot be reached, or answers nonsense.
        """
        sent = {"Accept": DICOM_JSON, **(headers or {})}
        if token := os.environ.get("DICOMWEB_TOKEN"):
            sent["Authorization"] = f"Bearer {token}"
        try:
            self._connection.request(method, self._path + path, body, sent)
            answer = self._connection.getresponse()
            return Answer(answer.status, answer.read())
        except HTTPException as error:
            self._connection.close()
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        except OSError:
            self._connection.close()
            raise

    def store_instances(self, files: Iterable[bytes]) -> Answer:
        """The answer to one STOW-RS request with the files as its parts.

        Source: PS3.18 10.5.
        """
        parts = [
            b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n"
            % (BOUNDARY.encode(), file)
            for file in files
        ]
        body = b"".join(parts) + b"--%b--\r\n" % BOUNDARY.encode()
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        return self.request("POST", "/studies", body, {"Content-Type": kind})

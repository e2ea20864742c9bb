"""Where the product's servers keep their data in this run.

`TEST_STACK=emulated` puts them on the emulators of Cosmos DB and Blob Storage, as
in Azure; otherwise each has a folder. Every data folder stands for a store of its own.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from emulators.processes import AZURITE, Emulated, both, counters, provision

STACK = os.environ.get("TEST_STACK", "embedded")
assert STACK in {"embedded", "emulated"}, f"TEST_STACK={STACK}"

SettingsOf = Callable[[Path], dict[str, str]]


@contextmanager
def stack() -> Iterator[SettingsOf]:
    """Gives the settings of the store that belongs to a data folder."""
    if STACK == "embedded":
        yield _embedded
        return
    if not AZURITE.exists():
        pytest.skip("azurite is not installed: run npm ci")
    with both() as running:
        yield _Emulated(running)
        assert counters(running)["scans"] == [], "queries that no index serves"


def _embedded(folder: Path) -> dict[str, str]:
    return {"DICOM_DATA": str(folder / "dicom")}


def lose_file(settings: Mapping[str, str], sop_instance_uid: str) -> None:
    """Takes away the one file of an instance behind a server's back.

    Args:
        settings: Those that the server was started with.
        sop_instance_uid: Of the instance.
    """
    if STACK == "embedded":
        folder = Path(settings["DICOM_DATA"]) / "blobs"
        [file] = folder.rglob(f"*{sop_instance_uid}_*.dcm")
        file.unlink()
        return
    from azure.storage.blob import ContainerClient

    with ContainerClient.from_connection_string(
        settings["DICOM_BLOB_CONNECTION"], settings["DICOM_BLOB_CONTAINER"]
    ) as container:
        [name] = [
            blob.name
            for blob in container.list_blobs()
            if f"{sop_instance_uid}_" in blob.name
        ]
        container.delete_blob(name)


class _Emulated:
    """Makes a database and a blob container for each folder it is asked about."""

    def __init__(self, emulated: Emulated) -> None:
        self._emulated = emulated
        self._settings: dict[Path, dict[str, str]] = {}

    def __call__(self, folder: Path) -> dict[str, str]:
        if folder not in self._settings:
            name = f"dicom{len(self._settings)}"
            own = replace(
                self._emulated,
                cosmos=replace(self._emulated.cosmos, database=name),
                blobs=replace(self._emulated.blobs, container=name),
            )
            provision(own)
            self._settings[folder] = own.environment()
        return _embedded(folder) | self._settings[folder]

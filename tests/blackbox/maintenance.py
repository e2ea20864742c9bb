"""Runs `./dev scrub`, `backup` and `restore`, and reads whole archives over HTTP."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from blackbox.api import AS_STORED, Api, parts
from blackbox.hosts import ROOT, Running

WAIT_SECONDS = 100


def run(
    command: str, *arguments: str | Path, settings: dict[str, str], status: int = 0
) -> str:
    """What the command prints; it must end with that status."""
    done = subprocess.run(
        [ROOT / "dev", command, *arguments],
        env={**os.environ, **settings},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def lose_index(running: Running) -> dict[str, str]:
    """The settings of a store that has the blobs and no index any more."""
    settings = dict(running.settings)
    if settings.get("DICOM_STORE") != "azure":
        shutil.rmtree(Path(settings["DICOM_DATA"]) / "index")
        return settings
    settings["DICOM_COSMOS_DATABASE"] += "-anew"
    run("provision", "--serverless", settings=settings)
    return settings


def everything(api: Api, base: str) -> dict[str, Any]:
    """Every answer about every study: searches, metadata, files, originals."""
    query = "?includefield=all&limit=200"
    seen: dict[str, Any] = {
        what: api.search(f"{base}/{what}{query}")
        for what in ("studies", "series", "instances")
    }
    for row in seen["studies"]:
        uid = row["0020000D"]["Value"][0]
        path = f"{base}/studies/{uid}"
        seen[f"{uid} series"] = api.search(f"{path}/series{query}")
        for original in ("false", "true"):
            headers = {"msdicom_request_original": original}
            answer = api.read(f"{path}/metadata", **headers)
            assert answer.status_code == 200
            seen[f"{uid} metadata {original}"] = answer.json()
            answer = api.read(path, AS_STORED, **headers)
            assert answer.status_code == 200
            seen[f"{uid} files {original}"] = sorted(parts(answer))
    return seen

"""The sample studies: some of pydicom's own files and one drawn CT, stored by HTTP.

What was stored is recorded in the data folder (`sample.json`), so that it is loaded
once per store and exactly that is taken out again. States of the record: `wanted`
(written by `./dev serve`, or while loading), `loaded`, `removed`.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.client import Server

PYDICOM_FILES = (
    "CT_small.dcm",  # CT, 128 x 128
    "MR_small.dcm",  # MR, 64 x 64
    "examples_overlay.dcm",  # MR with an overlay
    "examples_ybr_color.dcm",  # ultrasound, 30 frames, JPEG
    "examples_rgb_color.dcm",  # ultrasound in colour
    "examples_palette.dcm",  # ultrasound with a colour palette
    "waveform_ecg.dcm",  # 12-lead ECG
    "test-SR.dcm",  # comprehensive structured report
)
BATCH = 16  # instances in one STOW request
ALREADY_STORED = 45070
FAILED, REFERENCED, REASON = "00081198", "00081199", "00081197"
SOP_INSTANCE = "00081155"


@dataclass(frozen=True, slots=True)
class Sample:
    """One instance to load: its path below the base URL, its UID, the file."""

    path: str
    sop_instance_uid: str
    file: bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--url", default="http://127.0.0.1:8080/v2", help="base URL")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="for the record"
    )
    parser.add_argument("--remove", action="store_true", help="take them out again")


def run(arguments: argparse.Namespace) -> int:
    """0 when the samples were loaded, or taken out."""
    record = arguments.data / "sample.json"
    try:
        with Server(arguments.url) as server:
            work = remove if arguments.remove else load
            print(f"dev: {work(server, record)}")
    except ConnectionError as error:
        print(
            f"dev: No server answers at {arguments.url}: {error.strerror or error}."
            " Start it with ./dev serve, or name another with --url",
            file=sys.stderr,
        )
        return 1
    except (OSError, ValueError) as error:
        print(f"dev: {arguments.url} cannot be used: {error}", file=sys.stderr)
        return 1
    return 0


def is_wanted(record: Path) -> bool:
    """Whether the samples are due: asked for, and not loaded to the end yet."""
    return record.exists() and json.loads(record.read_text())["state"] == "wanted"


def load(server: Server, record: Path) -> str:
    """What was loaded, as a sentence, after storing all samples and recording them.

    Raises:
        OSError: The server cannot be reached, or the record cannot be written.
    """
    stored: list[str] = []
    refused: list[str] = []
    due = list(samples())
    for start in range(0, len(due), BATCH):
        batch = due[start : start + BATCH]
        reasons = store(server, batch)
        stored += [one.path for one in batch if one.sop_instance_uid not in reasons]
        refused += [f"{uid} ({why})" for uid, why in reasons.items()]
        write(record, "wanted", stored)
    write(record, "loaded", stored)
    studies = {path.split("/series/")[0] for path in stored}
    text = f"Loaded {len(stored)} sample instances of {len(studies)} studies"
    return text + (f"; refused: {', '.join(refused)}" if refused else "")


def remove(server: Server, record: Path) -> str:
    """What was taken out, as a sentence: only what `load` recorded.

    Raises:
        OSError: The server cannot be reached, or refuses.
    """
    if not record.exists():
        return (
            f"Nothing to remove: {record} does not exist."
            " --data names the data folder of the server"
        )
    paths = json.loads(record.read_text()).get("instances", [])
    for path in paths:
        answer = server.request("DELETE", path)
        if answer.status not in (204, 404):
            raise OSError(f"DELETE {path} answered {answer.status}")
    write(record, "removed", [])
    return f"Removed {len(paths)} sample instances"


def samples() -> Iterator[Sample]:
    """The sample instances: pydicom's files, then the drawn CT, slice by slice."""
    from pydicom.data import get_testdata_file

    from cli.phantom import Phantom, instances

    for name in PYDICOM_FILES:
        # download=False: the files that come with pydicom, never the network.
        path = get_testdata_file(name, download=False)
        if path is not None:
            yield sample(Path(str(path)).read_bytes())
    for file in instances(Phantom()):
        yield sample(file)


def sample(file: bytes) -> Sample:
    """The instance that the file holds."""
    from pydicom import dcmread

    header = dcmread(io.BytesIO(file), stop_before_pixels=True)
    study, series = header.StudyInstanceUID, header.SeriesInstanceUID
    sop = str(header.SOPInstanceUID)
    return Sample(f"/studies/{study}/series/{series}/instances/{sop}", sop, file)


def store(server: Server, batch: list[Sample]) -> dict[str, str]:
    """Why instances of the batch are not in the store, by SOP Instance UID.

    Raises:
        OSError: The server did not answer as STOW-RS does.
    """
    answer = server.store_instances(one.file for one in batch)
    if answer.status not in (200, 202, 409):
        raise OSError(f"STOW answered {answer.status}: {answer.body[:200]!r}")
    failed = items(answer.json(), FAILED)
    return {
        value(item, SOP_INSTANCE): f"reason {value(item, REASON)}"
        for item in failed
        if value(item, REASON) != str(ALREADY_STORED)
    }


def items(dataset: Any, tag: str) -> list[Any]:
    """The items of a sequence in DICOM JSON."""
    return list((dataset or {}).get(tag, {}).get("Value", []))


def value(dataset: Any, tag: str) -> str:
    """The first value of an attribute in DICOM JSON, as text."""
    return str(dataset.get(tag, {}).get("Value", ["?"])[0])


def write(record: Path, state: str, paths: list[str]) -> None:
    """Replaces the record, so that a reader sees the old one or the new one."""
    record.parent.mkdir(parents=True, exist_ok=True)
    new = record.with_suffix(".new")
    new.write_text(json.dumps({"state": state, "instances": paths}, indent=1))
    new.replace(record)

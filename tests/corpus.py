"""The real files in the wheels of pydicom and pydicom-data, and pydicom's view of them.

`as_we_write_it` is the table of all differences between pydicom's DICOM JSON and ours;
tests of the scanner and of the server share it.
"""

import importlib.util
import io
import re
import warnings
from collections.abc import Iterable
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import pydicom
from data import new_uid
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RawDataStorage

# Where we differ from pydicom 3.0 on purpose, and why:
# 1. Group Length elements are left out: PS3.18 F.2.2.
# 2. What is empty has no `Value`, or is null among several values: PS3.18 F.2.5; an
#    empty component group of a name is left out: PS3.18 F.2.2.
# 3. A private element whose VR the file does not say stays UN: what it holds its
#    creator alone defines, PS3.5 6.2.2 and 7.8.1. pydicom has a list of private
#    elements, which tests take from it.
# 4. A file that ends before its last value does is refused: PS3.5 7.1.1 (Value Length).
TRUNCATED = frozenset(
    (
        "DICOMDIR-nooffset",
        "MR_truncated.dcm",
        "emri_small_jpeg_2k_lossless_too_short.dcm",
        "rtplan_truncated.dcm",
    )
)
# 5. What breaks a rule of its VR is left out of the metadata, by version 2 of the API,
#    and named in the answer of the store: PS3.4 B.2.3 (Elements Discarded).
NOT_JSON_IN_PYDICOM = frozenset(("badVR.dcm",))  # it cannot convert one of its numbers

REQUIRED = (
    "SOPClassUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "PatientID",
)
NAMES = {
    "chrArab.dcm": "قباني^لنزار",
    "chrGreek.dcm": "Διονυσιος",
    "chrH31.dcm": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "chrH32.dcm": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "chrHbrw.dcm": "שרון^דבורה",
    "chrI2.dcm": "Hong^Gildong=洪^吉洞=홍^길동",
    "chrJapMulti.dcm": "やまだ^たろう",
    "chrKoreanMulti.dcm": "김희중",
    "chrRuss.dcm": "Люкceмбypг",
    "chrX1.dcm": "Wang^XiaoDong=王^小東",
    "chrX2.dcm": "Wang^XiaoDong=王^小东",
}
"""Patients of files in many character sets. Source: PS3.5 H, I, J."""


def _folders() -> list[Path]:
    found = importlib.util.find_spec("data_store")
    assert found is not None, "pydicom-data is needed"
    locations = found.submodule_search_locations or ()
    return [
        Path(str(package_files("pydicom"))) / "data",
        *(Path(location) / "data" for location in locations),
    ]


@cache
def files() -> tuple[Path, ...]:
    """Every file of either package, Part 10 or not, but for their Python code."""
    return tuple(
        sorted(
            path
            for folder in _folders()
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        )
    )


def is_part_10(path: Path) -> bool:
    """Whether the file says that it is a DICOM file."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


@cache
def part_10_files() -> tuple[Path, ...]:
    """Those that say they are DICOM files."""
    return tuple(path for path in files() if is_part_10(path))


def is_complete(dataset: Dataset) -> bool:
    """Whether it has what every stored instance must have."""
    values = [dataset.get(keyword) for keyword in REQUIRED[:-1]]
    uids = all(isinstance(v, str) and re.fullmatch(r"[0-9.]+", v) for v in values)
    return uids and REQUIRED[-1] in dataset


def read(file: bytes) -> Dataset:
    """The file as pydicom reads it, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(file))


def completed(dataset: Dataset) -> bytes:
    """The file with what it lacks to be stored: UIDs of its own, a patient."""
    dataset.StudyInstanceUID = new_uid()
    dataset.SeriesInstanceUID = new_uid()
    dataset.SOPInstanceUID = new_uid()
    if not isinstance(dataset.get("SOPClassUID"), str):
        dataset.SOPClassUID = RawDataStorage
    if "PatientID" not in dataset:
        dataset.PatientID = "P-1"
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(written, dataset, enforce_file_format=True)
    return written.getvalue()


def pydicom_json(
    file: bytes, without: Iterable[str] = ()
) -> tuple[Dataset, dict[str, Any]]:
    """The data set, and its DICOM JSON with each binary value as a BulkDataURI.

    Args:
        file: A DICOM file.
        without: Tags of the root that are left out before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(file))
        for tag in without:
            dataset.pop(tag, None)
        return dataset, dataset.to_json_dict(
            bulk_data_threshold=0, bulk_data_element_handler=lambda element: "bulk"
        )


def as_we_write_it(elements: dict[str, Any], path: str = "") -> dict[str, Any]:
    """pydicom's JSON with differences 1 and 2 applied and our paths of bulk data."""
    made = {}
    for tag, element in sorted(elements.items()):
        if tag.endswith("0000"):
            continue
        values = element.get("Value")
        if "BulkDataURI" in element:
            element = element | {"BulkDataURI": path + tag}
        elif element["vr"] == "SQ" and values:
            items = [
                as_we_write_it(item, f"{path}{tag}/{n}/")
                for n, item in enumerate(values)
            ]
            element = {"vr": "SQ", "Value": items}
        elif element["vr"] == "PN" and values:
            names = [{k: v for k, v in name.items() if v} or None for name in values]
            element = {"vr": "PN", "Value": names}
        elif not values:
            element = {"vr": element["vr"]}
        else:
            element = element | {"Value": [None if v == "" else v for v in values]}
        made[tag] = element
    return made


def element_at(dataset: Dataset, path: str) -> Any:
    """The element that a path of bulk data names."""
    *outer, tag = path.split("/")
    for sequence, item in zip(outer[::2], outer[1::2], strict=True):
        dataset = dataset[sequence].value[int(item)]
    return dataset[tag]

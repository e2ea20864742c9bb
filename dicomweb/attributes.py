"""The attributes a client can search by and those a search returns.

Source: PS3.18 10.6.3.3; PS3.6 6.
"""

import re
from dataclasses import dataclass

from dicomweb import dictionary
from dicomweb.query_tags import Level


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute that is searchable without an extended query tag.

    Attributes:
        tag: 8 upper-case hex digits.
        computed: Made of the index, not of an instance.
    """

    tag: str
    keyword: str
    vr: str
    level: Level
    computed: bool = False


CORE = (
    Attribute("0020000D", "StudyInstanceUID", "UI", Level.STUDY),
    Attribute("00080020", "StudyDate", "DA", Level.STUDY),
    Attribute("00081030", "StudyDescription", "LO", Level.STUDY),
    Attribute("00080050", "AccessionNumber", "SH", Level.STUDY),
    Attribute("00100020", "PatientID", "LO", Level.STUDY),
    Attribute("00100010", "PatientName", "PN", Level.STUDY),
    Attribute("00100030", "PatientBirthDate", "DA", Level.STUDY),
    Attribute("00080090", "ReferringPhysicianName", "PN", Level.STUDY),
    Attribute("00080061", "ModalitiesInStudy", "CS", Level.STUDY, computed=True),
    Attribute("0020000E", "SeriesInstanceUID", "UI", Level.SERIES),
    Attribute("00080060", "Modality", "CS", Level.SERIES),
    Attribute("00400244", "PerformedProcedureStepStartDate", "DA", Level.SERIES),
    Attribute("00081090", "ManufacturerModelName", "LO", Level.SERIES),
    Attribute("00080018", "SOPInstanceUID", "UI", Level.INSTANCE),
    Attribute("00080016", "SOPClassUID", "UI", Level.INSTANCE),
)

STUDY_V1 = (
    "00080005",  # SpecificCharacterSet
    "00080020",  # StudyDate
    "00080030",  # StudyTime
    "00080050",  # AccessionNumber
    "00080056",  # InstanceAvailability
    "00080090",  # ReferringPhysicianName
    "00080201",  # TimezoneOffsetFromUTC
    "00100010",  # PatientName
    "00100020",  # PatientID
    "00100030",  # PatientBirthDate
    "00100040",  # PatientSex
    "0020000D",  # StudyInstanceUID
    "00200010",  # StudyID
)
STUDY_V2 = (
    "0020000D",  # StudyInstanceUID
    "00080020",  # StudyDate
    "00081030",  # StudyDescription
    "00080050",  # AccessionNumber
    "00080090",  # ReferringPhysicianName
    "00100010",  # PatientName
    "00100020",  # PatientID
    "00100030",  # PatientBirthDate
)
STUDY_ALL = (
    *STUDY_V1,
    "00081030",  # StudyDescription
    "00080063",  # AnatomicRegionsInStudyCodeSequence
    "00081032",  # ProcedureCodeSequence
    "00081060",  # NameOfPhysiciansReadingStudy
    "00081080",  # AdmittingDiagnosesDescription
    "00081110",  # ReferencedStudySequence
    "00101010",  # PatientAge
    "00101020",  # PatientSize
    "00101030",  # PatientWeight
    "00102180",  # Occupation
    "001021B0",  # AdditionalPatientHistory
)
SERIES_V1 = (
    "00080005",  # SpecificCharacterSet
    "00080060",  # Modality
    "00080201",  # TimezoneOffsetFromUTC
    "0008103E",  # SeriesDescription
    "0020000E",  # SeriesInstanceUID
    "00400244",  # PerformedProcedureStepStartDate
    "00400245",  # PerformedProcedureStepStartTime
    "00400275",  # RequestAttributesSequence
)
SERIES_V2 = (
    "0020000E",  # SeriesInstanceUID
    "00080060",  # Modality
    "00400244",  # PerformedProcedureStepStartDate
    "00081090",  # ManufacturerModelName
)
SERIES_ALL = (
    *SERIES_V1,
    "00200011",  # SeriesNumber
    "00200060",  # Laterality
    "00080021",  # SeriesDate
    "00080031",  # SeriesTime
)
INSTANCE_V1 = (
    "00080005",  # SpecificCharacterSet
    "00080016",  # SOPClassUID
    "00080018",  # SOPInstanceUID
    "00080056",  # InstanceAvailability
    "00080201",  # TimezoneOffsetFromUTC
    "00200013",  # InstanceNumber
    "00280010",  # Rows
    "00280011",  # Columns
    "00280100",  # BitsAllocated
    "00280008",  # NumberOfFrames
)
INSTANCE_V2 = ("00080018",)  # SOPInstanceUID
INSTANCE_ALL = INSTANCE_V1

RETURNED = frozenset(
    (
        *STUDY_V2,
        *STUDY_ALL,
        *SERIES_V2,
        *SERIES_ALL,
        *INSTANCE_V1,
        *(attribute.tag for attribute in CORE if not attribute.computed),
    )
)
"""Every tag that some search returns by default or with `includefield=all`."""

_HEX_TAG = re.compile(r"[0-9A-Fa-f]{8}")


def tag_of(keyword_or_hex: str) -> str | None:
    """The tag as 8 upper-case hex digits.

    Args:
        keyword_or_hex: A DICOM keyword (case counts) or 8 hex digits of any tag.

    Returns:
        None where it is neither. A hex tag need not be in the dictionary.
    """
    if _HEX_TAG.fullmatch(keyword_or_hex):
        return keyword_or_hex.upper()
    return dictionary.tag_of_keyword(keyword_or_hex)


def vr_of(tag: str) -> str | None:
    """The VR that the dictionary gives, the first one where it leaves a choice."""
    found = dictionary.entry(tag)
    if found is None:
        return None
    return {"xs": "US", "xw": "US", "ox": "OB", "na": None}.get(found.vr, found.vr)


def keyword_of(tag: str) -> str | None:
    """The keyword of a standard attribute, None for any other."""
    found = dictionary.entry(tag)
    return found.keyword or None if found is not None else None

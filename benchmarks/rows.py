"""The rows of the table: each a load with its budget, in the order they are run."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import loads, phantom
from benchmarks.loads import Measure
from benchmarks.servers import Server

SMALL_ROWS = 188  # 70 kB
CT_ROWS = 512  # 0.5 MB
SERIES_INSTANCES = 250
HEADER_ELEMENTS = 262


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        budget_ms: Server CPU per operation that design.md allows; None where it does
            not say.
        beats_peer: Whether the gate compares it with the peer.
        anchor_ms: What the peer took on the machine that the budgets are of.
        is_broad: Whether it matches more than 500 studies of a large archive: how it
            grows is reported and not judged.
    """

    name: str
    load: Callable[[Server], Measure]
    budget_ms: float | None = None
    beats_peer: bool = True
    anchor_ms: float | None = None
    is_broad: bool = False


class Material:
    """Files to send, made once and used for every server."""

    def __init__(self, *, scale: float) -> None:
        self.scale = scale
        self.small = phantom.ct_slice_template(
            SMALL_ROWS, SMALL_ROWS, header_elements=HEADER_ELEMENTS
        )
        self.ct = phantom.ct_slice_template(
            CT_ROWS, CT_ROWS, header_elements=HEADER_ELEMENTS
        )
        self.tiny = phantom.ct_slice_template(16, 16)
        self._seeds = itertools.count(10)

    def count(self, wanted: int) -> int:
        """A number of operations, scaled down for a quick run."""
        return max(8, int(wanted * self.scale))

    def instances(self, template: phantom.Template, count: int) -> Iterator[bytes]:
        """New instances, 25 a study."""
        studies = -(-count // 25)
        made = phantom.load_instances(template, studies, 25, seed=next(self._seeds))
        return itertools.islice(made, count)

    def one_study(self, template: phantom.Template, count: int) -> Iterator[bytes]:
        """New instances of one new study."""
        return phantom.load_instances(template, 1, count, seed=next(self._seeds))


def store_rows(material: Material) -> list[Row]:
    """STOW by size, batch and number of clients."""
    rows = []
    for name, template, budget, count in (
        ("70 kB", material.small, 2.2, 600),
        ("0.5 MB", material.ct, 4.3, 240),
    ):
        for batch, clients in ((1, 1), (1, 4), (1, 16), (10, 1), (100, 1)):
            rows.append(
                Row(
                    f"STOW {name}, {batch} a request, {clients} clients",
                    _store(material, template, count, batch, clients),
                    budget,
                    anchor_ms=budget,
                )
            )
    rows.append(
        Row(
            "STOW 70 kB, 1 a request, 16 clients into one study",
            _store_one_study(material),
            2.2,
        )
    )
    return rows


def warm_up(server: Server, material: Material) -> None:
    """What a process does only once is no part of any row."""
    loads.run(server, loads.stores(material.instances(material.small, 50), 1))


def _store(
    material: Material,
    template: phantom.Template,
    count: int,
    batch: int,
    clients: int,
) -> Callable[[Server], Measure]:
    def load(server: Server) -> Measure:
        made = list(material.instances(template, material.count(count)))
        return loads.run(server, list(loads.stores(made, batch)), clients=clients)

    return load


def _store_one_study(material: Material) -> Callable[[Server], Measure]:
    def load(server: Server) -> Measure:
        made = list(material.one_study(material.small, material.count(400)))
        return loads.run(server, list(loads.stores(made, 1)), clients=16)

    return load


def series_path(seed: int) -> str:
    """Path of the first series of a seed of `phantom.load_instances`."""
    return f"/studies/{phantom.uid(seed, 1)}/series/{phantom.uid(seed, 1, 1)}"


def instance_path(seed: int, number: int = 1) -> str:
    """Path of an instance of that series."""
    return f"{series_path(seed)}/instances/{phantom.uid(seed, 1, 1, number)}"


READ_SEED = 5


def fill_for_reading(server: Server, material: Material) -> None:
    """A CT series of 250 and three objects of 100 frames."""
    slices = phantom.load_instances(material.ct, 1, SERIES_INSTANCES, seed=READ_SEED)
    loads.run(server, loads.stores(slices, 25))
    for compression in ("jpeg2000", "jpeg", "rle"):
        file = multi_frame(compression)
        loads.run(server, [loads.store([file])])


_MULTI_FRAME: dict[str, bytes] = {}


def multi_frame(compression: str) -> bytes:
    """A 100-frame object, kept: it takes seconds to make."""
    if compression not in _MULTI_FRAME:
        seed = {"jpeg2000": 91, "jpeg": 92, "rle": 93}[compression]
        _MULTI_FRAME[compression] = phantom.multi_frame(compression, 100, seed=seed)  # type: ignore[arg-type]
    return _MULTI_FRAME[compression]


def _multi_frame_path(compression: str) -> str:
    import io

    import pydicom

    with io.BytesIO(multi_frame(compression)) as file:
        ds = pydicom.dcmread(file, stop_before_pixels=True)
    return (
        f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
        f"/instances/{ds.SOPInstanceUID}"
    )


def read_rows() -> list[Row]:
    """Retrieval of what `fill_for_reading` stored."""
    study = f"/studies/{phantom.uid(READ_SEED, 1)}"
    series = series_path(READ_SEED)
    one = instance_path(READ_SEED)
    rows = [
        Row("metadata of a study of 250", _repeat(loads.metadata(study)), 3.0),
        Row("metadata of an instance", _repeat(loads.metadata(one)), 1.5),
        Row("instance of 0.5 MB", _repeat(loads.files(one)), 1.5),
        Row("frame of a CT", _repeat(loads.frame(one)), 1.5),
        Row("whole study, 132 MB", _repeat(loads.files(study), at_least=12), 100.0),
        Row(
            "200 instances of a series by QIDO",
            _repeat(loads.search(f"{series}/instances?limit=200")),
            10.0,
        ),
        Row("rendered CT slice", _repeat(loads.rendered(one)), 50.0),
    ]
    for compression, label in (("jpeg2000", "J2K"), ("jpeg", "JPEG"), ("rle", "RLE")):
        rows.append(
            Row(
                f"frame 50 of a 100-frame {label} object",
                _of_frame(compression, loads.frame),
                1.5,
            )
        )
        rows.append(
            Row(
                f"rendered frame 50 of a 100-frame {label} object",
                _of_frame(compression, loads.rendered),
                50.0,
            )
        )
    return rows


def _repeat(
    request: loads.Request, *, at_least: int = 5
) -> Callable[[Server], Measure]:
    return lambda server: loads.repeat(server, request, at_least=at_least)


def _of_frame(
    compression: str, make: Callable[[str, int], loads.Request]
) -> Callable[[Server], Measure]:
    def load(server: Server) -> Measure:
        return loads.repeat(server, make(_multi_frame_path(compression), 50))

    return load


def delete_row(material: Material) -> Row:
    """DELETE of studies of 250 instances; not a DICOMweb transaction of Orthanc."""

    def load(server: Server) -> Measure:
        seeds = [next(material._seeds) for _ in range(3)]  # noqa: SLF001
        for seed in seeds:
            made = phantom.load_instances(material.tiny, 1, SERIES_INSTANCES, seed=seed)
            loads.run(server, loads.stores(made, 50))
        requests = [
            loads.Request("DELETE", f"/studies/{phantom.uid(seed, 1)}", {})
            for seed in seeds
        ]
        return loads.run(server, requests)

    return Row("DELETE of a study of 250", load, 20.0, beats_peer=False)


# --- search at several sizes of the archive -------------------------------------------

ARCHIVE_SEED = 7


def grow(server: Server, material: Material, start: int, stop: int) -> None:
    """Brings the archive from `start` to `stop` studies of one instance."""

    def studies() -> Iterator[bytes]:
        made = phantom.load_instances(material.tiny, stop, 1, seed=ARCHIVE_SEED)
        return itertools.islice(made, start, stop)

    loads.run(server, loads.stores(studies(), 90), clients=2)


def search_rows() -> list[Row]:
    """Searches that match at most 500 studies at every size, or fill one page; one
    that matches more the larger the archive is."""
    study = phantom.uid(ARCHIVE_SEED, 500)
    broad = Row(
        "QIDO by StudyDate range of 3 months, 2 of the results",
        _repeat(loads.search("/studies?StudyDate=20150101-20150331&limit=2")),
        10.0,
        is_broad=True,
    )
    rows = [
        Row(name, _repeat(loads.search(path)), budget)
        for name, path, budget in (
            ("QIDO by StudyInstanceUID", f"/studies?StudyInstanceUID={study}", 10.0),
            (
                "QIDO by PatientID",
                f"/studies?PatientID=P{ARCHIVE_SEED:03d}{500:08d}",
                10.0,
            ),
            ("QIDO by AccessionNumber", "/studies?AccessionNumber=A00000500", 10.0),
            (
                "QIDO by StudyDate range of 10 days, 2 of the results",
                "/studies?StudyDate=20150301-20150310&limit=2",
                10.0,
            ),
            ("QIDO by name prefix", "/studies?PatientName=Load%5EFatma%5E500*", 10.0),
            (
                "QIDO by ModalitiesInStudy, page of 100",
                "/studies?ModalitiesInStudy=CT&limit=100",
                15.0,
            ),
            ("QIDO, no filter, page of 100", "/studies?limit=100", 15.0),
        )
    ]
    return [*rows, broad]


def deep_page_row(server: Server, studies: int) -> Row:
    """The page behind the middle of the archive, by the cursor that led there."""
    path = f"/studies?limit=100&offset={min(studies // 2, 9_900)}"
    return Row(
        "QIDO, a deep page of 100 by cursor",
        _repeat(loads.search(loads.next_page(server, path))),
        15.0,
        beats_peer=False,
    )

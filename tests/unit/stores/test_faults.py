"""The faulty stores do what they say: every test of a crash rests on them."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from faults import CRASH_STATUS, Fault, Faults, FaultyBlobs, FaultyDocuments

from dicomweb.errors import StoreUnavailable
from stores.containers import DICOM
from stores.directory_blobs import DirectoryBlobs
from stores.ports import BytesSource, Create, Equals, Patch, Rejected, Rejection
from stores.sqlite_documents import SqliteDocuments

ROOT = Path(__file__).parents[3]

CRASHING = """
import asyncio, sys
sys.path[:0] = [".", "tests"]
from pathlib import Path
from faults import Fault, Faults, FaultyDocuments
from stores.ports import Create
from stores.sqlite_documents import SqliteDocuments

async def main():
    faults = Faults()
    documents = FaultyDocuments(SqliteDocuments(Path(sys.argv[1])), faults)
    faults.plan(Fault[sys.argv[2]], at=2, on="batch")
    for id in "abc":
        await documents.batch("dicom", "p", [Create({"id": id})])

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("fault", "unknown", "there"),
    [
        (Fault.THROTTLE, False, False),
        (Fault.TIMEOUT_BEFORE, True, False),
        (Fault.TIMEOUT_AFTER, True, True),
    ],
)
async def test_a_batch_that_fails_did_or_did_not_happen(
    tmp_path: Path, fault: Fault, unknown: bool, there: bool
) -> None:
    faults = Faults()
    documents = FaultyDocuments(SqliteDocuments(tmp_path), faults)
    faults.plan(fault, on="batch")
    assert await documents.read(DICOM, "p", "a") is None
    with pytest.raises(StoreUnavailable) as caught:
        await documents.batch(DICOM, "p", [Create({"id": "a"})])
    assert caught.value.outcome_unknown == unknown
    assert (await documents.read(DICOM, "p", "a") is not None) == there
    assert faults.happened == [(1, fault)]
    await documents.close()


async def test_a_conflict_refuses_the_first_guarded_operation(tmp_path: Path) -> None:
    faults = Faults()
    documents = FaultyDocuments(SqliteDocuments(tmp_path), faults)
    faults.plan(Fault.CONFLICT, at=2)
    await documents.batch(DICOM, "p", [Create({"id": "st", "n": 1})])
    guarded = Patch("st", sets={("n",): 2}, condition=Equals(("n",), 1))
    refused = await documents.batch(DICOM, "p", [Create({"id": "x"}), guarded])
    assert refused == Rejected(1, Rejection.CONDITION)
    assert await documents.read(DICOM, "p", "x") is None
    await documents.close()


async def test_random_faults_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    seen = []
    for run in range(2):
        faults = Faults()
        blobs = FaultyBlobs(DirectoryBlobs(tmp_path / str(run)), faults)
        faults.random(seed=3, share=0.5)
        for number in range(20):
            source = BytesSource(b"1")
            await asyncio.gather(
                blobs.put([(f"a/{number}", source)]), return_exceptions=True
            )
        faults.stop()
        await blobs.put([("b", BytesSource(b"1"))])
        seen.append(faults.happened)
        await blobs.close()
    assert seen[0] == seen[1]
    assert 4 < len(seen[0]) < 16


@pytest.mark.parametrize(
    ("fault", "wanted"), [("CRASH_BEFORE", "a"), ("CRASH_AFTER", "ab")]
)
def test_a_crash_ends_the_process_at_its_point(
    tmp_path: Path, fault: str, wanted: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CRASHING, str(tmp_path), fault], cwd=ROOT, check=False
    )
    assert ended.returncode == CRASH_STATUS
    assert asyncio.run(_present(tmp_path)) == wanted


async def _present(folder: Path) -> str:
    documents = SqliteDocuments(folder)
    found = [id for id in "abc" if await documents.read(DICOM, "p", id)]
    await documents.close()
    return "".join(found)

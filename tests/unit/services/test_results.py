"""Results of work: in memory while small, in nameless files when large."""

import gc
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomweb.errors import StoreUnavailable
from services import results


def pieces(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * 1000


async def test_a_result_is_read_from_anywhere(tmp_path: Path) -> None:
    whole = b"".join(pieces(5000))
    for result in (
        results.in_memory(whole),
        results.put_aside(whole, tmp_path),
        results.written(pieces(5000), tmp_path),
    ):
        assert result.size_bytes == len(whole)
        assert b"".join([bytes(chunk) async for chunk in result.chunks()]) == whole
        assert await result.part(1_500_000, 700_000) == whole[1_500_000:2_200_000]
        assert await result.part(10, 0) == b""


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_nothing_is_left_of_a_result(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    before = descriptors()
    small = results.put_aside(b"x" * 1000, folder)
    assert descriptors() == before
    large = results.put_aside(b"x" * 2_000_000, folder)
    assert descriptors() == before + 1
    assert list(folder.iterdir()) == []
    del small, large
    gc.collect()
    assert descriptors() == before


def test_many_pieces_are_gathered_in_a_mapped_file(tmp_path: Path) -> None:
    small = results.gathered(pieces(10), tmp_path)
    assert isinstance(small, bytearray)
    assert small == b"".join(pieces(10))
    large = results.gathered(pieces(6000), tmp_path)
    assert isinstance(large, mmap.mmap)
    assert large[:] == b"".join(pieces(6000))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        results.written(pieces(1), tmp_path / "file" / "folder")

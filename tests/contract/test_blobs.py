"""What every `Blobs` adapter keeps. No case relies on an empty store."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stores.ports import BlobMissing, Blobs, BytesSource

pytestmark = pytest.mark.contract

_numbers = itertools.count(1)


class ChunkedSource:
    """Bytes that come in pieces, as from a network or a file that stays."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    @property
    def size_bytes(self) -> int:
        return sum(len(piece) for piece in self._pieces)

    @property
    def movable_path(self) -> Path | None:
        return None

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        for piece in self._pieces:
            yield memoryview(piece)


class MovableSource:
    """A complete file that the store may take."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size_bytes = path.stat().st_size

    @property
    def movable_path(self) -> Path | None:
        return self._path

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        yield self._path.read_bytes()


@pytest.fixture
def folder() -> str:
    """A prefix of its own for each test."""
    return f"a{next(_numbers):02x}/microsoft.default~/1.2.3"


async def content(blobs: Blobs, name: str, **more: int) -> bytes:
    return b"".join([bytes(chunk) async for chunk in blobs.read(name, **more)])


async def names(blobs: Blobs, prefix: str) -> list[str]:
    return [each.name async for each in blobs.list(prefix)]


@pytest.mark.parametrize("size_bytes", [0, 1, 70_000, 1_048_576, 3_000_001])
async def test_a_blob_is_read_as_it_was_put(
    blobs: Blobs, folder: str, size_bytes: int
) -> None:
    data = (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]
    half = size_bytes // 2
    await blobs.put(
        [
            (f"{folder}/whole", BytesSource(memoryview(data))),
            (f"{folder}/pieces", ChunkedSource(data[:half], b"", data[half:])),
        ]
    )
    assert await content(blobs, f"{folder}/whole") == data
    assert await content(blobs, f"{folder}/pieces") == data
    properties = await blobs.properties(f"{folder}/pieces")
    assert properties is not None
    assert (properties.name, properties.size_bytes) == (f"{folder}/pieces", size_bytes)
    assert abs(datetime.now(UTC) - properties.modified) < timedelta(minutes=1)


async def test_a_file_that_may_be_moved_is_stored(
    blobs: Blobs, folder: str, tmp_path: Path
) -> None:
    path = tmp_path / "part"
    path.write_bytes(b"dicom" * 50_000)
    source = MovableSource(path)
    await blobs.put([(f"{folder}/moved", source)])
    assert await content(blobs, f"{folder}/moved") == b"dicom" * 50_000
    if not path.exists():  # repeating the put after a lost answer changes nothing
        await blobs.put([(f"{folder}/moved", source)])
        assert await content(blobs, f"{folder}/moved") == b"dicom" * 50_000


async def test_a_put_replaces(blobs: Blobs, folder: str) -> None:
    for data in (b"first", b"second and longer", b"3"):
        await blobs.put([(f"{folder}/x", BytesSource(data))])
        assert await content(blobs, f"{folder}/x") == data


async def test_many_blobs_are_put_at_once(blobs: Blobs, folder: str) -> None:
    wanted = {f"{folder}/s{n % 3}/i{n:03d}_{n}.dcm": b"%d" % n for n in range(94)}
    await blobs.put([(name, BytesSource(data)) for name, data in wanted.items()])
    assert await names(blobs, folder + "/") == sorted(wanted)
    found = await asyncio.gather(*(content(blobs, name) for name in wanted))
    assert found == list(wanted.values())


async def test_no_blobs_to_put_is_no_error(blobs: Blobs) -> None:
    await blobs.put([])


@pytest.mark.parametrize(
    ("offset", "length", "wanted"),
    [
        (0, 3, b"abc"),
        (2, 100, b"cdefgh"),
        (8, 1, b""),
        (100, 5, b""),
        (3, 0, b""),
    ],
)
async def test_a_range(
    blobs: Blobs, folder: str, offset: int, length: int, wanted: bytes
) -> None:
    name = f"{folder}/x"
    await blobs.put([(name, BytesSource(b"abcdefgh"))])
    assert await blobs.read_range(name, offset, length) == wanted
    assert await content(blobs, name, offset=offset, length=length) == wanted


async def test_a_read_from_an_offset_goes_to_the_end(blobs: Blobs, folder: str) -> None:
    data = bytes(2_000_000)
    await blobs.put([(f"{folder}/x", BytesSource(data + b"end"))])
    assert await content(blobs, f"{folder}/x", offset=1_999_999) == b"\0end"


async def test_a_reader_keeps_the_blob_it_began_with(blobs: Blobs, folder: str) -> None:
    name = f"{folder}/x"
    await blobs.put([(name, BytesSource(b"a" * 5_000_000))])
    reading = blobs.read(name)
    first = bytes(await anext(reading))
    await blobs.put([(name + "2", BytesSource(b"b"))])
    rest = b"".join([bytes(chunk) async for chunk in reading])
    assert first + rest == b"a" * 5_000_000


async def test_what_is_missing(blobs: Blobs, folder: str) -> None:
    await blobs.put([(f"{folder}/x", BytesSource(b"1"))])
    for name in (f"{folder}/y", f"{folder}/x/y", folder):
        with pytest.raises(BlobMissing):
            await content(blobs, name)
        with pytest.raises(BlobMissing):
            await blobs.read_range(name, 0, 1)
        with pytest.raises(BlobMissing):
            await blobs.copy(name, f"{folder}/z")
        with pytest.raises(BlobMissing):
            await blobs.splice(f"{folder}/z", b"head", name, 0)
        assert await blobs.properties(name) is None
        assert await blobs.delete(name) is False
    assert await names(blobs, folder + "/") == [f"{folder}/x"]


async def test_a_copy_stands_by_itself(blobs: Blobs, folder: str) -> None:
    data = bytes(range(256)) * 9_000
    await blobs.put([(f"{folder}/x", BytesSource(data))])
    await blobs.copy(f"{folder}/x", f"{folder}/other/y")
    assert await blobs.delete(f"{folder}/x") is True
    assert await content(blobs, f"{folder}/other/y") == data


@pytest.mark.parametrize("offset", [0, 5, 2_000_000, 3_000_000])
async def test_a_splice_is_head_and_tail(
    blobs: Blobs, folder: str, offset: int
) -> None:
    data = bytes(range(250)) * 10_000
    await blobs.put([(f"{folder}/x", BytesSource(data))])
    await blobs.splice(f"{folder}/y", b"HEAD", f"{folder}/x", offset)
    assert await content(blobs, f"{folder}/y") == b"HEAD" + data[offset:]


async def test_a_deleted_blob_is_gone(blobs: Blobs, folder: str) -> None:
    await blobs.put([(f"{folder}/x", BytesSource(b"1"))])
    assert await blobs.delete(f"{folder}/x") is True
    assert await blobs.delete(f"{folder}/x") is False
    assert await blobs.properties(f"{folder}/x") is None
    await blobs.put([(f"{folder}/x", BytesSource(b"2"))])
    assert await content(blobs, f"{folder}/x") == b"2"


async def test_a_list_is_by_name_and_by_prefix(blobs: Blobs, folder: str) -> None:
    inside = ["a", "a.b", "a/b", "a-", "ab/c/d", "b", "é"]
    inside.remove("a")  # a blob that is also a folder is not possible in a directory
    wanted = sorted(f"{folder}/{name}" for name in inside)
    await blobs.put([(name, BytesSource(b"1")) for name in wanted])
    assert await names(blobs, f"{folder}/") == wanted
    for prefix in ("a", "a/", "ab/c/", "ab/c/d", "nope"):
        start = f"{folder}/{prefix}"
        assert await names(blobs, start) == [n for n in wanted if n.startswith(start)]


@pytest.mark.parametrize(
    "name", ["", "/", "a//b", "/a", "a/", ".", "..", "a/../b", "a/./b", "a\0b"]
)
async def test_a_name_that_could_leave_the_store_is_refused(
    blobs: Blobs, name: str
) -> None:
    with pytest.raises(ValueError):
        await blobs.put([(name, BytesSource(b"1"))])
    with pytest.raises(ValueError):
        await blobs.read_range(name, 0, 1)
    with pytest.raises(ValueError):
        await blobs.delete(name)


async def test_a_source_that_fails_leaves_nothing(blobs: Blobs, folder: str) -> None:
    class Failing(ChunkedSource):
        async def chunks(self) -> AsyncIterator[bytes | memoryview]:
            yield b"x" * 2_000_000
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.put([(f"{folder}/x", Failing(b"x" * 4_000_000))])
    assert await blobs.properties(f"{folder}/x") is None
    assert await names(blobs, folder) == []


async def test_a_tier_can_be_set(blobs: Blobs, folder: str) -> None:
    await blobs.put([(f"{folder}/x", BytesSource(b"1"))])
    await blobs.set_tier(f"{folder}/x", "Cool")
    assert await content(blobs, f"{folder}/x") == b"1"

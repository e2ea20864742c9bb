"""Where binary values lie, and words of big endian ones, however they are cut."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.scan import BulkElement
from services import bulk_data
from services import documents as doc
from services.bulk_data import BulkData

FILE = bytes(range(256))
START, SIZE = 10, 48


class CuttingBlobs:
    """One file, read in pieces of the given lengths, over and over."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths = lengths

    async def read(
        self, name: str, *, offset: int, length: int
    ) -> AsyncIterator[bytes]:
        at, end, turn = offset, offset + length, 0
        while at < end:
            stop = min(end, at + self._lengths[turn % len(self._lengths)])
            yield FILE[at:stop]
            at, turn = stop, turn + 1


@given(
    words=st.sampled_from([1, 2, 4, 8]),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    first=st.integers(0, SIZE - 1),
    data=st.data(),
)
@pytest.mark.asyncio
async def test_any_range_of_it_is_that_of_the_turned_value(words, lengths, first, data):
    length = data.draw(st.integers(1, SIZE - first))
    value = FILE[START : START + SIZE]
    turned = b"".join(
        value[at : at + words][::-1] for at in range(0, len(value), words)
    )
    runtime = SimpleNamespace(blobs=CuttingBlobs(lengths))
    file = SimpleNamespace(name="file", document={})
    bulk = BulkData(file, START, SIZE, "etag", words)
    chunks = [bytes(c) async for c in bulk_data.read(runtime, bulk, first, length)]
    assert b"".join(chunks) == turned[first : first + length]


def test_where_binary_values_lie_is_read_as_it_was_ever_written():
    wanted = [
        BulkElement("7FE00010", "OW", 132, 8),
        BulkElement("00081140/0/00880200", "OB", 7, 2),
    ]
    text = doc.bulk_text(wanted)
    lists = [[b.path, b.vr, b.offset, b.length] for b in wanted]
    for value in (text, lists):
        assert list(doc.bulk_of({"b": value})) == wanted
    assert list(doc.bulk_of({"b": doc.bulk_text([])})) == []
    assert list(doc.bulk_of({})) == []

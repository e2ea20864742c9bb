"""Effective partition keys and the physical partitions they fall into.

Source: azure-cosmos 4.17.1, partition_key.py
(`_get_effective_partition_key_for_hash_partitioning_v2`): MurmurHash3 x64 128 of the
type byte 8, the UTF-8 text and 0xFF; bytes reversed; the two highest bits cleared. A
unit test compares it with the SDK's own.
"""

from dataclasses import dataclass
from functools import lru_cache

_MASK = 0xFFFFFFFFFFFFFFFF
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
HIGHEST = "FF"


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _final(value: int) -> int:
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _MASK
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33


def _mix1(word: int) -> int:
    return _rotate(word * _C1 & _MASK, 31) * _C2 & _MASK


def _mix2(word: int) -> int:
    return _rotate(word * _C2 & _MASK, 33) * _C1 & _MASK


def murmur3_128(data: bytes) -> tuple[int, int]:
    """MurmurHash3 x64 128 with seed 0: low and high 64 bits."""
    low = high = 0
    whole = len(data) // 16 * 16
    for start in range(0, whole, 16):
        low ^= _mix1(int.from_bytes(data[start : start + 8], "little"))
        low = ((_rotate(low, 27) + high) * 5 + 0x52DCE729) & _MASK
        high ^= _mix2(int.from_bytes(data[start + 8 : start + 16], "little"))
        high = ((_rotate(high, 31) + low) * 5 + 0x38495AB5) & _MASK
    tail = data[whole:]
    if len(tail) > 8:
        high ^= _mix2(int.from_bytes(tail[8:], "little"))
    if tail:
        low ^= _mix1(int.from_bytes(tail[:8], "little"))
    low ^= len(data)
    high ^= len(data)
    low = (low + high) & _MASK
    high = (high + low) & _MASK
    low, high = _final(low), _final(high)
    low = (low + high) & _MASK
    return low, (high + low) & _MASK


@lru_cache(maxsize=65536)
def effective_partition_key(partition_key: str) -> str:
    """32 hexadecimal digits, in capitals, of a text partition key."""
    low, high = murmur3_128(b"\x08" + partition_key.encode() + b"\xff")
    hashed = bytearray(high.to_bytes(8, "big") + low.to_bytes(8, "big"))
    hashed[0] &= 0x3F
    return hashed.hex().upper()


@dataclass(frozen=True, slots=True)
class PhysicalPartition:
    """One physical partition: effective keys from `low` (included) to `high` (not)."""

    id: str
    low: str
    high: str
    parents: tuple[str, ...] = ()

    def holds(self, key: str) -> bool:
        """Whether the effective partition key falls into it."""
        return self.low <= key < self.high


def evenly(count: int) -> tuple[PhysicalPartition, ...]:
    """`count` physical partitions of equal width over the key space 00…3F."""
    bounds = [""]
    bounds += [f"{0x40000000 * n // count:08X}{'0' * 24}" for n in range(1, count)]
    bounds.append(HIGHEST)
    return tuple(
        PhysicalPartition(str(n), bounds[n], bounds[n + 1]) for n in range(count)
    )

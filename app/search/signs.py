"""`Signs`: one bit for each direction of an embedding, by which near vectors are found before any is multiplied.

Embeddings of photos are positive in all channels, so their own signs say little. The mean of the index is
subtracted and the rest is rotated at random, after which each bit halves the photos (locality-sensitive hashing:
M. Charikar, "Similarity Estimation Techniques from Rounding Algorithms", 2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..model.heads import Floats

Bits = npt.NDArray[np.uint8]

SEED = 5
_GROUP_BYTES = 64
_BLOCK_ROWS = 16_384
# Rows whose bits are compared in one operation, so that the results stay in the processor's cache.
_COUNTED_ROWS = 4096
_EVEN_BYTES, _ONES = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0001000100010001)


@dataclass(frozen=True)
class Signs:
    """How vectors become bits: the mean that is subtracted (channels), and the rotation (channels, channels)."""

    mean: Floats
    rotation: Floats

    @classmethod
    def fit(cls, vectors: npt.NDArray[np.float16]) -> Signs:
        """Return the signs of an index by its vectors (n, channels); the rotation is the same for each length."""
        total = np.zeros(vectors.shape[1], np.float64)
        for start in range(0, len(vectors), _BLOCK_ROWS):
            total += vectors[start : start + _BLOCK_ROWS].sum(axis=0, dtype=np.float64)
        mean = (total / max(1, len(vectors))).astype(np.float32)
        return cls(mean, rotation(vectors.shape[1]))

    def bits(self, vectors: npt.NDArray[np.floating]) -> Bits:
        """Return the bits (n, bytes) of vectors (n, channels) of length 1."""
        rows = [
            np.packbits(
                (vectors[start : start + _BLOCK_ROWS].astype(np.float32) - self.mean) @ self.rotation > 0, axis=1
            )
            for start in range(0, len(vectors), _BLOCK_ROWS)
        ]
        packed = np.concatenate(rows) if rows else np.zeros((0, -(-len(self.mean) // 8)), np.uint8)
        return np.pad(packed, ((0, 0), (0, bits_bytes(len(self.mean)) - packed.shape[1])))


def bits_bytes(channels: int) -> int:
    """Return how many bytes the bits of a vector take: groups of 64, which are counted together, filled with zeros."""
    return -(-channels // (8 * _GROUP_BYTES)) * _GROUP_BYTES


def rotation(channels: int) -> Floats:
    """Return a random rotation (channels, channels), always the same with one version of NumPy."""
    normal = np.random.default_rng(SEED).standard_normal((channels, channels))
    return np.linalg.qr(normal)[0].astype(np.float32)


def differences(bits: Bits, one: Bits) -> npt.NDArray[np.uint16]:
    """Return in how many bits each row (n, bytes) differs from one (bytes)."""
    found = np.empty(len(bits), np.uint16)
    # A copy for each row of a block: NumPy would repeat a single one in a loop of its own for each row.
    wanted = np.tile(one.view(np.uint64), (_COUNTED_ROWS, 1))
    for start in range(0, len(bits), _COUNTED_ROWS):
        words = bits[start : start + _COUNTED_ROWS].view(np.uint64)
        counts = np.bitwise_count(words ^ wanted[: len(words)])
        found[start : start + len(words)] = _row_sums(counts)
    return found


def _row_sums(counts: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return the sum of each row (n, 8 * groups) of counts up to 64, for eight of them at once in each operation."""
    eight = counts.view(np.uint64)
    pairs = (eight & _EVEN_BYTES) + (eight >> np.uint64(8) & _EVEN_BYTES)
    sums = pairs * _ONES >> np.uint64(48)  # the highest 16 bits of the product are the sum of the four pairs
    return sums[:, 0] if sums.shape[1] == 1 else sums.sum(axis=1)

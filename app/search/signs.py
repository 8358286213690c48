"""`Signs`: one bit for each direction of an embedding, by which near vectors are found before any is multiplied.

Embeddings of photos are positive in all channels, so their own signs say little. The mean of the index is taken off
and the rest is rotated at random, after which each bit halves the photos (locality-sensitive hashing: M. Charikar,
"Similarity Estimation Techniques from Rounding Algorithms", 2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .embeddings import Floats

Bits = npt.NDArray[np.uint8]

SEED = 5
_WORD_BYTES = 8
_BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class Signs:
    """How vectors become bits: the mean that is taken off (channels), and the rotation (channels, channels)."""

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
    """Return how many bytes the bits of a vector take: whole words of 64 bits, the last one filled with zeros."""
    return -(-channels // (8 * _WORD_BYTES)) * _WORD_BYTES


def rotation(channels: int) -> Floats:
    """Return a random rotation (channels, channels), always the same with one version of NumPy."""
    normal = np.random.default_rng(SEED).standard_normal((channels, channels))
    return np.linalg.qr(normal)[0].astype(np.float32)


def differences(bits: Bits, one: Bits) -> npt.NDArray[np.uint16]:
    """Return in how many bits each row (n, bytes) differs from one (bytes)."""
    words, wanted = bits.view(np.uint64), one.view(np.uint64)
    found = np.empty(len(bits), np.uint16)
    for start in range(0, len(bits), _BLOCK_ROWS):
        counts = np.bitwise_count(words[start : start + _BLOCK_ROWS] ^ wanted)
        counts.sum(axis=1, dtype=np.uint16, out=found[start : start + _BLOCK_ROWS])
    return found

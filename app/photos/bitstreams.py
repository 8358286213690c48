"""The size of a coded frame, read from the stream itself: of AV1 (its sequence header) and of HEVC (its SPS)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FrameSize:
    """The facts about a stream's frames; `deep` is for more than 8 bits a sample."""

    width: int
    height: int
    full_chroma: bool = False
    deep: bool = False


class _Bits:
    """Bits of a header, the highest first; zeros follow its end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """Read an unsigned number of `count` bits."""
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & ((1 << count) - 1)

    def golomb(self) -> int:
        """Read an unsigned number in Exp-Golomb code (ue(v) of H.265, section 9.2), of at most 32 bits."""
        zeros = 0
        while zeros < 32 and not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def av1_frame_size(payload: bytes) -> FrameSize:
    """Read a sequence header (AV1 specification, section 5.5.1), without its OBU header."""
    bits = _Bits(payload)
    profile, _, reduced = bits.take(3), bits.take(1), bits.take(1)
    if reduced:
        bits.take(5)
    else:
        _skip_av1_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    return FrameSize(width, height, full_chroma=profile == 1)


def _skip_av1_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        if bits.take(1):
            bits.golomb()  # uvlc(), the same code
        if bits.take(1):  # decoder_model_info_present_flag
            delay_bits = bits.take(5) + 1
            bits.take(32 + 5 + 5)
    delays = bits.take(1)  # initial_display_delay_present_flag
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if delays and bits.take(1):
            bits.take(4)


def hevc_frame_size(unit: bytes) -> FrameSize:
    """Read a sequence parameter set (H.265, section 7.3.2.2), with the two bytes of its NAL unit's header."""
    bits = _Bits(unit[2:].replace(b"\x00\x00\x03", b"\x00\x00"))
    bits.take(4)
    sub_layers = bits.take(3)
    bits.take(1 + 88 + 8)  # the general profile, tier and level
    if sub_layers:
        present = [(bits.take(1), bits.take(1)) for _ in range(sub_layers)]
        bits.take(2 * (8 - sub_layers))
        for profile, level in present:
            bits.take(88 * profile + 8 * level)
    bits.golomb()
    chroma = bits.golomb()
    if chroma == 3:
        bits.take(1)
    width, height = bits.golomb(), bits.golomb()
    if bits.take(1):  # conformance_window_flag
        for _ in range(4):
            bits.golomb()
    return FrameSize(width, height, full_chroma=chroma == 3, deep=bits.golomb() > 0 or bits.golomb() > 0)

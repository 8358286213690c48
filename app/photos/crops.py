"""The crops of a few photos, of which each is needed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt

from ..errors import TopthreeError
from .decoders import Decoders
from .decoding import Geometry
from .folders import MAX_FILE_BYTES, FileProblem, read_file
from .protocol import Wanted


def read_crops(
    files: Sequence[str], geometry: Geometry, *, max_pixels: int, memory_bytes: int = 2**30
) -> list[npt.NDArray[np.uint8]]:
    """Return the crop of each photo, uint8 RGB (side, side, 3); raises FileProblem for the first that has none."""
    wanted, crops = Wanted(geometry, max_pixels), []
    with closing(Decoders(1, max_bytes=MAX_FILE_BYTES, memory_bytes=memory_bytes)) as decoders:
        for file in files:
            try:
                crops.append(decoders.decode(read_file(file), wanted).crop)
            except TopthreeError as problem:
                raise FileProblem(f"{file} cannot be used: {problem}") from problem
    return crops

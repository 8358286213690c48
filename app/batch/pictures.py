"""Heat maps as files, named by the SHA-256 of their photos."""

from __future__ import annotations

from pathlib import Path

from ..classifier import Answer
from ..errors import BatchError, BatchStopped
from ..photos.heatmaps import draw
from ..writing import replacing

# The longest side of the picture under a heat map, in pixels.
THUMBNAIL_SIDE = 512


def prepare_heatmaps(folder: Path) -> None:
    """Create the folder of heat maps; raises BatchError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BatchError(f"The folder {folder} for heat maps cannot be created: {error.strerror}.") from error


def save_heatmap(folder: Path, answer: Answer) -> None:
    """Draw the first answer's heat map over its photo, and save it unless it exists; raises BatchStopped."""
    assert answer.heatmaps is not None
    assert answer.thumbnail is not None
    path = folder / f"{answer.image['sha256']}.webp"
    if path.exists():
        return
    drawn = draw(answer.thumbnail, answer.heatmaps[0], answer.image["crop"], "WEBP")
    try:
        with replacing(path, 0o644) as out:
            out.write(drawn)
    except OSError as error:
        raise BatchStopped(f"{path} cannot be written: {error.strerror}.") from error

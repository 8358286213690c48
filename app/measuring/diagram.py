"""The reliability diagram of `topthree evaluate --plot`, as an SVG file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from .reliability import BINS, Bin, Reliability

_SIDE = 300  # of a panel, in pixels
_LEFT, _TOP, _GAP, _BOTTOM = 60, 70, 70, 60
_STYLE = (
    "text{font:13px sans-serif;fill:#222}.small{font-size:11px}.frame{fill:#fff;stroke:#888}"
    ".bar{fill:#4477aa;stroke:#fff}.gap{fill:#ee6677;fill-opacity:.35}.ideal{stroke:#222;stroke-dasharray:4 4}"
)


def draw_reliability(title: str, panels: Sequence[tuple[str, Reliability]]) -> bytes:
    """Draw a panel for each measurement, and return the file.

    A bar is the accuracy of the photos of one bin; the pale part is its distance from their mean probability. The
    dashed line is where both are equal.
    """
    width = _LEFT + len(panels) * (_SIDE + _GAP)
    height = _TOP + _SIDE + _BOTTOM
    drawn = "".join(_panel(_LEFT + place * (_SIDE + _GAP), *panel) for place, panel in enumerate(panels))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/><text x="{_LEFT}" y="26">{escape(title)}</text>{drawn}</svg>\n'
    )
    return svg.encode()


def _panel(left: int, name: str, found: Reliability) -> str:
    bottom, middle = _TOP + _SIDE, _TOP + _SIDE / 2
    error = f"{name}: calibration error {found.error:.2f} % ({found.low:.2f} to {found.high:.2f} %)"
    return (
        f'<g><rect class="frame" x="{left}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}"/>'
        + "".join(_bars(left, place, each) for place, each in enumerate(found.bins) if each.photos)
        + f'<line class="ideal" x1="{left}" y1="{bottom}" x2="{left + _SIDE}" y2="{_TOP}"/>'
        + "".join(_ticks(left, share) for share in (0, 25, 50, 75, 100))
        + f'<text class="small" x="{left}" y="{_TOP - 12}">{escape(error)}</text>'
        f'<text class="small" x="{left + _SIDE / 2:g}" y="{bottom + 40}" text-anchor="middle">probability in %</text>'
        f'<text class="small" text-anchor="middle" transform="translate({left - 40} {middle:g}) rotate(-90)">'
        "right answers in %</text></g>"
    )


def _bars(left: int, place: int, each: Bin) -> str:
    width = _SIDE / BINS
    x, bottom = left + place * width, _TOP + _SIDE
    accuracy, probability = (share * _SIDE / 100 for share in (each.accuracy, each.probability))
    hint = f"{each.photos} photos: probability {each.probability:.1f} %, right {each.accuracy:.1f} %"
    return (
        f'<g><title>{hint}</title><rect class="bar" x="{x:.1f}" y="{bottom - accuracy:.1f}" width="{width:.1f}" '
        f'height="{accuracy:.1f}"/><rect class="gap" x="{x:.1f}" y="{bottom - max(accuracy, probability):.1f}" '
        f'width="{width:.1f}" height="{abs(accuracy - probability):.1f}"/></g>'
    )


def _ticks(left: int, share: int) -> str:
    along = share * _SIDE / 100
    return (
        f'<text class="small" x="{left + along:g}" y="{_TOP + _SIDE + 18}" text-anchor="middle">{share}</text>'
        f'<text class="small" x="{left - 8}" y="{_TOP + _SIDE - along + 4:g}" text-anchor="end">{share}</text>'
    )

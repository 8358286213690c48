"""The picture of `topthree bench --plot`: latency against load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .load import Load


def plot_loads(loads: Sequence[Load], title: str, path: Path) -> None:
    """Draw p50, p90 and p99 against throughput, a panel for each kind of loop, and save it (PNG, SVG or PDF)."""
    from matplotlib.figure import Figure

    loops = sorted({load.loop for load in loads})
    figure = Figure(figsize=(6 * len(loops), 4.5), layout="constrained")
    for axes, loop in zip(figure.subplots(1, len(loops), squeeze=False)[0], loops, strict=True):
        points = [load for load in loads if load.loop == loop]
        for name in ("p50", "p90", "p99"):
            axes.plot([load.throughput for load in points], [getattr(load, name) for load in points], "o-", label=name)
        for load in points:
            axes.annotate(f"{load.level:g}", (load.throughput, load.p50), textcoords="offset points", xytext=(4, -12))
        unit = "clients" if loop == "closed" else "photos per second sent"
        axes.set(xlabel="photos per second answered", ylabel="latency in ms", title=f"{loop} loop; numbers: {unit}")
        axes.set_ylim(bottom=0)
        axes.legend()
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=144)

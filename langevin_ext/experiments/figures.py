"""Pictures of a table: quality against time, and the way of samples through levels and resolutions."""

from pathlib import Path

import torch

from .. import plots
from .._files import write_figure
from ..samplers.monitor import UPSAMPLING
from ..samplers.table import DENOISE
from .parts import marks
from .tables import HRS

DRAWN = ("LRS-up-HRS-3", "LRS-up-HRS-9", "LRS-2-up-HRS-9")  # the schemes of the paper's figures 2 and 9
ORDER_OF_MAGNITUDE = 8.0  # ratio of distances from which they are drawn on a logarithmic axis


def quality(table, path) -> Path:
    """Draws the distances of the schemes against their seconds, as measured and as the paper has them.

    The paper's are hollow: its ratios to HRS, of time and of FID, times our HRS.

    Args:
        table: `Table`.
        path: PNG file to write; its folder must exist.

    Returns:
        The path.
    """
    figure = _scatter(table)
    return write_figure(figure, path)


def _scatter(table):
    """A figure of its own, without pyplot's global state; each row draws its filled mark, then its hollow one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.5), layout="constrained")
    axes = figure.subplots()
    base = next(row for row in table.rows if row.scheme == HRS)
    fids = {row.scheme: row.paper_fid / base.paper_fid for row in table.rows}
    axes.axvline(base.seconds, color="0.75", linewidth=0.8, zorder=0)
    axes.axhline(base.distance, color="0.75", linewidth=0.8, zorder=0)
    colours = {row.scheme: f"C{i % 10}" for i, row in enumerate(table.rows)}
    for row in table.rows:
        colour, mark = colours[row.scheme], "s" if row.reference != base.reference else "o"
        axes.errorbar(row.seconds, row.distance, row.deviation, fmt=mark, color=colour, markersize=7, capsize=2)
        paper = row.paper_ratio * base.seconds, fids[row.scheme] * base.distance
        axes.plot(*paper, mark, markerfacecolor="none", color=colour, markersize=7, alpha=0.6)
    distances = [row.distance for row in table.rows] + [fid * base.distance for fid in fids.values()]
    if min(distances) > 0 and max(distances) / min(distances) > ORDER_OF_MAGNITUDE:
        axes.set_yscale("log")
    squares = "; square: at the low resolution" * any(row.reference != base.reference for row in table.rows)
    axes.set(
        xlabel=f"seconds for {table.timing['n']} images",
        ylabel=f"Frechet distance, {table.settings['features']}, {table.settings['n']} samples",
        title=f"{table.heading}\n(filled: measured; hollow: the paper's ratios to HRS{squares})",
    )
    axes.title.set_fontsize("medium")
    axes.margins(x=0.12, y=0.12)
    _name_rows(figure, axes, table.rows, colours)
    return figure


def _name_rows(figure, axes, rows, colours):
    """Writes the schemes beside their marks, each where it covers the least of what is drawn already."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # fixes the layout, which the places depend on
    points = [axes.transData.transform((row.seconds, row.distance)) for row in rows]
    points += [axes.transData.transform(line.get_xydata()[0]) for line in axes.lines if line.get_marker() in ("o", "s")]
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    for bar in axes.containers:
        (x, low), (_, high) = axes.transData.transform(bar.lines[2][0].get_segments()[0])
        taken.append(Bbox.from_extents(x - 3, low, x + 3, high))
    inside = axes.get_window_extent(renderer)
    for row in sorted(rows, key=lambda row: -row.distance):
        places = [(dx, dy) for dy in (0, 9, -9, 18, -18, 27, -27) for dx in (9, -9)]
        best = None
        for dx, dy in places:
            text = axes.annotate(
                row.scheme,
                (row.seconds, row.distance),
                (dx, dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right",
                va="center",
                fontsize="small",
                color=colours[row.scheme],
            )
            box = text.get_window_extent(renderer)
            outside = box.width * box.height * (not inside.contains(*box.min) or not inside.contains(*box.max))
            cost = outside + sum(_area(Bbox.intersection(box, other)) for other in taken) + abs(dy)
            if best is None or cost < best[0]:
                if best is not None:
                    best[1].remove()
                best = cost, text, box
            else:
                text.remove()
        taken.append(best[2])


def _area(box):
    return 0.0 if box is None else box.width * box.height


def levels(shared, records, scheme, path) -> Path:
    """Draws the first samples of a scheme after each level: low resolution, upsampled in a red frame, high resolution.

    The paper's figure 2: a column for each level, a row for each sample, small images enlarged to the size of the
    others.

    Args:
        shared: `SharedRuns`.
        records: what its run returned.
        scheme: index of the scheme.
        path: PNG file to write; its folder must exist.

    Returns:
        The path.
    """
    columns: list[torch.Tensor] = []
    labels: list[str] = []
    frames: list[int] = []
    for part in shared.path(scheme):
        for (number, i), states in zip(marks(part.stages), records[part.index].snapshots, strict=True):
            if i == UPSAMPLING:
                frames.append(len(columns))
                labels.append("up")
            else:
                row = part.stages[number].rows[i]
                labels.append("denoised" if row.kind == DENOISE else f"σ={row.sigma:.2g}")
            columns.append(states)
    return plots.trajectory(columns, path, labels, frames=frames)

"""The pictures of `gmm-toy`, after Figures 2 and 3 of NCSN (arXiv:1907.05600)."""

from pathlib import Path

import numpy as np

from .._files import write_figure
from . import _score_error as score_error
from ._sliced import zero_level

__all__ = ["level_figure", "sample_figure", "score_figure"]

ARROWS = 4  # every fourth point of the window has an arrow
LIMIT = 8.0  # of the axes


def score_figure(model, data, samples, path) -> Path:
    """Data, their score, the learned score, and its error over the window (the paper's Figure 2 has the first three).

    Args:
        model, data: the learned and the exact score.
        samples: data to draw, (n, 2, 1, 1).
        path: PNG file to write.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    points = score_error.window()
    level = zero_level(points)
    true, learned = (part.double().flatten(1).numpy() for part in (data(points, level), model(points.float(), level)))
    side = score_error.POINTS
    x, y = (points[:, i].reshape(side, side).numpy() for i in (0, 1))
    figure = Figure(figsize=(15.0, 4.1), layout="constrained")
    axes = figure.subplots(1, 4)
    axes[0].plot(*samples[:2000].flatten(1).numpy().T, ".", markersize=1.5, color="C0")
    axes[0].set_title("(a) data")
    few = (slice(ARROWS // 2, None, ARROWS),) * 2
    for panel, score, title in ((axes[1], true, "(b) score of the data"), (axes[2], learned, "(c) learned score")):
        u, v = (score[:, i].reshape(side, side) for i in (0, 1))
        panel.quiver(x[few], y[few], u[few], v[few], color="black", width=0.004, scale=160)
        panel.set_title(title)
    error = np.linalg.norm(learned - true, axis=1).reshape(side, side)
    drawn = axes[3].pcolormesh(x, y, error, cmap="magma", norm=LogNorm(0.03, 10), shading="nearest", rasterized=True)
    figure.colorbar(drawn, ax=axes[3], label="|learned - true score|")
    axes[3].set_title("(d) error (circles: 2 and 4 from a mode)", fontsize="medium")
    for panel in axes:
        _frame(panel)
    _regions(axes)
    return write_figure(figure, path)


def _frame(panel):
    panel.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", xticks=[-5, 0, 5], yticks=[-5, 0, 5])


def _regions(axes):
    """Rectangles around the modes, as in the paper, and circles at the distances that the findings speak of."""
    from matplotlib.patches import Circle, Rectangle

    near = score_error.NEAR
    for mode in (-5.0, 5.0):
        for panel in axes[1:3]:
            corner = (mode - near, mode - near)
            panel.add_patch(Rectangle(corner, 2 * near, 2 * near, fill=False, edgecolor="red", linewidth=1.8))
        for radius in (near, score_error.FAR):
            axes[3].add_patch(Circle((mode, mode), radius, fill=False, edgecolor="white", linewidth=1.0))


def sample_figure(samples, laws, path) -> Path:
    """Three clouds of samples, with the share at (5, 5): the paper's Figure 3.

    Args:
        samples: i.i.d. ones, those of plain and those of annealed Langevin dynamics, (n, 2, 1, 1) each.
        laws: the exact share of each.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 4.3), layout="constrained")
    titles = ("(a) i.i.d. samples", "(b) Langevin dynamics", "(c) annealed Langevin dynamics")
    for panel, x, law, title in zip(figure.subplots(1, 3), samples, laws, titles, strict=True):
        points = x.flatten(1).numpy()
        panel.plot(*points.T, ".", markersize=2.5, alpha=0.6)
        share = (points.sum(1) > 0).mean()
        panel.text(5.0, 0.6, f"{share:.1%}", ha="center", fontsize="large")
        panel.text(-5.0, -0.9, f"{1 - share:.1%}", ha="center", fontsize="large")
        panel.set_title(f"{title} (exact law: {law:.1%})", fontsize="medium")
        _frame(panel)
    return write_figure(figure, path)


def level_figure(curves, path) -> Path:
    """The share at (5, 5) after each level of annealed chains, by their exact law.

    Args:
        curves: for each chain itself, its shares, and the shares of the distribution with that level's noise.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.3), layout="constrained")
    axes = figure.subplots()
    for i, (one, shares, noisy) in enumerate(curves):
        number = range(1, len(shares) + 1)
        axes.plot(number, shares, "o-", color=f"C{i}", label=one.what)
        axes.plot(number, noisy, "--", color=f"C{i}", linewidth=1.0, label="its target on each level")
    axes.axhline(0.8, color="0.6", linewidth=0.8)
    axes.set(xlabel="level", ylabel="share at (5, 5)", title="Annealing moves samples while the modes overlap")
    axes.legend(fontsize="small")
    return write_figure(figure, path)

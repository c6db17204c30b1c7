"""The pictures of `manifold`, after Figure 1 of NCSN (arXiv:1907.05600)."""

from pathlib import Path

import numpy as np

from .._files import write_figure

__all__ = ["loss_figure", "reconstruction_figure"]

SHOWN = 12  # digits
FIRST = 3  # steps left out of the axes' range: the loss of fresh weights


def reconstruction_figure(rows, subspace, path) -> Path:
    """Digits and their reconstructions from fewer and fewer components, and the error against their number.

    Args:
        rows: images (n, 64).
        subspace: `manifold.Subspace`.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    counts = [subspace.enough, subspace.explaining(0.95), 8]
    shown = rows[:: len(rows) // SHOWN][:SHOWN].double()
    pictures = [shown, *(subspace.reconstruct(shown, count) for count in counts)]
    names = ["original", *(f"{count} components" for count in counts)]
    figure = Figure(figsize=(13.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.6, 1.0))
    side = int(round(rows.shape[1] ** 0.5))
    sheet = np.ones((len(pictures) * (side + 1) - 1, SHOWN * (side + 1) - 1))
    for r, row in enumerate(pictures):
        for c, picture in enumerate(row.clamp(0, 1).reshape(-1, side, side).numpy()):
            sheet[r * (side + 1) : r * (side + 1) + side, c * (side + 1) : c * (side + 1) + side] = picture
    left.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    left.set(xticks=[], yticks=[r * (side + 1) + (side - 1) / 2 for r in range(len(pictures))], yticklabels=names)
    left.tick_params(length=0)
    left.set_frame_on(False)
    _errors(right, rows, subspace)
    return write_figure(figure, path)


def _errors(axes, rows, subspace):
    number = np.arange(1, subspace.rank)
    error = [float((subspace.reconstruct(rows, k) - rows).abs().amax(1).mean()) for k in number]
    axes.semilogy(number, error, color="C0")
    axes.axhline(0.01, color="0.6", linewidth=0.8)
    axes.plot(subspace.enough, error[subspace.enough - 1], "o", color="red", label=f"{subspace.enough} components")
    axes.set(xlabel="components", ylabel="largest pixel error, mean over digits", title="reconstruction")
    axes.legend(fontsize="small")


def loss_figure(curves, path) -> Path:
    """The loss against the step, a panel for each noise.

    Args:
        curves: list of `manifold.Curve`.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 4.0), layout="constrained")
    for panel, curve in zip(figure.subplots(1, len(curves)), curves, strict=True):
        loss = curve.training.numpy()
        panel.plot(np.arange(1, len(loss) + 1), loss, color="C0", linewidth=0.5, label="training batch")
        panel.plot(curve.steps, curve.held_out, color="C1", linewidth=1.6, label="held-out digits")
        values = np.concatenate([loss[FIRST:], curve.held_out])
        room = 0.05 * np.ptp(values)
        panel.set_ylim(values.min() - room, values.max() + room)
        name = f"N(0, {curve.deviation**2:g}) added" if curve.deviation else "no noise"
        panel.set(xlabel="step", ylabel="sliced score matching loss", title=name)
        panel.legend(fontsize="small")
    return write_figure(figure, path)

"""The picture of a diagnosis: what was measured against the noise level, a panel for each check."""

import math
from pathlib import Path

from .._files import write_figure

__all__ = ["plot"]

TRAIN, HELD_OUT, OWN = "tab:blue", "tab:orange", "tab:red"


def plot(diagnosis, path) -> Path:
    """Draws a `Diagnosis` into a PNG; its folder must exist. Bars are what chance explains, `Diagnosis.limits`."""
    from matplotlib.figure import Figure  # a figure of its own, without pyplot's global state

    figure = Figure(figsize=(16.0, 8.5), layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    drawn = [_losses, _scales, _moves, _drifts, _norms]
    drawn += [_errors] if diagnosis.levels[0].error is not None else []
    for axes, draw in zip(panels, drawn, strict=False):
        draw(axes, diagnosis)
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.set_xlabel("noise level σ, as the sampler goes")
        axes.legend(fontsize="small")
    for axes in panels[len(drawn) :]:
        axes.axis("off")
    figure.suptitle(
        f"Langevin dynamics with this model: {diagnosis.verdict}\n"
        f"bars: what chance explains; failed: {', '.join(diagnosis.failed) or 'none'}"
    )
    return write_figure(figure, path)


def _series(axes, diagnosis, name, colour, label, *, of="chains", marker="o"):
    """Estimates, means over images or chains, with bars; what diverged is left out."""
    found = [(level.sigma, getattr(level, name)) for level in diagnosis.levels]
    found = [(sigma, one) for sigma, one in found if one is not None and math.isfinite(one.value)]
    if found:
        sigmas, estimates = zip(*found, strict=True)
        bars = [getattr(diagnosis.limits, of) * one.stderr for one in estimates]
        values = [one.value for one in estimates]
        axes.errorbar(sigmas, values, bars, color=colour, label=label, marker=marker, markersize=4, capsize=3)


def _losses(axes, diagnosis):
    sigmas = [level.sigma for level in diagnosis.levels]
    _series(axes, diagnosis, "loss", TRAIN, "training data", of="images")
    _series(axes, diagnosis, "held_out_loss", HELD_OUT, "held-out data", of="images")
    _series(axes, diagnosis, "exact_loss", "black", "exact score", of="images", marker="x")
    axes.plot(sigmas, [level.gaussian_loss for level in diagnosis.levels], color="0.5", ls="--", label="Gaussian data")
    axes.axhline(diagnosis.levels[0].zero_loss, color="0.5", ls=":", label="score 0")
    axes.set(ylabel="σ² · DSM loss", title="Loss: the gap is what was memorised")
    _wide(axes, [level.held_out_loss or level.loss for level in diagnosis.levels], diagnosis.levels[0].zero_loss)


def _wide(axes, estimates, scale):
    """A logarithmic axis where the values go far beyond the scale."""
    if max(one.value for one in estimates) > 4 * scale:
        axes.set_yscale("log")


def _scales(axes, diagnosis):
    _series(axes, diagnosis, "scale", TRAIN, "training data", of="images")
    _series(axes, diagnosis, "held_out_scale", HELD_OUT, "held-out data", of="images")
    axes.axhline(1, color="black", label="exact score")
    axes.set(ylabel="−E (y − m)·s(y) / D", title="Scale: pull towards the mean at y = x + σ z")
    _wide(axes, [level.held_out_scale or level.scale for level in diagnosis.levels], 1)


def _drifts(axes, diagnosis):
    sigmas = [level.sigma for level in diagnosis.levels]
    allowed = [level.drift_allowed for level in diagnosis.levels]
    axes.fill_between(sigmas, 0, allowed, color="0.85", label="by the step size")
    _series(axes, diagnosis, "drift", TRAIN, "from training data")
    _series(axes, diagnosis, "held_out_drift", HELD_OUT, "from held-out data")
    axes.set(ylabel="change of |x − m|² / (σ² D)", title="Drift: chains started at the law of their level")


def _norms(axes, diagnosis):
    sigmas = [level.sigma for level in diagnosis.levels]
    _series(axes, diagnosis, "norm", OWN, "sampler")
    predicted = [level.norm_level.value for level in diagnosis.levels]
    axes.plot(sigmas, predicted, color="black", label="predicted: data + σ²")
    expected = [level.norm_sampler for level in diagnosis.levels]
    axes.plot(sigmas, expected, color="0.5", ls="--", label="this sampler, Gaussian data")
    axes.set(yscale="log", ylabel="E|x − m|² / D", title="Norm at the end of each level")


def _moves(axes, diagnosis):
    _series(axes, diagnosis, "moved", TRAIN, "from training data")
    _series(axes, diagnosis, "held_out_moved", HELD_OUT, "from held-out data")
    axes.axhline(1, color="0.5", ls=":", label="start")
    axes.set(ylabel="|x − image|² / (σ² D)", title="Starts: distance from the image a chain began at")
    _wide(axes, [level.held_out_moved or level.moved for level in diagnosis.levels], 1)


def _errors(axes, diagnosis):
    _series(axes, diagnosis, "error", HELD_OUT, "on data plus noise", of="images")
    _series(axes, diagnosis, "path_error", OWN, "along the chain")
    axes.set(ylabel="E|s − s*|² / E|s*|²", title="Error against the exact score")
    if min(level.error.value for level in diagnosis.levels) > 0:
        axes.set_yscale("log")

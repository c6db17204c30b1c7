"""The pictures of `cld-toy`, after Figures 6, 10 and 11 of CLD (arXiv:2112.07068)."""

from pathlib import Path

import torch

from .._files import write_figure
from ..processes import CriticallyDamped

__all__ = ["cloud_figure", "error_figure", "scale_figure"]

SHOWN = 4000  # samples in a cloud


def scale_figure(path) -> Path:
    """l_t of hybrid (green) and of denoising score matching (orange), with and without numerical_eps: Figure 6.

    Args:
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    t = torch.logspace(-7, 0, 1000, dtype=torch.float64)
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for eps, style in ((0.0, "-"), (1e-9, "--"), (1e-6, ":")):
        process = CriticallyDamped(numerical_eps=eps)
        for name, velocity, colour in (("HSM", "hybrid", "tab:green"), ("DSM", "sampled", "tab:orange")):
            label = f"{name}, numerical_eps {eps:g}"
            axes.loglog(t.numpy(), process.score_scale(t, velocity).numpy(), style, color=colour, label=label)
    axes.set(xlabel="t", ylabel="$\\ell_t$", title="Scale of the target, M = 0.25, $\\gamma$ = 0.04")
    axes.legend(fontsize="small")
    return write_figure(figure, path)


def error_figure(numbers, law, target, path) -> Path:
    """The exact error of the variance over the evaluations of the score.

    Args:
        numbers: of evaluations.
        law: {(sampler, striding): the variances}.
        target: variance of the data.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    colours, styles = {"cld-em": "tab:blue", "cld-sscs": "tab:red"}, {"linear": "--", "quadratic": "-"}
    for (name, striding), variances in law.items():
        errors = [abs(value - target) for value in variances]
        sign = "too wide" if variances[0] > target else "too narrow"
        label = f"{name}, {striding} ({sign})"
        axes.loglog(numbers, errors, styles[striding], marker="o", markersize=4, color=colours[name], label=label)
    axes.set(xlabel="evaluations of the score", ylabel="|variance of x - that of the data|")
    axes.set_title(f"Gaussian data of variance {target:g}, exact score", fontsize="medium")
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.minorticks_off()
    axes.legend(fontsize="small")
    return write_figure(figure, path)


def cloud_figure(clouds, limit, path) -> Path:
    """Clouds of samples in the plane: the data and a row for each sampler, as in Figures 10 and 11.

    Args:
        clouds: {title: samples (n, 2, 1, 1)}, the data first, then as many for each of two samplers.
        limit: of the axes.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    (first, data), *others = clouds.items()
    half = len(others) // 2
    figure = Figure(figsize=(2.6 * (half + 1), 5.6), layout="constrained")
    panels = figure.subplots(2, half + 1)
    shown = [(first, data), *others[:half], None, *others[half:]]
    for axes, item in zip(panels.flat, shown, strict=True):
        if item is None:
            axes.set_axis_off()
            continue
        title, x = item
        axes.plot(*x[:SHOWN].flatten(1).T.numpy(), ".", markersize=1.2, alpha=0.5, color="C0", rasterized=True)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        axes.set_title(title, fontsize="small")
    return write_figure(figure, path)

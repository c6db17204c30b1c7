"""The pictures of `robustness`."""

import math

import numpy as np

from .._files import write_figure
from ._cone_runs import FAR, TIMES
from ._kl_table import PAPER, D
from ._memory_runs import STARTS

__all__ = ["ball_figure", "leak_figure", "start_figure", "table_figure"]


def table_figure(rows, ball, path):
    """KL against |mu|: Table 1 with the paper's numbers and the closed form, and the same samples' way with s_hat.

    Args:
        rows: of `_kl_table.run_rows`.
        ball: of `_kl_table.run_ball`.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    lengths = [row.length for row in rows]
    axes.errorbar(lengths, [row.value for row in rows], [row.stderr for row in rows], fmt="o", label="ours, true score")
    axes.plot(lengths, [row.expected for row in rows], "-", color="C0", linewidth=1.0, label="closed form")
    axes.plot(
        lengths, [PAPER[row.k] for row in rows], "x", color="black", markersize=9, label="paper, n = 5000 (Table 1)"
    )
    wrong = [ball.kl[row.k].reverse for row in rows]
    axes.plot(lengths, wrong, "s-", color="C3", label="ours, score estimate of Theorem 1")
    axes.set_yscale("log")
    axes.set(xlabel="|mu|", ylabel="KL(pi || fit)", title=f"Langevin from N(0, I) to N(mu, I), n = {rows[0].n}")
    axes.legend()
    return write_figure(figure, path)


def ball_figure(ball, field, path):
    """Where the score is wrong, where the samples are, and where the data are, by the distance from the origin.

    Args:
        ball: of `_kl_table.run_ball`.
        field: the `AdversarialBall` of some mu.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.3), layout="constrained")
    axes = figure.subplots()
    data = field.target.sample(5000).flatten(1)
    bins = np.linspace(0, 7, 141)
    for x, label, colour in ((ball.x, "samples with s_hat", "C3"), (data, "data, N(mu, I)", "C0")):
        radii = x.norm(dim=1).numpy() / math.sqrt(D)
        axes.hist(radii, bins, density=True, color=colour, alpha=0.7, label=label)
    axes.axvspan(0, field.inner, color="C3", alpha=0.12, label="s_hat = -C x")
    axes.axvspan(field.inner, field.outer, color="0.5", alpha=0.15, label="between")
    axes.axvline(1, color="black", linestyle=":", linewidth=1.0, label="start, N(0, I)")
    axes.set(xlabel="|x| / sqrt(d)", ylabel="density", title="Theorem 1: all samples stay where the data are not")
    axes.legend(loc="upper right")
    return write_figure(figure, path)


def start_figure(runs, path):
    """Distances to the nearest training point after 1000 steps, by start.

    Args:
        runs: for each score its title and its `Ends` by start.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(runs), 4.0), layout="constrained")
    for axes, (title, ends) in zip(np.atleast_1d(figure.subplots(1, len(runs))), runs, strict=True):
        top = max(end.nearest.max().item() for end in ends.values())
        bins = np.linspace(0, 1.05 * top, 60)
        for i, name in enumerate(STARTS):
            label = f"{name}: {ends[name].kl.forward:.3g}"
            axes.hist(ends[name].nearest.numpy(), bins, histtype="step", linewidth=1.8, color=f"C{i}", label=label)
        axes.set(xlabel="distance to the nearest training point", ylabel="chains", title=title)
        axes.legend(title="start: KL(fit || pi)", fontsize="small")
    return write_figure(figure, path)


def leak_figure(leaks, path):
    """The share of chains that have left, over time, and the chains of the widest cone.

    Args:
        leaks: of `_cone_runs.run_cones`.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, leak in enumerate(leaks):
        error = (np.array(leak.out) * (1 - np.array(leak.out)) / len(leak.x)) ** 0.5
        label = f"{leak.degrees} degrees, score error {leak.error:.2f}"
        left.errorbar(TIMES[: len(leak.out)], leak.out, error, fmt="o-", color=f"C{i}", label=label)
    left.axhline(math.exp(-(FAR**2) / 2), color="black", linestyle=":", label="under N(0, I)")
    left.set(xlabel="time", ylabel=f"P(|x| > {FAR:g})", ylim=(-0.03, 1.03), title="Theorem 11: mass leaks to infinity")
    left.legend(loc=(0.45, 0.12), fontsize="small")
    widest = leaks[-1]
    x = widest.x.numpy()
    right.plot(
        x[:, 0], x[:, 1], ".", markersize=2, color=f"C{len(leaks) - 1}", label=f"t = {TIMES[len(widest.out) - 1]}"
    )
    reach = 1.05 * x[:, 0].max()
    slope = math.tan(math.radians(widest.degrees))
    right.fill_between([0, reach], [0, -slope * reach], [0, slope * reach], color="0.5", alpha=0.2, label="cone")
    right.set(xlim=(-0.1 * reach, reach), xlabel="x_1", ylabel="x_2", title=f"chains, {widest.degrees} degrees")
    right.legend(loc="upper left", fontsize="small")
    return write_figure(figure, path)

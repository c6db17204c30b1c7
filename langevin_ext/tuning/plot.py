"""The picture of `tune`: distance over cost of the schemes."""

from pathlib import Path

from .._files import write_figure

__all__ = ["front_plot"]


def front_plot(result, path) -> Path:
    """Draws what `tune` found: all laws computed, the front, the paper's schemes, and the chosen one.

    Args:
        result: `TuneResult`.
        path: PNG file to write; its folder must exist.

    Returns:
        The path.
    """
    figure = _figure(result)
    return write_figure(figure, path)


def _figure(result):
    """A figure of its own, without pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    axes = figure.subplots()
    if result.evaluated:
        axes.scatter(*zip(*result.evaluated, strict=True), s=8, color="0.8", linewidths=0, label="laws computed")
    front = [(one.cost, one.distance) for one in result.front]
    axes.plot(*zip(*front, strict=True), color="tab:blue", marker=".", drawstyle="steps-post", label="front")
    _mark(axes, result.paper, "tab:orange", "arXiv:2006.11166 at 100 steps")
    _mark(axes, result.renoised, "tab:green", "the same, noise after upsampling", named=False)
    _mark(axes, [result.reference], "black", "HRS by default")
    axes.axhline(result.reference.distance, color="black", linewidth=0.8, linestyle=":")
    if result.budget is not None:
        axes.axvline(result.budget, color="tab:red", linewidth=0.8, linestyle=":", label=f"budget {result.budget:g}")
    best, paper = result.best, [one.cost for one in result.paper]
    chosen = f"chosen: {best.scheme}\n{best.settings}"
    axes.scatter(best.cost, best.distance, s=160, marker="*", color="tab:red", zorder=4, label=chosen)
    axes.set(
        yscale="log",
        xlabel="cost of the evaluations (HRS at 100 steps a level = 1)",
        ylabel="predicted Frechet distance of the pixels, squared",
        title=f"Schemes for {'x'.join(map(str, result.shapes[-1]))}: distance against cost",
    )
    axes.set_xlim(0, 1.15 * max(1.0, *paper, *(one.cost for one in result.front)))
    figure.legend(fontsize="small", loc="outside lower center", ncols=4)
    return figure


def _mark(axes, candidates, colour, label, named=True):
    """Marked points, with their names beside them."""
    if not candidates:
        return
    axes.scatter(*zip(*((one.cost, one.distance) for one in candidates), strict=True), s=28, color=colour, label=label)
    for number, one in enumerate(sorted(candidates, key=lambda one: one.cost) if named else ()):
        axes.annotate(
            one.scheme,
            (one.cost, one.distance),
            xytext=(5, 5 if number % 2 else -12),  # by turns above and below: neighbours would overlap
            textcoords="offset points",
            fontsize="x-small",
            color=colour,
        )

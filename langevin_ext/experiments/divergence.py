"""`divergence`: Langevin dynamics run too long with a learned score (multi-scale paper, sections 2 and 3)."""

import math
from typing import NamedTuple

import torch
from tqdm import tqdm

from .. import losses, noise, ops
from .._files import write_figure
from ..metrics import wasserstein
from ..models import MLP
from ..sampling import sample
from ..scores import GaussianMixture
from .findings import STANDARD_ERRORS, Finding, Report, above, close

NAME = "divergence"
TITLE = "Langevin dynamics run too long with a learned score"
SOURCE = "multi-scale Langevin, arXiv:2006.11166, sections 1 to 3, theorem 1"

SIGMA, RADIUS, COMPONENTS, VARIANCE = 0.2, 3.0, 12, 0.04  # a ring of Gaussians, each overlapping with the next
EPS = 0.2 * SIGMA**2  # score-to-noise ratio eps / (2 sigma^2) = 0.1, that of NCSN's default
SPREAD = 1.0  # deviation of the noise that the start adds to the data
TRAINING, STEPS, LEAST_STEPS, BATCH, RATE = 100, 3000, 1500, 128, 3e-3
CHAINS, LEAST_CHAINS, GROUPS = 2400, 1200, 8
TIMES = (0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000)
LEAST_TIMES = 10  # of TIMES: the reduced experiment ends at 2000 steps


class Curve(NamedTuple):
    """W2 to the law that the dynamics should sample, over time.

    Attributes:
        times: steps.
        groups: (times, groups) float64, W2 of each group of chains to draws of its own.
        states: time -> the chains (n, 2, 1, 1).
    """

    times: tuple
    groups: torch.Tensor
    states: dict

    @property
    def best(self) -> int:
        """The place of the smallest mean."""
        return int(self.groups.mean(1).argmin())


def run(out=None, *, size=1.0, seed=0, progress=True) -> Report:
    """W2 against time of Langevin dynamics at one noise level, with a learned and with the exact score.

    Both start at the data with more noise than the level has, and use the same noise. The paper observes, and its
    theorem 1 explains, that with an estimate of the score the distance falls while the chain mixes and rises
    afterwards.

    Args:
        out: folder for the figure, or None for none.
        size: share of 2,400 chains and of 3,000 training steps; below 1 the dynamics end at 2,000 steps, not 4,000.
        seed: of everything random.
        progress: show a bar.

    Returns:
        `Report`.
    """
    count = max(LEAST_CHAINS, round(CHAINS * size)) // GROUPS * GROUPS
    steps, times = max(LEAST_STEPS, round(STEPS * size)), TIMES if size >= 1 else TIMES[:LEAST_TIMES]
    exact = ring()
    with tqdm(total=steps + 2 * times[-1], desc=NAME, unit="step", disable=not progress) as bar:
        model = train(exact, steps, seed, bar)
        start = _draws(exact, count, SPREAD, seed, first=0)
        reference, fresh = (_draws(exact, count, SIGMA, seed, first=part * count) for part in (1, 2))
        curves = {
            name: follow(score, start, reference, times, seed, bar)
            for name, score in (("learned", model), ("exact", exact))
        }
    floor = distances(fresh, reference)
    report = Report(NAME, TITLE, SOURCE, findings(curves, floor), remarks=_remarks(model, exact, curves, steps, seed))
    if out is not None:
        report.figures = [figure(curves, floor, reference, out / "divergence.png")]
    return report


def ring() -> GaussianMixture:
    """Twelve Gaussians around a circle in the plane."""
    angles = torch.arange(COMPONENTS, dtype=torch.float64) * (2 * math.pi / COMPONENTS)
    means = RADIUS * torch.stack([angles.cos(), angles.sin()], 1)
    return GaussianMixture(means, torch.ones(COMPONENTS), VARIANCE, sigmas=[SIGMA])


def train(exact, steps, seed, bar) -> MLP:
    """A network fitted to a hundred points by denoising score matching, as long as to learn them too well."""
    points = exact.sample(TRAINING, seed, first=2**20)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # initial weights; all other randomness is counted, not drawn
        model = MLP((2, 1, 1), hidden=(128, 128), activation="silu", sigmas=[SIGMA])
    optimiser, level = torch.optim.Adam(model.parameters(), RATE), torch.zeros(BATCH, dtype=torch.int64)
    for step in range(steps):
        chosen = (noise.words((BATCH,), seed, step=step, stream=noise.ORDER) * TRAINING) >> 32
        loss = losses.dsm(model, points[chosen], level, seed=seed, step=step).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        bar.update()
    return model


def _draws(exact, count, sigma, seed, first) -> torch.Tensor:
    """The data plus noise of deviation sigma: (count, 2, 1, 1)."""
    sigmas = torch.full((count,), sigma)
    return ops.perturb(exact.sample(count, seed, first), sigmas, seed=seed, step=0, first=first, stream=noise.RENOISE)


def follow(score, start, reference, times, seed, bar) -> Curve:
    """Langevin dynamics from `start`, and its distance to `reference` at some times."""
    states = {0: start}

    def watch(place):
        bar.update()
        if place["step"] + 1 in times:
            states[place["step"] + 1] = place["x"].clone()

    run = {"eps": EPS, "n_steps_each": times[-1], "denoise": False, "init": start, "batch_size": len(start)}
    sample(score, "langevin", len(start), seed=seed, callback=watch, progress=False, **run)
    return Curve(times, torch.stack([distances(states[time], reference) for time in times]), states)


def distances(x, reference) -> torch.Tensor:
    """Exact W2 of each group of x to as many draws of its own, (groups,)."""
    pairs = zip(x.chunk(GROUPS), reference.chunk(GROUPS), strict=True)
    return torch.tensor([wasserstein(a, b) for a, b in pairs], dtype=torch.float64)


def _mean(values) -> tuple[float, float]:
    """Mean over the groups and its standard error."""
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


def findings(curves, floor) -> list[Finding]:
    """What the two curves say, differences taken group by group."""
    learned, exact = curves["learned"], curves["exact"]
    last, best = learned.times[-1], learned.times[learned.best]
    mean, error = _mean(exact.groups[-1] - floor)
    lowest = learned.groups[learned.best]
    return [
        _clear("learned score: fall of W2 from the start to its minimum", learned.groups[0] - lowest, "falls"),
        _clear(f"learned score: rise of W2 from step {best} to step {last}", learned.groups[-1] - lowest, "rises"),
        close(f"exact score: W2 at step {last} above that of fresh draws", mean, error, 0.0),
        _clear(f"W2 at step {last}, learned above exact score", learned.groups[-1] - exact.groups[-1], "diverges"),
    ]


def _clear(what, differences, paper) -> Finding:
    """A mean difference that must be above chance."""
    mean, error = _mean(differences)
    return above(what, mean, STANDARD_ERRORS * error, paper, error)


def _remarks(model, exact, curves, steps, seed) -> list[str]:
    points = _draws(exact, 2000, SIGMA, seed, first=2**21)
    level = torch.zeros(len(points), dtype=torch.int64)
    with torch.no_grad():
        true, learned = exact(points, level), model(points, level)
    error = ((learned - true).square().sum() / true.square().sum()).sqrt().item()
    best, last = curves["learned"].times[curves["learned"].best], curves["learned"].times[-1]
    return [
        f"A ring of {COMPONENTS} Gaussians in the plane plus noise {SIGMA}, as the paper shows no numbers of this. "
        f"The network, 2-128-128-2, saw {TRAINING} points for {steps} steps; its relative error under the law is "
        f"{error:.2f}. Its minimum is at step {best} of {last}.",
        f"W2 is that of {GROUPS} groups of {len(curves['learned'].states[0]) // GROUPS} chains to as many draws; a "
        f"difference counts above {STANDARD_ERRORS:g} of its standard errors.",
        "Points are few so that the score is wrong enough; how far it leads depends on the network: "
        "of three trained on 300 points one showed no rise beyond chance in 2000 steps. The size of this experiment "
        "was chosen so that the effect shows: with 480 chains and a network trained for 1,000 steps on 300 points it "
        "did not.",
    ]


def figure(curves, floor, reference, path):
    """W2 against time, and where the chains are."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(15.0, 4.3), layout="constrained")
    axes = drawn.subplots(1, 4, width_ratios=[1.6, 1, 1, 1])
    for (name, curve), colour in zip(curves.items(), ("tab:red", "tab:blue"), strict=True):
        means, errors = zip(*map(_mean, curve.groups), strict=True)
        label = f"{name} score"
        axes[0].errorbar(curve.times, means, errors, color=colour, marker="o", markersize=4, capsize=3, label=label)
    level, width = _mean(floor)
    axes[0].axhspan(level - width, level + width, color="0.85", label="fresh draws")
    axes[0].set_xscale("symlog", linthresh=10)
    axes[0].set_xticks([0, 10, 100, 1000], ["0", "10", "100", "1000"])
    axes[0].set(xlabel="steps of Langevin dynamics", ylabel="W2 to the law of the level", ylim=(0, None))
    axes[0].set_title("distance against time")
    axes[0].legend()
    learned = curves["learned"]
    best, last = learned.times[learned.best], learned.times[-1]
    shown = [
        (learned.states[best], f"learned score, step {best}"),
        (learned.states[last], f"learned score, step {last}"),
    ]
    for panel, (x, title) in zip(
        axes[1:], [*shown, (curves["exact"].states[last], f"exact score, step {last}")], strict=True
    ):
        panel.plot(*reference.flatten(1).T, ".", markersize=2, color="0.8")
        panel.plot(*x.flatten(1).T, ".", markersize=2, color="tab:blue" if title.startswith("exact") else "tab:red")
        panel.set(title=title, aspect="equal", xlim=(-5, 5), ylim=(-5, 5))
    return write_figure(drawn, path)

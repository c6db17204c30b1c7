"""`manifold`: data on a manifold have no score, and a little noise gives them one (NCSN, Figure 1)."""

from typing import NamedTuple

import torch
from tqdm import tqdm

from .. import losses, noise
from ..data import open_dataset
from . import _manifold_figures as figures
from ._sliced import train_sliced, zero_level
from .findings import Finding, Report, above, below

NAME = "manifold"
TITLE = "The manifold hypothesis: sliced score matching with and without noise"
SOURCE = "NCSN, arXiv:1907.05600, Figure 1, section 3.1"

INDISTINGUISHABLE = 0.01  # of the largest difference of a pixel
STEPS, LEAST_STEPS, BATCH, RATE = 3000, 1000, 128, 3e-3
DEVIATIONS = (0.0, 0.01, 0.1)  # of the noise; the paper's N(0, 0.0001) is the second
CHECKS, PROJECTIONS = 20, 8  # evaluations on held-out digits, and directions of each


class Curve(NamedTuple):
    """The loss of a training.

    Attributes:
        deviation: of the noise.
        training: loss of each step.
        steps, held_out: numbers of steps, and the losses after them on the test digits.
    """

    deviation: float
    training: torch.Tensor
    steps: list[int]
    held_out: list[float]

    @property
    def growth(self) -> float:
        """How much larger the mean is over the last quarter of the training than over the one before, relative."""
        quarter = len(self.training) // 4
        return float(self.training[-quarter:].mean() / self.training[-2 * quarter : -quarter].mean()) - 1

    @property
    def fluctuation(self) -> float:
        """Standard deviation about a straight line over the last quarter."""
        last = self.training[-(len(self.training) // 4) :]
        place = torch.linspace(-1, 1, len(last), dtype=torch.float64)
        slope = (place * last).sum() / place.square().sum()  # the places have mean 0
        return float((last - slope * place).std())

    @property
    def generalisation(self) -> float:
        """The held-out loss at the end over the training loss of the last tenth."""
        return self.held_out[-1] / float(self.training[-len(self.training) // 10 :].mean())


class Subspace(NamedTuple):
    """The principal components of images.

    Attributes:
        mean: (D,) float64.
        directions: (D, D), a row each, the one of the largest variance first.
        variances: (D,).
        enough: the least number of components whose reconstructions differ by at most 0.01 in the largest pixel, on
            average over the images.
    """

    mean: torch.Tensor
    directions: torch.Tensor
    variances: torch.Tensor
    enough: int

    @property
    def rank(self) -> int:
        """Dimension of the smallest affine subspace that holds all images."""
        return int((self.variances > 1e-12 * self.variances[0]).sum())

    def explaining(self, share) -> int:
        """The least number of components that hold this share of the variance."""
        return int((self.variances.cumsum(0) < share * self.variances.sum()).sum()) + 1

    def reconstruct(self, rows, count) -> torch.Tensor:
        """Rows (n, D) projected on the mean and the first `count` directions."""
        basis = self.directions[:count]
        return (rows.double() - self.mean) @ basis.T @ basis + self.mean


def run(out=None, *, size=1.0, seed=0, progress=True) -> Report:
    """Figure 1 of NCSN on 8x8 digits: principal components, and sliced score matching without and with noise.

    Args:
        out: folder for the figures, or None for none.
        size: share of 3,000 training steps, of which at least 1,000 are made.
        seed: of weights, batches, noise and directions.
        progress: show a bar.

    Returns:
        `Report`.
    """
    train, test = (_digits(which) for which in ("train", "test"))
    rows = torch.cat([train, test]).flatten(1)
    subspace = components(rows)
    steps = max(LEAST_STEPS, round(STEPS * size))
    with tqdm(total=steps * len(DEVIATIONS), desc=NAME, unit="step", disable=not progress) as bar:
        curves = [learn(train, test, deviation, steps, seed=seed, progress=bar) for deviation in DEVIATIONS]
    report = Report(NAME, TITLE, SOURCE, _subspace_findings(subspace) + _curve_findings(*curves))
    report.remarks = _remarks(subspace, steps)
    if out is not None:
        report.figures.append(figures.reconstruction_figure(rows, subspace, out / "manifold-pca.png"))
        report.figures.append(figures.loss_figure(curves, out / "manifold-losses.png"))
    return report


def _digits(which):
    return open_dataset("digits", split=which).images.float() / 255


def components(rows) -> Subspace:
    """Principal components of rows (n, D), and how many of them make images that the eye cannot tell apart.

    Two images are taken for indistinguishable if no pixel differs by more than 0.01 (section 3.1).
    """
    rows = rows.double()
    mean = rows.mean(0)
    _, values, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    rest = rows - mean
    enough = len(values)
    for count, direction in enumerate(directions, 1):
        rest = rest - (rest @ direction)[:, None] * direction
        if rest.abs().amax(1).mean() <= INDISTINGUISHABLE:
            enough = count
            break
    return Subspace(mean, directions, values.square() / (len(rows) - 1), enough)


def learn(train, test, deviation, steps, *, seed=0, progress=None) -> Curve:
    """Sliced score matching on digits plus N(0, deviation^2).

    Args:
        train, test: images (n, 1, 8, 8) in [0, 1].
        deviation: of the noise, fresh in each step; 0 for none.
        steps: training steps.
        seed: of weights, batches, noise and directions.
        progress: a tqdm bar to advance by one each step.
    """

    def noised(x, step, draw):
        return x + deviation * noise.normal(x.shape, draw, step=step, stream=noise.DSM)

    def batch(step):
        chosen = noise.words((BATCH,), seed, step=step, stream=noise.ORDER) % len(train)
        return noised(train[chosen], step, seed)

    marks, held_out = [], []

    def watch(step, model):
        if (step + 1) % max(1, steps // CHECKS):
            return
        with torch.no_grad():
            x = noised(test, step, seed + 1)
            draw = {"seed": seed + 1, "step": step, "projections": PROJECTIONS}
            loss = losses.ssm_vr(model, x, zero_level(x), anneal_power=0.0, noisy=False, **draw)
        marks.append(step + 1)
        held_out.append(float(loss.mean()))

    _, history = train_sliced(batch, tuple(train.shape[1:]), steps, lr=RATE, seed=seed, watch=watch, progress=progress)
    return Curve(deviation, torch.tensor(history, dtype=torch.float64), marks, held_out)


def _subspace_findings(subspace) -> list[Finding]:
    size = len(subspace.mean)
    return [
        below(
            f"components of {size} that make images indistinguishable on average",
            subspace.enough,
            size,
            paper="595 of 784, 2165 of 3072",
        ),
        below(f"dimension of the subspace of {size} that holds every image", subspace.rank, size),
        below(f"components of {size} that hold 95 % of the variance", subspace.explaining(0.95), size / 2),
    ]


def _curve_findings(bare, small, large) -> list[Finding]:
    """Without noise, with the paper's N(0, 0.0001), and with N(0, 0.01)."""
    bounds = [-64 / (2 * curve.deviation**2) for curve in (small, large)]
    lowest = [float(curve.training.min()) for curve in (small, large)]
    return [
        above("no noise: growth of |loss| in the last quarter", bare.growth, 0.3),
        below("N(0, 0.0001): the same, over that without noise", small.growth / bare.growth, 0.5),
        below("N(0, 0.01): growth of |loss| in the last quarter", large.growth, 0.15, paper="N(0, 0.0001) converges"),
        above(
            "fluctuation of the loss without noise, over that with N(0, 0.0001)", _ratio(bare, small), 3.0, "irregular"
        ),
        above("fluctuation of the loss without noise, over that with N(0, 0.01)", _ratio(bare, large), 100.0),
        below("no noise: held-out loss over training loss at the end", bare.generalisation, 0.75),
        above("N(0, 0.01): held-out loss over training loss at the end", large.generalisation, 0.85),
        above("N(0, 0.0001): lowest loss over its bound -D/(2 sigma^2), 1 less this", 1 - lowest[0] / bounds[0], 0.0),
        above("N(0, 0.01): lowest loss over its bound -D/(2 sigma^2), 1 less this", 1 - lowest[1] / bounds[1], 0.0),
    ]


def _ratio(one, other):
    return one.fluctuation / other.fluctuation


def _remarks(subspace, steps):
    return [
        "Digits of 8x8 pixels and a network of two hidden layers in the place of CIFAR-10 and a ResNet; "
        f"{steps} steps with learning rate {RATE:g} (50,000 with 0.001 in the paper).",
        "Without noise the paper's loss decreases and then fluctuates; here it falls faster and faster while its "
        "fluctuations grow, and the held-out loss departs from it.",
        f"The digits lie in a subspace of {subspace.rank} dimensions: a score of -k x along one that is missing lowers "
        "the loss by k at no cost, so that without noise it has no lower bound.",
        "With noise of variance sigma^2 no score has a loss below -D/(2 sigma^2), which is -320,000 for the paper's "
        "N(0, 0.0001): the loss must converge, but does not within these steps (not reproduced); with "
        "N(0, 0.01) it does.",
    ]

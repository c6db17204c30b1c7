"""How well sliced score matching finds the score of two modes, near them and away from them (NCSN, Figure 2)."""

import math
from typing import NamedTuple

import torch
from tqdm import tqdm

from .. import losses
from ._mode_chain import MEANS
from ._sliced import train_sliced, zero_level
from .findings import Finding, above, below, close

__all__ = ["Errors", "measure", "score_findings", "train_on_modes"]

BATCH, STEPS, LEAST_STEPS = 128, 3000, 1000
HELD_OUT = 20_000
SIDE, POINTS = 8.0, 81  # the window of the figure and the points along its side
NEAR, FAR = 2.0, 4.0  # distances from the nearest mode: 86 % of the data are within 2, 0.03 % beyond 4
BEST = -1.0  # -J/2: each mode has Fisher information 2, and their overlap changes it by less than 1e-10


class Errors(NamedTuple):
    """What a trained score is worth.

    Attributes:
        loss, loss_stderr: implicit score matching loss on new data.
        half: half the mean squared error on the same data.
        best, best_stderr: the mean of their differences, -J/2 for every score.
        near, far: root mean square error over the window within `NEAR` of a mode, and beyond `FAR` of both.
        relative_near, relative_far: the same over the root mean square of the true score.
    """

    loss: float
    loss_stderr: float
    half: float
    best: float
    best_stderr: float
    near: float
    far: float
    relative_near: float
    relative_far: float


def train_on_modes(target, size, seed, progress):
    """The network of appendix B.1, trained on fresh data in each step.

    Args:
        target: the data, a `scores.GaussianMixture` in two dimensions.
        size: share of `STEPS`, of which at least `LEAST_STEPS` are made.
        seed: of weights, data and directions.
        progress: show a bar.

    Returns:
        The model, and the number of steps.
    """
    steps = max(LEAST_STEPS, round(STEPS * size))

    def batch(step):
        return target.sample(BATCH, seed, first=BATCH * step)

    with tqdm(total=steps, desc="gmm-toy: training", unit="step", disable=not progress) as bar:
        model, _ = train_sliced(batch, target.shape, steps, seed=seed, progress=bar)
    return model.requires_grad_(False), steps


@torch.no_grad()
def measure(model, target, seed) -> Errors:
    """Errors on data that the training has not seen, and over the window of the figure."""
    x = target.sample(HELD_OUT, seed + 1)
    loss = losses.ism(model, x, zero_level(x), seed=seed, step=0, anneal_power=0.0, noisy=False).double()
    half = 0.5 * _squared_error(model, target, x)
    points = window()
    squared, scale = _squared_error(model, target, points), _squared(target(points, zero_level(points)))
    nearest = torch.cdist(points.flatten(1), torch.tensor(MEANS, dtype=torch.float64)).amin(1)
    within, beyond = nearest < NEAR, nearest > FAR
    (mean, stderr), (best, best_stderr) = _mean(loss), _mean(loss - half)
    near, far = (math.sqrt(squared[where].mean()) for where in (within, beyond))
    relative = [one / math.sqrt(scale[where].mean()) for one, where in ((near, within), (far, beyond))]
    return Errors(mean, stderr, float(half.mean()), best, best_stderr, near, far, relative[0], relative[1])


def window() -> torch.Tensor:
    """The points (POINTS^2, 2, 1, 1) of the figure's window, x_2 changing slowest."""
    line = torch.linspace(-SIDE, SIDE, POINTS, dtype=torch.float64)
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).reshape(-1, 2, 1, 1)


def score_findings(errors) -> list[Finding]:
    """The findings of Figure 2."""
    return [
        close("loss less half the score error, both on new data (-J/2)", errors.best, errors.best_stderr, BEST),
        below("sliced score matching loss on new data (best: -1)", errors.loss, -0.9, stderr=errors.loss_stderr),
        below("half the mean squared score error on new data", errors.half, 0.1),
        below(f"error over score, within {NEAR:g} of a mode", errors.relative_near, 0.25, paper="accurate"),
        above(f"error over score, beyond {FAR:g} of both modes", errors.relative_far, 0.25, paper="inaccurate"),
        above("root mean square error, beyond over within", errors.far / errors.near, 5.0),
    ]


def _squared_error(model, target, x):
    level = zero_level(x)
    return _squared(model(x.float(), level).double() - target(x.double(), level))


def _squared(score):
    return score.double().flatten(1).square().sum(1)


def _mean(values):
    """Mean and standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))

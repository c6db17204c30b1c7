"""Where Langevin dynamics with a score that remembers its training points ends, by where it starts.

Three starts, as in arXiv:2603.11319, section 4: "vanilla" N(0, I); "fresh" new draws from the data, each many times;
"train" training points, each many times. Three scores: the wells of Theorem 7, the exact score of the training points
plus noise (the best network for the paper's loss), and a small network trained with that loss.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from .. import noise
from ..metrics import GaussianFitKL, expected_gaussian_fit_kl, gaussian_fit_kl
from ..models.mlp import layers
from ..scores import Empirical, MemorisedBalls, ScoreFunction
from ._kl_table import kl_spread
from ._ula import STEPS, H, chain_variance, ula
from .findings import Finding, above, below, close, failed

__all__ = ["STARTS", "Ends", "learned_findings", "memoriser_findings", "run_learned", "run_memoriser", "run_wells"]
__all__ += ["abar", "well_findings"]

STARTS = ("vanilla", "fresh", "train")
D, KEPT = 50, 30  # of Theorem 7; 30 starts of each kind, as in the paper
SMALL_D = 10
LEVELS, LEARNED, LEVEL = 1000, 100, 10  # noise levels of the schedule, how many are learned, and which one runs
BETAS = (1e-4, 2e-2)
POINTS, WIDTH, BATCH = 100, 128, 300  # of the small network; at a size below 1 fewer points, at least 30
TRAINING_STEPS, LEAST_STEPS = 6000, 2000


class Ends(NamedTuple):
    """Where one kind of start led.

    Attributes:
        nearest: distances to the nearest training point (n,).
        kl: both divergences of the fitted Gaussian from N(0, I).
        moved: distances from each chain's own start (n,).
    """

    nearest: torch.Tensor
    kl: GaussianFitKL
    moved: torch.Tensor


def abar(level) -> float:
    """Product of 1 - beta over the first `level` of 1000 levels, beta from 1e-4 to 2e-2 (DDPM, arXiv:2006.11239)."""
    betas = torch.linspace(*BETAS, LEVELS, dtype=torch.float64)
    return (1 - betas)[:level].prod().item()


def run_wells(size, seed, progress) -> tuple[MemorisedBalls, dict[str, Ends]]:
    """Theorem 7: wells about 30 points in 50 dimensions, 1000 steps from each kind of start."""
    copies = max(10, round(20 * size))
    field = MemorisedBalls(_general_position(seed))
    return field, _from_all_starts(field, field.points.flatten(1), copies, seed, progress, "robustness: Theorem 7")


def _general_position(seed):
    """The first 30 of a row of draws from N(0, I) that lie far enough from all before."""
    draws = noise.normal((4 * KEPT, D), seed, stream=noise.DATA).double()
    kept: list[torch.Tensor] = []
    for x in draws:
        if all((x - y).norm() >= 0.9 * math.sqrt(D) for y in kept):
            kept.append(x)
    return torch.stack(kept[:KEPT])


def _from_all_starts(model, points, copies, seed, progress, label, steps=STEPS) -> dict[str, Ends]:
    """`ula` from 30 starts of each kind, `copies` of each."""
    n, d = KEPT * copies, points.shape[1]
    starts = {
        "vanilla": noise.normal((n, d), seed, stream=noise.INIT),
        "fresh": noise.normal((KEPT, d), seed, first=10**6, stream=noise.DATA).repeat(copies, 1),
        "train": points[:KEPT].float().repeat(copies, 1),
    }
    target = torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)
    ends = {}
    for i, name in enumerate(tqdm(STARTS, desc=label, unit="start", disable=not progress)):
        x = ula(model, starts[name], steps=steps, seed=seed, first=i * n).flatten(1).double()
        nearest = torch.cdist(x, points.double()).min(1).values
        ends[name] = Ends(nearest, gaussian_fit_kl(x, target), (x - starts[name]).norm(dim=1))
    return ends


def well_findings(field, ends, seed) -> list[Finding]:
    """Theorem 7: captured from the training points, as with the true score from elsewhere; and no score error."""
    n = len(ends["train"].nearest)
    v = 1 / (field.stiffness * (1 - H * field.stiffness / 2))
    found = [_captured("Theorem 7, from training points", ends["train"].nearest, v, D)]
    law = torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    true = law[0], chain_variance() * law[1]
    expected, spread = expected_gaussian_fit_kl(n, true, law), kl_spread(n, chain_variance(), 0.0)
    for name in ("vanilla", "fresh"):
        what = f"Theorem 7, from {name} starts: "
        reach = field.outer * math.sqrt(D)
        found.append(above(what + "smallest distance to a training point", ends[name].nearest.min().item(), reach))
        found.append(close(what + "KL(fit || pi), that of the true score", ends[name].kl[0], spread[0], expected[0]))
    what = "Theorem 7, from training points: KL(fit || pi), against five times that of the true score"
    found.append(above(what, ends["train"].kl.forward, 5 * expected.forward))
    errors = field.squared_error(field.target.sample(20_000, seed, first=2 * 10**6))
    found.append(below("E |s_hat - s|^2 of Theorem 7", errors.mean().item(), 5e-7))
    return found


def _captured(what, nearest, v, d):
    """Distances to the nearest point under N(x_j, V I): sqrt(V) times a chi law of d degrees."""
    mean = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    stderr = math.sqrt(v * (d - mean**2) / len(nearest))
    return close(f"{what}: mean distance to the nearest one", nearest.mean().item(), stderr, math.sqrt(v) * mean)


def run_memoriser(size, seed, progress) -> dict[str, Ends]:
    """The exact score of 1000 points in 10 dimensions plus the noise of level 10."""
    points = noise.normal((max(200, round(1000 * size)), SMALL_D), seed, first=3 * 10**6, stream=noise.DATA)
    model = Empirical(points, sigmas=[math.sqrt(1 - abar(LEVEL))])
    copies = max(2, round(8 * size))
    # a well is reached in one step and forgotten in ten: |1 - h / sigma^2| = .32
    return _from_all_starts(model, points, copies, seed, progress, "robustness: memoriser", steps=STEPS // 4)


def memoriser_findings(ends) -> list[Finding]:
    """Each chain falls into the well of one point, wherever it starts."""
    variance = 1 - abar(LEVEL)
    v = chain_variance(1 / variance, start=0.0)
    return [_captured(f"exact memoriser, from {name} starts", ends[name].nearest, v, SMALL_D) for name in STARTS]


def run_learned(size, seed, progress) -> dict[str, Ends]:
    """A network trained on few points with the DDPM loss, and run at level 10 (arXiv:2603.11319, section 9).

    s(x) = -eps_theta(x, 10) / sqrt(1 - abar_10)
    """
    points = noise.normal((max(KEPT, round(POINTS * size)), SMALL_D), seed, first=4 * 10**6, stream=noise.DATA)
    network = _trained(points, max(LEAST_STEPS, round(TRAINING_STEPS * size)), seed, progress)
    sigma = math.sqrt(1 - abar(LEVEL))
    model = ScoreFunction(lambda x, _: -network(x.flatten(1), LEVEL).reshape(x.shape) / sigma, [sigma], (SMALL_D, 1, 1))
    return _from_all_starts(model, points, max(10, round(20 * size)), seed, progress, "robustness: learned score")


class Denoiser(nn.Module):
    """eps_theta(x, t): three hidden layers, t in units of the learned levels as a further input."""

    def __init__(self, size, width):
        super().__init__()
        self.net = layers(size + 1, (width,) * 3, size, "relu", "Denoiser")

    def forward(self, x, t):
        level = torch.as_tensor(t, dtype=x.dtype).expand(len(x))[:, None] / LEARNED
        return self.net(torch.cat([x, level], 1))


def _trained(points, steps, seed, progress):
    """Adam on E |eps_theta(sqrt(abar_t) x + sqrt(1 - abar_t) eps, t) - eps|^2, t uniform on the lowest 100 levels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # initial weights; all other randomness is counted, not drawn
        network = Denoiser(points.shape[1], WIDTH)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    products = torch.tensor([abar(t) for t in range(1, LEARNED + 1)], dtype=torch.float32)
    for step in tqdm(range(steps), desc="robustness: training", unit="step", disable=not progress):
        words = noise.words((BATCH, 2), seed, step=step, stream=noise.ORDER)
        x, t = points[(words[:, 0] * len(points)) >> 32], (words[:, 1] * LEARNED) >> 32
        eps = noise.normal(x.shape, seed, step=step, stream=noise.DSM)
        kept = products[t][:, None]
        error = network(kept.sqrt() * x + (1 - kept).sqrt() * eps, t + 1) - eps
        optimiser.zero_grad()
        error.square().sum(1).mean().backward()
        optimiser.step()
        decay.step()
    return network.requires_grad_(False)


def learned_findings(ends) -> list[Finding]:
    """From its training points the network's chains do not move; that fresh starts are better is not seen here."""
    n = len(ends["train"].nearest)
    law = torch.zeros(SMALL_D, dtype=torch.float64), torch.eye(SMALL_D, dtype=torch.float64)
    floor = expected_gaussian_fit_kl(n, (law[0], chain_variance() * law[1]), law).forward
    train, fresh = ends["train"], ends["fresh"]
    well = math.sqrt(chain_variance(1 / (1 - abar(LEVEL)), start=0.0) * SMALL_D)
    what = "learned score, from training points: "
    found = [
        below(what + "median distance from the start, against two widths of a well", train.moved.median(), 2 * well),
        above(what + "KL(fit || pi), against three times that of the true score", train.kl.forward, 3 * floor),
    ]
    gap = "learned score: KL(fit || pi) is larger from training points than from fresh ones"
    if train.kl.forward > 1.2 * fresh.kl.forward:
        return [*found, above(gap, train.kl.forward, fresh.kl.forward, "yes (Figure 2)")]
    why = (
        f"{train.kl.forward:.2f} against {fresh.kl.forward:.2f}: a network that learned its points by heart pulls "
        f"fresh starts to them, too (mean distance {fresh.nearest.mean():.2f}); the paper's 1000 points and 150,000 "
        "epochs were not tried"
    )
    return [*found, failed(gap, why, "yes (Figure 2)")]

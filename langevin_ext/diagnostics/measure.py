"""The measurements of one noise level: losses, chains from data, and the sampler's own chain."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import noise, ops
from ..sampling import sample
from .estimate import Estimate, estimate, quotient

__all__ = ["Path", "Trial", "losses", "walk"]

CHUNK = 256  # images at a time
LOOKS = 4  # times per level at which the path's scores are compared with the exact ones


@dataclass(frozen=True)
class Losses:
    """Of one set of images at one level: the loss of the model and of the exact score, the model's scale and error."""

    values: torch.Tensor  # of the model, (n,)
    scale: Estimate
    exact: Estimate | None
    error: Estimate | None


def losses(model, exact, images, level, sigma, *, centre, seed, first, draws) -> Losses:
    """Denoising score matching losses at one level, a mean over `draws` of the noise for each image.

        loss = 1/2 |sigma s(y) + z|^2,   scale = -(y - m) . s(y) / D,   error = E|s - s*|^2 / E|s*|^2

    at y = x + sigma z.

    Args:
        model, exact: scores; exact has at_sigma, or is None.
        images: (n, C, H, W).
        level, sigma: index and value of the noise level.
        centre: m, (C, H, W) float64.
        seed, first: image i draws the noise of (seed, first + i), at the steps level draws + 0 .. draws - 1.
        draws: number of noise draws.
    """
    sums, centre = torch.zeros(5, len(images), dtype=torch.float64), centre.to(images.device)
    for low in range(0, len(images), CHUNK):
        x, part = images[low : low + CHUNK], slice(low, low + CHUNK)
        sigmas = torch.full((len(x),), sigma, dtype=torch.float32, device=x.device)
        for draw in range(draws):
            at: dict = {"seed": seed, "step": level * draws + draw, "first": first + low, "stream": noise.DSM}
            noisy = ops.perturb(x, sigmas, **at)
            score = model(noisy, torch.full((len(x),), level, device=x.device))
            sums[0, part] += ops.dsm_loss(score, sigmas, anneal_power=2.0, **at).double().cpu()
            sums[4, part] -= ((noisy - centre) * score).flatten(1).sum(1).cpu() / centre.numel()
            if exact is not None:
                true = exact.at_sigma(noisy, sigmas)
                sums[1, part] += ops.dsm_loss(true, sigmas, anneal_power=2.0, **at).double().cpu()
                sums[2, part] += _square(score - true)
                sums[3, part] += _square(true)
    values, scale = sums[0] / draws, estimate(sums[4] / draws)
    if exact is None:
        return Losses(values, scale, None, None)
    return Losses(values, scale, estimate(sums[1] / draws), quotient(*sums[2:4]))


def _square(x) -> torch.Tensor:
    """|x|^2 of each sample, float64 on the CPU."""
    return x.double().square().flatten(1).sum(1).cpu()


@dataclass(frozen=True)
class Trial:
    """Chains that started at q_sigma and ran at this level.

    Attributes:
        drift: (|x_T - m|^2 - |x_0 - m|^2) / (sigma^2 D).
        moved: |x_T - image|^2 / (sigma^2 D), the image being what x_0 was made of.
    """

    drift: Estimate
    moved: Estimate


def walk(model, images, level, sigma, *, alpha, n_steps, seed, first, centre) -> Trial:
    """Langevin dynamics at one level, started at image + sigma z, the law of which an exact score keeps.

    Args:
        model: the score.
        images: (n, C, H, W).
        level, sigma: index and value of the noise level.
        alpha, n_steps: step size and number of steps.
        seed, first: chain i draws the noise of (seed, first + i).
        centre: m, (C, H, W) float64.
    """
    sigmas = torch.full((len(images),), sigma, dtype=torch.float32, device=images.device)
    start = ops.perturb(images, sigmas, seed=seed, step=level, first=first, stream=noise.RENOISE)
    steps: dict = {"level": level, "eps": alpha, "n_steps_each": n_steps, "denoise": False}
    try:
        end: Any = sample(model, "langevin", len(images), init=start, seed=seed, first=first, progress=False, **steps)
    except FloatingPointError:  # the chain left for infinity
        return Trial(Estimate(math.inf, math.inf), Estimate(math.inf, math.inf))
    centre, unit = centre.to(images.device), sigma**2 * centre.numel()
    drift = _square(end.double() - centre) - _square(start.double() - centre)
    return Trial(estimate(drift / unit), estimate(_square(end.double() - images) / unit))


@dataclass
class Path:
    """What the sampler's chain is asked on its way: a callback of `sample`.

    Attributes:
        model, exact: the scores to compare where the chain is, exact or None.
        centre: m, (C, H, W) float64.
        n_steps_each: steps of a level.
        norms: level -> |x - m|^2 / D of each chain at its end.
        squares: level -> (|s - s*|^2, |s*|^2) of each chain, summed over `LOOKS` times.
    """

    model: object
    exact: object
    centre: torch.Tensor
    n_steps_each: int
    norms: dict[int, list] = field(default_factory=dict)
    squares: dict[int, list] = field(default_factory=dict)

    def __call__(self, place):
        if place["kind"] != "step":
            return
        x, level, step = place["x"], place["level"], place["step"] % self.n_steps_each + 1
        if step == self.n_steps_each:
            norm = _square(x.double() - self.centre.to(x.device)) / self.centre.numel()
            self.norms.setdefault(level, []).append(norm)
        if self.exact is not None and step % max(self.n_steps_each // LOOKS, 1) == 0:
            score = self.model(x, torch.full((len(x),), level, device=x.device))
            true = self.exact.at_sigma(x, place["sigma"])
            pair = torch.stack([_square(score - true), _square(true)])
            batches = self.squares.setdefault(level, [])
            if place["first"] not in [first for first, _ in batches]:
                batches.append((place["first"], torch.zeros_like(pair)))
            next(total for first, total in batches if first == place["first"]).add_(pair)

    def norm(self, level) -> Estimate:
        """E|x - m|^2 / D at the end of a level; infinite if the chain did not get there."""
        return estimate(torch.cat(self.norms[level])) if level in self.norms else Estimate(math.inf, math.inf)

    def error(self, level) -> Estimate | None:
        """E|s - s*|^2 / E|s*|^2 along a level."""
        if self.exact is None:
            return None
        if level not in self.squares:
            return Estimate(math.inf, math.inf)
        return quotient(*torch.cat([total for _, total in self.squares[level]], 1))

"""`walk-jump`: Langevin dynamics on noisy data, and the jump back (arXiv:1903.02503)."""

import math

import torch

from .. import plots, sampling
from ..metrics import ClassifierFeatures
from ..samplers.measurement import jump
from ..scores import Gaussian
from ..training import load
from .findings import Finding, Report, above, close

NAME = "walk-jump"
TITLE = "Walk-jump sampling: the law of the jump, and one walk with many of them"
SOURCE = "Saremi & Hyvarinen 2019, arXiv:1903.02503"

DELTA = 0.1
LAWS = [(1.0, 1.0), (1.0, 0.5), (0.25, 1.0)]  # variance of the data, sigma
DIGITS_SIGMA = 3  # index of the level of the shipped network: enough noise to go from one digit to another
WALKS, JUMPS = 10, 12


def run(out=None, *, size=1.0, seed=0, progress=True) -> Report:
    """The law on Gaussian data, and a walk over digits; arguments as for `experiment`."""
    findings = [law(s2, sigma, max(100, int(4000 * size)), seed) for s2, sigma in LAWS]
    figures, found = digits(out, max(40, int(400 * size)), seed, progress)
    remarks = [
        f"Steps of delta = {DELTA:g} in units of sigma^2; the walk widens the law of y by 1 / (1 - delta sigma^2 / "
        "(2 (s^2 + sigma^2))), which the closed form contains.",
        "The distance of the jumped law from the data, (s - s^2 / sqrt(s^2 + sigma^2))^2 a dimension, is what a single "
        "measurement costs; several bring it down (multi-measurement).",
    ]
    return Report(NAME, TITLE, SOURCE, findings + found, figures, remarks)


def law(variance, sigma, n, seed) -> Finding:
    """Var xhat = s^4 / (s^2 + sigma^2), times the inflation of the walk."""
    dimension, noisy = 16, variance + sigma**2
    model = Gaussian(0.0, variance=variance, sigmas=[sigma], shape=(dimension, 1, 1))
    steps = math.ceil(12 * noisy / (DELTA * sigma**2))  # the start is forgotten to e^-24
    settings = {"sigma": sigma, "delta": DELTA, "n_steps_each": steps, "init": "zeros", "seed": seed}
    x = sampling.sample(model, "walk-jump", n, progress=False, **settings).double()
    expected = variance**2 / noisy / (1 - DELTA * sigma**2 / (2 * noisy))
    stderr = expected * math.sqrt(2 / x.numel())
    return close(f"variance of the jump, s^2 = {variance:g}, sigma = {sigma:g}", x.var().item(), stderr, expected)


def digits(out, steps, seed, progress):
    """Walks over the digits network at one level, with jumps on the way: (figures, findings)."""
    model = load("digits")
    sigma = float(model.sigmas[DIGITS_SIGMA])
    every = max(1, steps // JUMPS)
    settings = {"sigma": sigma, "n_steps_each": every * JUMPS, "snapshot": every, "return_info": True, "seed": seed}
    _, info = sampling.sample(model, "walk-jump", WALKS, progress=progress, **settings)
    walk = info["snapshots"]
    with torch.inference_mode():
        jumps = [jump(model, y, sigma) for y in walk]
        classify = ClassifierFeatures("digits").model
        sure = [torch.cat([classify(x.clamp(0, 1)).softmax(1).amax(1) for x in row]) for row in (walk, jumps)]
    gained = sure[1] - sure[0]
    finding = above(
        f"certainty of the digit classifier about the jumped image minus that about y, sigma = {sigma:.3g}",
        gained.mean().item(),
        0.0,
        stderr=(gained.std() / math.sqrt(WALKS)).item(),  # images of one walk are not independent, walks are
    )
    if out is None:
        return [], [finding]
    strips = [image[:3] for pair in zip(walk, jumps, strict=True) for image in pair]
    rows = torch.cat([torch.cat([*strips[0::2]]), torch.cat([*strips[1::2]])])
    order = [k * 3 + w + half * 3 * JUMPS for w in range(3) for half in (0, 1) for k in range(JUMPS)]
    path = plots.image_grid(rows[order], out / "walk-jump-digits.png", columns=JUMPS, smooth=True)
    return [path], [finding]

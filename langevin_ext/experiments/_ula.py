"""The unadjusted Langevin algorithm of arXiv:2603.11319, equation 2, by `sample`."""

import warnings

import torch

from .. import sampling

__all__ = ["H", "STEPS", "chain_factor", "chain_variance", "ula"]

H, STEPS = 0.0025, 1000  # of all its simulations


def ula(model, start, *, h=H, steps=STEPS, seed=0, first=0, **options):
    """x <- x + h s(x) + sqrt(2 h) z, `steps` times; returns what `sample` does.

    Args:
        model: a model with one level.
        start: (n, D) float starts.
        h, steps: step size and their number.
        seed, first: chain i depends on (seed, first + i).
        options: further ones of `sample`.
    """
    init = start.to(torch.float32).reshape(len(start), *model.shape)
    with warnings.catch_warnings():
        # with h between sigma^2 and 2 sigma^2 steps overshoot, and the closed forms here include it
        warnings.filterwarnings("ignore", message=".*every step overshoots")
        return sampling.sample(
            model,
            "langevin",
            n=len(start),
            step_lr=h,
            n_steps_each=steps,
            denoise=False,
            init=init,
            seed=seed,
            first=first,
            progress=False,
            **options,
        )


def chain_factor(stiffness=1.0, h=H, steps=STEPS) -> float:
    """a^steps with a = 1 - h C: what is left of a start's distance to the mean of N(m, I / C)."""
    return (1 - h * stiffness) ** steps


def chain_variance(stiffness=1.0, start=1.0, h=H, steps=STEPS) -> float:
    """Variance per value after `steps` towards N(m, I / C), from a start of this variance.

    V = a^(2 steps) start + 2 h (1 - a^(2 steps)) / (1 - a^2)
    """
    a = 1 - h * stiffness
    return a ** (2 * steps) * start + 2 * h * (1 - a ** (2 * steps)) / (1 - a * a)

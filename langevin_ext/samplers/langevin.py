"""Langevin dynamics: at one noise level, annealed over a ladder, and inpainting with either.

NCSN is Song & Ermon 2019 (arXiv:1907.05600). Line numbers are those of its algorithm boxes.
"""

import math

from ..schedules import check_eps, step_size
from .table import AFTER, BEFORE, DENOISE, Row, Run

STAGE = "stage"
ORDERS = {"paper": AFTER, "refresh": BEFORE}


def langevin(ladders, *, eps, n_steps_each, denoise, inpainting=False, level=None, inpaint_order="paper") -> list[Run]:
    """Langevin dynamics at one noise level (NCSN, equation 5; its baseline runs 1000 steps at sigma = 0.01).

        x = x + eps/2 score(x, level) + sqrt(eps) z          n_steps_each times

    Args:
        ladders: sigmas of each model, coarsest first; the last is run.
        eps, n_steps_each: step size at this level and number of steps, of each model.
        denoise: end with x = x + sigma^2 score(x, level).
        inpainting: known pixels are set as in Algorithm 2.
        level: index into the sigmas, the last by default.
        inpaint_order: see `annealed`.

    Returns:
        the stages.
    """
    sigmas = ladders[-1]
    level = len(sigmas) - 1 if level is None else level
    if isinstance(level, bool) or not isinstance(level, int) or not -len(sigmas) <= level < len(sigmas):
        raise ValueError(f"langevin: option level must be an index into the {len(sigmas)} sigmas, got {level!r}")
    level %= len(sigmas)
    check_eps(eps[-1], sigmas[level], "langevin")
    rows = steps_at(level, sigmas[level], eps[-1], n_steps_each[-1], paste=paste_time(inpainting, inpaint_order))
    if denoise:
        rows.append(denoising(level, sigmas[level], len(rows)))
    return [Run(len(ladders) - 1, tuple(rows))]


def annealed(
    ladders, *, eps, n_steps_each, denoise, inpainting=False, sigma_ref=None, inpaint_order="paper"
) -> list[Run]:
    """Annealed Langevin dynamics (NCSN, Algorithm 1); with known pixels, Algorithm 2.

        for sigma_i in sigmas:
            step_size = eps (sigma_i / sigma_ref)^2
            x = x + step_size/2 score(x, i) + sqrt(step_size) z          n_steps_each times
        x = x + sigma_L^2 score(x, L)                                    if denoise (NCSNv2, arXiv:2006.09011)

    Args:
        ladders: sigmas of each model, coarsest first; the last is run.
        eps, n_steps_each: step size at sigma_ref and steps per level, of each model.
        denoise: make the last line's update.
        inpainting: known pixels are set at each level.
        sigma_ref: the level at which the step is eps: a number, or None or "stage", the last of the ladder.
        inpaint_order: when a level sets its known pixels. "paper": after its first update, so that its first score
            still sees those of the level before (Algorithm 2); "refresh": before its first score (the released code).

    Returns:
        the stages.
    """
    sigmas = ladders[-1]
    sigma_ref = reference_level(sigma_ref, sigmas, len(sigmas) - 1)
    check_eps(eps[-1], sigma_ref, "annealed")
    paste = paste_time(inpainting, inpaint_order)
    rows = anneal(sigmas, range(len(sigmas)), eps[-1], sigma_ref, n_steps_each[-1], paste=paste)
    if denoise:
        rows.append(denoising(len(sigmas) - 1, sigmas[-1], len(rows)))
    return [Run(len(ladders) - 1, tuple(rows))]


def anneal(sigmas, levels, eps, sigma_ref, n_steps_each, *, k=0, paste="", number=0) -> list[Row]:
    """The steps of some levels of a ladder, one level after the other: lines 2 to 8 of Algorithm 1.

    Args:
        sigmas: the ladder.
        levels: indices into it.
        eps: step size at sigma_ref.
        n_steps_each: T.
        k, number: steps and levels done before, over all stages.
        paste: see `steps_at`.
    """
    rows: list[Row] = []
    for count, i in enumerate(levels):  # line 2
        alpha = step_size(sigmas[i], eps, sigma_ref)  # line 3
        rows += steps_at(i, sigmas[i], alpha, n_steps_each, k=k + len(rows), paste=paste, number=number + count)
    return rows


def steps_at(level, sigma, step_size, n_steps_each, *, k=0, paste="", number=0) -> list[Row]:
    """The steps of one level: lines 4 to 7 of Algorithm 1, lines 6 to 10 of Algorithm 2.

    Args:
        level, sigma: the noise level.
        step_size: alpha_i.
        n_steps_each: T.
        k: steps done before, over all levels and stages.
        paste: "before" the first score or "after" the first update the known pixels become y, "" for none. They are
            not touched by the other updates, which is line 9 for all of them.
        number: levels done before, over all stages.
    """
    return [
        Row(
            level,
            sigma,
            step_size / 2,
            math.sqrt(step_size),
            k + t,
            ends_level=t == n_steps_each - 1,
            paste=paste if t == 0 else "",
            paste_step=number,
        )
        for t in range(n_steps_each)
    ]


def denoising(level, sigma, k) -> Row:
    """x = x + sigma^2 score(x, level): the mean of the clean image given x."""
    return Row(level, sigma, sigma**2, 0.0, k, kind=DENOISE)


def reference_level(sigma_ref, sigmas, last) -> float:
    """The level at which the step is eps: None for the ladder's last, "stage" for the last that is run, or a number."""
    if sigma_ref is None:
        return sigmas[-1]
    if sigma_ref == STAGE:
        return sigmas[last]
    if isinstance(sigma_ref, bool) or not isinstance(sigma_ref, int | float) or not 0 < sigma_ref < math.inf:
        raise ValueError(f"sample: option sigma_ref must be a positive number or {STAGE!r}, got {sigma_ref!r}")
    return float(sigma_ref)


def paste_time(inpainting, order) -> str:
    """When a level sets its known pixels; "" where there are none."""
    if order not in ORDERS:
        raise ValueError(f"sample: option inpaint_order must be one of {', '.join(ORDERS)}, got {order!r}")
    return ORDERS[order] if inpainting else ""

"""Langevin dynamics: at one noise level, annealed over a ladder, and inpainting with either.

NCSN is Song & Ermon 2019 (arXiv:1907.05600). Line numbers are those of its algorithm boxes.
"""

import math

from ..schedules import check_eps, step_size
from .table import AFTER, BEFORE, DENOISE, Row, Run

ORDERS = {"paper": AFTER, "refresh": BEFORE}


def langevin(ladders, *, eps, n_steps_each, denoise, inpainting=False, level=None, inpaint_order="paper") -> list[Run]:
    """Langevin dynamics at one noise level (NCSN, equation 5; its baseline runs 1000 steps at sigma = 0.01).

        x = x + eps/2 score(x, level) + sqrt(eps) z          n_steps_each times

    Args:
        ladders: sigmas of each model, coarsest first; the last is run.
        eps: step size at this level.
        n_steps_each: number of steps.
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
    check_eps(eps, sigmas[level], "langevin")
    rows = steps_at(level, sigmas[level], eps, n_steps_each, paste=_paste(inpainting, inpaint_order))
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
        eps: step size at sigma_ref.
        n_steps_each: steps per level.
        denoise: make the last line's update.
        inpainting: known pixels are set at each level.
        sigma_ref: the level at which the step is eps, the last of the ladder by default.
        inpaint_order: when a level sets its known pixels. "paper": after its first update, so that its first score
            still sees those of the level before (Algorithm 2); "refresh": before its first score (the released code).

    Returns:
        the stages.
    """
    sigmas = ladders[-1]
    sigma_ref = _reference(sigma_ref, sigmas)
    check_eps(eps, sigma_ref, "annealed")
    paste = _paste(inpainting, inpaint_order)
    rows: list[Row] = []
    for i, sigma in enumerate(sigmas):  # line 2
        alpha = step_size(sigma, eps, sigma_ref)  # line 3
        rows += steps_at(i, sigma, alpha, n_steps_each, k=len(rows), paste=paste, number=i)
    if denoise:
        rows.append(denoising(len(sigmas) - 1, sigmas[-1], len(rows)))
    return [Run(len(ladders) - 1, tuple(rows))]


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


def _reference(sigma_ref, sigmas):
    if sigma_ref is None:
        return sigmas[-1]
    if not (math.isfinite(sigma_ref) and sigma_ref > 0):
        raise ValueError(f"annealed: option sigma_ref must be positive, got {sigma_ref!r}")
    return float(sigma_ref)


def _paste(inpainting, order):
    if order not in ORDERS:
        raise ValueError(f"sample: option inpaint_order must be one of {', '.join(ORDERS)}, got {order!r}")
    return ORDERS[order] if inpainting else ""

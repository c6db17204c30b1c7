"""Ladders of noise levels, and the step sizes of Langevin dynamics on them.

sigmas is one-dimensional, positive and strictly decreasing, in units of x. Two conventions of the step are in use:

    eps      x <- x + eps/2 s + sqrt(eps) z        NCSN (Song & Ermon 2019, arXiv:1907.05600), equation 5, Algorithm 1
    step_lr  x <- x + g s + sqrt(2 g) z            the code released with it and with NCSNv2 (arXiv:2006.09011)

They are one rule with eps = 2 step_lr: the released code's 2e-5 is the paper's 4e-5.
"""

import math
import warnings

import numpy as np
import torch

__all__ = [
    "geometric_sigmas",
    "check_sigmas",
    "eps_from_step_lr",
    "step_lr_from_eps",
    "resolve_eps",
    "check_eps",
    "step_sizes",
]

DEFAULT_EPS = 2e-5


def geometric_sigmas(first, last, n) -> torch.Tensor:
    """A geometric ladder of noise levels (NCSN, arXiv:1907.05600, section 4.2).

        sigma_i = first (last / first)^(i / (n - 1)),   i = 0 .. n-1

    Args:
        first, last: the largest and the smallest level, first > last > 0; equal if and only if n = 1.
        n: number of levels, at least 1.

    Returns:
        float32 tensor (n,), strictly decreasing, computed in float64; both ends are exact.

    Raises:
        ValueError: the ends are not positive, finite and decreasing, or n is not a positive integer.
    """
    if isinstance(n, bool) or int(n) != n or n < 1:
        raise ValueError(f"geometric_sigmas: argument n must be a positive integer, got {n!r}")
    ordered = first > last if n > 1 else first == last
    if not (math.isfinite(first) and math.isfinite(last) and last > 0 and ordered):
        relation = "first > last > 0" if n > 1 else "first = last > 0 for one level"
        raise ValueError(f"geometric_sigmas: arguments first, last must be finite with {relation}, got {first}, {last}")
    return torch.from_numpy(np.geomspace(float(first), float(last), int(n))).to(torch.float32)


def check_sigmas(sigmas, name="sigmas") -> list[float]:
    """The noise levels as Python floats, after checking that they are a ladder.

    Args:
        sigmas: tensor, array or sequence (L,), strictly decreasing, positive, finite.
        name: what the error message calls them.

    Returns:
        list of L floats.

    Raises:
        ValueError: not one-dimensional, empty, not finite, not positive or not strictly decreasing.
    """
    tensor = torch.as_tensor(sigmas).detach()
    if tensor.dim() != 1 or len(tensor) == 0:
        raise ValueError(f"{name}: must be one-dimensional with at least one level, got shape {tuple(tensor.shape)}")
    values = tensor.to("cpu", torch.float64).tolist()
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"{name}: must be finite and positive, got {values}")
    for i, (larger, smaller) in enumerate(zip(values, values[1:], strict=False)):
        if larger <= smaller:
            raise ValueError(f"{name}: must be strictly decreasing, got {larger:g} then {smaller:g} at index {i + 1}")
    return values


def eps_from_step_lr(step_lr) -> float:
    """eps = 2 step_lr."""
    return 2 * step_lr


def step_lr_from_eps(eps) -> float:
    """step_lr = eps / 2."""
    return eps / 2


def resolve_eps(eps=None, step_lr=None, name="resolve_eps") -> float:
    """eps, whichever convention it was given in; 2e-5, the value of NCSN's section 5, if in neither.

    Raises:
        ValueError: both are given, or the value is not positive and finite.
    """
    if eps is not None and step_lr is not None:
        raise ValueError(
            f"{name}: arguments eps and step_lr are two conventions of one step (eps = 2 step_lr), "
            f"give one, got eps={eps} and step_lr={step_lr}"
        )
    label, given = ("step_lr", step_lr) if step_lr is not None else ("eps", DEFAULT_EPS if eps is None else eps)
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: argument {label} must be a positive number, got {given!r}")
    return eps_from_step_lr(value) if label == "step_lr" else value


def check_eps(eps, sigma_ref, name="check_eps") -> None:
    """Refuses step sizes at which Langevin dynamics diverges, warns of those at which it overshoots.

    On point-like data every level contracts by |1 - eps / (2 sigma_ref^2)| per step, whatever its sigma: the chain
    is stable for eps < 4 sigma_ref^2 and approaches without changing sides for eps <= 2 sigma_ref^2.

    Raises:
        ValueError: eps >= 4 sigma_ref^2; the message names the limit.
    """
    limit = 4 * sigma_ref**2
    if eps >= limit:
        raise ValueError(
            f"{name}: argument eps must be below 4 sigma^2 = {limit:g} (step_lr below {limit / 2:g}) for "
            f"sigma = {sigma_ref:g}, above which Langevin dynamics diverges, got eps={eps:g}"
        )
    if eps > limit / 2:
        warnings.warn(
            f"{name}: eps={eps:g} is above 2 sigma^2 = {limit / 2:g} for sigma = {sigma_ref:g}: every step "
            "overshoots, and samples are noisier than the last level",
            stacklevel=4,
        )


def step_sizes(sigmas, eps=DEFAULT_EPS, sigma_ref=None) -> torch.Tensor:
    """The step size alpha_i of each level (NCSN, arXiv:1907.05600, Algorithm 1, line 3).

        step_size_i = eps (sigma_i / sigma_ref)^2

    Args:
        sigmas: (L,), strictly decreasing.
        eps: step size at sigma_ref.
        sigma_ref: the level at which the step is eps; the last of `sigmas` by default.

    Returns:
        float64 tensor (L,).
    """
    levels = check_sigmas(sigmas, "step_sizes: argument sigmas")
    reference = levels[-1] if sigma_ref is None else float(sigma_ref)
    return torch.tensor([step_size(sigma, eps, reference) for sigma in levels], dtype=torch.float64)


def step_size(sigma, eps, sigma_ref) -> float:
    """step_size = eps (sigma / sigma_ref)^2 of one level, in float64."""
    return eps * (sigma / sigma_ref) ** 2

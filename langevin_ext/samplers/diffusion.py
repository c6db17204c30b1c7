"""Reverse diffusions with the scores of noise-conditional networks: the reverse Ornstein-Uhlenbeck process, and the
probability-flow ODE.

The data X_0 under dX = -X dt + sqrt(2) dW have at time t the law r_t of e^{-t} (X_0 + sigma(t) N), sigma(t) =
sqrt(e^{2t} - 1). Its score is that of the data with noise, rescaled,

    score_{r_t}(y) = e^t score(e^t y, sigma(t))

which is how a network trained for noise levels serves denoising diffusion (DDPM, arXiv:2006.11239, is this process in
discrete time; score SDE, arXiv:2011.13456, section 3.4 and appendix B).
"""

import math
from typing import Any, NamedTuple

import torch

from .. import ops
from ..schedules import geometric_sigmas
from .langevin import denoising
from .measurement import Measure
from .table import DENOISE, STEP, Run

HEUN, RK4 = "heun", "rk4"
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")  # names of torchdiffeq


def ou_reverse(ladders, *, models, denoise, T=None, gamma=None) -> list:
    """The reverse of the Ornstein-Uhlenbeck process (arXiv:2011.13456, equation 6, by Euler and Maruyama).

        y ~ N(0, I)
        for k in 0 ... K - 1, t = T - gamma k:
            y = y + gamma y + 2 gamma score_{r_t}(y) + sqrt(2 gamma) z
        in the last step  y = e^t y + sigma(t)^2 score(e^t y, sigma(t)),  the mean of the clean image,  if denoise

    Without the last line what is returned has noise of variance 2 gamma on it.

    Args:
        ladders: sigmas of each model, coarsest first; the last model runs.
        models: a model with at_sigma runs at any time; another has the times of its own levels, a step at each.
        denoise: end with the last line.
        T: time at which the process is taken for N(0, I), default 5.
        gamma: step size, which divides T, default 0.01.

    Returns:
        the stages.
    """
    times = _times(ladders[-1], hasattr(models[-1], "at_sigma"), T, gamma)
    steps = [t - after for t, after in zip(times, [*times[1:], 0.0], strict=True)]
    rows = [
        Reverse(k, sigma_at(t), math.exp(t), step, k, (k + 1) % max(1, len(times) // 10) == 0)
        for k, (t, step) in enumerate(zip(times, steps, strict=True))
    ]
    if denoise:
        rows[-1] = rows[-1]._replace(kind=DENOISE)
    note = f"the reverse process from t = {times[0]:g} to {times[-1]:g}"
    return [Run(len(ladders) - 1, tuple(rows), sigmas=tuple(map(sigma_at, times)), note=note)]


def sigma_at(t) -> float:
    """sqrt(e^{2t} - 1), the noise level of the process at time t."""
    return math.sqrt(math.expm1(2 * t))


def _times(sigmas, continuous, T, gamma) -> list[float]:
    """T, T - gamma, ..., gamma; or the times of the levels of a model that has no others."""
    if not continuous:
        if T is not None or gamma is not None:
            raise ValueError(
                "ou-reverse: options T and gamma need a model with at_sigma(x, sigma); this one runs at the times of "
                "its levels, leave them out"
            )
        return [math.log1p(sigma**2) / 2 for sigma in sigmas]
    T, gamma = 5.0 if T is None else T, 0.01 if gamma is None else gamma
    for name, value in (("T", T), ("gamma", gamma)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"ou-reverse: option {name} must be a positive number, got {value!r}")
    if T > 300:
        raise ValueError(f"ou-reverse: option T must be at most 300, where e^T is still a number, got {T:g}")
    count = round(T / gamma)
    if count < 1 or abs(count * gamma / T - 1) > 1e-6:
        raise ValueError(f"ou-reverse: option gamma must divide T = {T:g}, got {gamma:g}")
    return [gamma * (count - k) for k in range(count)]


class Reverse(NamedTuple):
    """A step of `ou_reverse` at the noise level `sigma`, where e^t is `scale`."""

    level: int
    sigma: float
    scale: float
    gamma: float
    step: int
    ends_level: bool
    kind: str = STEP
    paste: str = ""
    paste_step: int = 0
    evaluations: int = 1

    def update(self, x, score, *, seed, first, mask=None):
        noisy = self.scale * x
        s = score(noisy, self.level)
        if self.kind == DENOISE:
            x.copy_(noisy + self.sigma**2 * s)
        else:
            drift = x / 2 + self.scale * s  # 2 gamma times this is gamma y + 2 gamma score_{r_t}(y)
            noise = math.sqrt(2 * self.gamma)
            ops.langevin_step(x, drift.contiguous(), 2 * self.gamma, noise, seed=seed, step=self.step, first=first)
        return s


def probability_flow(ladders, *, models, denoise, method=None, n_steps=50, rtol=1e-5, atol=1e-5) -> list:
    """The probability-flow ODE of the variance-exploding process (arXiv:2011.13456, equation 13).

        x = x_0 + sigma_1 z
        dx / d(log sigma) = -sigma^2 score(x, sigma)          from sigma_1 to sigma_L
        x = x + sigma_L^2 score(x, sigma_L)                   if denoise

    Args:
        ladders: sigmas of each model, coarsest first; the last model runs.
        models: their scores.
        denoise: make the last line's update.
        method: "rk4", of n_steps equal steps in log sigma and four evaluations each; "heun", from level to level of the
            ladder and two evaluations each; or a method of torchdiffeq, such as "dopri5", with as many as the
            tolerances ask for (plans count none of these). By default "rk4" for a model with at_sigma, else "heun".
        n_steps: of "rk4".
        rtol, atol: of torchdiffeq. Its steps are chosen for a whole batch, so that a sample depends on the others
            within these tolerances.

    Returns:
        the stages.
    """
    model, sigmas, continuous = len(ladders) - 1, ladders[-1], hasattr(models[-1], "at_sigma")
    method = (RK4 if continuous else HEUN) if method is None else method
    check_method(method, n_steps, rtol, atol, continuous)
    if method == HEUN:
        ladder = sigmas
        rows: list[Any] = [Heun(i, sigmas[i], sigmas[i + 1], i) for i in range(len(sigmas) - 1)]
    elif method == RK4:  # levels between those of the steps are the midpoints
        ladder = geometric_sigmas(sigmas[0], sigmas[-1], 2 * n_steps + 1).tolist()
        rows = [
            RungeKutta(2 * i, ladder[2 * i], ladder[2 * i + 2], i, (i + 1) % max(1, n_steps // 10) == 0)
            for i in range(n_steps)
        ]
    else:
        ladder = sigmas
        rows = [Adaptive(0, sigmas[0], sigmas[-1], method, float(rtol), float(atol))]
    if denoise:
        rows.append(denoising(len(ladder) - 1, ladder[-1], len(rows)))
    note = f"the ODE by {method} from sigma {ladder[0]:g} to {ladder[-1]:g}"
    run = Run(model, tuple(rows), sigmas=tuple(ladder), note=note)
    return [Measure(model, ladder[0]), run]


def check_method(method, n_steps, rtol, atol, continuous) -> None:
    """Raises if a model cannot be integrated by this method, or the method is not there."""
    if method not in (HEUN, RK4, *ADAPTIVE):
        raise ValueError(
            f"probability-flow: option method must be one of {', '.join((HEUN, RK4, *ADAPTIVE))}, got {method!r}"
        )
    for name, value in (("rtol", rtol), ("atol", atol)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"probability-flow: option {name} must be a positive number, got {value!r}")
    if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 1:
        raise ValueError(f"probability-flow: option n_steps must be an integer of at least 1, got {n_steps!r}")
    if method != HEUN and not continuous:
        raise ValueError(
            f"probability-flow: option method must be {HEUN!r} for a model without at_sigma(x, sigma), got {method!r}"
        )
    if method in ADAPTIVE:
        try:
            import torchdiffeq  # noqa: F401
        except ImportError:
            raise ImportError(
                f"probability-flow: method {method!r} needs torchdiffeq; run 'pip install torchdiffeq' (extra `ode`), "
                f"or use {RK4!r}"
            ) from None


class Heun(NamedTuple):
    """x from the level `sigma` to the next, `after`, by the trapezoidal rule with an Euler step as a first guess."""

    level: int
    sigma: float
    after: float
    step: int = 0
    ends_level: bool = True
    kind: str = STEP
    paste: str = ""
    paste_step: int = 0
    evaluations: int = 2

    def update(self, x, score, *, seed, first, mask=None):
        h = math.log(self.after / self.sigma)
        s = score(x, self.level)
        slope = -(self.sigma**2) * s
        end = -(self.after**2) * score(x + h * slope, self.level + 1)
        x += h / 2 * (slope + end)
        return s


class RungeKutta(NamedTuple):
    """x from `sigma` to `after`, two levels on, by the classical method of order four; the level between is halfway."""

    level: int
    sigma: float
    after: float
    step: int = 0
    ends_level: bool = False
    kind: str = STEP
    paste: str = ""
    paste_step: int = 0
    evaluations: int = 4

    def update(self, x, score, *, seed, first, mask=None):
        h, between = math.log(self.after / self.sigma), self.sigma * self.after
        s = score(x, self.level)
        k1 = -(self.sigma**2) * s
        k2 = -between * score(x + h / 2 * k1, self.level + 1)
        k3 = -between * score(x + h / 2 * k2, self.level + 1)
        k4 = -(self.after**2) * score(x + h * k3, self.level + 2)
        x += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return s


class Adaptive(NamedTuple):
    """x from `sigma` to `after` by torchdiffeq."""

    level: int
    sigma: float
    after: float
    method: str
    rtol: float
    atol: float
    step: int = 0
    ends_level: bool = True
    kind: str = STEP
    paste: str = ""
    paste_step: int = 0
    evaluations: int = 0  # not known beforehand

    def update(self, x, score, *, seed, first, mask=None):
        from torchdiffeq import odeint

        def slope(log_sigma, state):
            sigma = log_sigma.exp().to(state.dtype)
            return -(sigma**2) * score.at_sigma(state, sigma)

        ends = torch.tensor([math.log(self.sigma), math.log(self.after)], dtype=torch.float64, device=x.device)
        x.copy_(odeint(slope, x.clone(), ends, method=self.method, rtol=self.rtol, atol=self.atol)[-1])
        return score.at_sigma(x, self.after)

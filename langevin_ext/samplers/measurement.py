"""Sampling by noisy measurements: walk-jump, and joint and sequential multi-measurement sampling.

Walk-jump: Saremi & Hyvarinen 2019 (arXiv:1903.02503). Several measurements: Saremi, Park & Bach 2023
(arXiv:2305.19473).
With Y_i = X + sigma N_i and mean(Y) of m of them, which is X + sigma / sqrt(m) N, the jump is

    xhat_m(mean) = mean + sigma^2/m score(mean, sigma / sqrt(m)) = E[X | Y_1 ... Y_m]

so that any network for all noise levels serves every m. Steps are the unadjusted Langevin algorithm with step
delta sigma^2, y <- y + delta sigma^2 score + sqrt(2 delta) sigma z.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .. import noise, ops
from .inputs import evaluation_mode, ladder_of, models_of, plain
from .langevin import denoising
from .table import STEP, Change, Row, Run


def walk_jump(ladders, *, n_steps_each, denoise, sigma, delta=0.5) -> list:
    """Walk-jump sampling: Langevin dynamics at one noise level, then a jump to the clean image.

        y = x_0 + sigma z
        y = y + delta sigma^2 score(y, sigma) + sqrt(2 delta) sigma z          n_steps_each times: the walk
        x = y + sigma^2 score(y, sigma) = E[X | y]                             if denoise: the jump

    The walk never uses the jump: `callback` or `snapshot` give y on the way, and `jump` as many samples of one walk.

    Args:
        ladders: sigmas of each model, coarsest first; the last model runs.
        n_steps_each: steps of the walk, of each model.
        denoise: jump at the end.
        sigma: noise level.
        delta: step size in units of sigma^2, in (0, 2).

    Returns:
        the stages.
    """
    model = len(ladders) - 1
    check(sigma, delta, 1, "walk-jump")
    drift, spread = delta * sigma**2, math.sqrt(2 * delta) * sigma
    last = n_steps_each[-1] - 1
    rows = [Row(0, sigma, drift, spread, k, ends_level=k == last) for k in range(last + 1)]
    if denoise:
        rows.append(denoising(0, sigma, len(rows)))
    note = f"a walk at sigma {sigma:g} with delta {delta:g}" + ", then the jump" * bool(denoise)
    return [Measure(model, sigma), Run(model, tuple(rows), sigmas=(sigma,), note=note)]


def jms(ladders, *, n_steps_each, sigma, m, delta=0.5) -> list:
    """Joint multi-measurement sampling: one chain on all of (y_1 ... y_m), whose memory grows with m.

        y_i = x_0 + sigma z_i
        y_i = y_i + delta (xhat_m(mean y) - y_i) + sqrt(2 delta) sigma z_i     n_steps_each times
        x = xhat_m(mean y)

    Args:
        ladders, n_steps_each, sigma, delta: as for `walk_jump`.
        m: number of measurements.

    Returns:
        the stages.
    """
    model, level = len(ladders) - 1, (check(sigma, delta, m, "jms") / math.sqrt(m),)
    rows = tuple(Joint(k, sigma, delta, m, k == n_steps_each[-1] - 1) for k in range(n_steps_each[-1]))
    run = Run(model, rows, copies=m, sigmas=level, note=f"{m} measurements of sigma {sigma:g} jointly, delta {delta:g}")
    return [Measure(model, sigma, copies_of=m), run, JointJump(model, sigma, m)]


def sms(ladders, *, n_steps_each, sigma, m, delta=0.5) -> list:
    """Sequential multi-measurement sampling: one measurement after the other; memory independent of m.

        S = 0;  y = x_0 + sigma z
        for k in 1 ... m:
            y = y + delta (xhat_k((S + y) / k) - y) + sqrt(2 delta) sigma z    n_steps_each times
            S = S + y;  y = xhat_k(S / k) + sigma z                            the start of the next
        x = xhat_m(S / m)

    Args:
        ladders, n_steps_each, sigma, delta, m: as for `jms`; the steps are for each measurement.

    Returns:
        the stages.
    """
    model, sigma = len(ladders) - 1, check(sigma, delta, m, "sms")
    rows: list[Sequential | Next] = []
    for k in range(1, m + 1):
        steps = n_steps_each[-1]
        rows += [Sequential(k, len(rows) + t, sigma, delta, t == steps - 1) for t in range(steps)]
        rows += [Next(k, len(rows), sigma)] if k < m else []
    levels = tuple(sigma / math.sqrt(k) for k in range(1, m + 1))
    note = f"{m} measurements of sigma {sigma:g} in turn, delta {delta:g}"
    run = Run(model, tuple(rows), copies=2, sigmas=levels, note=note)
    return [Measure(model, sigma, total=True), run, SequentialJump(model, sigma, m)]


def check(sigma, delta, m, name) -> float:
    """sigma, if all options are in their ranges."""
    for option, value, ok in (
        ("sigma", sigma, isinstance(sigma, int | float) and 0 < sigma < math.inf),
        ("delta", delta, isinstance(delta, int | float) and 0 < delta < 2),
        ("m", m, isinstance(m, int) and m >= 1),
    ):
        if isinstance(value, bool) or not ok:
            rule = {"sigma": "a positive number", "delta": "in (0, 2), beyond which the walk diverges"}
            must = rule.get(option, "an integer of at least 1")
            raise ValueError(f"{name}: option {option} must be {must}, got {value!r}")
    return float(sigma)


def jump(model, y, sigma) -> torch.Tensor:
    """xhat(y) = y + sigma^2 score(y, sigma), the mean of the clean image given y = x + sigma z (Robbins 1956).

    Args:
        model: as for `sample`.
        y: (B, C, H, W).
        sigma: one of the model's noise levels; any positive number, if it has at_sigma(x, sigma).

    Returns:
        (B, C, H, W), without a graph; a network is put in evaluation mode for it.
    """
    [model] = models_of(model)
    sigma, y = check(plain(sigma), 1, 1, "jump"), torch.as_tensor(y)
    if y.dim() != 4 or tuple(y.shape[1:]) != tuple(model.shape):
        shape = ", ".join(map(str, model.shape))
        raise ValueError(f"jump: argument y must have shape (B, {shape}), got {tuple(y.shape)}")
    score, _ = ladder_of(model, [sigma], "argument sigma")
    with torch.no_grad(), evaluation_mode([model]):
        return y + sigma**2 * score(y, torch.zeros(len(y), dtype=torch.int64, device=y.device))


def posterior_mean(mean, score, sigma, m, level) -> torch.Tensor:
    """xhat_m(mean)."""
    return mean + sigma**2 / m * score(mean, level)


class Joint(NamedTuple):
    """A step of `jms` on the state (y_1 ... y_m)."""

    step: int
    sigma: float
    delta: float
    m: int
    ends_level: bool
    level: int = 0
    kind: str = STEP
    paste: str = ""
    paste_step: int = 0
    evaluations: int = 1

    def update(self, x, score, *, seed, first, mask=None):
        y = x.unflatten(1, (self.m, -1))
        xhat = posterior_mean(y.mean(1), score, self.sigma, self.m, self.level)
        return _walk(x, (xhat.unsqueeze(1) - y).flatten(1, 2), self, seed, first)


class Sequential(NamedTuple):
    """A step of `sms` on the state (y, S), at measurement k."""

    k: int
    step: int
    sigma: float
    delta: float
    ends_level: bool
    kind: str = STEP
    paste: str = ""
    paste_step: int = 0
    evaluations: int = 1

    @property
    def level(self):
        return self.k - 1

    def update(self, x, score, *, seed, first, mask=None):
        y, total = x.chunk(2, 1)
        xhat = posterior_mean((total + y) / self.k, score, self.sigma, self.k, self.level)
        return _walk(y, xhat - y, self, seed, first)


class Next(NamedTuple):
    """S = S + y; y = xhat_k(S / k) + sigma z: the start of measurement k + 1."""

    k: int
    step: int
    sigma: float
    ends_level: bool = False
    kind: str = STEP
    paste: str = ""
    paste_step: int = 0
    evaluations: int = 1

    @property
    def level(self):
        return self.k - 1

    def update(self, x, score, *, seed, first, mask=None):
        y, total = x.chunk(2, 1)
        total += y
        xhat = posterior_mean(total / self.k, score, self.sigma, self.k, self.level)
        draw = {"seed": seed, "step": self.step, "first": first, "stream": noise.LANGEVIN}
        y.copy_(ops.perturb(xhat, _sigmas(xhat, self.sigma), **draw))
        return (xhat - y) / self.sigma**2


def _walk(y, towards, row, seed, first) -> torch.Tensor:
    """y <- y + delta towards + sqrt(2 delta) sigma z, in place; returns towards / sigma^2, the score of y given the
    other measurements."""
    spread = math.sqrt(2 * row.delta) * row.sigma
    ops.langevin_step(y, towards.contiguous(), row.delta, spread, seed=seed, step=row.step, first=first)
    return towards / row.sigma**2


def _sigmas(x, sigma):
    return torch.full((len(x),), sigma, dtype=torch.float32, device=x.device)


@dataclass(frozen=True)
class Measure(Change):
    """y = x + sigma z; `copies_of` of them, or one with a total S = 0 behind it."""

    sigma: float
    copies_of: int = 1
    total: bool = False

    @property
    def copies(self):
        return 2 if self.total else self.copies_of

    def apply(self, x, score, *, seed, first):
        x = x.repeat(1, self.copies_of, 1, 1)
        y = ops.perturb(x, _sigmas(x, self.sigma), seed=seed, first=first, step=0, stream=noise.MEASURE)
        return torch.cat([y, torch.zeros_like(y)], 1) if self.total else y

    def __str__(self):
        return f"add noise of sigma {self.sigma:g}" + f" to {self.copies_of} copies" * (self.copies_of > 1)


@dataclass(frozen=True)
class JointJump(Change):
    """x = xhat_m of the mean of (y_1 ... y_m)."""

    sigma: float
    m: int

    @property
    def evaluations(self):
        return 1

    @property
    def sigmas(self):
        return (self.sigma / math.sqrt(self.m),)

    def mean(self, x):
        return x.unflatten(1, (self.m, -1)).mean(1)

    def apply(self, x, score, *, seed, first):
        return posterior_mean(self.mean(x), score, self.sigma, self.m, 0)

    def __str__(self):
        return f"jump to the mean of the clean image given {self.m} measurements"


class SequentialJump(JointJump):
    """x = xhat_m(S / m), with the last y added to S."""

    def mean(self, x):
        y, total = x.chunk(2, 1)
        return (total + y) / self.m

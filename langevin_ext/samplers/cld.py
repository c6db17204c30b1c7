"""Reverse-time samplers of critically-damped Langevin diffusion (CLD; Dockhorn, Vahdat, Kreis 2022, arXiv:2112.07068).

The state is u = (x, v). Reverse time t runs from 0 to t_end, forward time tau = 1 - t from 1 down; with s = s(u, tau),
the score in v, the reverse SDE and the probability-flow ODE are

    dx = -beta/M v dt,     dv = (beta x + Gamma beta/M v + 2 Gamma beta s) dt + sqrt(2 Gamma beta) dw
    dx = -beta/M v dt,     dv = (beta x + Gamma beta/M v + Gamma beta s) dt

Every scheme starts at (x, v) ~ N(0, 1) x N(0, M) and may end with one noise-free Euler-Maruyama step of 1 - t_end
(denoising). n_evals counts all evaluations of the score. The schemes are those of the released code, but for the
second half-step of SSCS (see `cld_sscs`).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .. import noise, ops
from .table import DENOISE, STEP, Change, Run

STRIDINGS = ("quadratic", "linear")
SNAPSHOTS = 10  # of the rows, this many or a few more count as the end of a level


class CriticalRow(NamedTuple):
    """One linear update (x, v) <- A (x, v) + b s + L z; without an evaluation of s where b is 0."""

    level: float  # tau, passed to the score
    sigma: float  # standard deviation of x at tau given the data
    step: int
    a: tuple[float, float, float, float]  # A: xx, xv, vx, vv
    b: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float, float] = (0.0, 0.0, 0.0)  # L, lower triangular: xx, vx, vv
    kind: str = STEP
    ends_level: bool = False
    paste: str = ""
    paste_step: int = 0

    @property
    def evaluations(self) -> int:
        """Of the score, in `update`."""
        return int(any(self.b))

    def update(self, x, score, *, seed, first, mask=None) -> torch.Tensor | None:
        """The update of x (B, 2C, H, W), in place; see `table.Row.update`."""
        s = score(x, self.level).to(x.dtype) if self.evaluations else None
        ops.cld_step(x, s, self.a, self.b, self.noise, seed=seed, step=self.step, first=first)
        return s


class FlowRow(NamedTuple):
    """One Runge-Kutta step of the probability-flow ODE, from tau over dt."""

    level: float  # tau
    sigma: float
    step: int
    dt: float
    stages: tuple[tuple[float, float, float], ...]  # tau, beta and Gamma beta of the four evaluations
    mass: float
    kind: str = STEP
    ends_level: bool = False
    paste: str = ""
    paste_step: int = 0

    @property
    def evaluations(self) -> int:
        """Of the score, in `update`."""
        return 4

    def update(self, x, score, *, seed, first, mask=None) -> torch.Tensor:
        """The update of x (B, 2C, H, W), in place; see `table.Row.update`."""
        u, total, slope = x.clone(), torch.zeros_like(x), torch.zeros_like(x)
        # the classical scheme: u + dt/6 (k1 + 2 k2 + 2 k3 + k4), k_j = F(u + dt c_j k_{j-1})
        for (tau, beta, drag), ahead, weight in zip(self.stages, (0.0, 0.5, 0.5, 1.0), (1, 2, 2, 1), strict=True):
            torch.add(u, slope, alpha=ahead * self.dt, out=x)
            s = score(x, tau)
            position, velocity = x.chunk(2, dim=1)
            slope = torch.cat([-beta / self.mass * velocity, beta * position + drag * (velocity / self.mass + s)], 1)
            total.add_(slope, alpha=weight)
        x.copy_(u.add_(total, alpha=self.dt / 6))
        return s


@dataclass(frozen=True)
class AddVelocity(Change):
    """The start: u = (x, v) with v ~ N(0, M) (stream INIT)."""

    mass: float = 0.25

    @property
    def copies(self) -> int:
        return 2

    def apply(self, x, score, *, seed, first) -> torch.Tensor:
        # x is the draw with step 0, or data that the one with step 1 has chosen
        v = noise.normal(x.shape, seed, step=2, first=first, stream=noise.INIT, device=x.device)
        return torch.cat([x, math.sqrt(self.mass) * v.to(x.dtype)], dim=1)

    def __str__(self):
        return f"add a velocity of variance {self.mass:g}"


@dataclass(frozen=True)
class DropVelocity(Change):
    """The end: x of u = (x, v)."""

    def apply(self, x, score, *, seed, first) -> torch.Tensor:
        return x[:, : x.shape[1] // 2].contiguous()

    def __str__(self):
        return "drop the velocity"


def cld_em(models, *, denoise=True, n_evals=200, striding="quadratic", t_end=0.999) -> list:
    """Euler-Maruyama on the reverse SDE (arXiv:2112.07068, section 3.3).

        x <- x - dt beta/M v
        v <- v + dt (beta x + Gamma beta/M v + 2 Gamma beta s(u, tau)) + sqrt(2 Gamma beta dt) z     (x and v before)

    Args:
        models: a velocity model; the last is run.
        denoise: end with a step of 1 - t_end without noise.
        n_evals: evaluations of the score, at least 2 with denoising.
        striding: "quadratic", short steps near the data, or "linear".
        t_end: where the reverse process stops, 1 - 1e-3 in the paper.

    Returns:
        the stages.
    """
    grid = time_grid("cld-em", n_evals, denoise, striding, t_end)
    process, rows = models[-1].process, []
    for k, (tau, dt, beta, sigma) in enumerate(steps(process, grid)):
        rows.append(euler(process, tau, dt, beta, sigma, k))
    return stages(models, rows, denoise, t_end, len(rows))


def cld_sscs(models, *, denoise=True, n_evals=200, striding="quadratic", t_end=0.999) -> list:
    """The symmetric splitting sampler SSCS (arXiv:2112.07068, section 3.3 and figure 8).

        (x, v) <- A(int beta over the first half of dt)          exact, with its noise: `reverse_flow`
        v <- v + 2 Gamma beta(tau) dt (s(u, tau) + v/M)
        (x, v) <- A(int beta over the second half)

    The second half of a step and the first of the next are one: A(b) A(b') = A(b + b'), noise included. Each half has
    its own integral of beta; the released code takes beta(tau) for both, which is the same for constant beta alone.

    Args:
        models, denoise, n_evals, striding, t_end: as for `cld_em`.

    Returns:
        the stages.
    """
    grid = time_grid("cld-sscs", n_evals, denoise, striding, t_end)
    process, rows = models[-1].process, []
    middles = [(t + after) / 2 for t, after in zip(grid, grid[1:], strict=False)]
    (a, lower), *flows = reverse_flows(process, [0.0, *middles, t_end])  # the merged half-steps
    rows.append(CriticalRow(1.0, process.covariance(1.0).xx.sqrt().item(), 0, a, noise=lower))
    for k, ((tau, dt, beta, sigma), (a, lower)) in enumerate(zip(steps(process, grid), flows, strict=True)):
        axx, axv, avx, avv = a
        kick = 2 * process.friction * beta * dt
        grown = 1 + kick / process.mass  # v + kick (s + v/M), then A
        a, b = (axx, axv * grown, avx, avv * grown), (axv * kick, avv * kick)
        rows.append(CriticalRow(tau, sigma, k + 1, a, b, lower))
    return stages(models, rows, denoise, t_end, len(rows))


def cld_ode(models, *, denoise=True, n_evals=201, striding="quadratic", t_end=0.999) -> list:
    """The probability-flow ODE (arXiv:2112.07068, figure 17) by the classical Runge-Kutta scheme of order 4.

        dx = -beta/M v dt,     dv = (beta x + Gamma beta/M v + Gamma beta s(u, tau)) dt

    The samples are a smooth function of the start. The paper takes an adaptive scheme of order 5 instead.

    Args:
        models, denoise, striding, t_end: as for `cld_em`.
        n_evals: evaluations of the score: 4 for each step, and 1 for denoising.

    Returns:
        the stages.
    """
    grid = time_grid("cld-ode", n_evals, denoise, striding, t_end, each=4)
    process, rows = models[-1].process, []
    for k, (tau, dt, _, sigma) in enumerate(steps(process, grid)):
        taus = [tau, tau - dt / 2, tau - dt / 2, tau - dt]
        betas = process.beta(taus).tolist()
        points = tuple((tau, beta, process.friction * beta) for tau, beta in zip(taus, betas, strict=True))
        rows.append(FlowRow(tau, sigma, k, dt, points, process.mass))
    return stages(models, rows, denoise, t_end, len(rows))


def time_grid(name, n_evals, denoise, striding, t_end, each=1) -> list[float]:
    """The reverse times t_0 = 0 .. t_n = t_end of the n steps that n_evals evaluations pay for, `each` a step.

        linear: t_i = t_end i/n;     quadratic: t_i = t_end (1 - ((n - i)/n)^2), the QS of arXiv:2112.07068

    Raises:
        ValueError: an option is out of its range.
    """
    if isinstance(n_evals, bool) or not isinstance(n_evals, int):
        raise ValueError(f"{name}: option n_evals must be an integer, got {n_evals!r}")
    n, left = divmod(n_evals - bool(denoise), each)
    if n < 1 or left:
        evaluations = f"{each} for each step" + ", and 1 for denoising" * bool(denoise)
        raise ValueError(f"{name}: option n_evals must be {evaluations}, with at least one step, got {n_evals}")
    if striding not in STRIDINGS:
        raise ValueError(f"{name}: option striding must be one of {', '.join(STRIDINGS)}, got {striding!r}")
    if isinstance(t_end, bool) or not isinstance(t_end, int | float) or not 0 < t_end < 1:
        raise ValueError(f"{name}: option t_end must be a number in (0, 1), got {t_end!r}")
    return [t_end * (i / n if striding == "linear" else 1 - ((n - i) / n) ** 2) for i in range(n + 1)]


def steps(process, grid) -> list[tuple[float, float, float, float]]:
    """Forward time tau at its beginning, dt, beta(tau) and the standard deviation of x given the data, of each step."""
    t = torch.tensor(grid, dtype=torch.float64)
    tau = 1 - t[:-1]
    columns = tau, t.diff(), process.beta(tau), process.covariance(tau).xx.sqrt()
    return list(zip(*(column.tolist() for column in columns), strict=True))


def reverse_flows(process, times) -> list[tuple[tuple, tuple]]:
    """A and L of `CriticallyDamped.reverse_flow` between neighbours of some reverse times, as floats."""
    integral = process.integral(1 - torch.tensor(times, dtype=torch.float64))
    matrix, lower = (torch.stack(entries, 1).tolist() for entries in process.reverse_flow(-integral.diff()))
    return [(tuple(a), tuple(n)) for a, n in zip(matrix, lower, strict=True)]


def euler(process, tau, dt, beta, sigma, step, *, noisy=True, kind=STEP) -> CriticalRow:
    """One Euler-Maruyama step of the reverse SDE from forward time tau over dt."""
    gain, mass = process.friction, process.mass
    a = (1.0, -dt * beta / mass, dt * beta, 1 + dt * gain * beta / mass)
    lower = (0.0, 0.0, math.sqrt(2 * gain * beta * dt) if noisy else 0.0)
    return CriticalRow(tau, sigma, step, a, (0.0, 2 * gain * beta * dt), lower, kind)


def stages(models, rows, denoise, t_end, step) -> list:
    """The start with a velocity, the rows, of which some end a level, the denoising step, and the end without it."""
    process, last = models[-1].process, len(models) - 1
    every = max(1, len(rows) // SNAPSHOTS)
    ends = (bool(row.evaluations) and (len(rows) - 1 - k) % every == 0 for k, row in enumerate(rows))  # all have scores
    rows = [row._replace(ends_level=end) for row, end in zip(rows, ends, strict=True)]
    if denoise:
        [(tau, dt, beta, sigma)] = steps(process, [t_end, 1.0])
        rows.append(euler(process, tau, dt, beta, sigma, step, noisy=False, kind=DENOISE))
    evaluated = sum(row.evaluations for row in rows)
    note = f"{evaluated} evaluations, tau 1 to {1 - t_end:g}" + ", then denoised" * bool(denoise)
    return [AddVelocity(last, process.mass), Run(last, tuple(rows), copies=2, note=note), DropVelocity(last)]

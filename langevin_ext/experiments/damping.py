"""`damping`: Langevin dynamics with too little friction, the critical one, and too much (CLD, Figure 5)."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from .. import noise
from .._files import write_figure
from ..processes import CriticallyDamped
from .findings import Report, above, below, close, exact

NAME = "damping"
TITLE = "Langevin dynamics in different damping regimes"
SOURCE = "CLD, arXiv:2112.07068, Figure 5"

SAMPLES, LEAST = 50_000, 5_000
BETA, MASS, GAMMA = 8.0, 0.25, 0.04  # beta twice that of the diffusion models, as the caption asks for a larger one
STEPS = 200  # of the trajectories, on t in [0, 1]
CRITICAL = 2 * math.sqrt(MASS)
SHARES = {"under-damped": 1 / 8, "critically damped": 1.0, "over-damped": 4.0, "strongly over-damped": 16.0}
TOLERANCE = 0.01  # of the Kullback-Leibler divergence from the stationary law that counts as converged
MODES, WIDTH = (-1.0, 1.0), 0.1  # of the data in the figure
SHOWN = (8, 2)  # trajectories whose x and whose v it has


class Damped(NamedTuple):
    """dx = beta/M v dt, dv = -beta x dt - Gamma beta/M v dt + sqrt(2 Gamma beta) dw, for any friction Gamma.

    With omega = beta / sqrt(M) and zeta = Gamma / (2 sqrt(M)) the eigenvalues are omega (-zeta +- sqrt(zeta^2 - 1)).
    """

    friction: float

    @property
    def zeta(self):
        return self.friction / CRITICAL

    @property
    def omega(self):
        return BETA / math.sqrt(MASS)

    @property
    def rate(self):
        """Of the slowest decay: omega zeta below the critical friction, omega (zeta - sqrt(zeta^2 - 1)) above."""
        return self.omega * (self.zeta - math.sqrt(max(self.zeta**2 - 1, 0.0)))

    def matrix(self, t) -> torch.Tensor:
        """A(t) of E[(x, v)_t] = A(t) (x, v)_0, float64 (..., 2, 2) for t (...)."""
        drift = torch.tensor([[0.0, 1 / MASS], [-1.0, -self.friction / MASS]], dtype=torch.float64)
        return torch.linalg.matrix_exp(BETA * torch.as_tensor(t, dtype=torch.float64)[..., None, None] * drift)

    def covariance(self, t, x_variance=0.0) -> torch.Tensor:
        """Of (x, v)_t for independent x_0 and v_0 ~ N(0, gamma M): P + A (S_0 - P) A', P = diag(1, M)."""
        stationary = torch.diag(torch.tensor([1.0, MASS], dtype=torch.float64))
        start = torch.diag(torch.tensor([x_variance, GAMMA * MASS], dtype=torch.float64))
        a = self.matrix(t)
        return stationary + a @ (start - stationary) @ a.mT

    def trajectories(self, x, seed, progress=False) -> torch.Tensor:
        """x (n,) and its velocities at the STEPS + 1 times k / STEPS: (STEPS + 1, 2, n), by the exact transition.

        Sample i depends on (seed, i) alone.
        """
        n, a = len(x), self.matrix(1 / STEPS)
        stationary = torch.diag(torch.tensor([1.0, MASS], dtype=torch.float64))
        lower = torch.linalg.cholesky(stationary - a @ stationary @ a.mT)
        v = math.sqrt(GAMMA * MASS) * noise.normal((n, 1), seed, step=1, stream=noise.INIT).flatten().double()
        states = [torch.stack([x.double(), v])]
        for k in tqdm(range(STEPS), desc=f"damping, friction {self.friction:g}", leave=False, disable=not progress):
            z = [noise.normal((n, 1), seed, step=k, stream=s).flatten() for s in (noise.CLD_X, noise.CLD_V)]
            states.append(a @ states[-1] + lower @ torch.stack(z).double())
        return torch.stack(states)


def run(out=None, *, size=1.0, seed=0, progress=True) -> Report:
    """Figure 5 of CLD: trajectories at four frictions, their laws, and how fast they forget the start.

    Args:
        out: folder for the figure, or None for none.
        size: share of 50,000 trajectories.
        seed: of everything random.
        progress: show bars.

    Returns:
        `Report`.
    """
    n = max(LEAST, round(SAMPLES * size))
    regimes = {name: Damped(share * CRITICAL) for name, share in SHARES.items()}
    found = []
    for name, regime in regimes.items():
        paths = regime.trajectories(torch.ones(n), seed, progress)
        for t in (0.1, 0.5):
            x = paths[round(t * STEPS), 0]
            mean, variance = regime.matrix(t)[0, 0].item(), regime.covariance(t)[0, 0].item()
            found.append(close(f"{name}: mean of x at t={t}, from x=1", x.mean(), math.sqrt(variance / n), mean))
            spread = variance * math.sqrt(2 / (n - 1))
            found.append(close(f"{name}: variance of x at t={t}", x.var(), spread, variance))
        found.append(_decay(name, regime))
    found += _oscillation(regimes, n, seed) + _critical(regimes["critically damped"]) + _converged(regimes) + _limit()
    report = Report(NAME, TITLE, SOURCE, found, remarks=_remarks(n))
    if out is not None:
        report.figures = [figure(regimes, seed, Path(out) / "damping.png")]
    return report


def _decay(name, regime):
    """The rate at which the mean goes to 0, of A(t) over a time in which only the slowest part is left."""
    if regime.zeta == 1:  # (1 + omega t) e^(-omega t)
        t = 1.0
        ours = math.log((1 + regime.omega * t) / regime.matrix(t)[0, 0].item()) / t
    else:
        below_one = regime.zeta < 1
        length = 2 * math.pi / (regime.omega * math.sqrt(1 - regime.zeta**2)) if below_one else 1.0  # a period
        late = regime.matrix(torch.tensor([1.0, 1.0 + length]))[:, 0, 0]
        ours = math.log(late[0] / late[1]) / length
    return exact(f"{name}: rate of the decay", ours, regime.rate, rtol=1e-6)


def _oscillation(regimes, n, seed):
    """How far the mean swings past 0: e^(-pi zeta / sqrt(1 - zeta^2)) of the start below the critical friction."""
    under = regimes["under-damped"]
    root = math.sqrt(1 - under.zeta**2)
    k = round(math.pi / (under.omega * root) * STEPS)
    x = under.trajectories(torch.ones(n), seed + 1)[k, 0]
    law, error = under.matrix(k / STEPS)[0, 0].item(), math.sqrt(under.covariance(k / STEPS)[0, 0].item() / n)
    times = torch.linspace(0, 4, 4001)
    swing = [max(0.0, -regime.matrix(times)[:, 0, 0].min().item()) for regime in regimes.values()]
    return [
        close("under-damped: mean of x half a period after the start at 1", x.mean(), error, law, "oscillates"),
        exact("under-damped: largest swing past 0", swing[0], math.exp(-math.pi * under.zeta / root), rtol=1e-4),
        below("critically and over-damped: largest swing past 0", max(swing[1:]), 1e-12, "none"),
    ]


def _critical(regime):
    """The closed form of `CriticallyDamped`, against the matrix exponential."""
    process = CriticallyDamped(BETA, MASS, GAMMA)
    ours, law = process.mean_matrix(0.2), regime.matrix(0.2).flatten()
    spread, exponential = process.covariance(0.2), regime.covariance(0.2)
    return [
        exact("critical: mean of x at t=0.2 per x at 0", ours[0], law[0], rtol=1e-10),
        exact("critical: variance of x at t=0.2", spread.xx, exponential[0, 0], rtol=1e-10),
        exact("critical: covariance of x and v at t=0.2", spread.xv, exponential[0, 1], rtol=1e-10),
    ]


def _converged(regimes):
    """When the law of x, from x = 1, stays within `TOLERANCE` of N(0, 1)."""
    t = torch.linspace(0, 40, 40_001, dtype=torch.float64)
    when = {}
    for name, regime in regimes.items():
        mean, variance = regime.matrix(t)[:, 0, 0], regime.covariance(t)[:, 0, 0]
        divergence = (variance + mean**2 - 1 - variance.log()) / 2
        when[name] = t[int((divergence > TOLERANCE).nonzero().max()) + 1].item()
    best = when.pop("critically damped")
    return [
        above(f"{name}: time to converge, over that of critical", t / best, 1.0, "slower") for name, t in when.items()
    ]


def _limit():
    """Gamma_max = M / (beta dt): an Euler step then forgets the velocity, and beyond twice that it diverges."""
    dt, radius = 1e-3, []
    for share in (0.99, 1.01):
        friction = 2 * share * MASS / (BETA * dt)
        step = torch.tensor(
            [[1.0, BETA * dt / MASS], [-BETA * dt, 1 - friction * BETA * dt / MASS]], dtype=torch.float64
        )
        radius.append(torch.linalg.eigvals(step).abs().max().item())
    return [
        below("Euler step, 1 % below 2 Gamma_max: spectral radius", radius[0], 1.0),
        above("Euler step, 1 % above 2 Gamma_max: spectral radius", radius[1], 1.0),
    ]


def _remarks(n):
    frictions = ", ".join(f"{share * CRITICAL:g}" for share in SHARES.values())
    return [
        f"{n} trajectories of each friction by the exact transition over 1/{STEPS}, t in [0, 1].",
        f"The paper's caption prints no constants; these are ours: beta {BETA:g}, M {MASS:g}, Gamma "
        f"{frictions}, critical {CRITICAL:g}.",
        "Converged: the Kullback-Leibler divergence of x from its stationary law, from x = 1, stays below "
        f"{TOLERANCE:g}.",
    ]


def figure(regimes, seed, path) -> Path:
    """Four pairs of panels: trajectories of x and v over the critical law's density, as in the paper.

    Args:
        regimes: name: `Damped`.
        seed: of the trajectories.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    start = WIDTH * noise.normal((SHOWN[0], 1), seed, stream=noise.DATA).flatten() + torch.tensor(MODES).repeat(4)
    t = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
    picture = Figure(figsize=(13.0, 5.2), layout="constrained")
    panels = picture.subplots(2, len(regimes), sharex=True, sharey="row")
    for column, (name, regime) in zip(panels.T, regimes.items(), strict=True):
        paths = regime.trajectories(start, seed)
        for i, (axes, limit) in enumerate(zip(column, (3.0, 1.6), strict=True)):
            grid = torch.linspace(-limit, limit, 240, dtype=torch.float64)
            density = _density(regimes["critically damped"], t, grid, i)
            axes.pcolormesh(
                t.numpy(),
                grid.numpy(),
                density.sqrt().T.numpy(),
                cmap="Reds",
                vmin=0,
                shading="nearest",
                rasterized=True,
            )
            axes.plot(t.numpy(), paths[:, i, : SHOWN[i]].numpy(), color="green", linewidth=0.8)
            axes.set_ylim(-limit, limit)
        column[0].set_title(f"{name}, $\\Gamma$ = {regime.friction:g}", fontsize="medium")
        column[1].set_xlabel("t")
    panels[0, 0].set_ylabel("x")
    panels[1, 0].set_ylabel("v")
    picture.suptitle(
        "Trajectories (green) over the law at critical damping (red, root of the density)", fontsize="medium"
    )
    return write_figure(picture, path)


def _density(regime, t, grid, i):
    """Of coordinate i at times t, (times, points), from two modes with v_0 ~ N(0, gamma M); 0 is drawn a step late."""
    late = t.clamp(min=1 / STEPS)
    mean, deviation = regime.matrix(late)[:, i, 0], regime.covariance(late, WIDTH**2)[:, i, i].sqrt()[:, None]
    parts = [torch.exp(-(((grid - mode * mean[:, None]) / deviation) ** 2) / 2) / deviation for mode in MODES]
    density = sum(parts)
    return density / density.max(1, keepdim=True).values

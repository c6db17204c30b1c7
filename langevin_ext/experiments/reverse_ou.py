"""`reverse-ou`: denoising diffusion from the scores of a noise-conditional network."""

import math

import torch

from .. import plots, sampling
from .._files import write_figure
from ..metrics import mode_fractions
from ..samplers.diffusion import sigma_at
from ..scores import Gaussian, GaussianMixture
from ..training import load
from .findings import Finding, Report, close, exact

NAME = "reverse-ou"
TITLE = "The reverse Ornstein-Uhlenbeck process from scores of data with noise"
SOURCE = "Score SDE, arXiv:2011.13456, section 3; DDPM, arXiv:2006.11239; the rescaling of NCSN's scores"

RUNS = [(3.0, 0.1), (3.0, 0.01), (5.0, 0.01)]  # T, gamma
DATA = [(1.0, 0.0), (0.25, 1.0), (4.0, -2.0), (0.01, 0.5)]  # variance, mean
WEIGHTS = (0.8, 0.2)


def run(out=None, *, size=1.0, seed=0, progress=True) -> Report:
    """The law for Gaussian data, the weights of a mixture, and a picture; arguments as for `experiment`."""
    n = max(100, int(2000 * size))
    findings = [f for data in DATA for one in RUNS for f in law(*data, *one, n, seed)]
    findings += [residual(), *mixture(max(1000, int(20_000 * size)), seed)]
    figures = [] if out is None else [draw_mixture(out, seed), draw_digits(out, seed, progress)]
    remarks = [
        "The closed form is the law of the chain with steps of gamma, not of the process: without the last denoising "
        "it keeps a variance of about 2 gamma.",
        "Where the scores come from a network with ten levels (the picture of digits), the process has one step at the "
        "time of each level: 10 evaluations for an image.",
    ]
    return Report(NAME, TITLE, SOURCE, findings, figures, remarks)


def recursion(variance, mean, T, gamma) -> tuple[float, float]:
    """Mean and variance of the chain for data N(mean, variance), from N(0, 1):

    m <- a m + 2 gamma e^-t mean / r,   V <- a^2 V + 2 gamma,   a = 1 + gamma - 2 gamma / r,   r = Var X_t
    """
    m, v = 0.0, 1.0
    for k in range(round(T / gamma)):
        t = T - gamma * k
        r = math.exp(-2 * t) * (variance + sigma_at(t) ** 2)
        a = 1 + gamma - 2 * gamma / r
        m, v = a * m + 2 * gamma * math.exp(-t) * mean / r, a**2 * v + 2 * gamma
    return m, v


def law(variance, mean, T, gamma, n, seed) -> list[Finding]:
    """Mean and variance of samples against the recursion."""
    model = Gaussian(mean, variance=variance, shape=(32, 1, 1))
    settings = {"T": T, "gamma": gamma, "denoise": False, "seed": seed, "progress": False}
    x = sampling.sample(model, "ou-reverse", n, **settings).double()
    expected_mean, expected = recursion(variance, mean, T, gamma)
    what = f"data N({mean:g}, {variance:g}), T = {T:g}, gamma = {gamma:g}"
    return [
        close(f"mean, {what}", x.mean().item(), math.sqrt(expected / x.numel()), expected_mean),
        close(f"variance, {what}", x.var().item(), expected * math.sqrt(2 / x.numel()), expected),
    ]


def residual() -> Finding:
    """What is left of the noise falls in proportion to gamma."""
    coarse, fine = (recursion(0.01, 0.5, 5.0, gamma)[1] - 0.01 for gamma in (0.002, 0.001))
    return exact("residual variance at gamma = .002 over that at .001", coarse / fine, 2.0, rtol=0.1)


def toy() -> GaussianMixture:
    return GaussianMixture([[3.0], [-3.0]], WEIGHTS, 1.0)


def mixture(n, seed) -> list[Finding]:
    """Weights and width of two modes, which Langevin dynamics at one level gets wrong."""
    settings = {"T": 5.0, "gamma": 0.01, "denoise": False, "seed": seed, "progress": False}
    x = sampling.sample(toy(), "ou-reverse", n, **settings).double()
    found = mode_fractions(x, [[3.0], [-3.0]])
    plus = x.flatten()[x.flatten() > 0]
    return [
        close("weight of the mode at 3", found.fractions[0].item(), found.stderr[0].item(), WEIGHTS[0]),
        close("its mean", plus.mean().item(), (plus.std() / math.sqrt(len(plus))).item(), 2.997),
        close("its deviation", plus.std().item(), (plus.std() / math.sqrt(2 * len(plus))).item(), 0.998),
    ]


def draw_mixture(out, seed):
    """Histograms of the chain for three step sizes over the density of the data."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    grid = torch.linspace(-7, 7, 400)
    density = sum(
        w * torch.exp(-((grid - m) ** 2) / 2) / math.sqrt(2 * math.pi) for w, m in zip(WEIGHTS, (3, -3), strict=True)
    )
    for axes, gamma in zip(figure.subplots(1, 3, sharey=True), (0.5, 0.1, 0.01), strict=True):
        x = sampling.sample(toy(), "ou-reverse", 4000, T=5.0, gamma=gamma, denoise=False, seed=seed, progress=False)
        axes.hist(x.flatten().numpy(), 80, (-7, 7), density=True, color="0.75", label="samples")
        axes.plot(grid, density, color="black", label="data")
        axes.set(title=f"gamma = {gamma:g}, {round(5 / gamma)} evaluations", xlabel="x")
    axes.legend()
    path = out / "reverse-ou-mixture.png"
    return write_figure(figure, path)


def draw_digits(out, seed, progress):
    """Digits from the shipped network in ten evaluations, row by row: reverse process, ODE, consistent annealing."""
    model = load("digits")
    rows = [
        sampling.sample(model, scheme, 12, seed=seed, progress=progress)
        for scheme in ("ou-reverse", "probability-flow", "consistent")
    ]
    return plots.image_grid(torch.cat(rows), out / "reverse-ou-digits.png", columns=12, smooth=True)

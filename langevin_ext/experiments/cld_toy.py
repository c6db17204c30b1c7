"""`cld-toy`: critically-damped Langevin diffusion on toy data, its loss weights and samplers (CLD, Figures 6 to 11)."""

import math
from pathlib import Path

import torch
from tqdm import tqdm

from .. import sampling
from ..losses.hsm import hsm, times
from ..metrics import mode_fractions
from ..models.cld import CLDNet
from ..processes import CriticallyDamped
from ..samplers.cld import cld_em, cld_sscs
from ..scores.critical import CriticalGaussian, CriticalMixture
from . import _cld_figures as figures
from .findings import Report, above, below, close, exact, failed

NAME = "cld-toy"
TITLE = "Critically-damped Langevin diffusion on toy data"
SOURCE = "CLD, arXiv:2112.07068, Figures 6, 7, 10 and 11"

SAMPLES, LEAST = 100_000, 5_000
SHAPE = (1, 10, 10)  # of Gaussian data: a hundred independent pixels a sample
TRAINING = {"steps": 4000, "batch": 512, "lr": 5e-3}
LEAST_STEPS = 800
NUMBERS = (20, 50, 100, 200, 500, 1000)
SAMPLERS = {"cld-em": cld_em, "cld-sscs": cld_sscs}
STRIDINGS = ("linear", "quadratic")
# Share and standard deviation of the right mode of .3 N(-1, .1^2) + .7 N(1, .1^2), of an independent program's
# 100,000 samples: a reference where there is no closed form.
MIXTURE = {
    ("cld-em", "linear", 20): (0.6585, 0.548),
    ("cld-em", "quadratic", 20): (0.6774, 0.138),
    ("cld-sscs", "linear", 20): (0.6729, 0.347),
    ("cld-sscs", "quadratic", 20): (0.6793, 0.075),
    ("cld-em", "quadratic", 100): (0.6980, 0.1026),
    ("cld-sscs", "quadratic", 100): (0.6952, 0.0936),
    ("cld-em", "quadratic", 200): (0.6982, 0.1009),
    ("cld-sscs", "quadratic", 200): (0.6980, 0.0968),
}
REFERENCE = 100_000
SPACING, WIDTH = 1.0, 0.15  # of the nine modes in the plane, our inference of Figure 10
CENTRES = torch.cartesian_prod(*[torch.tensor([-SPACING, 0.0, SPACING], dtype=torch.float64)] * 2)


def run(out=None, *, size=1.0, seed=0, progress=True) -> Report:
    """Figures 6 to 11 of CLD: l_t, the least losses, both samplers over n, and mixtures with exact and learned scores.

    Args:
        out: folder for the figures, or None for none.
        size: share of 100,000 samples and 4,000 training steps.
        seed: of everything random.
        progress: show bars.

    Returns:
        `Report`.
    """
    n = max(LEAST, round(SAMPLES * size))
    steps = max(LEAST_STEPS, round(TRAINING["steps"] * size))
    found = scales() + least_losses(n, seed) + samplers(n, seed, progress) + mixture(n, seed, progress)
    model, plane = trained(steps, seed, progress), CriticalMixture(CENTRES, [1.0] * len(CENTRES), WIDTH**2)
    clouds = modes_in_the_plane(plane, model, n // 5, seed)
    found += learned(clouds, n // 5)
    report = Report(NAME, TITLE, SOURCE, found, remarks=_remarks(n, steps))
    if out is not None:
        law = {(name, s): [variance(name, s, k) for k in NUMBERS] for name in SAMPLERS for s in STRIDINGS}
        report.figures = [
            figures.scale_figure(Path(out) / "cld-toy-scales.png"),
            figures.error_figure(NUMBERS, law, 0.25, Path(out) / "cld-toy-samplers.png"),
            figures.cloud_figure(clouds, 1.8 * SPACING, Path(out) / "cld-toy-mixture.png"),
        ]
    return report


def scales():
    """Figure 6: l_t of hybrid and of denoising score matching."""
    t = torch.logspace(-9, 0, 20_001, dtype=torch.float64)
    free, stable = CriticallyDamped(numerical_eps=0.0), CriticallyDamped(numerical_eps=1e-9)
    small = t[0].item()
    hybrid, sampled = (free.score_scale(small, velocity).item() for velocity in ("hybrid", "sampled"))
    rate = free.friction * free.betas[0] * small
    return [
        exact("l_t of HSM at t=0.5", free.score_scale(0.5), 2.00843217, rtol=1e-8),
        exact("l_t of DSM at t=0.5", free.score_scale(0.5, "sampled"), 2.00855803, rtol=1e-8),
        exact("largest l_t of HSM with numerical_eps=1e-9", stable.score_scale(t).max(), 41.823, rtol=2e-5),
        exact("its time", t[stable.score_scale(t).argmax()], 1.43e-4, rtol=5e-3),
        exact("l_t of DSM with numerical_eps=1e-9, t to 0", stable.score_scale(1e-15, "sampled"), 1e9**0.5, rtol=1e-4),
        exact("l_t of HSM at t=1e-9 without it: sqrt(3/(2 Gamma beta t))", hybrid, math.sqrt(1.5 / rate), rtol=1e-6),
        exact("l_t of DSM at t=1e-9 without it: 2/sqrt(2 Gamma beta t)", sampled, math.sqrt(2 / rate), rtol=1e-6),
        failed(
            "l_t of HSM bounded without numerical_eps",
            "it grows as t^-1/2, sqrt(3)/2 times that of DSM; numerical_eps bounds it",
            "bounded",
        ),
    ]


def least_losses(n, seed):
    """The loss of the exact score, the least there is: what is left is the noise in the target (Figure 7)."""
    found = []
    for r, t in ((0.25, 0.01), (0.25, 0.1), (0.25, 0.3), (1.0, 0.1), (0.01, 0.3)):
        model = CriticalGaussian(0.0, r, CriticallyDamped(numerical_eps=0.0), shape=SHAPE)
        x = model.sample(n // 100, seed, dtype=torch.float64)
        joint = model.process.covariance(t, data_variance=r)
        for name, velocity in (("HSM", "hybrid"), ("DSM", "sampled")):
            law = 1 - (joint.xx / joint.det / model.process.score_scale(t, velocity) ** 2).item()
            time = torch.full((len(x),), t, dtype=torch.float64)
            loss = hsm(model, x, time, seed=seed, step=0, velocity=velocity) / math.prod(SHAPE)
            error = (loss.std() / math.sqrt(len(x))).item()
            found.append(close(f"least loss of {name} at t={t}, data of variance {r}", loss.mean(), error, law))
    return found


def variance(name, striding, k, r=0.25):
    """The exact variance of x after k evaluations, for data N(0, r) and its exact score: every row is linear."""
    model = CriticalGaussian(0.0, r)
    rows = SAMPLERS[name]([model], n_evals=k, striding=striding)[1].rows
    s = model.process.covariance(torch.tensor([row.level for row in rows], dtype=torch.float64), data_variance=r)
    slopes = torch.stack([s.xv, -s.xx], 1) / s.det[:, None]
    a, b = (torch.tensor([getattr(row, key) for row in rows], dtype=torch.float64) for key in ("a", "b"))
    lower = torch.zeros(len(rows), 2, 2, dtype=torch.float64)
    lower[:, [0, 1, 1], [0, 0, 1]] = torch.tensor([row.noise for row in rows], dtype=torch.float64)
    steps, added = a.view(-1, 2, 2) + b[:, :, None] * slopes[:, None], lower @ lower.mT
    cov = torch.diag(torch.tensor([1.0, model.process.mass], dtype=torch.float64))
    for step, noisy in zip(steps, added, strict=True):
        cov = step @ cov @ step.T + noisy
    return cov[0, 0].item()


def samplers(n, seed, progress):
    """Euler-Maruyama against SSCS on Gaussian data of variance 1/4, over the number of evaluations (Figure 11)."""
    model, found = CriticalGaussian(0.0, 0.25, shape=SHAPE), []
    cases = [(name, s, k) for k in NUMBERS[:3] for s in STRIDINGS for name in SAMPLERS]
    for name, striding, k in tqdm(cases, desc="cld-toy: samplers", unit="run", disable=not progress):
        settings = {"n_evals": k, "striding": striding, "seed": seed, "progress": False}
        x, law = sampling.sample(model, name, n // 100, **settings).double(), variance(name, striding, k)
        error = law * math.sqrt(2 / x.numel())
        found.append(close(f"{name}, {striding}, n={k}: variance of x (data 0.25)", x.var(), error, law))
    for k in NUMBERS:
        em, sscs = (abs(variance(name, "quadratic", k) - 0.25) for name in SAMPLERS)
        found.append(above(f"quadratic, n={k}: error of EM over that of SSCS", em / sscs, 1.0, "larger"))
    return found


def mixture(n, seed, progress):
    """A mixture on the line with its exact score, against the samples of an independent program."""
    model, found = CriticalMixture([[-1.0], [1.0]], [0.3, 0.7], 0.01), []
    for (name, striding, k), (share, width) in tqdm(
        MIXTURE.items(), desc="cld-toy: mixture", unit="run", disable=not progress
    ):
        settings = {"n_evals": k, "striding": striding, "seed": seed, "progress": False}
        x = sampling.sample(model, name, n, **settings).flatten().double()
        what, right = f"{name}, {striding}, n={k}", x[x > 0]
        error = math.sqrt(share * (1 - share) * (1 / n + 1 / REFERENCE))
        found.append(close(f"{what}: share of the mode of weight 0.7", len(right) / n, error, share))
        # of a standard deviation, from the fourth moment, of both programs; and the rounding of the reference
        fourth = ((right - right.mean()) ** 4).mean() / right.var() ** 2
        error = width * math.sqrt((fourth - 1) / 4 / share * (1 / n + 1 / REFERENCE))
        found.append(close(f"{what}: its standard deviation (0.1)", right.std(), error + 2.5e-4 * (k == 20), width))
    return found


def trained(steps, seed, progress):
    """A `CLDNet` trained on nine modes in the plane, Figure 10; every random number is counted."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLDNet(hidden=(128, 128, 128))
    data = CriticalMixture(CENTRES, [1.0] * len(CENTRES), WIDTH**2)
    optimizer, batch = torch.optim.Adam(model.parameters(), TRAINING["lr"], fused=True), TRAINING["batch"]
    for step in tqdm(range(steps), desc="cld-toy: training", unit="step", disable=not progress):
        optimizer.param_groups[0]["lr"] = TRAINING["lr"] * (1 - step / steps)
        x = data.sample(batch, seed, first=step * batch)
        loss = hsm(model, x, times(batch, seed=seed, step=step), seed=seed, step=step).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def modes_in_the_plane(plane, model, n, seed):
    """Samples of the nine modes: data, with the learned score, and with the exact one over the evaluations."""
    clouds = {"data": plane.sample(n, seed + 1)}
    for name in SAMPLERS:
        settings = {"striding": "quadratic", "seed": seed, "progress": False}
        for k in NUMBERS[:3]:
            clouds[f"{name}, n={k}, exact"] = sampling.sample(plane, name, n, n_evals=k, **settings)
        clouds[f"{name}, n=100, learned"] = sampling.sample(model, name, n, n_evals=100, **settings)
    return clouds


def learned(clouds, n):
    """That the samples lie at the nine modes, evenly: with the exact score by its law, with the learned one roughly."""
    found, error = [], math.sqrt(1 / 9 * 8 / 9 / n)
    for name in SAMPLERS:
        for kind, least, apart in (("exact", 0.97, 4.5 * error), ("learned", 0.75, 0.06)):
            x = clouds[f"{name}, n=100, {kind}"]
            inside = torch.cdist(x.flatten(1).double(), CENTRES).min(1).values < 3 * WIDTH
            what = f"nine modes, {name}, n=100, {kind} score"
            found.append(above(f"{what}: share within three widths of a mode", inside.double().mean(), least))
            largest = (mode_fractions(x, CENTRES).fractions - 1 / 9).abs().max()
            found.append(below(f"{what}: largest error of a mode's share of 1/9", largest, apart))
    return found


def _remarks(n, steps):
    return [
        f"{n} samples on the line and of Gaussian data, {n // 5} in the plane; {steps} training steps of "
        f"{TRAINING['batch']}.",
        "The least losses stand in for Figure 7, which has traces of covariances. Figures 9 and 12 (norms of a "
        "Jacobian) and 13 (a mixture of several scales) are not run, nor the variance-preserving process of 11.",
        "Figures 10 and 11 print no numbers. With the exact score the variance of Gaussian data has a closed form, the "
        "recursion over a sampler's own rows; the mixture on the line is compared with the samples of an independent "
        "program. The places of the nine modes are ours.",
        "EM and SSCS are both of first order in the step with the exact score, with errors of opposite sign; at "
        "quadratic times SSCS has the smaller one, most clearly for few evaluations.",
    ]

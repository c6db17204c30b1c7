"""`gmm-toy`: two modes and the low density between them (NCSN, Figures 2 and 3)."""

import math
from typing import NamedTuple

from tqdm import tqdm

from .. import noise, sampling
from ..metrics import mode_fractions
from ..schedules import geometric_sigmas
from ..scores import GaussianMixture
from . import _gmm_figures as figures
from . import _mode_chain as chain
from . import _score_error as score_error
from .findings import Finding, Report, above, below, close, exact, failed

NAME = "gmm-toy"
TITLE = "Two modes: score estimation and Langevin dynamics where there are no data"
SOURCE = "NCSN, arXiv:1907.05600, Figures 2 and 3, appendix B.1"

SAMPLES, LEAST = 20_000, 2_000
PAPER_SAMPLES = 1280
EPS = 0.1  # of plain Langevin, and of the annealed one as printed and in the released code
LEVELS, EACH = 10, 100


class Chain(NamedTuple):
    """A run of Langevin dynamics on the toy distribution.

    `released` puts sigma^2 in the place of the components' variance 1 + sigma^2, as the released code does.
    """

    what: str
    first: float
    last: float
    eps: float
    each: int = EACH
    levels: int = LEVELS
    released: bool = False
    paper: str | None = None
    quick: bool = True  # short enough to be simulated at any size

    @property
    def sigmas(self):
        return geometric_sigmas(self.first, self.last, self.levels)

    @property
    def steps(self) -> list[tuple[float, float]]:
        """Variance of the components and step size of each level (Algorithm 1, line 3)."""
        sigmas = self.sigmas.double().tolist()
        added = 0.0 if self.released else 1.0
        return [(added + sigma**2, self.eps * (sigma / sigmas[-1]) ** 2) for sigma in sigmas]

    @property
    def target(self) -> GaussianMixture:
        form = "replaced" if self.released else "convolved"
        return GaussianMixture(chain.MEANS, chain.WEIGHTS, sigmas=self.sigmas, form=form)

    @property
    def scheme(self):
        return "langevin" if self.levels == 1 else "annealed"


# One level of sigma 1 in the place of the components' variance is the data themselves.
PLAIN = Chain("plain Langevin, T=1000", 1, 1, EPS, 1000, 1, True, "wrong weights")
RELEASED = Chain(
    "annealed, sigma 20 to 1, variance sigma^2, eps=0.1 (released code)", 20, 1, EPS, released=True, paper="0.8"
)
CHAINS = [
    PLAIN,
    RELEASED,
    Chain("annealed, sigma 20 to 1, variance 1 + sigma^2, eps=0.1", 20, 1, EPS),
    Chain("annealed, sigma 10 to 0.1, eps=0.01", 10, 0.1, 0.01, quick=False),
    Chain("annealed, sigma 10 to 0.1, eps=0.005", 10, 0.1, 0.005, paper="0.8"),
    Chain("annealed, sigma 10 to 0.1, eps=0.003", 10, 0.1, 0.003, quick=False),
    Chain("annealed, sigma 10 to 0.1, eps=0.002", 10, 0.1, 0.002, quick=False),
    Chain("annealed, sigma 10 to 0.1, eps=0.005, T=1000", 10, 0.1, 0.005, 1000, quick=False),
]
PRINTED = Chain("annealed as printed, sigma 10 to 0.1, eps=0.1", 10, 0.1, EPS)


def run(out=None, *, size=1.0, seed=0, progress=True) -> Report:
    """Figures 2 and 3 of NCSN: where the score is learned, and which share of samples each mode gets.

    The shares are compared with those of the exact law, a Markov chain on the line that is propagated on a grid.

    Args:
        out: folder for the figures, or None for none.
        size: share of 20,000 samples and 3,000 training steps; below 1 the longest chains are left out.
        seed: of everything random.
        progress: show bars.

    Returns:
        `Report`.
    """
    n = max(LEAST, round(SAMPLES * size))
    data = PLAIN.target
    model, steps = score_error.train_on_modes(data, size, seed, progress)
    found = score_error.score_findings(score_error.measure(model, data, seed))
    truth = data.sample(n, seed)
    found.append(_share("i.i.d. samples", truth, chain.WEIGHTS[1], "0.8"))
    chains = [one for one in CHAINS if one.quick or size >= 1]
    samples = {}
    for one in tqdm(chains, desc="gmm-toy: chains", unit="chain", disable=not progress):
        samples[one.what] = _sample(one, n if one.each * one.levels <= 1000 else n // 10, seed)
        law = chain.fractions(one.steps, one.each)[-1]
        found.append(_share(f"{one.what}: share at (5, 5)", samples[one.what], law, one.paper))
    found += _contrast(samples) + _across(samples, chains) + _from_data(data, n, seed) + refused()
    report = Report(NAME, TITLE, SOURCE, found, remarks=_remarks(steps, n, size))
    if out is not None:
        report.figures = _figures(out, model, data, [truth, samples[PLAIN.what], samples[RELEASED.what]])
    return report


def _figures(out, model, data, shown):
    """Writes the pictures; `shown` are i.i.d., plain and annealed samples."""
    laws = [chain.WEIGHTS[1], *(chain.fractions(one.steps, one.each)[-1] for one in (PLAIN, RELEASED))]
    return [
        figures.score_figure(model, data, shown[0], out / "gmm-toy-scores.png"),
        figures.sample_figure([x[:PAPER_SAMPLES] for x in shown], laws, out / "gmm-toy-samples.png"),
        figures.level_figure(_level_curves(), out / "gmm-toy-levels.png"),
    ]


def _sample(one, n, seed, init=None):
    """Samples of a chain, started uniformly in [-8, 8]^2 as in appendix B.1."""
    if init is None:
        init = chain.HALF_SIDE * (2 * noise.uniform((n, 2, 1, 1), seed, stream=noise.INIT) - 1)
    settings = {"eps": one.eps, "n_steps_each": one.each, "denoise": False, "init": init, "seed": seed}
    return sampling.sample(one.target, one.scheme, n, progress=False, **settings)


def _share(what, x, law, paper=None):
    """The share of samples at (5, 5) against the exact one, whose standard error is known."""
    share = float(mode_fractions(x, chain.MEANS).fractions[1])
    return close(what, share, math.sqrt(law * (1 - law) / len(x)), law, paper)


def _contrast(samples):
    """What the eye sees in Figure 3."""
    plain, annealed = (float(mode_fractions(samples[one.what], chain.MEANS).fractions[1]) for one in (PLAIN, RELEASED))
    return [
        above("plain Langevin: distance of its share from 0.8", abs(plain - 0.8), 0.1),
        below("annealed Langevin (released code): distance of its share from 0.8", abs(annealed - 0.8), 0.1),
    ]


def _across(samples, chains):
    """Variance across the line through the modes, along which every step is linear."""
    found = []
    for one in chains[:3]:
        x = samples[one.what].double().flatten(1)
        law, n = chain.variance_across(one.steps, one.each), len(x)
        ours = float(((x[:, 0] - x[:, 1]) / math.sqrt(2)).var())
        found.append(close(f"{one.what}: variance across", ours, law * math.sqrt(2 / (n - 1)), law))
    return found


def _from_data(data, n, seed):
    """Plain Langevin from data: no sample changes its mode, so that the start's shares remain."""
    start = data.sample(n, seed + 2)
    end = _sample(PLAIN, n, seed, init=start)
    changed = int(((start.sum((1, 2, 3)) > 0) != (end.sum((1, 2, 3)) > 0)).sum())
    rates = [chain.fractions(PLAIN.steps, PLAIN.each, lambda u, w=w: chain.data_density(u, w))[0] for w in _ALONE]
    rate = chain.WEIGHTS[0] * rates[0] + chain.WEIGHTS[1] * (1 - rates[1])
    return [
        below("plain Langevin from data: exact probability of a change of mode", rate, 1e-6),
        exact(f"plain Langevin from data: samples of {n} that changed mode", changed, 0, rtol=0.5),
    ]


_ALONE = ((1.0, 0.0), (0.0, 1.0))


def refused() -> list[Finding]:
    """The settings of appendix B.1 as printed diverge, and `sample` refuses them."""
    variance, alpha = PRINTED.steps[0]
    factor = abs(1 - alpha / (2 * variance))
    found = [above("annealed as printed, eps=0.1: factor of a step at sigma 10 (diverges above 1)", factor, 1.0)]
    what = "annealed as printed, eps=0.1: `sample` refuses it (1: yes)"
    try:
        sampling.plan(PRINTED.target, "annealed", PAPER_SAMPLES, eps=PRINTED.eps, denoise=False)
    except ValueError as error:
        if "diverges" in str(error):
            return [*found, exact(what, 1, 1, paper="0.8")]
        return [*found, failed(what, f"refused for another reason: {error}")]
    return [*found, failed(what, "it was accepted")]


def _level_curves():
    """Exact shares after each level, and those of the distribution with noise, of the chains that the figure shows."""
    return [
        (one, chain.fractions(one.steps, one.each), [chain.noisy_fraction(v) for v, _ in one.steps])
        for one in (RELEASED, CHAINS[4])
    ]


def _remarks(steps, n, size):
    error = math.sqrt(0.8 * 0.2 / PAPER_SAMPLES)
    law = chain.fractions(RELEASED.steps, RELEASED.each)[-1]
    lines = [
        f"Figure 2: {steps} training steps (10,000 in the paper).",
        f"Figure 3: {n} samples of each chain ({PAPER_SAMPLES} in the paper, a standard error of {error:.4f}, which "
        f"cannot tell the annealed chain's {law:.4f} from 0.8); a tenth of that for T=1000 on ten levels.",
        "All chains have the same starts and noise, so that their errors are alike.",
        "Annealed as printed (eps=0.1, sigma 10 to 0.1) multiplies the distance from the modes by -3.95 in each step "
        "of the largest level; the figure was made by the released code, with sigma 20 to 1 and components of variance "
        "sigma^2.",
    ]
    if size < 1:
        lines.append("Below size 1 only the shorter half of the chains is simulated.")
    return lines

"""Table 1 of arXiv:2603.11319 and the wrong ball of its Theorem 1: KL of Langevin samples against the length of mu."""

import math
from typing import NamedTuple

import torch
from tqdm import tqdm

from .. import noise
from ..metrics import GaussianFitKL, expected_gaussian_fit_kl, gaussian_fit_kl
from ..scores import AdversarialBall, ScoreFunction
from ..scores.adversarial import bump
from ._ula import chain_factor, chain_variance, ula
from .findings import Finding, below, close

__all__ = ["BallRun", "Row", "ball_error", "ball_findings", "isotropic", "kl_spread", "run_ball", "run_rows"]
__all__ += ["table_findings"]

D = 50
N, TRIALS = 5000, 2
PAPER = {1: 0.308, 2: 0.815, 3: 1.66, 4: 2.84, 5: 4.35, 6: 6.20, 7: 8.39}  # last column; the first is |mu| = k sqrt(D)
NO_ERROR_FROM = 4  # the rows from which on the score error is 0 to all digits; the paper says so of the next ones


class Row(NamedTuple):
    """A row of Table 1: KL(pi || fit) of the samples made with the true score.

    Attributes:
        k: mu = k (1, ..., 1).
        n, trials: samples of a trial, and how many.
        value, stderr: mean over the trials, and its standard error in closed form.
        expected: closed form.
    """

    k: int
    n: int
    trials: int
    value: float
    stderr: float
    expected: float

    @property
    def length(self) -> float:
        """|mu|"""
        return self.k * math.sqrt(D)


class BallRun(NamedTuple):
    """Samples by the score estimate of Theorem 1.

    Attributes:
        x: (n, D) float64.
        radius: largest |x| / sqrt(D) on the way.
        variance: V_C, that of the closed law N(0, V_C I).
        kl: for each k, both divergences of the fit from N(mu, I).
        errors: for each k, the mean of |s_hat - s|^2 over pi and its standard error.
    """

    x: torch.Tensor
    radius: float
    variance: float
    kl: dict[int, GaussianFitKL]
    errors: dict[int, tuple[float, float]]


def run_rows(size, seed, progress) -> list[Row]:
    """The rows of Table 1, three of them at a size below 1; chains of all rows and trials have noise of their own."""
    n, trials = max(500, min(N, round(N * size))), max(1, round(TRIALS * size))
    a, v = chain_factor(), chain_variance()
    rows = []
    for k in tqdm(PAPER if size >= 1 else (1, 4, 7), desc="robustness: Table 1", unit="row", disable=not progress):
        mu = torch.full((D, 1, 1), float(k))
        model = ScoreFunction(lambda x, sigma, mu=mu: mu - x, [1.0], (D, 1, 1))
        target = isotropic(k, 1.0)
        found = []
        for trial in range(trials):
            first = (k * trials + trial) * n
            start = noise.normal((n, D), seed, first=first, stream=noise.INIT)
            found.append(gaussian_fit_kl(ula(model, start, seed=seed, first=first), target).reverse)
        spread = kl_spread(n, v, a**2 * D * k**2).reverse
        expected = expected_gaussian_fit_kl(n, isotropic((1 - a) * k, v), target).reverse
        rows.append(Row(k, n, trials, sum(found) / trials, spread / math.sqrt(trials), expected))
    return rows


def table_findings(rows) -> list[Finding]:
    """The rows beside their closed form, and beside the paper's numbers where n is the paper's."""
    return [
        close(
            f"KL(pi || fit), true score, |mu| = {row.length:.3g}, n = {row.n}",
            row.value,
            row.stderr,
            row.expected,
            PAPER[row.k] if row.n == N else None,
        )
        for row in rows
    ]


def run_ball(size, seed, progress) -> BallRun:
    """One run serves all rows: inside the inner ball the field does not depend on mu, and the chain never leaves it."""
    n = max(300, round(2000 * size))
    field, peaks = AdversarialBall(torch.full((D,), float(max(PAPER)))), []

    def watch(state):
        peaks.append(state["x"].square().flatten(1).sum(1).max())

    start = noise.normal((n, D), seed, first=10**6, stream=noise.INIT)
    x = ula(field, start, seed=seed, first=10**6, callback=watch).flatten(1).double()
    errors = {}
    for k in tqdm(PAPER, desc="robustness: Theorem 1", unit="row", disable=not progress):
        one = AdversarialBall(torch.full((D,), float(k)))
        found = one.squared_error(one.target.sample(max(20_000, round(100_000 * size)), seed, first=k * 10**6))
        errors[k] = found.mean().item(), (found.std() / math.sqrt(len(found))).item()
    kl = {k: gaussian_fit_kl(x, isotropic(k, 1.0)) for k in PAPER}
    radius = torch.stack(peaks).max().sqrt().item() / math.sqrt(D)
    return BallRun(x, radius, chain_variance(field.stiffness), kl, errors)


def ball_findings(ball) -> list[Finding]:
    """The law in the ball, the divergences, and the score errors that are too small to be seen."""
    n, v = len(ball.x), ball.variance
    inner = AdversarialBall(torch.ones(D)).inner
    found = [
        below("largest |x| / sqrt(d) on the way with s_hat of Theorem 1, from N(0, I)", ball.radius, inner),
        close(
            "its variance, that of N(0, I/C) with C = 2",
            ball.x.square().mean().item(),
            v * math.sqrt(2 / (n * D)),
            v,
        ),
    ]
    for k, kl in ball.kl.items():
        expected = expected_gaussian_fit_kl(n, isotropic(0, v), isotropic(k, 1.0))
        spread = kl_spread(n, v, D * k**2)
        what = f"with s_hat, |mu| = {k * math.sqrt(D):.3g}"
        found.append(close(f"KL(fit || pi) {what}", kl.forward, spread.forward, expected.forward))
        found.append(close(f"KL(pi || fit) {what}", kl.reverse, spread.reverse, expected.reverse))
    for k, (error, stderr) in ball.errors.items():
        what = f"E |s_hat - s|^2, |mu| = {k * math.sqrt(D):.3g}"
        if k < NO_ERROR_FROM:
            found.append(close(what, error, stderr, ball_error(k, inner, inner + 1, 2.0)))
        else:
            found.append(below(what, error, 5e-7, "0" if k > NO_ERROR_FROM else None))
    return found


def kl_spread(n, variance, squared_shift, d=D) -> GaussianFitKL:
    """Standard deviation of `gaussian_fit_kl` of n samples of N(m, V I) against N(mu, I), e2 = |m - mu|^2, both ways.

        forward^2 = d (V - 1)^2 / (2 (n-1)) + V e2 / n + d (d+1) / (4 (n-1)^2)
        reverse^2 = [d (1 - 1/V)^2 / 2 - (1 - 1/V) e2 / V + e2^2 / (2 V^2)] / (n-1) + e2 / (V n)
                    + (1/V - 1/2)^2 d (d+1) / (n-1)^2

    The leading orders in 1/n: what the covariance's error E does by its first power and, where that cancels, by its
    second, tr E^2, and what the mean's error does.
    """
    v, e2, m = variance, squared_shift, n - 1
    forward = d * (v - 1) ** 2 / (2 * m) + v * e2 / n + d * (d + 1) / (4 * m**2)
    first = d * (1 - 1 / v) ** 2 / 2 - (1 - 1 / v) * e2 / v + e2**2 / (2 * v**2)
    reverse = first / m + e2 / (v * n) + (1 / v - 0.5) ** 2 * d * (d + 1) / m**2
    return GaussianFitKL(math.sqrt(forward), math.sqrt(reverse))


def ball_error(k, inner, outer, stiffness, d=D) -> float:
    """E_pi |s_hat - s|^2 of `AdversarialBall` for mu = k (1, ..., 1), by quadrature.

    With x = (|mu| + z) e + y, e along mu, z ~ N(0, 1), |y|^2 ~ chi^2 of d - 1 degrees, the error at x is
    (1 - chi)^2 |mu + (C - 1) x|^2, a function of z and |y|^2 alone.
    """
    z = torch.linspace(-9, 9, 601, dtype=torch.float64)[:, None]
    w = torch.linspace(1e-3, 8.0 * d, 1601, dtype=torch.float64)  # |y|^2; its density is nothing beyond
    half = (d - 1) / 2
    density = torch.exp(-z * z / 2 + (half - 1) * w.log() - w / 2 - math.lgamma(half) - half * math.log(2))
    density /= math.sqrt(2 * math.pi)
    length = k * math.sqrt(d)
    along = length + z
    squared = along**2 + w
    u = ((squared / d).sqrt() - inner) / (outer - inner)
    wrong = 1 - bump(u)
    error = wrong**2 * (length**2 + 2 * (stiffness - 1) * length * along + (stiffness - 1) ** 2 * squared)
    return (density * error).sum().item() * (z[1, 0] - z[0, 0]).item() * (w[1] - w[0]).item()


def isotropic(k, variance):
    """N(k (1, ..., 1), variance I) as mean and covariance."""
    return torch.full((D,), float(k), dtype=torch.float64), variance * torch.eye(D, dtype=torch.float64)
